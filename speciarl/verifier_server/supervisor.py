"""Restarts the dead replicas of a pool, from a thread that ends with the pool."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from speciarl.verifier_server.config import PoolConfig
from speciarl.verifier_server.supervision import Condition, Order, RestartRule

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
