"""Health watch: checks endpoints that failed, in the background, so that they return without intervention."""

import asyncio
import contextlib
import logging

from speciarl.utils.deadline import within
from speciarl.verifier_server.client.router import Endpoint, Router, State

CHECK_TIMEOUT_S = 2.0

_log = logging.getLogger(__name__)


class HealthWatch:
    """Background task that runs the health checks which the router schedules."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unhealthy: set[Endpoint] = set()

    def start(self) -> None:
        """Start the task."""
        self._router.listeners.append(self._changed.set)
        self._task = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Cancel the task. Safe to call twice."""
        task, self._task = self._task, None
        if task is None:
            return
        self._router.listeners.remove(self._changed.set)
        task.cancel()
        await asyncio.wait({task})

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self._changed.clear()  # before the router is read: a change from here on ends the wait below
            self._report()
            due = self._router.due(clock())
            if due:
                await asyncio.gather(*map(self._check, due))
                continue
            next_at = self._router.next_check_at()
            timeout_s = None if next_at is None else max(next_at - clock(), 0.0)
            with contextlib.suppress(TimeoutError):
                await within(timeout_s, self._changed.wait())

    async def _check(self, endpoint: Endpoint) -> None:
        failure = await endpoint.client.check_health(CHECK_TIMEOUT_S)
        if failure is not None and endpoint.status is not State.HEALTHY and failure.unscorable != endpoint.last_failure:
            _log.warning("judge endpoint stays ejected: %s", failure.unscorable.detail)
        self._router.checked(endpoint, asyncio.get_running_loop().time(), failure)

    def _report(self) -> None:
        """Log which endpoints were ejected and which returned since the last report."""
        unhealthy = {endpoint for endpoint in self._router.endpoints if endpoint.status is not State.HEALTHY}
        for endpoint in unhealthy - self._unhealthy:
            cause = endpoint.last_failure.detail if endpoint.last_failure else "no cause known"
            # TRIAL: only Retry-After keeps it away, which is no fault, and frequent where rates are limited.
            level = logging.INFO if endpoint.status is State.TRIAL else logging.WARNING
            _log.log(level, "judge endpoint ejected: %s", cause)
        for endpoint in self._unhealthy - unhealthy:
            _log.info("judge endpoint returned: %s", endpoint.client.url)
        self._unhealthy = unhealthy
