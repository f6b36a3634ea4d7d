"""Reward barrier: the rollouts of one prompt wait here until the last verdict makes all rewards final."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from speciarl.category import Category
from speciarl.errors import SpeciaRLError
from speciarl.reward import GroupReward, Member, Unparsable
from speciarl.reward.dynamic import reference_level
from speciarl.verdict import Unscorable, Verdict


class RolloutUnscorable(SpeciaRLError):
    """This rollout has no verdict, so it must leave no trajectory."""


class GroupUnderQuorum(SpeciaRLError):
    """Too few rollouts of the group were scored for its rewards to mean anything."""


@dataclass(frozen=True, slots=True)
class GroupOutcome:
    """What a finished group knows."""

    rewards: tuple[float | None, ...]
    """One per rollout, in session order; None for a rollout that failed or could not be scored."""
    reference: Category | None
    """The level that the group reached, from which on a rollout earns in the dynamic reward; None when nothing was
    scored. With verdict noise: of the verdicts that the reward saw."""
    scored: int
    """Rollouts with a verdict or an unparsable answer."""

    @property
    def has_signal(self) -> bool:
        """Whether at least two rewards differ, so that the group moves the policy."""
        return len({reward for reward in self.rewards if reward is not None}) > 1


class RewardGroup:
    """A barrier over the n rollouts of one prompt.

    Every session either arrives with what the verifier said or fails; the last one to do so sets the outcome.
    Sessions that have done neither when the group expires are cancelled and counted as failed, so nobody waits
    for ever for a sibling that hangs.
    """

    def __init__(self, size: int, reward: GroupReward) -> None:
        if size < 1:
            raise ValueError(f"a group needs at least one rollout, got {size}")
        self._reward = reward
        self._members: list[Member | None] = [None] * size
        self._waiting = set(range(size))
        self._cancel: dict[int, Callable[[], object]] = {}
        self._outcome: asyncio.Future[GroupOutcome] = asyncio.get_running_loop().create_future()

    def join(self, session: int, cancel: Callable[[], object]) -> None:
        """Register a session with the function that cancels it; before it can arrive or fail, and again when something
        else is to be cancelled in its place."""
        self._cancel[session] = cancel

    def arrive(self, session: int, member: Member) -> None:
        """The session's answer was judged, or found unparsable or unscorable."""
        self._members[session] = member
        self._settle(session)

    def fail(self, session: int) -> None:
        """The session ended, arrived or not: nobody waits for it any more."""
        self._settle(session)

    def expire(self) -> None:
        """Give up on every session that has neither arrived nor failed, and cancel it."""
        for session in sorted(self._waiting):
            cancel = self._cancel.get(session)
            self._settle(session)
            if cancel is not None:
                cancel()

    async def outcome(self) -> GroupOutcome:
        """The group's rewards, once every session has arrived or failed."""
        return await asyncio.shield(self._outcome)

    @property
    def done(self) -> bool:
        """Whether the outcome is known; never, if the reward raised an error."""
        return self._outcome.done() and self._outcome.exception() is None

    def _settle(self, session: int) -> None:
        self._waiting.discard(session)
        if self._waiting or self._outcome.done():
            return
        present = [(index, member) for index, member in enumerate(self._members) if member is not None]
        try:
            earned = _checked(self._reward([member for _, member in present]), len(present))
        except Exception as error:  # noqa: BLE001  (a user's reward: its error is every waiting session's)
            self._outcome.set_exception(error)
            self._outcome.exception()  # mark as seen: there may be nobody left to await it
            return
        rewards: list[float | None] = [None] * len(self._members)
        for (index, member), reward in zip(present, earned, strict=True):
            rewards[index] = None if isinstance(member, Unscorable) else reward
        members = [member for _, member in present]
        scored = sum(isinstance(member, Verdict | Unparsable) for member in members)
        self._outcome.set_result(GroupOutcome(tuple(rewards), reference_level(members), scored))


def _checked(rewards: Sequence[float | None], size: int) -> Sequence[float | None]:
    """What a reward returned, if it is one number, or None, per member; raises ValueError else."""
    if len(rewards) != size:
        raise ValueError(f"the reward returned {len(rewards)} values for {size} rollouts")
    odd = [reward for reward in rewards if reward is not None and not math.isfinite(reward)]
    if odd:
        raise ValueError(f"the reward returned {odd[0]}, which is no finite number")
    return rewards
