"""How many pairs the service takes on at once."""

import contextlib
from collections.abc import Iterator

from speciarl.verifier_server.service.errors import ApiError

RETRY_AFTER_S = 1.0


class Admission:
    """Counts pairs being judged over all requests. Bound to one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting = 0
        """Pairs being judged now."""
        self.refused = 0
        """Requests that were told to come back."""

    @contextlib.contextmanager
    def admit(self, pairs: int) -> Iterator[None]:
        """Hold places for the pairs of one request; raises ApiError (429) when there are not enough."""
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
