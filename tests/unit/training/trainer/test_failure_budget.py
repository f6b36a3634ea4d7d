"""When a step is given up."""

from collections import Counter

import pytest

from speciarl.config import RewardConfig
from speciarl.errors import FailureBudgetExceeded, VerifierOutage
from speciarl.training.observability.rollout_stats import RolloutStats
from speciarl.training.trainer.failure_budget import (
    refuse_endless,
    refuse_unfinished,
    refuse_unrewarded,
    refuse_unscorable,
)

LIMITS = RewardConfig(max_unscorable_rate=0.2, outage_deadline_s=60)
BATCH = 100


def look(stats: RolloutStats) -> None:
    refuse_unfinished(stats, LIMITS, BATCH, ["http://judge:8000"])


def test_a_step_in_good_health_goes_on() -> None:
    look(RolloutStats())
    look(RolloutStats(rollouts=1000, unscorable=Counter(timeout=200), failed=99, silent_s=60.0))
    refuse_unscorable(RolloutStats(rollouts=10, unscorable=Counter(timeout=2)), LIMITS)


def test_an_outage_is_told_with_the_judge_and_the_key() -> None:
    with pytest.raises(VerifierOutage, match=r"61 s.*outage_deadline_s=60.*http://judge:8000"):
        look(RolloutStats(rollouts=5, unscorable=Counter(connection=5), silent_s=61.0))


def test_no_password_of_a_judge_is_told() -> None:
    judges = ["http://user:s3cret@judge:8000/v1", "http://other:8000/v1"]
    with pytest.raises(VerifierOutage, match=r"at http://judge:8000/v1, http://other:8000/v1$"):
        refuse_unfinished(RolloutStats(silent_s=61.0), LIMITS, BATCH, judges)


def test_during_an_outage_lost_rollouts_do_not_end_the_step_before_the_deadline() -> None:
    look(RolloutStats(rollouts=500, unscorable=Counter(connection=500), silent_s=59.0))


def test_too_many_unscorable_among_a_whole_batch_of_scored_ones_end_the_step() -> None:
    look(RolloutStats(rollouts=190, unscorable=Counter(timeout=91)))  # 99 scored: the step may yet end by itself
    with pytest.raises(FailureBudgetExceeded, match=r"48%.*timeout 90, malformed 1.*max_unscorable_rate=20%"):
        look(RolloutStats(rollouts=191, unscorable=Counter(timeout=90, malformed=1)))


def test_a_batch_of_failed_rollouts_ends_the_step_with_the_last_error() -> None:
    with pytest.raises(FailureBudgetExceeded, match=r"100 rollouts of one step failed.*ValueError: no image"):
        look(RolloutStats(failed=100, last_failure="ValueError: no image"))


def test_a_step_that_filters_out_every_group_ends() -> None:
    stats = RolloutStats(groups=79, groups_no_signal=79)
    refuse_endless(stats, images=8, most=10)
    stats.groups += 1
    with pytest.raises(FailureBudgetExceeded, match=r"80 groups.*fewer than the 8.*max_gen_batches=10"):
        refuse_endless(stats, images=8, most=10)
    refuse_endless(stats, images=8, most=0)


def test_a_batch_without_a_reward_ends_the_step_with_what_went_wrong() -> None:
    stats = RolloutStats(rollouts=9, unscorable=Counter(timeout=7), failed=3, groups=4, groups_under_quorum=4)
    stats.last_failure = "TypeError: bad reward"
    with pytest.raises(FailureBudgetExceeded, match=r"7 without.*timeout 7.*3 failed .*bad reward.*4 of 4 groups"):
        refuse_unrewarded(0, lambda: stats)


def test_a_batch_with_a_reward_asks_nobody() -> None:
    refuse_unrewarded(1, lambda: pytest.fail("nothing to ask for"))
