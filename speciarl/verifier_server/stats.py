"""What a verifier counts."""

from dataclasses import dataclass, field, fields

from speciarl.verdict import Judgement, Reason, Source, Unscorable


@dataclass
class Stats:
    """Totals since the start. `requests` = shortcuts + memory_hits + store_hits + deduplicated + live +
    unscorable + abandoned."""

    requests: int = 0
    """Pairs handed to `verify`."""
    shortcuts: int = 0
    """Verdicts without a judge: exact match or abstention."""
    memory_hits: int = 0
    """Verdicts from the cache."""
    store_hits: int = 0
    """Verdicts that some process had kept in the store."""
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
    unscorable: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    """Pairs without a verdict, by reason."""

    def note(self, judgement: Judgement) -> None:
        """Count a pair without a verdict; verdicts are counted where they arise."""
        if isinstance(judgement, Unscorable):
            self.unscorable[judgement.reason] += 1

    def note_source(self, source: Source) -> None:
        """Count a verdict by where it came from."""
        if source is Source.SHORTCUT:
            self.shortcuts += 1
        elif source is Source.MEMORY:
            self.memory_hits += 1
        elif source is Source.STORE:
            self.store_hits += 1
        else:
            self.live += 1

    def as_dict(self) -> dict[str, float]:
        """All counters under flat names; the same keys at all times."""
        flat = {f.name: float(getattr(self, f.name)) for f in fields(self) if f.name != "unscorable"}
        by_reason = {f"unscorable/{reason.value}": float(count) for reason, count in self.unscorable.items()}
        return flat | {"unscorable": float(sum(self.unscorable.values()))} | by_reason
