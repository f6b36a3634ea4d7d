"""Pairs that share requests: who is asked about with whom, how often, and for how long."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.client.pair_batch import PairBatcher

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: Any) -> Any:
    """No sockets here."""
    return virtual_time


GOOD = Verdict(Category.GENERIC, None, Source.LIVE)
BAD = Unscorable(Reason.MALFORMED, "no sense")


class FakeAsk:
    """Stands for the judge. Pairs whose prediction starts with `bad` are never readable; one with `poison` in it spoils
    the whole request, also when it is alone."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.requests: list[list[str]] = []
        self.delay_s = delay_s

    async def __call__(self, pairs: Sequence[Pair]) -> Sequence[Judgement]:
        self.requests.append([pair.prediction for pair in pairs])
        await asyncio.sleep(self.delay_s)
        if any("poison" in pair.prediction for pair in pairs):
            return [Unscorable(Reason.HTTP_ERROR, "replied HTTP 400")] * len(pairs)
        return [BAD if pair.prediction.startswith("bad") else GOOD for pair in pairs]


def clock() -> float:
    return asyncio.get_running_loop().time()


async def judged(batcher: PairBatcher, predictions: Sequence[str]) -> list[Judgement]:
    return list(await asyncio.gather(*(batcher.judge(Pair("lion", prediction)) for prediction in predictions)))


async def test_pairs_of_the_same_moment_share_requests() -> None:
    ask = FakeAsk()
    batcher = PairBatcher(ask, 4, 0.02, 5.0)
    judgements = await judged(batcher, [str(number) for number in range(10)])
    assert judgements == [GOOD] * 10
    assert [len(request) for request in ask.requests] == [4, 4, 2]


async def test_a_full_request_does_not_wait_and_a_lonely_pair_waits_no_longer_than_said() -> None:
    ask = FakeAsk()
    await judged(PairBatcher(ask, 2, 30.0, 5.0), ["a", "b"])
    assert clock() == 0
    await judged(PairBatcher(ask, 2, 0.05, 5.0), ["c"])
    assert clock() == pytest.approx(0.05)


names = st.lists(st.sampled_from(["good", "bad", "poison"]), min_size=1, max_size=24)


@given(kinds=names, size=st.integers(2, 9))
def test_one_bad_pair_never_fails_the_others(kinds: list[str], size: int) -> None:
    predictions = [f"{kind} {index}" for index, kind in enumerate(kinds)]
    ask = FakeAsk()

    async def run() -> list[Judgement]:
        return await judged(PairBatcher(ask, size, 0.0, 5.0), predictions)

    for kind, judgement in zip(kinds, asyncio.run(run()), strict=True):
        reasons = {"bad": Reason.MALFORMED, "poison": Reason.HTTP_ERROR}
        assert judgement == GOOD if kind == "good" else judgement.reason is reasons[kind]  # type: ignore[union-attr]
    assert all(1 <= len(request) <= size for request in ask.requests)
    # Ever smaller company: no pair is asked about more often than halving takes, and the failing ones at last alone.
    times = [sum(prediction in request for request in ask.requests) for prediction in predictions]
    assert max(times) <= size.bit_length() + 1
    for kind, prediction in zip(kinds, predictions, strict=True):
        if kind != "good":
            assert [prediction] in ask.requests


async def test_an_overloaded_server_is_not_asked_again() -> None:
    requests = []

    async def busy(pairs: Sequence[Pair]) -> Sequence[Judgement]:
        requests.append(len(pairs))
        return [Unscorable(Reason.OVERLOADED, "busy")] * len(pairs)

    judgements = await judged(PairBatcher(busy, 8, 0.0, 5.0), [str(number) for number in range(8)])
    assert judgements == [Unscorable(Reason.OVERLOADED, "busy")] * 8
    assert requests == [8]


async def test_the_deadline_covers_all_requests_and_spares_what_is_settled() -> None:
    ask = FakeAsk(delay_s=0.2)
    judgements = await judged(PairBatcher(ask, 4, 0.0, 0.3), ["good", "bad 1", "bad 2", "bad 3"])
    assert clock() == pytest.approx(0.4)  # its own message comes a little after that of the request
    assert judgements[0] == GOOD
    for judgement in judgements[1:]:
        assert judgement == Unscorable(Reason.TIMEOUT, "no verdict within 0.3 s; last: no sense")


async def test_those_who_went_away_are_not_asked_about_again() -> None:
    ask = FakeAsk(delay_s=0.05)
    batcher = PairBatcher(ask, 3, 0.0, 5.0)
    tasks = [asyncio.create_task(batcher.judge(Pair("lion", name))) for name in ("bad 1", "bad 2", "good")]
    await asyncio.sleep(0.02)
    tasks[0].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [BAD, GOOD]
    assert sum("bad 1" in request for request in ask.requests[1:]) == 0


async def test_closing_releases_everybody() -> None:
    ask = FakeAsk(delay_s=60)
    batcher = PairBatcher(ask, 2, 60.0, 60.0)
    tasks = [asyncio.create_task(batcher.judge(Pair("lion", name))) for name in ("a", "b", "c")]
    await asyncio.sleep(0.02)
    await batcher.aclose()
    assert clock() < 1
    assert await asyncio.gather(*tasks) == [Unscorable(Reason.CANCELLED, "the verifier was closed")] * 3
    await batcher.aclose()


async def test_an_error_of_ours_is_everybodys_error() -> None:
    async def broken(_: Sequence[Pair]) -> Sequence[Judgement]:
        raise RuntimeError("a bug")

    outcomes = await asyncio.gather(*(PairBatcher(broken, 2, 0.0, 5.0).judge(Pair("a", "b")),), return_exceptions=True)
    assert str(outcomes[0]) == "a bug"
