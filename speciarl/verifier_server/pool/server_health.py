"""Server health: what is seen of a vLLM server from outside, and how long that may last."""

import enum

from speciarl.verifier_server.config import PoolConfig


class Condition(enum.StrEnum):
    """What is seen of a server from outside."""

    HEALTHY = "healthy"
    """Its health check succeeds."""
    SILENT = "silent"
    """It runs, and its health check fails: it is loading, or stuck."""
    DEAD = "dead"
    """Its process ended."""


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


class LivenessCheck:
    """Verdict on a server that is looked at again and again: as long as it loads it may be silent for longer."""

    def __init__(self, pool: PoolConfig, loading: bool) -> None:
        """`loading`: whether the server was started just now, not seen healthy yet."""
        self._pool = pool
        self._loading = loading
        self._silent_since: float | None = None

    def failed(self, now: float, condition: Condition) -> bool:
        """Whether the server must be given up for a new one: it is dead, or silent for too long."""
        if condition is Condition.HEALTHY:
            self._silent_since, self._loading = None, False
            return False
        if condition is Condition.DEAD:
            return True
        if self._silent_since is None:
            self._silent_since = now
        patience_s = self._pool.startup_deadline_s if self._loading else self._pool.unhealthy_deadline_s
        return now - self._silent_since >= patience_s
