"""Reward record: stored with every trajectory beside its reward, always with the same keys (verl #7151)."""

import json
from collections.abc import Mapping
from typing import Any

from speciarl.category import Category
from speciarl.metrics import key
from speciarl.reward import Member
from speciarl.reward.barrier import GroupOutcome
from speciarl.verdict import Verdict


def reward_extra_info(
    member: Member,
    answer: str | None,
    outcome: GroupOutcome,
    data_source: str,
    extra_info: Mapping[str, Any],
    *,
    seen: Member,
    group_reward: float,
    overlong_penalty: float = 0.0,
    sampled_step: int | None = None,
) -> dict[str, Any]:
    """The record of one scored rollout, as veRL's ``reward_extra_info``.

    ``category`` is the verifier's true verdict and ``seen_category`` what the reward saw, which verdict noise may have
    moved. ``group_reward`` is the reward before the overlong penalty: what group filtering looks at.

    ``sampled_step`` is the step in the draws of noise: asynchronous modes may learn from a prompt in a later one than
    they fetched it in. None in validation, where veRL would average it.

    veRL's validation averages skip strings and drop None, so ``margin`` is averaged over the verdicts that have one,
    and ``probabilities`` are JSON text.
    """
    verdict = member if isinstance(member, Verdict) else None
    return {
        "category": _category_key(member),
        "seen_category": _category_key(seen),
        "group_reward": group_reward,
        "overlong_penalty": overlong_penalty,
        "answer": answer or "",
        "verdict_source": verdict.source.value if verdict else "none",
        "margin": verdict.margin if verdict else None,
        "probabilities": json.dumps(verdict.probabilities) if verdict and verdict.probabilities else None,
        "reference": key(outcome.reference) if outcome.reference is not None else "none",
        "data_source": data_source,
        "sample_id": sample_id(extra_info),
        "stratum": str(extra_info.get("stratum", "")),
        "sampled_step": sampled_step,
    }


def sample_id(extra_info: Mapping[str, Any]) -> str:
    """Id of a row of the data set: its ``sample_id``, else its ``index``, else an empty string."""
    return str(extra_info.get("sample_id", extra_info.get("index", "")))


def image_name(data_source: str, extra_info: Mapping[str, Any]) -> str:
    """Name of an image that is the same in every repetition of a run."""
    return f"{data_source}/{sample_id(extra_info)}"


def _category_key(member: Member) -> str:
    return key(member.category if isinstance(member, Verdict) else None)


def outcome_of(info: Mapping[str, Any]) -> Category | None:
    """The category in a stored record; None stands for an unparsable response."""
    name = info["category"]
    return None if name == key(None) else Category[str(name).upper()]
