"""A reward of one's own: a pure function on the judged rollouts of one image. See docs/rewards.md.

    PYTHONPATH=examples/own_reward python -m verl.trainer.main_ppo '+recipe=[speciarl,laptop]' \
        speciarl.reward.name=own_reward:rewards +speciarl.reward.params.abstaining=0.2
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from speciarl.category import Category
from speciarl.reward import Member, Unparsable
from speciarl.verdict import Verdict


def rewards(members: Sequence[Member], *, abstaining: Annotated[float, Field(ge=0, lt=1)] = 0.1) -> list[float | None]:
    """Share of the group's scored rollouts that an answer is at least as good as; an honest "I don't know" earns
    `abstaining`, a wrong answer nothing.

    One value per member, in their order: a number, or None for a member without a verdict.
    """
    scored = [member.category for member in members if isinstance(member, Verdict)]

    def reward(member: Member) -> float | None:
        if isinstance(member, Unparsable):
            return -1.0
        if not isinstance(member, Verdict):
            return None  # a judge's failure is nobody's fault and nobody's reward
        if member.category <= Category.ABSTAIN:
            return abstaining if member.category is Category.ABSTAIN else 0.0
        return sum(member.category >= other for other in scored) / len(scored)

    return [reward(member) for member in members]
