"""Failure budget: how much may go wrong in one step before the run saves a checkpoint and stops."""

from collections.abc import Callable, Sequence

from speciarl.config import RewardConfig
from speciarl.errors import FailureBudgetExceeded, VerifierOutage
from speciarl.training.observability.rollout_stats import RolloutStats
from speciarl.utils.credentials import public_url


def refuse_unscorable(stats: RolloutStats, limits: RewardConfig) -> None:
    """Raise FailureBudgetExceeded when too large a share of the rollouts has no verdict."""
    if stats.unscorable_rate > limits.max_unscorable_rate:
        raise FailureBudgetExceeded(
            f"{stats.unscorable_rate:.0%} of the step's rollouts have no verdict ({_reasons(stats)}), more than "
            f"speciarl.reward.max_unscorable_rate={limits.max_unscorable_rate:.0%}; the verifier is at fault"
        )


def refuse_unfinished(stats: RolloutStats, limits: RewardConfig, batch: int, judges: Sequence[str]) -> None:
    """Check a step that is still waiting for rollouts. Lost groups are replaced, and without a bound for ever.

    Args:
        stats: all workers' counters since the step began.
        limits: the run's limits.
        batch: rollouts in a whole batch. As many failed ones, or as many scored ones among too many unscorable ones,
            and no batch yet: the step does not get on.
        judges: where the verifier is, for the message.

    Raises VerifierOutage after `outage_deadline_s` without any verdict, else FailureBudgetExceeded.
    """
    if stats.silent_s is not None and stats.silent_s > limits.outage_deadline_s:
        where = ", ".join(map(public_url, judges)) or "its configured address"
        raise VerifierOutage(
            f"the verifier was asked for {stats.silent_s:.0f} s and gave no verdict "
            f"(speciarl.reward.outage_deadline_s={limits.outage_deadline_s:.0f}); look at the judge at {where}"
        )
    if stats.failed >= batch:
        raise FailureBudgetExceeded(
            f"{stats.failed} rollouts of one step failed, a whole batch of {batch}; the last one with "
            f"{stats.last_failure or 'no message'}"
        )
    if stats.scored >= batch:
        refuse_unscorable(stats, limits)


def refuse_endless(stats: RolloutStats, images: int, most: int) -> None:
    """Raise FailureBudgetExceeded when a step has filtered out one group after the other.

    Args:
        stats: all workers' counters since the step began.
        images: groups in a training batch.
        most: training batches of groups that may end without filling one of groups with a signal; 0 for any number.
    """
    if most and stats.groups >= most * images:
        raise FailureBudgetExceeded(
            f"{stats.groups} groups of one step have ended, and fewer than the {images} it needs have a signal: all "
            f"rollouts of the others earned the same (speciarl.training.max_gen_batches={most}); train on other "
            "images, with more rollouts each, or without filtering (recipe/algorithm=dapo)"
        )


def refuse_unrewarded(rewarded: int, count: Callable[[], RolloutStats]) -> None:
    """Raise FailureBudgetExceeded, with what `count` knows of the step, when a batch has no reward at all."""
    if rewarded:
        return
    stats = count()
    raise FailureBudgetExceeded(
        f"not one rollout of the batch has a reward: {stats.unscorable.total()} without a verdict ({_reasons(stats)}), "
        f"{stats.failed} failed (the last one with {stats.last_failure or 'no message'}), "
        f"{stats.groups_under_quorum} of {stats.groups} groups under quorum"
    )


def _reasons(stats: RolloutStats) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in stats.unscorable.most_common()) or "no reasons"
