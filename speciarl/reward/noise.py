"""Verdict noise: moves verdicts at random, to see what a less reliable judge does to training (paper, ablation)."""

import hashlib
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, Field

from speciarl.category import Category
from speciarl.reward.member import Member
from speciarl.verdict import Verdict

LADDER = (Category.WRONG, Category.ABSTAIN, Category.GENERIC, Category.LESS_SPECIFIC, Category.SPECIFIC)
"""The rungs that a verdict moves on. MORE_SPECIFIC stands on the rung of SPECIFIC."""


@dataclass(frozen=True, slots=True)
class RolloutIdentity:
    """What names a rollout when a run is repeated or resumed. veRL's uids do not: they are random."""

    image: str
    """Data source and sample."""
    step: int
    """Global step of the trainer."""
    session: int
    """Number of the rollout in its group, from 0."""


class Noise(BaseModel):
    """Moves verdicts by one rung, with a chance drawn from the rollout's identity alone.

    So it depends neither on the number of workers nor on the order in which verdicts come, and a larger probability
    moves the same rollouts and more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    probability: float = Field(default=0.0, ge=0, le=1)
    """Of a verdict to move one rung up or down its ladder; from an end, in the one direction there is. 0: no noise."""
    seed: int = 42
    """Another one moves other rollouts."""

    def apply(self, member: Member, identity: RolloutIdentity) -> Member:
        """What the reward sees of a member. Unparsable and unscorable ones pass unchanged.

        A moved verdict has neither margin nor probabilities: the judge's were about another category.
        """
        if not isinstance(member, Verdict) or not self.probability:
            return member
        chance, upwards = self._draw(identity)
        if chance >= self.probability:
            return member
        return replace(member, category=moved(member.category, upwards), margin=None, probabilities=None)

    def _draw(self, identity: RolloutIdentity) -> tuple[float, bool]:
        """A number in [0, 1) and a direction."""
        key = "\0".join(map(str, (self.seed, identity.image, identity.step, identity.session)))
        digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"verdict-noise").digest()
        return int.from_bytes(digest[:7], "big") / 2**56, bool(digest[7] & 1)


def moved(category: Category, upwards: bool) -> Category:
    """The neighbouring rung; from the lowest and the highest rung there is only one."""
    rung = LADDER.index(min(category, Category.SPECIFIC))
    if rung == 0:
        return LADDER[1]
    if rung == len(LADDER) - 1:
        return LADDER[rung - 1]
    return LADDER[rung + 1 if upwards else rung - 1]
