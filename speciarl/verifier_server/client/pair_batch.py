"""Pair batcher: asks about pairs that wait at the same time in one request; an unreadable reply costs only its pair."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from speciarl.utils.batching import Batcher, Query
from speciarl.utils.deadline import within
from speciarl.verdict import Judgement, Pair, Reason, Unscorable

Ask = Callable[[Sequence[Pair]], Awaitable[Sequence[Judgement]]]
"""Sends one request about several pairs: one judgement for each, in their order. Raises only CancelledError."""

_SPLIT_ON = frozenset({Reason.MALFORMED, Reason.OFF_LABEL, Reason.HTTP_ERROR})
"""Failures that another pair of the request may have caused. Those of the server itself, such as an overload, were
retried by then, and more requests would make them worse."""

_GRACE_S = 0.1
"""Seconds from the deadline of the first request to that of its batch: the request's message is more specific."""

_Batch = Sequence[Query[Pair, Judgement]]


class PairBatcher:
    """Gathers pairs into requests. Pairs left without a verdict are asked about again in requests of half the size,
    down to single pairs. Bound to the event loop in which it is used."""

    def __init__(self, ask: Ask, size: int, gather_s: float, deadline_s: float) -> None:
        """`size`: most pairs in a request. In seconds, `gather_s`: longest wait for other pairs; `deadline_s`: for one
        pair in all."""
        self._ask = ask
        self._deadline_s = deadline_s
        closed = Unscorable(Reason.CANCELLED, "the verifier was closed")
        self._batcher: Batcher[Pair, Judgement] = Batcher(self._judge, size, gather_s, closed)

    async def judge(self, pair: Pair) -> Judgement:
        """The judgement of one pair, within the deadline. Raises only CancelledError."""
        return await self._batcher.ask(pair)

    async def aclose(self) -> None:
        """Cancel all requests; pairs still waiting become Unscorable(cancelled)."""
        await self._batcher.aclose()

    async def _judge(self, batch: _Batch) -> None:
        last: dict[Pair, Unscorable] = {}
        try:
            await within(self._deadline_s + _GRACE_S, self._judge_in_parts(batch, last))
        except TimeoutError:
            for asked in batch:
                before = f"; last: {last[asked.question].detail}" if asked.question in last else ""
                asked.reply(Unscorable(Reason.TIMEOUT, f"no verdict within {self._deadline_s:g} s{before}"))

    async def _judge_in_parts(self, batch: _Batch, last: dict[Pair, Unscorable]) -> None:
        pending = [asked for asked in batch if asked.pending]  # the callers of the others were cancelled
        if not pending:
            return
        judgements = await self._ask([asked.question for asked in pending])
        again = []
        for asked, judgement in zip(pending, judgements, strict=True):
            if isinstance(judgement, Unscorable) and judgement.reason in _SPLIT_ON and len(pending) > 1:
                last[asked.question] = judgement
                again.append(asked)
            else:
                asked.reply(judgement)
        half = max(len(pending) // 2, 1)
        parts = [again[at : at + half] for at in range(0, len(again), half)]
        await asyncio.gather(*(self._judge_in_parts(part, last) for part in parts))
