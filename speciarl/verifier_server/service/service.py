"""Service core: judges, runs, admission control and metrics, shared by all routes."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence

from fastapi import Request
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from speciarl.verdict import Judgement, Pair
from speciarl.verifier_server.pool.ray_runtime import ManagedPools
from speciarl.verifier_server.service.config import ServiceConfig
from speciarl.verifier_server.service.errors import ApiError
from speciarl.verifier_server.service.judges import BuildVerifier, Judge, Judges, OnFailure
from speciarl.verifier_server.service.metrics import OF_SERVICE, Metrics, judge_families, replica_restarts
from speciarl.verifier_server.service.requests import ClientGone, judge_pairs, while_connected
from speciarl.verifier_server.service.runs.log import VerdictLog
from speciarl.verifier_server.service.runs.registry import RunRegistry
from speciarl.verifier_server.service.runs.rows import make_row

RETRY_AFTER_S = 1.0


class Admission:
    """Admission control: bounds the pairs being judged over all requests. Bound to one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting = 0
        """Pairs being judged now."""
        self.refused = 0
        """Requests that were refused (HTTP 429)."""

    @contextlib.contextmanager
    def admit(self, pairs: int) -> Iterator[None]:
        """Admit the pairs of one request for a block; raises ApiError (429) when they would exceed the limit."""
        if self.waiting + pairs > self.limit:
            self.refused += 1
            raise ApiError(
                429,
                "overloaded",
                f"{self.waiting} pairs are being judged and {pairs} more would exceed waiting_pairs={self.limit}",
                retry_after_s=RETRY_AFTER_S,
            )
        self.waiting += pairs
        try:
            yield
        finally:
            self.waiting -= pairs


RETRY_STOPPING_S = 5.0


class Core:
    """Core of one service: everything but its routes."""

    def __init__(self, settings: ServiceConfig, build_verifier: BuildVerifier) -> None:
        self.settings = settings
        pools = ManagedPools(settings.judge_log_dir, settings.ray_address)
        self.judges = Judges(settings.judges, pools, build_verifier)
        self.log = VerdictLog(settings.verdict_log) if settings.verdict_log else None
        self.runs = RunRegistry(self.log, settings.limits.runs)
        self.admission = Admission(settings.limits.waiting_pairs)
        self.metrics = Metrics()
        self.metrics.add(lambda: own_families(self.admission, self.log))
        self.metrics.add(lambda: judge_families(self.judges.all()))
        self.metrics.add(lambda: [replica_restarts(pools.restarts())])
        self._starting: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self, on_failure: OnFailure) -> None:
        """Open the verdict log, which raises ConfigError, and start the judges in the background; `on_failure` is
        called for each that cannot start."""
        await asyncio.to_thread(self.runs.start)
        self._starting = asyncio.create_task(self.judges.start(on_failure))

    async def stop(self) -> None:
        """Shut down: close the judges and write the verdict log to its end."""
        self._stopping = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        await self.judges.aclose()
        if self.log is not None:
            await asyncio.to_thread(self.log.close, self.settings.stop_deadline_s)

    async def judge(
        self,
        request: Request,
        judge_name: str,
        pairs: Sequence[Pair],
        run: str | None,
        ids: Sequence[str | None] | None = None,
        extra_info: Sequence[str | None] | None = None,
        deadline_s: float | None = None,
    ) -> list[Judgement]:
        """Judge the pairs of one request, log and count them; raises ApiError and ClientGone."""
        request.state.pairs, request.state.judge, request.state.run = len(pairs), judge_name, run
        limits = self.settings.limits
        if len(pairs) > limits.pairs_per_request:
            message = f"{len(pairs)} pairs; the service takes {limits.pairs_per_request} in one request"
            raise ApiError(413, "too_many_pairs", message + " (limits.pairs_per_request)")
        judge, verifier = self.judges.get(judge_name)
        self.runs.admit(run)
        with self.admission.admit(len(pairs)):
            work = judge_pairs(verifier, pairs, limits.string_chars, judge.late, deadline_s)
            try:
                judgements = await while_connected(request, work)
            except ClientGone:
                self.metrics.client_gone()
                raise
        if self._stopping:  # pairs may be unscorable only because the judges were closed
            raise ApiError(503, "stopping", "the service is stopping", retry_after_s=RETRY_STOPPING_S)
        if run is not None:
            self._record(run, judge, pairs, judgements, ids, extra_info)
        return judgements

    def _record(
        self,
        run: str,
        judge: Judge,
        pairs: Sequence[Pair],
        judgements: Sequence[Judgement],
        ids: Sequence[str | None] | None,
        extra_info: Sequence[str | None] | None,
    ) -> None:
        nothing = [None] * len(pairs)
        columns = zip(pairs, judgements, ids or nothing, extra_info or nothing, strict=True)
        self.runs.record(run, [make_row(judge, *column) for column in columns])


def own_families(admission: Admission, log: VerdictLog | None) -> Iterable[Metric]:
    """Metric families of the admission control and of the verdict log."""
    yield GaugeMetricFamily(OF_SERVICE + "pairs_waiting", "Pairs being judged over all requests.", admission.waiting)
    yield GaugeMetricFamily(OF_SERVICE + "pairs_limit", "Most pairs that may be judged at once.", admission.limit)
    yield CounterMetricFamily(OF_SERVICE + "refused", "Requests turned away because of that limit.", admission.refused)
    if log is None:
        return
    yield GaugeMetricFamily(OF_SERVICE + "log_rows_waiting", "Rows of the verdict log in memory.", log.rows_waiting)
    yield CounterMetricFamily(OF_SERVICE + "log_rows", "Rows of the verdict log written.", log.rows_written)
    yield CounterMetricFamily(OF_SERVICE + "log_parts", "Files of the verdict log written.", log.parts_written)
    yield CounterMetricFamily(OF_SERVICE + "log_errors", "Files of the verdict log that failed once.", log.write_errors)
    yield CounterMetricFamily(OF_SERVICE + "log_refused", "Requests that the full verdict log refused.", log.refused)
