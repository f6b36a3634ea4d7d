"""Seeding: sampling seeds and prompt uids that are the same whenever a run is repeated or resumed.

veRL draws a random uid per prompt, and rollout servers draw from one stream that depends on the order in which requests
happen to arrive. With these, a run whose verdicts are kept repeats its rewards.
"""

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

_BITS = 31
"""Bits of a sampling seed: vLLM hands it to a torch generator, and the generators of all devices take so many."""


def prompt_uid(seed: int, step: int, ordinal: int) -> str:
    """The uid of the prompt fetched as number `ordinal` of a step: unique within a run, without an underscore, which
    separates uid and session in veRL's keys."""
    return str(uuid.UUID(bytes=_digest(seed, "prompt", step, ordinal)[:16]))


class PromptUids:
    """Sequence of the uids of a run's prompts, in the order in which each step fetches them."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._step = self._fetched = 0
        self._excluded: frozenset[str] = frozenset()

    def exclude(self, uids: Iterable[str]) -> None:
        """Exclude uids that are in use: of prompts that a checkpoint of an asynchronous mode restored.

        A step that was given up fetches anew after the resume, while its earlier prompts are still in flight.
        """
        self._excluded = frozenset(uids)

    def draw(self, step: int, count: int) -> list[str]:
        """Uids of the next `count` prompts that are fetched in a step; its ordinals begin anew with each step."""
        if step != self._step:
            self._step, self._fetched = step, 0
        drawn: list[str] = []
        while len(drawn) < count:
            uid = prompt_uid(self._seed, step, self._fetched)
            self._fetched += 1
            if uid not in self._excluded:
                drawn.append(uid)
        return drawn


def rollout_seed(seed: int, prompt: str, session: int) -> int:
    """The sampling seed of one rollout of a prompt."""
    return int.from_bytes(_digest(seed, "rollout", prompt, session)[:8], "big") >> (64 - _BITS)


def seeded(params: Mapping[str, Any], seed: int | None, prompt: str, session: int) -> dict[str, Any]:
    """Sampling parameters of one rollout, with its seed; unchanged without `seed`: the rollout server then draws as it
    likes."""
    return dict(params) if seed is None else {**params, "seed": rollout_seed(seed, prompt, session)}


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).digest()
