"""Asking: many pairs, some at a time, until all have a judgement or the judge is out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from speciarl.verdict import Judgement, Pair, Reason, Unscorable

if TYPE_CHECKING:
    from speciarl.verifier_server.verifier import Verifier

_OUT = frozenset({Reason.TIMEOUT, Reason.CONNECTION, Reason.OVERLOADED, Reason.HTTP_ERROR, Reason.CANCELLED})
"""Reasons for which a judge that is out gives no verdict; the others are about the pair."""


class Asking:
    """Asks one judge. Bound to the event loop of its verifier.

    When `patience` judgements in a row fail in a way that an outage explains, the judge is taken to be out, and nothing
    more is asked: with every pair waiting for its deadline, a million would take days.
    """

    def __init__(self, verifier: Verifier, window: int, patience: int | None = None) -> None:
        """`window`: most pairs asked for at a time. `patience`: as many as the window where None."""
        self._verifier = verifier
        self._window = window
        self._patience = patience or window
        self._failures = 0
        self._outage: Unscorable | None = None

    async def ask(self, pairs: Iterable[Pair], on_judgement: Callable[[Pair, Judgement], None]) -> None:
        """Call `on_judgement` for each pair, in any order, with its judgement; Unscorable for those not asked."""
        waiting = iter(pairs)

        async def work() -> None:
            for pair in waiting:  # all workers share the iterator
                judgement = self._outage or await self._verifier.verify(pair)
                on_judgement(pair, judgement)
                self._watch(judgement)

        async with asyncio.TaskGroup() as workers:
            for _ in range(self._window):
                workers.create_task(work())

    def _watch(self, judgement: Judgement) -> None:
        failed = isinstance(judgement, Unscorable) and judgement.reason in _OUT
        self._failures = self._failures + 1 if failed else 0
        if isinstance(judgement, Unscorable) and self._failures == self._patience:
            self._outage = Unscorable(
                judgement.reason,
                f"not asked, as {self._patience} pairs before had no verdict, the last: {judgement.detail}",
            )
