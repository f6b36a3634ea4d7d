"""What a verifier counts."""

from dataclasses import dataclass, field, fields

from speciarl.verdict import Judgement, Reason, Unscorable


@dataclass
class Stats:
    """Totals since the start. `requests` = shortcuts + memory_hits + deduplicated + store_hits + live +
    unscorable + abandoned."""

    requests: int = 0
    """Pairs handed to `verify`."""
    shortcuts: int = 0
    """Verdicts without a judge: exact match or abstention."""
    memory_hits: int = 0
    """Verdicts from the cache."""
    deduplicated: int = 0
    """Pairs that shared the verdict of an equal pair in flight."""
    live: int = 0
    """Verdicts for which a judge was asked."""
    abandoned: int = 0
    """Callers that went away before their verdict came."""
    attempts: int = 0
    """HTTP requests to a judge."""
    retries: int = 0
    """Attempts after the first for one pair."""
    judge_seconds: float = 0.0
    """Summed over attempts: from sending a request until its reply."""
    queue_seconds: float = 0.0
    """Summed over attempts: waiting in the local queue for a free place in `max_concurrency`."""
    backoff_seconds: float = 0.0
    """Summed over retries: waiting before the next attempt."""
    store_hits: int = 0
    """Verdicts found in the store."""
    store_errors: int = 0
    """Look-ups, writes and attempts to recover that the store failed or did not answer in time. Each may stand
    for many pairs; none costs a verdict."""
    store_degraded: int = 0
    """1 while the store cannot be read or written and verdicts are kept in memory only, else 0."""
    store_corrupt: int = 0
    """Damaged or foreign entries met; their pairs are judged anew."""
    store_lost: int = 0
    """Verdicts that never reached the store because it was away for too long."""
    store_seconds: float = 0.0
    """Summed over pairs: looking up and writing."""
    lease_seconds: float = 0.0
    """Summed over pairs: waiting for the verdict of another service that judged the same pair."""
    unscorable: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    """Pairs without a verdict, by reason."""

    def note(self, judgement: Judgement) -> None:
        """Count a pair without a verdict; verdicts are counted where they arise."""
        if isinstance(judgement, Unscorable):
            self.unscorable[judgement.reason] += 1

    def as_dict(self) -> dict[str, float]:
        """All counters under flat names; the same keys at all times."""
        flat = {f.name: float(getattr(self, f.name)) for f in fields(self) if f.name != "unscorable"}
        by_reason = {f"unscorable/{reason.value}": float(count) for reason, count in self.unscorable.items()}
        return flat | {"unscorable": float(sum(self.unscorable.values()))} | by_reason
