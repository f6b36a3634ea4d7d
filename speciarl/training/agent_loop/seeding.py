"""Seeds and prompt names that are the same whenever a run is repeated or resumed.

veRL draws a random uid per prompt, and rollout servers draw from one stream that depends on the order in which requests
happen to arrive. With these, a run whose verdicts are kept repeats its rewards.
"""

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

_BITS = 31
"""vLLM hands a request's seed to a torch generator; every one takes this many bits."""


def prompt_uid(seed: int, step: int, ordinal: int) -> str:
    """The uid of the prompt fetched as number `ordinal` of a step: unique within a run, without an underscore, which
    separates uid and session in veRL's keys."""
    return str(uuid.UUID(bytes=_digest(seed, "prompt", step, ordinal)[:16]))


class PromptUids:
    """Hands out the uids of one process's prompts, in the order in which each step fetches them."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._step = self._fetched = 0
        self._taken: frozenset[str] = frozenset()

    def take(self, uids: Iterable[str]) -> None:
        """Leave out these: prompts that a checkpoint of an asynchronous mode holds. A step that was given up is fetched
        for again after the resume, while the prompts that it had fetched before are still under way."""
        self._taken = frozenset(uids)

    def draw(self, step: int, count: int) -> list[str]:
        """The uids of the next `count` prompts that are fetched in a step."""
        if step != self._step:
            self._step, self._fetched = step, 0
        drawn: list[str] = []
        while len(drawn) < count:
            uid = prompt_uid(self._seed, step, self._fetched)
            self._fetched += 1
            if uid not in self._taken:
                drawn.append(uid)
        return drawn


def rollout_seed(seed: int, prompt: str, session: int) -> int:
    """The sampling seed of one rollout of a prompt."""
    return int.from_bytes(_digest(seed, "rollout", prompt, session)[:8], "big") >> (64 - _BITS)


def seeded(params: Mapping[str, Any], seed: int | None, prompt: str, session: int) -> dict[str, Any]:
    """Sampling parameters of one rollout; without a seed the rollout server draws as it likes."""
    return dict(params) if seed is None else {**params, "seed": rollout_seed(seed, prompt, session)}


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).digest()
