"""What is embedded in a page: data that stays data, columns in four bits, samples chosen by a rule."""

import base64
import json
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.report.outcomes import NOT_ASKED
from speciarl.evaluation.report.page import document, embed, samples
from speciarl.evaluation.report.page.choice import choose

CODES = st.integers(NOT_ASKED, Outcome.MORE_SPECIFIC)


@given(st.text() | st.text(alphabet="<>&/!-script\u2028\u2029\x00\x7f\u202e"))
def test_no_text_can_leave_its_element(text: str) -> None:
    embedded = embed.as_json({"answer": text})
    assert not set(embedded) & set("<>&\u2028\u2029")
    assert not re.search(r"[\x00-\x1f\x7f]", embedded)
    assert json.loads(embedded) == {"answer": text}


@given(st.lists(CODES, max_size=50))
def test_four_bits_hold_every_outcome(codes: list[int]) -> None:
    packed = base64.b64decode(embed.as_nibbles(np.array(codes, np.int8), -NOT_ASKED))
    unpacked = [(packed[row >> 1] >> 4 * (row % 2) & 15) + NOT_ASKED for row in range(len(codes))]
    assert unpacked == codes
    assert len(packed) == (len(codes) + 1) // 2


@given(
    arrays.arrays(np.int8, st.tuples(st.integers(1, 4), st.integers(1, 300)), elements=CODES),
    st.integers(1, 60),
)
def test_chosen_samples_are_distinct_within_the_limit_and_the_same_each_time(table: np.ndarray, limit: int) -> None:
    dataset = np.arange(table.shape[1]) % 3
    rows = choose(list(table), dataset, limit)
    assert len(set(rows.tolist())) == len(rows) == min(limit, table.shape[1])
    assert np.array_equal(rows, choose(list(table.copy()), dataset, limit))


@given(arrays.arrays(np.int8, st.tuples(st.integers(2, 4), st.integers(1, 300)), elements=CODES))
def test_chosen_samples_cover_each_outcome_and_each_change(table: np.ndarray) -> None:
    rows = choose(list(table), np.zeros(table.shape[1], np.int64), 1000)
    if table.shape[1] > 200:
        rows = choose(list(table), np.zeros(table.shape[1], np.int64), 16 * 16 * 6)
    shown = table[:, rows]
    for one in range(len(table)):
        for other in range(len(table)):
            assert set(zip(shown[one], shown[other], strict=True)) == set(zip(table[one], table[other], strict=True))


def test_rare_outcomes_are_shown_before_common_ones() -> None:
    common = np.full(10_000, Outcome.SPECIFIC, np.int8)
    changed = common.copy()
    changed[7_777] = Outcome.WRONG
    rows = choose([common, changed], np.zeros(10_000, np.int64), 3)
    assert 7_777 in rows


def _sample(text: str) -> dict[str, object]:
    answer = {
        "index": 0,
        "answer": "x",
        "text": text,
        "tokens": 1,
        "failure": None,
        "finish_reason": "stop",
        "said": {},
    }
    return {"row": 0, "id": "a", "dataset": "d", "path": ["x"], "runs": [[answer]]}


@given(st.lists(st.integers(0, 6_000), min_size=1, max_size=30), st.integers(500, 20_000))
def test_samples_keep_within_their_bytes(lengths: list[int], budget: int) -> None:
    short = samples.shortened([_sample("<" * length) for length in lengths], budget)
    assert sum(len(embed.as_json(one).encode()) for one in short) <= budget
    for one, length in zip(short, lengths, strict=False):
        text, whole = one["runs"][0][0]["text"]
        assert whole == length  # the page says how long a cut text was
        assert text == "<" * len(text)


def test_every_outcome_has_a_short_name() -> None:
    assert set(document.SHORT) == set(Outcome)
    assert len(set(document.SHORT.values())) == len(Outcome)
