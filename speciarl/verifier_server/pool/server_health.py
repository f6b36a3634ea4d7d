"""Server health: the condition of a vLLM server as seen from outside, and how long it may be unhealthy."""

import enum

from speciarl.verifier_server.config import PoolConfig


class Condition(enum.StrEnum):
    """Condition of a server, as seen from outside."""

    HEALTHY = "healthy"
    """Its health check succeeds."""
    SILENT = "silent"
    """It runs, and its health check fails: it is loading, or stuck."""
    DEAD = "dead"
    """Its process ended."""


class StartPatience:
    """Deadlines of starting servers: one for the download, and one from its end on."""

    def __init__(self, deadline_s: float, download_deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._download_deadline_s = download_deadline_s
        self._since: float | None = None
        self._downloads = False

    def late(self, downloading: bool, now: float) -> str | None:
        """The deadline that was missed, in words; None if none was. Called repeatedly, from the start on."""
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


class LivenessCheck:
    """Liveness check of a server over repeated observations: while it loads it may be silent for longer."""

    def __init__(self, pool: PoolConfig, loading: bool) -> None:
        """`loading`: whether the server was just started and has not been healthy yet."""
        self._pool = pool
        self._loading = loading
        self._silent_since: float | None = None

    def failed(self, now: float, condition: Condition) -> bool:
        """Whether the server must be restarted: it is dead, or was silent for too long."""
        if condition is Condition.HEALTHY:
            self._silent_since, self._loading = None, False
            return False
        if condition is Condition.DEAD:
            return True
        if self._silent_since is None:
            self._silent_since = now
        deadline_s = self._pool.startup_deadline_s if self._loading else self._pool.unhealthy_deadline_s
        return now - self._silent_since >= deadline_s
