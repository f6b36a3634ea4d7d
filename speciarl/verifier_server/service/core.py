"""Everything the routes work with, and what every judging route does."""

import asyncio
from collections.abc import Sequence

from fastapi import Request

from speciarl.verdict import Judgement, Pair
from speciarl.verifier_server.managed_pools import ManagedPools
from speciarl.verifier_server.service import judge_metrics
from speciarl.verifier_server.service.admission import Admission
from speciarl.verifier_server.service.errors import ApiError
from speciarl.verifier_server.service.judges import BuildVerifier, Judge, Judges, OnFailure
from speciarl.verifier_server.service.judging import ClientGone, judge_pairs, while_connected
from speciarl.verifier_server.service.log_rows import make_row
from speciarl.verifier_server.service.metrics import Metrics, own_families
from speciarl.verifier_server.service.run_registry import RunRegistry
from speciarl.verifier_server.service.settings import ServiceConfig
from speciarl.verifier_server.service.verdict_log import VerdictLog

RETRY_STOPPING_S = 5.0


class Core:
    """One service without its HTTP."""

    def __init__(self, settings: ServiceConfig, build_verifier: BuildVerifier) -> None:
        self.settings = settings
        pools = ManagedPools(settings.judge_log_dir, settings.ray_address)
        self.judges = Judges(settings.judges, pools, build_verifier)
        self.log = VerdictLog(settings.verdict_log) if settings.verdict_log else None
        self.runs = RunRegistry(self.log, settings.limits.runs)
        self.admission = Admission(settings.limits.waiting_pairs)
        self.metrics = Metrics()
        self.metrics.add(lambda: own_families(self.admission, self.log))
        self.metrics.add(lambda: judge_metrics.families(self.judges.all()))
        self.metrics.add(lambda: [judge_metrics.replica_restarts(pools.restarts())])
        self._starting: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self, on_failure: OnFailure) -> None:
        """Open the verdict log, which raises ConfigError, and begin to start the judges; `on_failure` hears of
        each that cannot."""
        await asyncio.to_thread(self.runs.start)
        self._starting = asyncio.create_task(self.judges.start(on_failure))

    async def stop(self) -> None:
        """Close the judges and write the verdict log to its end."""
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
        """Judge the pairs of one request, count and log them; raises ApiError and ClientGone."""
        request.state.pairs, request.state.judge, request.state.run = len(pairs), judge_name, run
        limits = self.settings.limits
        if len(pairs) > limits.pairs_per_request:
            message = f"{len(pairs)} pairs; the service takes {limits.pairs_per_request} in one request"
            raise ApiError(413, "too_many_pairs", message + " (limits.pairs_per_request)")
        judge, verifier = self.judges.get(judge_name)
        self.runs.admit(run)
        with self.admission.admit(len(pairs)):
            work = judge_pairs(verifier, pairs, limits.string_chars, deadline_s)
            try:
                judgements = await while_connected(request, work)
            except ClientGone:
                self.metrics.client_gone()
                raise
        if self._stopping:
            raise ApiError(503, "stopping", "the service is stopping", retry_after_s=RETRY_STOPPING_S)
        if run is not None:
            self._note(run, judge, pairs, judgements, ids, extra_info)
        return judgements

    def _note(
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
        self.runs.note(run, [make_row(judge, *column) for column in columns])
