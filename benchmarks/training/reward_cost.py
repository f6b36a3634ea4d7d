"""What the reward itself costs, judging apart: a million rollouts in groups of ten.

python benchmarks/training/reward_cost.py --rollouts 1000000
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from speciarl import reward
from speciarl.category import Category
from speciarl.reward import Member, Unparsable
from speciarl.reward.barrier import RewardBarrier
from speciarl.training.reward_info import reward_extra_info
from speciarl.verdict import Source, Verdict

GROUP = 10
REPEATS = 3


def groups(rollouts: int) -> list[list[Member]]:
    """Random groups, one rollout in 50 without an answer; seeded."""
    chance = random.Random(0)
    members: list[Member] = [Verdict(category, 1.0, Source.LIVE) for category in Category]
    return [
        [Unparsable() if chance.random() < 0.02 else chance.choice(members) for _ in range(GROUP)]
        for _ in range(rollouts // GROUP)
    ]


def pure(several: Sequence[Sequence[Member]], name: str) -> None:
    """Only the function from verdicts to rewards."""
    function = reward.load(name)
    for members in several:
        function(members)


async def whole(several: Sequence[Sequence[Member]], name: str) -> None:
    """With the barrier that a prompt's rollouts meet at, and the record that travels with each."""
    function = reward.load(name)
    for members in several:
        barrier = RewardBarrier(len(members), function)
        for session, member in enumerate(members):
            barrier.register(session, lambda: None)
            barrier.arrive(session, member)
        outcome = await barrier.outcome()
        for session, member in enumerate(members):
            earned = outcome.rewards[session] or 0.0
            reward_extra_info(
                member, "golden retriever", outcome, "pets", {"sample_id": "1"}, seen=member, group_reward=earned
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=1_000_000)
    parser.add_argument("--reward", default="dynamic")
    options = parser.parse_args()
    several = groups(options.rollouts)
    table = Table(title=f"{options.rollouts:,} rollouts in groups of {GROUP}, one core")
    for column in ("part", "seconds", "per rollout"):
        table.add_column(column, justify="right")
    for title, work in (
        (f"reward function ({options.reward})", lambda: pure(several, options.reward)),
        ("and barrier and records", lambda: asyncio.run(whole(several, options.reward))),
    ):
        seconds = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
        median = statistics.median(seconds)
        table.add_row(title, f"{median:.2f}", f"{median / options.rollouts * 1e6:.2f} us")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
