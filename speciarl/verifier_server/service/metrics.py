"""Prometheus metrics of the service and of its judges."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple, Protocol, runtime_checkable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from speciarl.utils.credentials import public_url
from speciarl.verifier_server.client.router import EndpointStats
from speciarl.verifier_server.service.judges import Judge
from speciarl.verifier_server.stats import Snapshot, Stats

OF_JUDGES = "speciarl_verifier_"


class Described(NamedTuple):
    """Description of one exported statistic."""

    name: str
    """Name of the metric, without the prefix and without `_total`."""
    is_counter: bool
    help: str


DESCRIBED: Mapping[str, Described] = {
    one.name: Described(one.metadata["exported_as"] or one.name, one.metadata["grows"], one.metadata["text"])
    for one in fields(Stats)
    if one.metadata
} | {
    "in_flight": Described("pairs_in_flight", False, "Distinct pairs being judged."),
    "waiting": Described("pairs_waiting", False, "Pairs in the local queue."),
}
"""Descriptions of the numbers in `Verifier.stats`, by name."""

_DISTRIBUTIONS: Mapping[str, str] = {
    "queue_seconds": "Waiting in the local queue, per attempt.",
    "judge_seconds": "From sending a request until its reply, per attempt.",
}

_BY_REASON = "unscorable/"

HIT_LEVELS = {
    "shortcut": "shortcuts",
    "memory": "memory_hits",
    "store": "store_hits",
    "deduplicated": "deduplicated",
    "live": "live",
}
"""Levels at which a pair may be answered, cheapest first, and the statistic that counts each."""


@runtime_checkable
class Monitored(Protocol):
    """Verifier that asks servers and has statistics of them. See `LLMVerifier`."""

    def histograms(self) -> Mapping[str, Snapshot]:
        """Distributions of seconds, by name."""

    def endpoint_stats(self) -> Sequence[EndpointStats]:
        """State and counters of each server."""


def judge_families(judges: Iterable[Judge]) -> Iterator[Metric]:
    """Metric families of all judges. To be called in the judges' event loop."""
    judges = list(judges)
    stats = {judge.name: judge.verifier.stats() for judge in judges if judge.verifier is not None}
    ready = GaugeMetricFamily(OF_JUDGES + "judge_ready", "1 when the judge can be asked.", labels=["judge"])
    for judge in judges:
        ready.add_metric([judge.name], float(judge.state == "ready"))
    yield ready
    yield from _counted(stats)
    yield _unscorable(stats)
    yield _hit_ratios(stats)
    yield from _histograms(judges)
    yield from _endpoints(judges)


def replica_restarts(restarts: Mapping[str, Sequence[int]]) -> Metric:
    """Metric of the restarts of each replica that we manage, by judge; no sample while there is none."""
    text = "Restarts of a replica that was dead or stuck."
    family = CounterMetricFamily(OF_JUDGES + "replica_restarts", text, labels=["judge", "replica"])
    for judge, counts in restarts.items():
        for index, count in enumerate(counts):
            family.add_metric([judge, str(index)], count)
    return family


def _counted(stats: Mapping[str, Mapping[str, float]]) -> Iterator[Metric]:
    for key, described in DESCRIBED.items():
        kind = CounterMetricFamily if described.is_counter else GaugeMetricFamily
        family = kind(OF_JUDGES + described.name, described.help, labels=["judge"])
        for judge, values in stats.items():
            if key in values:
                family.add_metric([judge], values[key])
        if family.samples:
            yield family


def _unscorable(stats: Mapping[str, Mapping[str, float]]) -> Metric:
    family = CounterMetricFamily(OF_JUDGES + "unscorable", "Pairs without a verdict.", labels=["judge", "reason"])
    for judge, values in stats.items():
        for key, count in values.items():
            if key.startswith(_BY_REASON):
                family.add_metric([judge, key.removeprefix(_BY_REASON)], count)
    return family


def _hit_ratios(stats: Mapping[str, Mapping[str, float]]) -> Metric:
    text = "Share of the pairs answered at each level since the start; absent before the first pair."
    family = GaugeMetricFamily(OF_JUDGES + "hit_ratio", text, labels=["judge", "level"])
    for judge, values in stats.items():
        for level, key in HIT_LEVELS.items():
            if values.get("requests"):
                family.add_metric([judge, level], values.get(key, 0.0) / values["requests"])
    return family


def _histograms(judges: Iterable[Judge]) -> Iterator[Metric]:
    for name, text in _DISTRIBUTIONS.items():
        family = HistogramMetricFamily(OF_JUDGES + name.replace("_seconds", "_time_seconds"), text, labels=["judge"])
        for judge in judges:
            if isinstance(judge.verifier, Monitored):
                bounds, counts, total = judge.verifier.histograms()[name]
                buckets = zip([*map(str, bounds), "+Inf"], counts, strict=True)
                family.add_metric([judge.name], [(bound, float(count)) for bound, count in buckets], total)
        if family.samples:
            yield family


def _endpoints(judges: Iterable[Judge]) -> Iterator[Metric]:
    labels = ["judge", "endpoint"]
    in_flight = GaugeMetricFamily(
        OF_JUDGES + "endpoint_in_flight", "Requests sent and not answered yet.", labels=labels
    )
    attempts = CounterMetricFamily(OF_JUDGES + "endpoint_attempts", "Requests sent.", labels=labels)
    failed = CounterMetricFamily(
        OF_JUDGES + "endpoint_failed", "Requests that failed for a transient reason.", labels=labels
    )
    state = GaugeMetricFamily(
        OF_JUDGES + "endpoint_state", "1 for the state the server is in.", labels=[*labels, "state"]
    )
    for judge in judges:
        endpoints: Sequence[EndpointStats] = ()
        if isinstance(judge.verifier, Monitored):
            endpoints = judge.verifier.endpoint_stats()
        for endpoint in endpoints:
            where = [judge.name, public_url(endpoint.url)]
            in_flight.add_metric(where, endpoint.in_flight)
            attempts.add_metric(where, endpoint.attempts)
            failed.add_metric(where, endpoint.failed)
            state.add_metric([*where, endpoint.state.value], 1.0)
    yield from (in_flight, attempts, failed, state)


OF_SERVICE = "speciarl_service_"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_PAIRS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Metrics:
    """Metrics of the service itself, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            OF_SERVICE + "request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route", "status"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._pairs = Histogram(
            OF_SERVICE + "request_pairs", "Pairs in one request.", ["route"], buckets=_PAIRS, registry=self.registry
        )
        self._gone = Counter(
            OF_SERVICE + "clients_gone",
            "Requests whose client went away before the answer.",
            registry=self.registry,
        )

    def add(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Register families that `collect` returns, called anew for every page."""
        self.registry.register(_Collector(collect))

    def request(self, route: str, status: int, seconds: float, pairs: int | None) -> None:
        """Observe an answered request; `pairs` is None for routes that judge nothing."""
        self._seconds.labels(route, str(status)).observe(seconds)
        if pairs is not None:
            self._pairs.labels(route).observe(pairs)

    def client_gone(self) -> None:
        """Count a client that went away before its answer."""
        self._gone.inc()

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Collector(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> Iterable[Metric]:
        """No families: they are known only when they are collected."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The families as they are now."""
        return self._collect()
