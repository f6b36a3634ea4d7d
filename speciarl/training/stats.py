"""What an agent-loop worker counts between two looks of the trainer."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from speciarl.reward import Member
from speciarl.training.group import GroupOutcome
from speciarl.verdict import Unscorable, Verdict


@dataclass(slots=True)
class RolloutStats:
    """Counters of one worker and, added up, of all workers. Times are Unix seconds on the worker's clock."""

    rollouts: int = 0
    """Sessions that were judged, unparsable or unscorable ones included."""
    failed: int = 0
    """Sessions that ended in an error before they could be judged."""
    unscorable: Counter[str] = field(default_factory=Counter)
    """Unscorable rollouts by reason."""
    groups: int = 0
    """Training groups that ended."""
    groups_no_signal: int = 0
    """Groups whose scored rollouts all earned the same."""
    groups_under_quorum: int = 0
    """Groups thrown away because too few rollouts were scored."""
    references: Counter[str] = field(default_factory=Counter)
    """Groups by reference level."""
    waited_s: float = 0.0
    """Seconds in which no rollout generated and at least one waited for its verdict; of the slowest worker."""
    judging_s: float = 0.0
    """Seconds in which at least one rollout waited for its verdict, generating siblings or not; of the worker that
    judged longest."""
    judge_seconds: float = 0.0
    """Sum over rollouts of the time from answer to verdict, cache hits included."""
    silent_since: float | None = None
    """Since when verdicts were asked for and none came; None while they do."""

    def count(self, member: Member, now: float) -> None:
        """Note one judged rollout."""
        self.rollouts += 1
        if isinstance(member, Unscorable):
            self.unscorable[member.reason.value] += 1
            self.silent_since = self.silent_since or now
        elif isinstance(member, Verdict):
            self.silent_since = None

    def close(self, outcome: GroupOutcome, under_quorum: bool) -> None:
        """Note one finished training group."""
        self.groups += 1
        self.groups_under_quorum += under_quorum
        self.groups_no_signal += not outcome.has_signal
        if outcome.reference is not None:
            self.references[outcome.reference.name.lower()] += 1

    @property
    def unscorable_rate(self) -> float:
        """Share of judged rollouts without a verdict; 0 when nothing was judged."""
        return sum(self.unscorable.values()) / self.rollouts if self.rollouts else 0.0


def merge(parts: Iterable[RolloutStats]) -> RolloutStats:
    """Add up the workers' counters. The verifier counts as silent only if it is for every worker that asked."""
    total = RolloutStats()
    silences = []
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
        if part.rollouts or part.silent_since is not None:
            silences.append(part.silent_since)
    if silences and all(since is not None for since in silences):
        total.silent_since = max(since for since in silences if since is not None)
    return total
