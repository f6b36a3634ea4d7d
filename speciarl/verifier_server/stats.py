"""Statistics of a verifier: counters and histograms."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from speciarl.verdict import Judgement, Reason, Source, Unscorable

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the buckets, in seconds; a last bucket without bound follows."""

Snapshot = tuple[tuple[float, ...], tuple[int, ...], float]
"""Bounds of the buckets without inf, shape (n,); cumulative counts, shape (n + 1,), the last counting all; the sum."""


class Histogram:
    """Histogram of durations in seconds."""

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one duration; a bucket includes its upper bound."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def snapshot(self) -> Snapshot:
        """Bounds, cumulative counts and sum so far."""
        cumulative, total = [], 0
        for count in self._counts:
            total += count
            cumulative.append(total)
        return self._bounds, tuple(cumulative), self._sum


def _counter(text: str, exported_as: str | None = None) -> Any:
    """A counter field. `text` describes it here and in Prometheus, where its name is `exported_as` if given."""
    return field(default=0, metadata={"text": text, "exported_as": exported_as, "grows": True})


def _gauge(text: str) -> Any:
    return field(default=0, metadata={"text": text, "exported_as": None, "grows": False})


@dataclass
class Stats:
    """Counters since the start. `requests` = shortcuts + memory_hits + store_hits + deduplicated + live +
    unscorable + abandoned."""

    requests: int = _counter("Pairs handed to `verify`.", "pairs")
    shortcuts: int = _counter("Verdicts without a judge: exact match or abstention.")
    memory_hits: int = _counter("Verdicts from the cache.")
    store_hits: int = _counter("Verdicts that some process had kept in the store.")
    deduplicated: int = _counter("Pairs that shared the verdict of an equal pair in flight.")
    live: int = _counter("Verdicts for which a judge was asked.")
    abandoned: int = _counter("Callers that went away before their verdict came.")
    dropped: int = _counter(
        "Pairs given up, in the local queue or at a judge, because all their callers had gone away."
    )
    rejected: int = _counter("Pairs turned away because the local queue was full (`max_waiting`).")
    attempts: int = _counter("Requests to a judge; chats that share an HTTP request count each.")
    retries: int = _counter("Attempts after one that failed.")
    ejections: int = _counter(
        "Times an endpoint was shut out, for its failures or because it asked for that (Retry-After)."
    )
    returns: int = _counter("Times an ejected endpoint came back.")
    prompt_tokens: int = _counter("Tokens of the prompts, as the judge reports them.")
    cached_tokens: int = _counter("Of these, the ones found in the judge's prefix cache, where it reports them.")
    completion_tokens: int = _counter("Tokens the judge generated, as it reports them.")
    judge_seconds: float = _counter("Summed over attempts: from sending a request until its reply.")
    queue_seconds: float = _counter(
        "Summed over attempts: waiting in the local queue for a free place in `max_concurrency` and for an "
        "endpoint that takes requests."
    )
    backoff_seconds: float = _counter("Summed over retries: waiting before the next attempt.")
    store_errors: int = _counter(
        "Look-ups, writes and attempts to recover that the store failed or did not answer in time. Each may stand "
        "for many pairs; none costs a verdict."
    )
    store_degraded: int = _gauge(
        "1 while the store cannot be read or written and verdicts are kept in memory only, else 0."
    )
    store_corrupt: int = _counter("Damaged or foreign entries met; their pairs are judged anew.")
    store_lost: int = _counter("Verdicts that never reached the store because it was away for too long.")
    store_seconds: float = _counter("Summed over pairs: looking up and writing.")
    unscorable: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    """Pairs without a verdict, by reason."""
    queue_times: Histogram = field(default_factory=Histogram)
    """Distribution of the times that add up to `queue_seconds`."""
    judge_times: Histogram = field(default_factory=Histogram)
    """Distribution of the times that add up to `judge_seconds`."""

    def count(self, judgement: Judgement, times: int = 1) -> None:
        """Count a pair without a verdict; verdicts are counted by `count_source` where they arise."""
        if isinstance(judgement, Unscorable):
            self.unscorable[judgement.reason] += times

    def count_source(self, source: Source, times: int = 1) -> None:
        """Count a verdict by where it came from."""
        if source is Source.SHORTCUT:
            self.shortcuts += times
        elif source is Source.MEMORY:
            self.memory_hits += times
        elif source is Source.STORE:
            self.store_hits += times
        else:
            self.live += times

    def observe_queue(self, seconds: float) -> None:
        """Add the time that a request waited in the local queue."""
        self.queue_seconds += seconds
        self.queue_times.observe(seconds)

    def observe_attempt(self, seconds: float) -> None:
        """Add the duration of an attempt, successful or not."""
        self.judge_seconds += seconds
        self.judge_times.observe(seconds)

    def add_usage(self, reply: object) -> None:
        """Add the token usage that a parsed chat completion reports, if it does."""
        usage = reply.get("usage") if isinstance(reply, Mapping) else None
        if not isinstance(usage, Mapping):
            return
        self.prompt_tokens += _count(usage.get("prompt_tokens"))
        self.completion_tokens += _count(usage.get("completion_tokens"))
        details = usage.get("prompt_tokens_details")
        if isinstance(details, Mapping):
            self.cached_tokens += _count(details.get("cached_tokens"))

    def histograms(self) -> dict[str, Snapshot]:
        """The distributions by name: bounds of the buckets in seconds, cumulative counts, sum."""
        return {"queue_seconds": self.queue_times.snapshot(), "judge_seconds": self.judge_times.snapshot()}

    def as_dict(self) -> dict[str, float]:
        """All counters under flat names; the same keys at all times."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        flat = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        by_reason = {f"unscorable/{reason}": float(count) for reason, count in self.unscorable.items()}
        return flat | {"unscorable": float(sum(self.unscorable.values()))} | by_reason


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
