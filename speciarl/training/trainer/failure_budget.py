"""Failure budget: how much may fail in one step before the run saves a checkpoint and stops."""

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
    """Check a step that is still waiting for rollouts; veRL replaces lost groups for ever, without a limit of its own.

    Args:
        stats: all workers' counters since the step began.
        limits: the run's limits.
        batch: rollouts in a training batch. A step makes no progress when as many failed, or when as many were scored
            and the unscorable among them are too many.
        judges: URLs of the verifier, for the message.

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
    # Only from a whole batch on: the share of the first few rollouts says little.
    if stats.scored >= batch:
        refuse_unscorable(stats, limits)


def refuse_endless(stats: RolloutStats, images: int, most: int) -> None:
    """Raise FailureBudgetExceeded when group filtering leaves a step too few groups to fill its batch.

    Args:
        stats: all workers' counters since the step began.
        images: groups in a training batch.
        most: how many training batches of groups may end before the step has a batch of groups with a signal; 0: no
            limit.
    """
    if most and stats.groups >= most * images:
        raise FailureBudgetExceeded(
            f"{stats.groups} groups of one step have ended, and fewer than the {images} it needs have a signal: all "
            f"rollouts of the others earned the same (speciarl.training.max_gen_batches={most}); train on other "
            "images, with more rollouts each, or without filtering (recipe/algorithm=dapo)"
        )


def refuse_unrewarded(rewarded: int, count: Callable[[], RolloutStats]) -> None:
    """Raise FailureBudgetExceeded when not one rollout of a batch has a reward; `count` returns the step's counters."""
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
