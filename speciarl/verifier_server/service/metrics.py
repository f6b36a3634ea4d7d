"""What the service counts of its own work, and the page that shows everything."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from speciarl.verifier_server.service.admission import Admission
from speciarl.verifier_server.service.verdict_log import VerdictLog

PREFIX = "speciarl_service_"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_PAIRS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Metrics:
    """The service's own metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            PREFIX + "request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route", "status"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._pairs = Histogram(
            PREFIX + "request_pairs", "Pairs in one request.", ["route"], buckets=_PAIRS, registry=self.registry
        )
        self._gone = Counter(
            PREFIX + "clients_gone", "Requests whose client went away before the answer.", registry=self.registry
        )

    def add(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Show what `collect` gives, anew on every page."""
        self.registry.register(_Collector(collect))

    def request(self, route: str, status: int, seconds: float, pairs: int | None) -> None:
        """A request was answered; `pairs` None for routes that judge nothing."""
        self._seconds.labels(route, str(status)).observe(seconds)
        if pairs is not None:
            self._pairs.labels(route).observe(pairs)

    def client_gone(self) -> None:
        """A client went away before its answer."""
        self._gone.inc()

    def page(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)


class _Collector(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> Iterable[Metric]:
        """Nothing: what is collected is known only later."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """What there is now."""
        return self._collect()


def own_families(admission: Admission, log: VerdictLog | None) -> Iterable[Metric]:
    """State of the service's queue and of its verdict log."""
    yield GaugeMetricFamily(PREFIX + "pairs_waiting", "Pairs being judged over all requests.", admission.waiting)
    yield GaugeMetricFamily(PREFIX + "pairs_limit", "Most pairs that may be judged at once.", admission.limit)
    yield CounterMetricFamily(PREFIX + "refused", "Requests turned away because of that limit.", admission.refused)
    if log is None:
        return
    yield GaugeMetricFamily(PREFIX + "log_rows_waiting", "Rows of the verdict log in memory.", log.rows_waiting)
    yield CounterMetricFamily(PREFIX + "log_rows", "Rows of the verdict log written.", log.rows_written)
    yield CounterMetricFamily(PREFIX + "log_parts", "Files of the verdict log written.", log.parts_written)
    yield CounterMetricFamily(PREFIX + "log_errors", "Files of the verdict log that failed once.", log.write_errors)
    yield CounterMetricFamily(PREFIX + "log_refused", "Requests that the full verdict log refused.", log.refused)
