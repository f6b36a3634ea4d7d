"""A stored batch: what is said about the n-th image of a run, whichever it is, in place of a policy that generates."""

from collections.abc import Mapping, Sequence
from typing import Any

from verl.workers.rollout.replica import TokenOutput

from speciarl.laptop.policy.runner import response_ids
from speciarl.training.agent_loop.worker import GroupAgentLoopWorker

GROUPS = (
    ("exact", "narrow", "broad", "wrong"),
    ("narrow", "narrow", "broad", "none"),  # binary: nobody earns
    ("wrong", "wrong", "wrong", "wrong at length"),  # apart in their penalties alone, in either reward
    ("exact", "exact at length", "exact", "exact"),  # again
    ("untagged", "exact", "broad", "none"),
    ("exact", "wrong", "wrong at length", "none at length"),
    ("narrow at length", "broad", "none", "exact at length"),
    ("untagged at length", "wrong", "broad", "narrow"),
)
"""Answers to eight images, four each. The ninth image gets the first group's again, and so on."""

_THOUGHT = "<think> clear exact clear exact</think>"
"""Six tokens: with them an answer of one word has 10."""


def text(kind: str, label_path: Sequence[str]) -> str:
    """The response of a kind to an image whose group, subgroup and name are given."""
    group, subgroup, name = label_path
    kind, at_length = kind.removesuffix(" at length"), kind.endswith(" at length")
    said = {"exact": name, "narrow": subgroup, "broad": group, "wrong": "zebra" if name != "zebra" else "frog"}
    answer = f" {said.get(kind, 'none')}"
    return (_THOUGHT if at_length else "") + (answer if kind == "untagged" else f"<answer>{answer}</answer>")


class ToldClient:
    """Stands where the client of veRL's rollout servers would."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    async def generate(self, *, sampling_params: Mapping[str, Any], **_: Any) -> TokenOutput:
        """The tokens that `ToldWorker` wants said. Their probabilities are made up: only metrics use them."""
        tokens, version = response_ids(self._tokenizer, sampling_params["told"]), sampling_params["version"]
        weights = {"min_global_steps": version, "max_global_steps": version}
        return TokenOutput(token_ids=tokens, log_probs=[-1.0] * len(tokens), extra_fields=weights)


class ToldWorker(GroupAgentLoopWorker):
    """Our worker, whose rollouts say what is stored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.llm_client = ToldClient(self.tokenizer)
        self._numbers: dict[str, int] = {}

    async def _run_shared(self, rollout: Any, sampling_params: Any, trajectory: Any, **kwargs: Any) -> Any:
        number = self._numbers.setdefault(kwargs["uid"], len(self._numbers))
        kind = GROUPS[number % len(GROUPS)][kwargs["session_id"]]
        told = {"told": text(kind, kwargs["extra_info"]["label_path"]), "version": trajectory["step"] - 1}
        return await super()._run_shared(rollout, {**sampling_params, **told}, trajectory, **kwargs)
