"""The barrier over one prompt's rollouts: nobody is stranded, whatever siblings do."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.reward import Member, Unparsable
from speciarl.reward.barrier import RewardBarrier
from speciarl.reward.dynamic import rewards
from speciarl.verdict import Reason, Source, Unscorable, Verdict

PATIENCE_S = 5.0
SPECIFIC = Verdict(Category.SPECIFIC, None, Source.LIVE)
GENERIC = Verdict(Category.GENERIC, None, Source.LIVE)
LOST = Unscorable(Reason.TIMEOUT)


async def play(group: RewardBarrier, events: Sequence[tuple[int, Member | None]]) -> list[float | None]:
    waiters = [asyncio.create_task(group.outcome()) for _ in events]
    for session, member in events:
        await asyncio.sleep(0)
        if member is None:
            group.deregister(session)
        else:
            group.arrive(session, member)
    outcomes = await asyncio.wait_for(asyncio.gather(*waiters), PATIENCE_S)
    assert all(outcome == outcomes[0] for outcome in outcomes)
    return list(outcomes[0].rewards)


def test_failed_sibling_does_not_strand_the_rest() -> None:
    async def run() -> None:
        earned = await play(RewardBarrier(3, rewards), [(2, GENERIC), (0, None), (1, SPECIFIC)])
        assert earned == [None, 1.0, 0.0]

    asyncio.run(run())


def test_unscorable_member_has_no_reward_and_no_vote() -> None:
    async def run() -> None:
        group = RewardBarrier(3, rewards)
        assert await play(group, [(0, LOST), (1, GENERIC), (2, Unparsable())]) == [None, 1.0, -1.0]
        assert (await group.outcome()).scored == 2
        assert (await group.outcome()).reference is Category.GENERIC

    asyncio.run(run())


def test_expiry_cancels_the_hanging_and_rewards_the_rest() -> None:
    async def run() -> None:
        group, cancelled = RewardBarrier(3, rewards), []
        for session in range(3):
            group.register(session, lambda session=session: cancelled.append(session))
        group.arrive(1, SPECIFIC)
        group.deregister(2)
        waiter = asyncio.create_task(group.outcome())
        await asyncio.sleep(0)
        assert not waiter.done()
        group.expire()
        outcome = await asyncio.wait_for(waiter, PATIENCE_S)
        assert outcome.rewards == (None, 1.0, None)
        assert cancelled == [0]
        group.arrive(0, SPECIFIC)  # too late: the outcome stands
        assert (await group.outcome()).rewards == (None, 1.0, None)

    asyncio.run(run())


def test_waiter_can_be_cancelled_without_harm() -> None:
    async def run() -> None:
        group = RewardBarrier(2, rewards)
        group.arrive(0, SPECIFIC)
        waiter = asyncio.create_task(group.outcome())
        await asyncio.sleep(0)
        waiter.cancel()
        group.arrive(1, GENERIC)
        assert (await asyncio.wait_for(group.outcome(), PATIENCE_S)).rewards == (1.0, 0.0)

    asyncio.run(run())


def test_error_of_a_custom_reward_reaches_every_waiter() -> None:
    def broken(members: Sequence[Member]) -> list[float | None]:
        raise ZeroDivisionError("custom reward")

    async def run() -> None:
        group = RewardBarrier(1, broken)
        group.arrive(0, SPECIFIC)
        with pytest.raises(ZeroDivisionError, match="custom reward"):
            await group.outcome()

    asyncio.run(run())


@pytest.mark.parametrize("returned", [[], [1.0, 1.0], [float("nan")], [float("inf")], ["x"]])
def test_what_is_not_one_number_per_rollout_is_every_waiters_error(returned: list[Any]) -> None:
    async def run() -> None:
        group = RewardBarrier(1, lambda members: returned)
        group.arrive(0, SPECIFIC)
        with pytest.raises((ValueError, TypeError)):
            await asyncio.wait_for(group.outcome(), PATIENCE_S)

    asyncio.run(run())


def test_the_end_of_a_session_takes_nothing_from_what_it_brought() -> None:
    async def run() -> None:
        group = RewardBarrier(2, rewards)
        group.arrive(0, SPECIFIC)
        group.deregister(0)
        group.deregister(1)
        assert (await group.outcome()).rewards == (1.0, None)

    asyncio.run(run())


members = st.one_of(
    st.none(),
    st.just(LOST),
    st.just(Unparsable()),
    st.builds(Verdict, st.sampled_from(Category), st.none(), st.just(Source.LIVE)),
)


@settings(deadline=None)
@given(st.lists(members, min_size=1, max_size=10), st.randoms(use_true_random=False))
def test_any_arrival_order_gives_the_rewards_of_the_pure_function(group: list[Member | None], random: object) -> None:
    events = list(enumerate(group))
    random.shuffle(events)  # type: ignore[attr-defined]
    present = [member for member in group if member is not None]
    expected = iter(rewards(present))

    async def run() -> list[float | None]:
        return await play(RewardBarrier(len(group), rewards), events)

    earned = asyncio.run(run())
    assert earned == [None if member is None else next(expected) for member in group]
