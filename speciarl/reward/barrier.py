"""Reward barrier: where the rollouts of one prompt wait until the last verdict is in and all rewards are computed."""

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
    """A rollout has no verdict, so no trajectory of it may be stored."""


class GroupUnderQuorum(SpeciaRLError):
    """A group has fewer scored rollouts than its quorum, so none of its rewards is used."""


@dataclass(frozen=True, slots=True)
class GroupOutcome:
    """The result of a finished group: its rewards and what they were computed from."""

    rewards: tuple[float | None, ...]
    """One per rollout, in session order; None for a rollout that failed or could not be scored."""
    reference: Category | None
    """The paper's c*, whatever reward is in use: the lowest category that earns in the dynamic reward with `support` 1;
    None when nothing was scored. With verdict noise: computed from the noisy verdicts, which are what the reward
    sees."""
    scored: int
    """Rollouts with a verdict or an unparsable answer."""

    @property
    def has_signal(self) -> bool:
        """Whether at least two rewards differ, so that the group moves the policy."""
        return len({reward for reward in self.rewards if reward is not None}) > 1


def score_group(reward: GroupReward, members: Sequence[Member | None]) -> GroupOutcome:
    """The outcome of a whole group, in session order; None for a rollout that ended before it could be judged.

    Raises ValueError unless the reward returns one finite number, or None, per member; and what the reward itself
    raises.
    """
    present = [(index, member) for index, member in enumerate(members) if member is not None]
    earned = _checked(reward([member for _, member in present]), len(present))
    rewards: list[float | None] = [None] * len(members)
    for (index, member), value in zip(present, earned, strict=True):
        # Whatever a custom reward says: no verdict, no reward.
        rewards[index] = None if isinstance(member, Unscorable) else value
    judged = [member for _, member in present]
    scored = sum(isinstance(member, Verdict | Unparsable) for member in judged)
    return GroupOutcome(tuple(rewards), reference_level(judged), scored)


class RewardBarrier:
    """Barrier over the n rollouts (sessions) of one prompt.

    Each session arrives with its judgement or ends without one; the last to do so computes the group's outcome.
    Stragglers, which have done neither at the group's deadline, are cancelled and count as failed, so no session waits
    for ever for a sibling that hangs.
    """

    def __init__(self, size: int, reward: GroupReward) -> None:
        if size < 1:
            raise ValueError(f"a group needs at least one rollout, got {size}")
        self._reward = reward
        self._members: list[Member | None] = [None] * size
        self._pending = set(range(size))
        self._cancel: dict[int, Callable[[], object]] = {}
        self._outcome: asyncio.Future[GroupOutcome] = asyncio.get_running_loop().create_future()

    def register(self, session: int, cancel: Callable[[], object]) -> None:
        """Register the function that cancels a session at the deadline; a later call for the session replaces it."""
        self._cancel[session] = cancel

    def arrive(self, session: int, member: Member) -> None:
        """Record a session's judgement, or that its answer is unparsable."""
        self._members[session] = member
        self._complete(session)

    def deregister(self, session: int) -> None:
        """Record that a session has ended. If it has not arrived, it counts as failed; else nothing changes."""
        self._complete(session)

    def expire(self) -> None:
        """Cancel the stragglers: every session that has neither arrived nor ended. They count as failed."""
        for session in sorted(self._pending):
            cancel = self._cancel.get(session)
            # Not left to the end of the cancelled session, which may hang in its clean-up as well.
            self._complete(session)
            if cancel is not None:
                cancel()

    async def outcome(self) -> GroupOutcome:
        """The group's outcome, once every session has arrived or ended; raises what a custom reward raised."""
        # Shielded, since all siblings await one future: cancelling one session must not cancel it for the others.
        return await asyncio.shield(self._outcome)

    @property
    def done(self) -> bool:
        """Whether the outcome is known; False for good if the reward raised an error."""
        return self._outcome.done() and self._outcome.exception() is None

    def _complete(self, session: int) -> None:
        """Strike a session off the pending ones; the last one computes the outcome, which never changes again."""
        self._pending.discard(session)
        if self._pending or self._outcome.done():
            return
        try:
            self._outcome.set_result(score_group(self._reward, self._members))
        except Exception as error:  # noqa: BLE001  (a user's reward: its error is every waiting session's)
            self._outcome.set_exception(error)
            self._outcome.exception()  # retrieved here, or asyncio complains where no session is left to await it


def _checked(rewards: Sequence[float | None], size: int) -> Sequence[float | None]:
    """The rewards as returned; raises ValueError unless they are one finite number, or None, per member."""
    if len(rewards) != size:
        raise ValueError(f"the reward returned {len(rewards)} values for {size} rollouts")
    odd = [reward for reward in rewards if reward is not None and not math.isfinite(reward)]
    if odd:
        raise ValueError(f"the reward returned {odd[0]}, which is no finite number")
    return rewards
