"""When a replica is restarted: a pure rule, with times handed in."""

import enum

from speciarl.verifier_server.config import PoolConfig

LONGEST_BACKOFF_S = 60.0


class Condition(str, enum.Enum):
    """What is seen of a replica from outside."""

    HEALTHY = "healthy"
    """Its health check succeeds."""
    SILENT = "silent"
    """It runs, and its health check fails: it is loading, or stuck."""
    DEAD = "dead"
    """Its process ended."""


class Order(str, enum.Enum):
    """What to do about it."""

    NOTHING = "nothing"
    RESTART = "restart"
    GIVE_UP = "give_up"
    """It was restarted too often. Said once; nothing is done about it any more."""


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
