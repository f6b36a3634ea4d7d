"""What the judges count, for Prometheus. Pure: from statistics and endpoints to metric families."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from speciarl.verifier_server.service.judges import Judge, public_url

PREFIX = "speciarl_verifier_"


class Described(NamedTuple):
    """How one statistic is exported."""

    name: str
    """Without the prefix and without `_total`."""
    is_counter: bool
    help: str


DESCRIBED: Mapping[str, Described] = {
    "requests": Described("pairs", True, "Pairs handed to the judge."),
    "shortcuts": Described("shortcuts", True, "Verdicts without a judge: exact match, abstention or length."),
    "memory_hits": Described("memory_hits", True, "Verdicts from memory."),
    "store_hits": Described("store_hits", True, "Verdicts from the persistent store."),
    "store_errors": Described("store_errors", True, "Look-ups and writes of the persistent store that failed."),
    "store_degraded": Described("store_degraded", False, "1 while the persistent store is passed by."),
    "store_corrupt": Described("store_corrupt", True, "Damaged or foreign entries met in the persistent store."),
    "store_lost": Described("store_lost", True, "Verdicts that never reached the persistent store."),
    "store_seconds": Described("store_seconds", True, "Looking up and writing, summed over pairs."),
    "lease_seconds": Described("lease_seconds", True, "Waiting for another service's verdict, summed over pairs."),
    "deduplicated": Described("deduplicated", True, "Pairs that shared the verdict of an equal pair in flight."),
    "live": Described("live", True, "Verdicts for which a model was asked or a taxonomy read."),
    "abandoned": Described("abandoned", True, "Callers that went away before their verdict came."),
    "attempts": Described("attempts", True, "HTTP requests to the judge's servers."),
    "retries": Described("retries", True, "Attempts after the first for one request."),
    "judge_seconds": Described("judge_seconds", True, "From sending a request until its reply, summed."),
    "queue_seconds": Described("queue_seconds", True, "Waiting in the local queue, summed over attempts."),
    "backoff_seconds": Described("backoff_seconds", True, "Waiting before a further attempt, summed."),
    "dropped": Described("dropped", True, "Pairs that left the local queue because nobody waited any more."),
    "rejected": Described("rejected", True, "Requests turned away because the local queue was full."),
    "hedges": Described("hedges", True, "Copies of requests whose reply was oddly late."),
    "ejections": Described("ejections", True, "Times a server was shut out for its failures."),
    "returns": Described("returns", True, "Times an ejected server came back."),
    "prompt_tokens": Described("prompt_tokens", True, "Tokens the judge's servers read."),
    "cached_tokens": Described("cached_tokens", True, "Of those, tokens from the servers' prefix cache."),
    "completion_tokens": Described("completion_tokens", True, "Tokens the judge's servers wrote."),
    "in_flight": Described("pairs_in_flight", False, "Distinct pairs being judged."),
    "waiting": Described("pairs_waiting", False, "Pairs in the local queue."),
}
"""Every statistic of `Verifier.stats` that has a meaning here. Others become values of one metric."""

_BY_REASON = "unscorable/"

_DERIVED = ("unscorable",)
"""Statistics that are the sum of others; exported by their parts only."""

HIT_LEVELS = {
    "shortcut": "shortcuts",
    "memory": "memory_hits",
    "store": "store_hits",
    "deduplicated": "deduplicated",
    "live": "live",
}
"""Levels at which a pair may be answered, cheapest first, and the statistic of each."""


def families(judges: Iterable[Judge], now: float) -> Iterator[Metric]:
    """All metric families. `now` is on the clock of the judges' event loop, in seconds."""
    judges = list(judges)
    stats = {judge.name: judge.verifier.stats() for judge in judges if judge.verifier is not None}
    ready = GaugeMetricFamily(PREFIX + "judge_ready", "1 when the judge can be asked.", labels=["judge"])
    for judge in judges:
        ready.add_metric([judge.name], float(judge.state == "ready"))
    yield ready
    yield from _counted(stats)
    yield _others(stats)
    yield _unscorable(stats)
    yield _hit_ratios(stats)
    yield from _histograms(judges)
    yield from _endpoints(judges, now)


