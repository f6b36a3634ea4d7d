"""Which endpoint the next request goes to. No clock and no network of its own: times are handed in."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from speciarl.verifier_server.client import Client, Failure

FIRST_REST_S = 1.0
LONGEST_REST_S = 30.0


@dataclass(eq=False)
class Endpoint:
    """One server and what we know of its state. Times are seconds on the caller's clock."""

    client: Client
    in_flight: int = 0
    """Requests sent and not answered yet."""
    failures: int = 0
    """Failures since the last success."""
    resting_until: float = 0.0
    """Until then other endpoints are preferred."""
    closed_until: float = 0.0
    """Until then the server asked not to be called (Retry-After)."""
    last_used: int = 0
    """Position in the order of use, so that equal endpoints take turns."""


class Router:
    """Least-loaded choice that keeps off endpoints which just failed.

    Without the rest a dead endpoint, which fails at once and so never has load, would attract every request.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._uses = 0

    def pick(self, now: float, avoid: Collection[Endpoint] = ()) -> Endpoint:
        """The endpoint to use next, one outside `avoid` when there is one. It may be closed still: see
        `wait_s`."""
        candidates = [endpoint for endpoint in self.endpoints if endpoint not in avoid] or self.endpoints

        def rank(endpoint: Endpoint) -> tuple[float, bool, int, int]:
            closed_for = max(endpoint.closed_until - now, 0.0)
            return closed_for, endpoint.resting_until > now, endpoint.in_flight, endpoint.last_used

        return min(candidates, key=rank)

    def wait_s(self, endpoint: Endpoint, now: float) -> float:
        """Seconds until the endpoint accepts calls again."""
        return max(endpoint.closed_until - now, 0.0)

    def begin(self, endpoint: Endpoint) -> None:
        """A request is being sent."""
        self._uses += 1
        endpoint.last_used = self._uses
        endpoint.in_flight += 1

    def end(self, endpoint: Endpoint, now: float, failure: Failure | None) -> None:
        """The request came back. A final refusal (bad request) says nothing about the endpoint's health."""
        endpoint.in_flight -= 1
        if failure is None or not failure.passing:
            endpoint.failures = 0
            endpoint.resting_until = 0.0
            return
        endpoint.failures += 1
        rest_s = min(FIRST_REST_S * 2 ** (endpoint.failures - 1), LONGEST_REST_S)
        endpoint.resting_until = now + rest_s
        if failure.retry_after_s is not None:
            endpoint.closed_until = max(endpoint.closed_until, now + failure.retry_after_s)
