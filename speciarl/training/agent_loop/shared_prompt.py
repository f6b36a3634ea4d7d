"""Shared prompt: veRL's single-turn agent loop, doing once what is the same for all rollouts of a prompt."""

import asyncio
from dataclasses import dataclass
from typing import Any

from verl.experimental.agent_loop.agent_loop import DictConfigWrap
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
from verl.utils.rollout_trace import rollout_trace_attr

SINGLE_TURN = "single_turn_agent"
"""veRL's name of the agent loop whose work the rollouts of a group share; other agent loops run as they are."""

STORED_COLUMNS = ("uid", "session_id", "global_steps", "data_source", "reward_model")
"""Columns of a prompt that veRL reads after its rollouts are stored. Storing the others with every rollout, the image
among them, costs more than generating at laptop scale."""

FEATURES = "speciarl_features"
"""Where an output's ``multi_modal_data`` carries the `ImageFeatures` of its group. veRL does not store that dict."""

IMAGE_ONLY = frozenset({"pixel_values", "image_grid_thw", "images_seqlens", "mm_token_type_ids"})
"""Processor outputs that are the same for every response to one image. Of the last, veRL only reads whether it is
there: it computes the values from each rollout's tokens."""


@dataclass(slots=True)
class ImageFeatures:
    """Cache of the image processor's output for one group, filled by the rollout that ends first."""

    value: dict[str, Any] | None = None

    def cache(self, computed: dict[str, Any]) -> None:
        """Cache the output, unless something in it may depend on the response."""
        if computed.keys() <= IMAGE_ONLY:
            self.value = dict(computed)


class GroupRollout(SingleTurnAgentLoop):
    """Agent loop of one prompt's rollouts: the first of them decodes the images and tokenizes the prompt, for all.

    Stock veRL builds an agent loop, decodes the images and runs the image processor twice for every rollout.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._media: asyncio.Task[dict[str, Any]] | None = None
        self._prompt: asyncio.Task[tuple[list[int], dict[str, Any]]] | None = None

    @property
    def image(self) -> Any | None:
        """The prompt's first image (PIL); None if there is none, or none was decoded."""
        if self._media is None or not self._media.done() or self._media.cancelled() or self._media.exception():
            return None
        images = self._media.result().get("images")
        return images[0] if images else None

    async def process_multi_modal_info(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """See veRL: the images of the prompt."""
        if self._media is None:
            self._media = asyncio.create_task(self._load_media(messages))
        # Shielded here and below: a rollout that is cancelled must not cancel the task that its siblings wait for.
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


_StockWorker: Any = AgentLoopWorkerTQ.__ray_actor_class__  # the plain class: a Ray actor class cannot be subclassed


class SharedPromptWorker(_StockWorker):
    """veRL's agent-loop worker, able to run all rollouts of a prompt on one `GroupRollout`."""

    def _group_rollout(self) -> GroupRollout:
        # The arguments of veRL's `_run_agent_loop`, less the tools, which a single turn has no use for.
        return GroupRollout(
            trainer_config=DictConfigWrap(self.config),
            server_manager=self.llm_client,
            tokenizer=self.tokenizer,
            processor=self.processor,
            dataset_cls=self.dataset_cls,
            data_config=DictConfigWrap(self.config.data),
            hf_model_type=self.hf_model_type,
        )

    async def _run_shared(
        self,
        rollout: GroupRollout,
        sampling_params: dict[str, Any],
        trajectory: dict[str, Any],
        *,
        agent_name: str,
        trace: bool = True,
        **kwargs: Any,
    ) -> Any:
        """As veRL's `_run_agent_loop`, with the group's agent loop in place of a new one."""
        with rollout_trace_attr(
            step=trajectory["step"],
            sample_index=trajectory["sample_index"],
            rollout_n=trajectory["rollout_n"],
            validate=trajectory["validate"],
            name="agent_loop",
            trace=trace,
        ):
            output = await rollout.run(sampling_params, **kwargs)
            return await self._agent_loop_postprocess(output, trajectory["validate"], **kwargs)

    async def _agent_loop_postprocess(self, output: Any, validate: bool, **kwargs: Any) -> None:
        stored = {name: kwargs[name] for name in STORED_COLUMNS if name in kwargs}
        await super()._agent_loop_postprocess(output, validate, **stored)

    def _compute_multi_modal_inputs(self, output: Any, input_ids: Any) -> dict[str, Any]:
        shared: ImageFeatures | None = (output.multi_modal_data or {}).get(FEATURES)
        if shared is not None and shared.value is not None:
            return dict(shared.value)  # a copy: veRL pops entries
        computed: dict[str, Any] = super()._compute_multi_modal_inputs(output, input_ids)
        if shared is not None:
            shared.cache(computed)
        return computed
