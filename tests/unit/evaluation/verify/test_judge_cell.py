"""One cell of the verify stage, with a scripted verifier: what is asked, what is written, and what is asked again."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_predictions import prediction, write_predictions

from speciarl.category import Category
from speciarl.errors import DataError
from speciarl.evaluation import tables
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.verify import rows, standing
from speciarl.evaluation.verify.asking import Asking
from speciarl.evaluation.verify.stage import facts_of, judge_cell
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict

IDENTITY = {"kind": "fake", "prompt": "p"}
LIMIT = 40
SPREAD = (0.1, 0.1, 0.1, 0.1, 0.5, 0.1)


def right(pair: Pair) -> Judgement:
    """Longer answers are better."""
    return Verdict(Category(len(pair.prediction) % 6), 0.1 * len(pair.prediction), Source.LIVE, SPREAD)


class FakeVerifier:
    """Judges by a script; counts how often each pair comes, and how many at a time."""

    gives_probabilities = True

    def __init__(self, script: Callable[[Pair], Judgement]) -> None:
        self.script = script
        self.asked: Counter[Pair] = Counter()
        self.most_at_once = self.now = 0

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    def stats(self) -> dict[str, float]:
        return {}

    def recall(self, pair: Pair, times: int = 1) -> Judgement | None:
        return None

    async def verify(self, pair: Pair) -> Judgement:
        self.asked[pair] += 1
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        return self.script(pair)


def judge(verifier: FakeVerifier, folder: Path, keep: bool = False, window: int = 8) -> tables.pa.Table:
    predictions, verdicts = folder / "p.parquet", folder / "v.parquet"
    facts = facts_of("fake", IDENTITY, predictions, LIMIT)
    asyncio.run(judge_cell(Asking(verifier, window), predictions, verdicts, facts, keep=keep))
    return tables.read(verdicts, tables.VERDICTS)


def state(folder: Path, identity: Mapping[str, Any] = IDENTITY, limit: int = LIMIT) -> tuple[str, str]:
    found = standing(folder / "v.parquet", facts_of("fake", identity, folder / "p.parquet", limit))
    return found.state, found.differs


@settings(max_examples=25)
@given(
    answers=st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.text("xyz", max_size=3)), max_size=40),
    batch=st.integers(1, 7),
    window=st.integers(1, 9),
)
def test_any_batching_asks_each_distinct_pair_once_and_keeps_the_order(
    answers: list[tuple[str, str | None]], batch: int, window: int
) -> None:
    with TemporaryDirectory() as folder, mock.patch.object(rows, "ROWS_PER_BATCH", batch):
        write_predictions(Path(folder) / "p.parquet", answers)
        verifier = FakeVerifier(right)
        table = judge(verifier, Path(folder), window=window).to_pylist()
    assert verifier.asked == Counter({Pair(truth, answer) for truth, answer in answers if answer is not None})
    assert verifier.most_at_once <= window
    assert [row["sample_id"] for row in table] == [f"s{number}" for number in range(len(answers))]
    expected = [Outcome.UNPARSABLE if answer is None else len(answer) % 6 for _, answer in answers]
    assert [row["outcome"] for row in table] == expected


def test_no_judge_sees_what_needs_none_and_failures_keep_their_kind(tmp_path: Path) -> None:
    failed = prediction(3, "lion", None, failure="prompt_too_long", failure_detail="4 of 3 tokens", text=None)
    made = [
        prediction(0, "lion", None),
        prediction(1, "lion", "l" * (LIMIT + 1)),
        prediction(2, "lion", "!" * 99 + "x" * LIMIT),
        failed,
    ]
    tables.write(tmp_path / "p.parquet", tables.PREDICTIONS, made, {})
    verifier = FakeVerifier(right)
    table = judge(verifier, tmp_path).to_pylist()
    assert list(verifier.asked) == [Pair("lion", "!" * 99 + "x" * LIMIT)]  # of normal length
    assert [row["outcome"] for row in table[:2]] == [Outcome.UNPARSABLE, Outcome.TOO_LONG]
    assert [row["reason"] for row in table[:3]] == [None, None, None]
    assert (table[3]["outcome"], table[3]["reason"], table[3]["detail"]) == (
        Outcome.UNSCORED,
        "prediction:prompt_too_long",
        "4 of 3 tokens",
    )
    assert table[2]["probabilities"] == pytest.approx(SPREAD)
    assert state(tmp_path) == ("complete", "")  # this stage can do no more


def test_each_reason_is_written_and_only_its_pairs_are_asked_again(tmp_path: Path) -> None:
    truths = [f"truth {reason}" for reason in Reason] + ["fine"]
    write_predictions(tmp_path / "p.parquet", itertools.product(truths, ["cat", "bird"]))

    def failing(pair: Pair) -> Judgement:
        name = pair.ground_truth.removeprefix("truth ")
        return right(pair) if name == "fine" else Unscorable(Reason(name), f"about {name}")

    assert len(Reason) == 9
    broken = judge(FakeVerifier(failing), tmp_path).to_pylist()
    for row, (truth, _) in zip(broken, itertools.product(truths, "ab"), strict=True):
        fine = truth == "fine"
        assert (row["outcome"] == Outcome.UNSCORED) is not fine
        assert row["reason"] == (None if fine else truth.removeprefix("truth "))
        assert row["detail"] == (None if fine else f"about {row['reason']}")
        assert (row["margin"] is None) is not fine
    assert state(tmp_path) == ("partial", "")
    mended = FakeVerifier(right)
    judge(mended, tmp_path, keep=True)
    assert set(mended.asked) == {Pair(truth, answer) for truth in truths[:-1] for answer in ("cat", "bird")}
    assert state(tmp_path) == ("complete", "")
    resumed = (tmp_path / "v.parquet").read_bytes()
    judge(FakeVerifier(right), tmp_path)
    assert (tmp_path / "v.parquet").read_bytes() == resumed


def test_what_the_judge_would_only_repeat_is_not_asked_again(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", [("nessie", "cat"), ("lion", "cat")])

    def unknown(pair: Pair) -> Judgement:
        return Unscorable(Reason.UNKNOWN_CONCEPT) if pair.ground_truth == "nessie" else right(pair)

    judge(FakeVerifier(unknown), tmp_path)
    assert state(tmp_path) == ("complete", "")


def test_an_outage_ends_the_asking_and_loses_nothing(tmp_path: Path) -> None:
    pairs = [(f"truth {number:03}", "cat") for number in range(200)]
    write_predictions(tmp_path / "p.parquet", pairs)

    def out_from(number: int) -> Callable[[Pair], Judgement]:
        late = Unscorable(Reason.TIMEOUT, "no reply")
        return lambda pair: right(pair) if int(pair.ground_truth[-3:]) < number else late

    verifier = FakeVerifier(out_from(100))
    table = judge(verifier, tmp_path, window=8).to_pylist()
    assert len(verifier.asked) < 100 + 3 * 8
    assert [row["outcome"] == Outcome.UNSCORED for row in table] == [number >= 100 for number in range(200)]
    assert {row["reason"] for row in table[100:]} == {"timeout"}
    assert table[-1]["detail"] == "not asked, as 8 pairs before had no verdict, the last: no reply"
    mended = FakeVerifier(right)
    judge(mended, tmp_path, keep=True)
    assert len(mended.asked) == 100
    assert state(tmp_path) == ("complete", "")


def test_failures_about_pairs_are_no_outage(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", [(f"truth {number}", "cat") for number in range(50)])
    verifier = FakeVerifier(lambda _: Unscorable(Reason.OFF_LABEL, "it said maybe"))
    judge(verifier, tmp_path, window=4)
    assert len(verifier.asked) == 50


def test_a_table_of_another_judge_or_of_other_predictions_is_stale(tmp_path: Path) -> None:
    assert state_of_missing(tmp_path) == "missing"
    judge(FakeVerifier(right), tmp_path)
    assert state(tmp_path) == ("complete", "")
    assert state(tmp_path, IDENTITY | {"prompt": "q"}) == ("stale", "judge.prompt")
    assert state(tmp_path, IDENTITY | {"thinking": True}) == ("stale", "judge.thinking")
    assert state(tmp_path, limit=LIMIT + 1) == ("stale", "too_long_chars")
    write_predictions(tmp_path / "p.parquet", [("lion", "big cat")])
    assert state(tmp_path) == ("stale", "predictions_sha")


def state_of_missing(folder: Path) -> str:
    write_predictions(folder / "p.parquet", [("lion", "cat")])
    return state(folder)[0]


def test_a_damaged_table_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"p\.parquet cannot be read") as caught:
        judge(FakeVerifier(right), tmp_path)
    assert "\n" not in str(caught.value)
    tables.write(tmp_path / "p.parquet", tables.VERDICTS, [], {})
    with pytest.raises(DataError, match="has no column ground_truth of type string; make it again"):
        judge(FakeVerifier(right), tmp_path)
