"""Rewards over a log: training's own functions, called once for each different group."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from speciarl import reward
from speciarl.errors import ConfigError
from speciarl.evaluation.replay.members import coded
from speciarl.evaluation.replay.rollouts import Floats, Ints, Outcomes, Rollouts
from speciarl.reward import GroupReward
from speciarl.reward.barrier import score_group

_SPELLED = re.compile(r"([^(),]+)(?:\(([^()]*)\))?(?:,(?=.)|$)")


@dataclass(frozen=True, slots=True)
class NamedReward:
    """A group reward and how the user spells it."""

    spelled: str
    """E.g. ``dynamic`` or ``dynamic(support=2)``."""
    function: GroupReward
    labels_only: bool
    """Whether it looks at categories alone. What a user's own looks at is not known."""
    any_order: bool
    """Whether the order of the members makes no difference to what each of them earns."""


def named(name: str, params: Mapping[str, Any]) -> NamedReward:
    """A reward, resolved as training resolves it; raises ConfigError in one line."""
    try:
        function = reward.load(name, params)
    except ValueError as error:
        raise ConfigError(f"reward {name}: {error}") from error
    spelled = name + ("(" + ",".join(f"{key}={value}" for key, value in params.items()) + ")" if params else "")
    labels_only = name in reward.NAMES and not reward.weighs_probabilities(function)
    return NamedReward(spelled, function, labels_only, any_order=labels_only and name != "dynamic_single")


def parse(text: str) -> list[NamedReward]:
    """Rewards by name or import path, apart by commas, parameters in brackets: ``dynamic,dynamic(support=2)``.

    Raises ConfigError in one line.
    """
    found, end = [], 0
    for match in _SPELLED.finditer(text):
        if match.start() != end:
            break
        end = match.end()
        found.append(named(match[1].strip(), _params(match[1].strip(), match[2])))
    if not found or end != len(text):
        raise ConfigError(f"--reward {text}: write names apart by commas, e.g. dynamic,dynamic(support=2),graded_1")
    if len({one.spelled for one in found}) < len(found):
        raise ConfigError(f"--reward {text}: names one reward twice")
    return found


def _params(name: str, text: str | None) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for assignment in filter(None, (text or "").split(",")):
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--reward {name}({text}): {assignment!r} is no parameter; write it like support=2")
        params[key.strip()] = yaml.safe_load(value)
    return params


def compute(rollouts: Rollouts, seen: Outcomes, wanted: NamedReward) -> Floats:
    """Rewards of all rollouts, of shape (rollouts,); NaN for none: unscored, or in a group below its quorum.

    Raises ConfigError, naming the group, for what the function raises.
    """
    codes, members = coded(rollouts, seen, wanted.labels_only)
    order: Ints | slice = slice(None)
    if wanted.any_order:  # sorted, few groups are different: 3,000 instead of 5.8 million of eight members
        order = np.lexsort((codes, rollouts.group))
        codes = codes[order]
    starts = rollouts.starts
    ends = np.append(starts[1:], len(rollouts))
    known: dict[bytes, tuple[Sequence[float], int]] = {}
    computed: list[Sequence[float]] = []
    for start, end, quorum in zip(starts.tolist(), ends.tolist(), rollouts.quorum.tolist(), strict=True):
        group = codes[start:end]
        key = group.tobytes()
        if key not in known:  # the same members, in the same order, earn the same
            known[key] = _earned(wanted, [members[code] for code in group.tolist()], rollouts, start)
        rewards, scored = known[key]
        computed.append(rewards if scored >= quorum else [np.nan] * (end - start))
    earned = np.empty(len(rollouts))
    earned[order] = np.fromiter(itertools.chain.from_iterable(computed), np.float64, len(rollouts))
    return earned


def _earned(
    wanted: NamedReward, members: Sequence[reward.Member], rollouts: Rollouts, row: int
) -> tuple[Sequence[float], int]:
    try:
        outcome = score_group(wanted.function, members)
    except Exception as error:  # a user's reward may raise anything
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(
            f"reward {wanted.spelled} fails on the group at {rollouts.place(row)} ({cause}); mend it"
        ) from error
    return [np.nan if one is None else one for one in outcome.rewards], outcome.scored
