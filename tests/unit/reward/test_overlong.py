"""The overlong penalty: nothing outside the buffer, linear within, the whole at the limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from speciarl.reward.overlong import Overlong


@pytest.mark.parametrize(
    ("tokens", "expected"), [(0, 0), (1536, 0), (1537, -1 / 512), (1792, -0.5), (2048, -1), (4096, -1)]
)
def test_the_papers_buffer(tokens: int, expected: float) -> None:
    assert Overlong().term(tokens, limit=2048) == pytest.approx(expected)


@given(
    st.floats(0.01, 1), st.floats(0.01, 5), st.integers(1, 4096), st.lists(st.integers(0, 5000), min_size=2, max_size=2)
)
def test_longer_never_pays_less_and_never_more_than_the_penalty(
    share: float, penalty: float, limit: int, lengths: list[int]
) -> None:
    overlong = Overlong(buffer_share=share, penalty=penalty)
    shorter, longer = (overlong.term(tokens, limit) for tokens in sorted(lengths))
    assert -penalty - 1e-9 <= longer <= shorter <= 0
    assert overlong.term(limit, limit) == pytest.approx(-penalty)


@pytest.mark.parametrize(
    "wrong", [{"buffer_share": 0}, {"buffer_share": 1.1}, {"penalty": 0}, {"penalty": -1}, {"x": 1}]
)
def test_senseless_values_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Overlong(**wrong)