def _counted(stats: Mapping[str, Mapping[str, float]]) -> Iterator[Metric]:
    for key, described in DESCRIBED.items():
        kind = CounterMetricFamily if described.is_counter else GaugeMetricFamily
        family = kind(PREFIX + described.name, described.help, labels=["judge"])
        for judge, values in stats.items():
            if key in values:
                family.add_metric([judge], values[key])
        if family.samples:
            yield family


def _others(stats: Mapping[str, Mapping[str, float]]) -> Metric:
    text = "Statistics of the judge that have no metric of their own."
    family = GaugeMetricFamily(PREFIX + "statistic", text, labels=["judge", "statistic"])
    for judge, values in stats.items():
        for key, value in values.items():
            if key not in DESCRIBED and key not in _DERIVED and not key.startswith(_BY_REASON):
                family.add_metric([judge, key], value)
    return family


def _unscorable(stats: Mapping[str, Mapping[str, float]]) -> Metric:
    family = CounterMetricFamily(PREFIX + "unscorable", "Pairs without a verdict.", labels=["judge", "reason"])
    for judge, values in stats.items():
        for key, count in values.items():
            if key.startswith(_BY_REASON):
                family.add_metric([judge, key.removeprefix(_BY_REASON)], count)
    return family


def _hit_ratios(stats: Mapping[str, Mapping[str, float]]) -> Metric:
    text = "Share of the pairs answered at each level since the start; absent before the first pair."
    family = GaugeMetricFamily(PREFIX + "hit_ratio", text, labels=["judge", "level"])
    for judge, values in stats.items():
        for level, key in HIT_LEVELS.items():
            if values.get("requests"):
                family.add_metric([judge, level], values.get(key, 0.0) / values["requests"])
    return family


def _histograms(judges: Iterable[Judge]) -> Iterator[Metric]:
    """Distributions that a judge keeps: by name, bounds in seconds, cumulative counts, and the sum."""
    found: dict[str, HistogramMetricFamily] = {}
    for judge in judges:
        for key, (bounds, counts, total) in getattr(judge.verifier, "histograms", dict)().items():
            name = PREFIX + key.removesuffix("_seconds") + "_time_seconds"
            text = f"Distribution of {key}."
            family = found.setdefault(key, HistogramMetricFamily(name, text, labels=["judge"]))
            ends = [*(f"{bound:g}" for bound in bounds), "+Inf"]
            family.add_metric([judge.name], list(zip(ends, map(float, counts), strict=True)), total)
    yield from found.values()


def _endpoints(judges: Iterable[Judge], now: float) -> Iterator[Metric]:
    labels = ["judge", "endpoint"]
    in_flight = GaugeMetricFamily(PREFIX + "endpoint_in_flight", "Requests sent and not answered yet.", labels=labels)
    failures = GaugeMetricFamily(PREFIX + "endpoint_failures", "Failures since the last success.", labels=labels)
    state = GaugeMetricFamily(PREFIX + "endpoint_state", "1 for the state the server is in.", labels=[*labels, "state"])
    for judge in judges:
        for endpoint in getattr(judge.verifier, "endpoints", ()):
            where = [judge.name, public_url(endpoint.client.url)]
            in_flight.add_metric(where, endpoint.in_flight)
            failures.add_metric(where, endpoint.failures)
            state.add_metric([*where, endpoint_state(endpoint, now)], 1.0)
    yield from (in_flight, failures, state)


def endpoint_state(endpoint: Any, now: float) -> str:
    """One word on a server: its own `state`, or what can be told from its times."""
    own = getattr(endpoint, "state", None)
    if own is not None:
        state = own(now) if callable(own) else own
        return str(getattr(state, "value", state))
    if endpoint.closed_until > now:
        return "closed"
    return "resting" if endpoint.resting_until > now else "up"
