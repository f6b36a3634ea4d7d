"""Histograms count every value, and token counts take what a reply says only where it can be read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.verifier_server.stats import SECONDS, Histogram, Stats


@given(st.lists(st.floats(0, 1000)))
def test_histograms_count_all_and_each_in_its_bucket(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    bounds, counts, total = histogram.snapshot()
    assert bounds == SECONDS
    assert counts == tuple(sum(value <= bound for value in values) for bound in (*bounds, math.inf))
    assert total == pytest.approx(sum(values))


@pytest.mark.parametrize(
    "reply",
    [None, [], {"usage": None}, {"usage": {"prompt_tokens": "7", "completion_tokens": -1, "prompt_tokens_details": 3}}],
)
def test_usage_that_cannot_be_read_counts_nothing(reply: object) -> None:
    stats = Stats()
    keys = set(stats.as_dict())
    stats.add_usage(reply)
    assert (stats.prompt_tokens, stats.cached_tokens, stats.completion_tokens) == (0, 0, 0)
    assert set(stats.as_dict()) == keys
