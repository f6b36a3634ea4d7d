"""When a request that hangs gets a second copy. Pure: durations are handed in.

One hung connection would otherwise cost a whole `request_timeout_s`. The first copy is left to run, since the judge
may only be slow, and copies are rationed, so that a judge which slows down under load does not get more of it.
"""

from collections import deque

COPIES = 3
"""Requests in flight for one pair at most, the first included."""
_TIMES_P95 = 3.0
_WINDOW = 256
_FEWEST = 20
_BURST = 8.0
"""Copies that may be sent before the share counts."""


class Hedging:
    """How long to wait for a reply before a copy is sent, and whether one more copy may be."""

    def __init__(self, share: float, floor_s: float) -> None:
        """`share`: copies per request in the long run, 0 for none. `floor_s`: never copy earlier than this."""
        self._share = share
        self._floor_s = floor_s
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._stale = 0
        self._patience_s: float | None = None
        self._ration = _BURST if share > 0 else 0.0

    @property
    def patience_s(self) -> float | None:
        """Seconds after which a request is oddly late; None while too few replies are known, or for no copies."""
        return self._patience_s

    def replied(self, seconds: float) -> None:
        """A good reply took this long."""
        if self._share <= 0:
            return
        self._recent.append(seconds)
        self._ration = min(self._ration + self._share, _BURST)
        self._stale += 1
        if self._stale >= _FEWEST:
            self._stale = 0
            ordered = sorted(self._recent)
            self._patience_s = max(_TIMES_P95 * ordered[int(0.95 * len(ordered))], self._floor_s)

    def allow(self) -> bool:
        """Take one copy from the ration; False when it is used up."""
        if self._ration < 1.0:
            return False
        self._ration -= 1.0
        return True
