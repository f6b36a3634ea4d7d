"""Health watch: checks endpoints that failed, in the background, so that they return by themselves."""

import asyncio
import contextlib
import logging

from speciarl.utils.deadline import within
from speciarl.verifier_server.client.router import Endpoint, Router, State

CHECK_TIMEOUT_S = 2.0

_log = logging.getLogger(__name__)


class HealthWatch:
    """One task that asks every endpoint under suspicion, when the router says so."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._away: set[Endpoint] = set()

    def start(self) -> None:
        """Begin to watch."""
        self._router.listeners.append(self._changed.set)
        self._task = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Stop watching. Safe to call twice."""
        task, self._task = self._task, None
        if task is None:
            return
        self._router.listeners.remove(self._changed.set)
        task.cancel()
        await asyncio.wait({task})

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self._changed.clear()
            self._report()
            due = self._router.due(clock())
            if due:
                await asyncio.gather(*map(self._check, due))
                continue
            next_at = self._router.next_check_at()
            patience_s = None if next_at is None else max(next_at - clock(), 0.0)
            with contextlib.suppress(TimeoutError):
                await within(patience_s, self._changed.wait())

    async def _check(self, endpoint: Endpoint) -> None:
        failure = await endpoint.client.check_health(CHECK_TIMEOUT_S)
        if failure is not None and endpoint.status is not State.HEALTHY and failure.unscorable != endpoint.last_failure:
            _log.warning("judge endpoint stays ejected: %s", failure.unscorable.detail)
        self._router.checked(endpoint, asyncio.get_running_loop().time(), failure)

    def _report(self) -> None:
        """Log which endpoints were ejected and which returned since the last look."""
        away = {endpoint for endpoint in self._router.endpoints if endpoint.status is not State.HEALTHY}
        for endpoint in away - self._away:
            cause = endpoint.last_failure.detail if endpoint.last_failure else "no cause known"
            # A server that only asked for silence is doing its duty; where rates are limited that happens all the time.
            level = logging.INFO if endpoint.status is State.TRIAL else logging.WARNING
            _log.log(level, "judge endpoint ejected: %s", cause)
        for endpoint in self._away - away:
            _log.info("judge endpoint returned: %s", endpoint.client.url)
        self._away = away
