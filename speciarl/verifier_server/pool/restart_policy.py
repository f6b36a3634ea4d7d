"""Restart policy: restarts the dead replicas of a pool, from a thread that ends with the pool."""

import enum
import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from speciarl.verifier_server.config import PoolConfig

LONGEST_BACKOFF_S = 60.0


class Condition(enum.StrEnum):
    """What is seen of a replica from outside."""

    HEALTHY = "healthy"
    """Its health check succeeds."""
    SILENT = "silent"
    """It runs, and its health check fails: it is loading, or stuck."""
    DEAD = "dead"
    """Its process ended."""


class Order(enum.StrEnum):
    """What to do about it."""

    NOTHING = "nothing"
    RESTART = "restart"
    GIVE_UP = "give_up"
    """It was restarted too often. Said once; nothing is done about it any more."""


class StartPatience:
    """How long servers may take: a time for the download, and one from then on."""

    def __init__(self, deadline_s: float, download_deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._download_deadline_s = download_deadline_s
        self._since: float | None = None
        self._downloads = False

    def late(self, downloading: bool, now: float) -> str | None:
        """What was not done in time, if time is up; called from the start on, again and again."""
        if self._since is None or (self._downloads and not downloading):
            self._since, self._downloads = now, downloading
        if downloading and now - self._since >= self._download_deadline_s:
            return (
                f"had not downloaded its model within {self._download_deadline_s:g} s "
                "(`pool.download_deadline_s`; what it has is kept for the next start)"
            )
        if not downloading and now - self._since >= self._deadline_s:
            return f"was not ready within {self._deadline_s:g} s (`pool.startup_deadline_s`)"
        return None


class RestartRule:
    """Restarts of one replica: `max_restarts` within a window, each with a longer pause before it."""

    def __init__(self, pool: PoolConfig) -> None:
        self._pool = pool
        self._restarts: list[float] = []
        self._restart_at: float | None = None
        self._silent_since: float | None = None
        self._loading = False
        self.given_up = False
        self.total = 0
        """Restarts since the start."""

    def observe(self, now: float, condition: Condition) -> Order:
        """The order that follows from one look at the replica. A RESTART counts as done."""
        if self.given_up:
            return Order.NOTHING
        if condition is Condition.HEALTHY:
            self._silent_since = self._restart_at = None
            self._loading = False
            return Order.NOTHING
        if condition is Condition.SILENT:
            if self._silent_since is None:
                self._silent_since = now
            pool = self._pool
            patience_s = pool.startup_deadline_s if self._loading else pool.unhealthy_deadline_s
            if now - self._silent_since < patience_s:
                return Order.NOTHING
        return self._bury(now)

    def _bury(self, now: float) -> Order:
        self._restarts = [moment for moment in self._restarts if now - moment < self._pool.restart_window_s]
        if self._restart_at is None:
            if len(self._restarts) >= self._pool.max_restarts:
                self.given_up = True
                return Order.GIVE_UP
            pause_s = self._pool.restart_backoff_s * 2.0 ** min(len(self._restarts), 20)
            self._restart_at = now + min(pause_s, LONGEST_BACKOFF_S)
        if now < self._restart_at:
            return Order.NOTHING
        self._restarts.append(now)
        self.total += 1
        self._restart_at = None
        self._silent_since, self._loading = now, True
        return Order.RESTART


LOOK_EVERY_S = 1.0

_log = logging.getLogger(__name__)


class Supervised(Protocol):
    """A replica as the supervisor sees it. Methods return in bounded time and raise nothing for a dead replica."""

    label: str
    """What logs call it."""

    def condition(self) -> Condition:
        """What is seen of it now."""

    def cause(self) -> str:
        """Why it is dead or silent, in one line; empty when nothing is known."""

    def restart(self) -> str | None:
        """Start it again at the same address; what went wrong, in one line, if that could not even be begun."""


class Supervisor:
    """Looks after the replicas until it is stopped."""

    def __init__(self, replicas: Sequence[Supervised], pool: PoolConfig, look_every_s: float = LOOK_EVERY_S) -> None:
        self._watched = [(replica, RestartRule(pool)) for replica in replicas]
        self._max_restarts = pool.max_restarts
        self._look_every_s = look_every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="judge-supervisor", daemon=True)

    @property
    def restarts(self) -> list[int]:
        """Restarts of each replica since the start."""
        return [rule.total for _, rule in self._watched]

    @property
    def given_up(self) -> list[bool]:
        """Which replicas will not be restarted any more."""
        return [rule.given_up for _, rule in self._watched]

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """No restart begins after this; waits up to `deadline_s` for one that is being begun. Safe to call twice."""
        self._stopping.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(deadline_s)

    def _run(self) -> None:
        while not self._stopping.wait(self._look_every_s):
            for replica, rule in self._watched:
                if self._stopping.is_set():
                    return
                self._look_at(replica, rule)

    def _look_at(self, replica: Supervised, rule: RestartRule) -> None:
        condition = replica.condition()
        order = rule.observe(time.monotonic(), condition)
        if order is Order.NOTHING or self._stopping.is_set():
            return
        said = replica.cause()
        because = f" ({said})" if said else ""
        if order is Order.GIVE_UP:
            _log.error(
                "%s is %s%s after %d restarts and is given up; correct `pool`, or raise `max_restarts`",
                replica.label, condition, because, self._max_restarts,
            )  # fmt: skip
            return
        _log.warning("%s is %s%s; restart number %d", replica.label, condition, because, rule.total)
        problem = replica.restart()
        if problem:
            _log.warning("%s could not be restarted: %s", replica.label, problem)
