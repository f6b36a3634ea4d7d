"""What every verifier offers, whatever judges behind it."""

from typing import Protocol

from speciarl.verdict import Judgement, Pair


class Verifier(Protocol):
    """Judges pairs. Bound to the event loop in which it was started."""

    async def start(self) -> None:
        """Open connections and check that the judge works; raises VerifierStartError when it does not."""

    @property
    def gives_probabilities(self) -> bool:
        """Whether every verdict of a judge has probabilities, or is certain because no model is asked; known after
        `start`."""

    async def verify(self, pair: Pair) -> Judgement:
        """Judge one pair, in bounded time. Trouble with the judge ends in Unscorable and never raises."""

    def stats(self) -> dict[str, float]:
        """Counters and seconds since the start; the same keys at all times."""

    async def aclose(self) -> None:
        """Release everything; pairs still waiting become Unscorable(cancelled). Safe to call twice."""
