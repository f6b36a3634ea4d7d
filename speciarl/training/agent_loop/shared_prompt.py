"""Shared prompt: veRL's single-turn agent loop, with the work that all rollouts of a prompt share done once."""

import asyncio
from dataclasses import dataclass
from typing import Any

from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

FEATURES = "speciarl_features"
"""Where an output's ``multi_modal_data`` carries the `ImageFeatures` of its group. veRL does not store that dict."""

IMAGE_ONLY = frozenset({"pixel_values", "image_grid_thw", "images_seqlens", "mm_token_type_ids"})
"""Processor outputs that are the same for every response to one image. Of the last, veRL only asks whether it is
there."""


@dataclass(slots=True)
class ImageFeatures:
    """The image processor's output for a group, kept by whichever rollout ends first."""

    value: dict[str, Any] | None = None

    def keep(self, computed: dict[str, Any]) -> None:
        """Remember the output unless something in it may depend on the response."""
        if computed.keys() <= IMAGE_ONLY:
            self.value = dict(computed)


class GroupRollout(SingleTurnAgentLoop):
    """Serves the rollouts of one prompt only: images are decoded, and the prompt tokenized, by the first to ask.

    Stock veRL builds an agent loop, decodes the images and runs the image processor twice for every rollout.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._media: asyncio.Task[dict[str, Any]] | None = None
        self._prompt: asyncio.Task[tuple[list[int], dict[str, Any]]] | None = None

    @property
    def image(self) -> Any | None:
        """The prompt's first image (PIL), once it was decoded; None if there is none."""
        if self._media is None or not self._media.done() or self._media.cancelled() or self._media.exception():
            return None
        images = self._media.result().get("images")
        return images[0] if images else None

    async def process_multi_modal_info(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """See veRL: the images of the prompt."""
        if self._media is None:
            self._media = asyncio.create_task(self._load_media(messages))
        return dict(await asyncio.shield(self._media))

    async def ct_build_initial_tokens(
        self, messages: list[dict[str, Any]], mm_inputs_out: dict[str, Any] | None = None, **media: Any
    ) -> list[int]:
        """See veRL: the token ids of the prompt, placeholders of its images included."""
        if self._prompt is None:
            self._prompt = asyncio.create_task(self._tokenize(super().ct_build_initial_tokens, messages, media))
        tokens, features = await asyncio.shield(self._prompt)
        if mm_inputs_out is not None:
            mm_inputs_out.update(features)
        return list(tokens)

    async def _load_media(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        media: dict[str, Any] = await super().process_multi_modal_info(messages)
        if media.keys() == {"images"}:
            media[FEATURES] = ImageFeatures()
        return media

    @staticmethod
    async def _tokenize(build: Any, messages: list[dict[str, Any]], media: Any) -> tuple[list[int], dict[str, Any]]:
        features: dict[str, Any] = {}
        tokens: list[int] = await build(messages, mm_inputs_out=features, **media)
        return tokens, features
