"""Verdicts are checked where they are made."""

import dataclasses
import math
import pickle

import pytest

from speciarl.category import Category
from speciarl.verdict import Pair, Reason, Source, Unscorable, Verdict


def test_a_verdict_and_a_failure_survive_pickling() -> None:
    verdict = Verdict(Category.SPECIFIC, 2.5, Source.LIVE, (0.0, 0.0, 0.0, 0.1, 0.9, 0.0))
    failure = Unscorable(Reason.TIMEOUT, "late")
    pair = Pair("a", "b")
    assert pickle.loads(pickle.dumps((verdict, failure, pair))) == (verdict, failure, pair)


@pytest.mark.parametrize("margin", [-0.1, math.inf, math.nan])
def test_impossible_margins_are_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        Verdict(Category.WRONG, margin, Source.LIVE)


def test_probabilities_are_one_per_category() -> None:
    with pytest.raises(ValueError, match="6 probabilities"):
        Verdict(Category.WRONG, None, Source.LIVE, (0.5, 0.5))


def test_nothing_can_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Unscorable(Reason.TIMEOUT).reason = Reason.CONNECTION  # type: ignore[misc]


def test_reasons_and_sources_read_as_plain_words() -> None:
    assert {reason.value for reason in Reason} >= {"timeout", "connection", "overloaded", "off_label", "too_long"}
    assert {source.value for source in Source} >= {"live", "memory", "shortcut"}
