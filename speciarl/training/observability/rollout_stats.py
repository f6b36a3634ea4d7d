"""Rollout counters of one agent-loop worker, from one drain by the trainer to the next."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from speciarl.reward import Member
from speciarl.reward.barrier import GroupOutcome
from speciarl.verdict import Unscorable

MOST_CHARS = 300
"""Longest message of `last_failure`."""


@dataclass(slots=True)
class RolloutStats:
    """Rollout counters of one worker or, merged, of all workers. Times are durations in seconds."""

    rollouts: int = 0
    """Sessions that were judged, unparsable or unscorable ones included."""
    failed: int = 0
    """Sessions that ended in an error of their own, most of them before they could be judged. An error in the reward is
    one, a missing verdict is not."""
    unscorable: Counter[str] = field(default_factory=Counter)
    """Unscorable rollouts by reason."""
    groups: int = 0
    """Training groups that ended."""
    groups_no_signal: int = 0
    """Groups whose scored rollouts all earned the same."""
    groups_under_quorum: int = 0
    """Groups of which no rollout is used, because too few were scored."""
    references: Counter[str] = field(default_factory=Counter)
    """Groups by reference level."""
    waited_s: float = 0.0
    """Seconds in which no rollout generated and at least one waited for its verdict; of the slowest worker."""
    judging_s: float = 0.0
    """Seconds in which at least one rollout waited for its verdict, generating siblings or not; of the worker that
    judged longest."""
    judge_seconds: float = 0.0
    """Sum over rollouts of the time from answer to verdict, cache hits included."""
    silent_s: float | None = None
    """Seconds in which verdicts were waited for since the judge gave the last one; None while nobody waits and nothing
    went unanswered. Not a count: the state at the time of the report."""
    last_failure: str = ""
    """The error of the session that failed last, in one line."""

    def record_rollout(self, member: Member) -> None:
        """Count a judged rollout."""
        self.rollouts += 1
        if isinstance(member, Unscorable):
            self.unscorable[member.reason.value] += 1

    def record_failure(self, error: BaseException) -> None:
        """Count a session that ended in an error of its own."""
        self.failed += 1
        self.last_failure = " ".join(f"{type(error).__name__}: {error}".split())[:MOST_CHARS]

    def record_group(self, outcome: GroupOutcome, under_quorum: bool) -> None:
        """Count a training group that ended."""
        self.groups += 1
        self.groups_under_quorum += under_quorum
        self.groups_no_signal += not outcome.has_signal
        if outcome.reference is not None:
            self.references[outcome.reference.name.lower()] += 1

    @property
    def scored(self) -> int:
        """Rollouts with a verdict, and unparsable ones."""
        return self.rollouts - self.unscorable.total()

    @property
    def unscorable_rate(self) -> float:
        """Share of judged rollouts that are unscorable; 0 when nothing was judged."""
        return self.unscorable.total() / self.rollouts if self.rollouts else 0.0


def merge(parts: Iterable[RolloutStats]) -> RolloutStats:
    """Sum of the workers' counters; `waited_s` and `judging_s` are the largest.

    `silent_s` is the smallest among the workers that wait: one that got a verdict proves that the verifier answers.
    """
    total = RolloutStats()
    for part in parts:
        total.rollouts += part.rollouts
        total.failed += part.failed
        total.unscorable.update(part.unscorable)
        total.groups += part.groups
        total.groups_no_signal += part.groups_no_signal
        total.groups_under_quorum += part.groups_under_quorum
        total.references.update(part.references)
        total.judge_seconds += part.judge_seconds
        total.waited_s = max(total.waited_s, part.waited_s)
        total.judging_s = max(total.judging_s, part.judging_s)
        total.last_failure = part.last_failure or total.last_failure
        if part.silent_s is not None:
            total.silent_s = part.silent_s if total.silent_s is None else min(total.silent_s, part.silent_s)
    return total
