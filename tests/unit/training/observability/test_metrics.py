"""Counters and records to logged numbers."""

import pytest

from speciarl.category import Category
from speciarl.reward import Unparsable
from speciarl.reward.barrier import GroupOutcome
from speciarl.training.observability.metrics import training_metrics, validation_metrics
from speciarl.training.observability.rollout_stats import RolloutStats, merge
from speciarl.training.reward_info import outcome_of, reward_extra_info
from speciarl.verdict import Reason, Source, Unscorable, Verdict

OUTCOME = GroupOutcome((1.0, 0.0), Category.SPECIFIC, 2)


def record(category: Category | None, answer: str = "lion", margin: float = 2.0) -> dict[str, object]:
    member = Unparsable() if category is None else Verdict(category, margin, Source.LIVE)
    return reward_extra_info(
        member, answer, OUTCOME, "pets", {"sample_id": "a", "stratum": "known"}, seen=member, group_reward=1.0
    )


def test_every_record_has_the_same_keys_and_round_trips() -> None:
    records = {category: record(category) for category in (*Category, None)}
    assert len({tuple(info) for info in records.values()}) == 1
    for category, info in records.items():
        assert outcome_of(info) is category


def test_training_metrics() -> None:
    stats = RolloutStats(groups=2, groups_no_signal=1, waited_s=0.5, judging_s=2.0)
    stats.record_rollout(Verdict(Category.SPECIFIC, None, Source.LIVE))
    stats.record_rollout(Unscorable(Reason.TIMEOUT))
    stats.references["specific"] = 1
    infos = [record(Category.SPECIFIC), record(Category.WRONG, answer="lion or tiger", margin=0.5)]
    metrics = training_metrics(infos, stats, [{"live": 1}, {"live": 2}], low_margin=1.0)
    assert metrics["speciarl/correctness"] == 0.5
    assert metrics["speciarl/unscorable_rate"] == 0.5
    assert metrics["speciarl/groups/no_signal_rate"] == 0.5
    assert metrics["speciarl/verifier/wait_s"] == pytest.approx(0.5)
    assert metrics["speciarl/verifier/total/live"] == 3
    assert metrics["speciarl/verifier/hidden_share"] == 0.75
    assert metrics["speciarl/verifier/from/live"] == 1
    assert metrics["speciarl/hedging_rate"] == 0.5
    assert (metrics["speciarl/reference/specific"], metrics["speciarl/reference/none"]) == (0.5, 0.5)
    assert (metrics["speciarl/margin/mean"], metrics["speciarl/margin/low_share"]) == (1.25, 0.5)
    assert metrics["speciarl/margin/p10"] == pytest.approx(0.65)


def test_what_is_undefined_is_left_out() -> None:
    metrics = training_metrics([], RolloutStats(), [], low_margin=1.0)
    assert set(metrics) == {
        "speciarl/unscorable_rate",
        "speciarl/failed_rollouts",
        "speciarl/groups/under_quorum",
        "speciarl/verifier/wait_s",
        "speciarl/verifier/judging_s",
    }


def test_validation_metrics_per_source_and_missing_answers() -> None:
    metrics = validation_metrics(
        ["a", "a", "b"],
        ["1", "2", "3"],
        {"category": ["specific", "wrong", "generic"], "answer": ["lion", "cat", "cat/dog"]},
        {("a", "1"): 1, ("a", "2"): 1, ("b", "3"): 1, ("b", "4"): 1, ("c", "5"): 1},
    )
    assert metrics["val-core/a/correctness"] == 0.5
    assert metrics["val-core/b/specificity"] == 0.25
    assert metrics["val-core/b/unscored_rate"] == 0.5
    assert metrics["val-core/c/unscored_rate"] == 1.0
    assert "val-core/c/hm" not in metrics
    assert (metrics["val-core/a/hedging_rate"], metrics["val-core/b/hedging_rate"]) == (0.0, 1.0)
    assert not [name for name in metrics if "best@" in name]  # one answer per prompt
    assert metrics["val-core/mean/hm"] == pytest.approx((2 * 0.5 / 1.5 + 2 * 0.25 / 1.25) / 2)


def test_validation_with_several_answers_tells_the_best_of_k() -> None:
    metrics = validation_metrics(
        ["a"] * 6,
        ["1", "2", "1", "2", "1", "2"],
        {"category": ["wrong", "generic", "specific", "generic", "wrong", "unparsable"], "answer": ["x"] * 6},
        {("a", "1"): 3, ("a", "2"): 3},
    )
    assert {name for name in metrics if name.startswith("val-core/a/best@")} == {
        f"val-core/a/best@{k}/{score}" for k in (2, 3) for score in ("correctness", "specificity", "hm")
    }
    # Of three answers the best is specific for prompt 1 and generic for prompt 2.
    assert metrics["val-core/a/best@3/correctness"] == 1.0
    assert metrics["val-core/a/best@3/specificity"] == pytest.approx((1 + 0.25) / 2)
    # Two of the three pairs of prompt 1 hold the specific answer, and all pairs of prompt 2 a generic one.
    assert metrics["val-core/a/best@2/correctness"] == pytest.approx((2 / 3 + 1) / 2)
    assert metrics["val-core/mean/best@2/hm"] == metrics["val-core/a/best@2/hm"]


def test_the_verifier_is_as_silent_as_for_the_worker_that_heard_last() -> None:
    idle, long, short = RolloutStats(), RolloutStats(silent_s=9.0), RolloutStats(silent_s=2.0)
    assert merge([long, idle, short]).silent_s == 2.0
    assert merge([idle, long]).silent_s == 9.0
    assert merge([idle]).silent_s is None


def test_a_failure_is_kept_in_one_bounded_line() -> None:
    stats = RolloutStats()
    stats.record_failure(ValueError("two\nlines " + "x" * 1000))
    assert (merge([stats, RolloutStats()]).failed, stats.last_failure[:21]) == (1, "ValueError: two lines")
    assert len(stats.last_failure) == 300


def test_the_trainer_waits_for_the_slowest_worker() -> None:
    assert merge([RolloutStats(waited_s=1.0), RolloutStats(waited_s=3.0)]).waited_s == 3.0
