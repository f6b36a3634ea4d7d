"""Verdict noise: moves verdicts at random, to measure what a less reliable judge does to training (paper, ablation)."""

import hashlib
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, Field

from speciarl.category import Category
from speciarl.reward.member import Member
from speciarl.verdict import Verdict

LADDER = (Category.WRONG, Category.ABSTAIN, Category.GENERIC, Category.LESS_SPECIFIC, Category.SPECIFIC)
"""Categories in the order in which noise moves a verdict, one at a time. MORE_SPECIFIC moves as SPECIFIC does."""


@dataclass(frozen=True, slots=True)
class RolloutIdentity:
    """A rollout's name, the same when a run is repeated or resumed. veRL's uids are not: they are random."""

    image: str
    """Data source and sample id."""
    step: int
    """Global step of the trainer."""
    session: int
    """Number of the rollout in its group, from 0."""


class Noise(BaseModel):
    """Noise that moves a verdict by one rung with a probability, drawn from the rollout's identity alone.

    So it depends neither on the number of workers nor on the order in which verdicts come, and a larger probability
    moves the same rollouts and more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    probability: float = Field(default=0.0, ge=0, le=1)
    """Probability that a verdict moves one rung up or down `LADDER`; from an end, in the one direction there is. 0: no
    noise."""
    seed: int = 42
    """Seed of the draws; another one moves other rollouts."""

    def apply(self, member: Member, identity: RolloutIdentity) -> Member:
        """The member as the reward is to see it: moved or as it was. Unparsable and unscorable ones never change.

        A moved verdict has neither margin nor probabilities: the judge's were about another category.
        """
        if not isinstance(member, Verdict) or not self.probability:
            return member
        chance, upwards = self._draw(identity)
        if chance >= self.probability:
            return member
        return replace(member, category=moved(member.category, upwards), margin=None, probabilities=None)

    def _draw(self, identity: RolloutIdentity) -> tuple[float, bool]:
        """A number in [0, 1), and whether to move upwards."""
        key = f"{self.seed}\0{identity.image}\0{identity.step}\0{identity.session}"
        # A hash instead of a generator: no state, so no dependence on what was drawn before.
        digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"verdict-noise").digest()
        return int.from_bytes(digest[:7], "big") / 2**56, bool(digest[7] & 1)


def moved(category: Category, upwards: bool) -> Category:
    """The category one rung up or down; the lowest and the highest rung have one neighbour only, whatever `upwards`."""
    rung = LADDER.index(min(category, Category.SPECIFIC))
    if rung == 0:
        return LADDER[1]
    if rung == len(LADDER) - 1:
        return LADDER[rung - 1]
    return LADDER[rung + 1 if upwards else rung - 1]
