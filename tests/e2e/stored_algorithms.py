"""What tells the algorithms apart, asserted of a run of any kind by what it stored of every trajectory and logged."""

import statistics
from typing import Any

import pytest
from laptop_run import IMAGES, ROLLOUTS, STEPS, LaptopRun

from speciarl.category import Category
from speciarl.evaluation.replay import log, rewards
from speciarl.evaluation.replay.check import against_log
from speciarl.evaluation.replay.replay import replay
from speciarl.reward import GroupReward, Member, Unparsable, load
from speciarl.reward.noise import LADDER, Noise, RolloutIdentity
from speciarl.training.agent_loop.seeding import prompt_uid
from speciarl.verdict import Source, Verdict

SEED = 42
"""The recipe's, of prompts' names and of verdict noise."""
PROMPTS = 1000
"""More than any step of a test fetches."""


def groups(run: LaptopRun, steps: int = STEPS) -> list[list[dict[str, Any]]]:
    """Of all steps; every one whole."""
    assert sorted(run.metrics) == list(range(1, steps + 1))
    found = [rows for step in run.metrics for rows in run.groups(step).values()]
    assert [len(rows) for rows in found] == [ROLLOUTS] * IMAGES * steps
    for rows in found:
        assert len({row["sample_id"] for row in rows}) == 1
    return found


def advantages(rows: list[dict[str, Any]], by_deviation: bool) -> list[float]:
    """Of one group's scores."""
    scores = [row["score"] for row in rows]
    scale = statistics.stdev(scores) + 1e-6 if by_deviation else 1.0
    return [(score - statistics.mean(scores)) / scale for score in scores]


def assert_advantages(run: LaptopRun, by_deviation: bool, steps: int = STEPS) -> None:
    """As computed, and not as the other way of scaling would have it."""
    differing = 0
    for rows in groups(run, steps):
        stored = [row["advantage"] for row in rows]
        assert stored == pytest.approx(advantages(rows, by_deviation), abs=1e-4)
        differing += stored != pytest.approx(advantages(rows, not by_deviation), abs=1e-2)
    assert differing


def penalty(tokens: int, limit: int) -> float:
    """DAPO's, for a quarter of the limit as buffer."""
    buffer = limit / 4
    return -max(0.0, tokens - (limit - buffer)) / buffer


def assert_long_answers_pay(run: LaptopRun, limit: int, values: frozenset[float] = frozenset({-1, 0, 1})) -> None:
    """On top of the group's reward, whose possible values are given. Some have to be long, and some not."""
    assert run.metrics
    rows = [row for step in run.metrics for row in run.trajectories(step)]
    for row in rows:
        assert row["overlong_penalty"] == pytest.approx(penalty(row["response_tokens"], limit))
        assert row["score"] == pytest.approx(row["group_reward"] + row["overlong_penalty"], abs=1e-6)
    assert {row["group_reward"] for row in rows} <= values
    assert min(row["overlong_penalty"] for row in rows) < 0
    assert max(row["overlong_penalty"] for row in rows) == 0
    for step, metrics in run.metrics.items():
        paid = statistics.mean(row["overlong_penalty"] for row in run.trajectories(step))
        assert metrics["speciarl/overlong_penalty"] == pytest.approx(paid)


def assert_groups_without_a_signal_are_replaced(run: LaptopRun) -> None:
    """There are as many groups as without filtering, all have a signal, and in each step some were thrown away."""
    assert run.metrics
    for step, metrics in run.metrics.items():
        kept = run.groups(step)
        assert len(kept) == IMAGES
        for rows in kept.values():
            assert len({row["group_reward"] for row in rows}) > 1
        assert metrics["training/filter_groups/evicted_samples"] > 0


def assert_filtering_looks_before_the_penalty(unfiltered: LaptopRun, filtered: LaptopRun, limit: int) -> None:
    """Both runs begin with the same prompts and the same answers to them: what the first stored tells which groups the
    second, whose reward is `binary`, had to throw away."""
    signal, told_apart = {}, {}
    for prompt, rows in unfiltered.groups(1).items():
        earned = load("binary")([_member(row["category"]) for row in rows])
        signal[prompt] = len(set(earned)) > 1
        scores = {
            mine + penalty(row["response_tokens"], limit)
            for mine, row in zip(earned, rows, strict=True)
            if mine is not None
        }
        told_apart[prompt] = len(scores) > 1
    by_penalty_alone = {prompt for prompt in signal if told_apart[prompt] and not signal[prompt]}
    assert by_penalty_alone
    assert not by_penalty_alone & set(filtered.groups(1))
    evicted = filtered.metrics[1]["training/filter_groups/evicted_samples"]
    assert evicted >= sum(not has_signal for has_signal in signal.values())


def assert_noise_reaches_the_reward_and_not_the_record(run: LaptopRun, probability: float, earn: GroupReward) -> None:
    """Which verdicts are moved, and where to, follows from the rollouts' names alone; what they earn, from `earn`."""
    noise, moved, total = Noise(probability=probability, seed=SEED), 0, 0
    assert run.metrics
    for step, metrics in run.metrics.items():
        for uid, rows in run.groups(step).items():
            seen = []
            for row in rows:
                assert row["score"] == pytest.approx(row["group_reward"] + row["overlong_penalty"], abs=1e-6)
                if row["category"] == "unparsable":
                    assert row["group_reward"] == -1
                    continue
                true = Category[row["category"].upper()]
                identity = RolloutIdentity(
                    f"{row['data_source']}/{row['sample_id']}", _fetched_in(uid, step), int(row["uid"].split("_")[1])
                )
                expected = noise.apply(Verdict(true, None, Source.TAXONOMY), identity)
                assert isinstance(expected, Verdict)
                assert row["seen_category"] == expected.category.name.lower()
                if expected.category is not true:
                    moved += 1
                    assert abs(LADDER.index(expected.category) - LADDER.index(min(true, Category.SPECIFIC))) == 1
                seen.append((expected, row["group_reward"]))
            assert [earned for _, earned in seen] == pytest.approx(earn([verdict for verdict, _ in seen]))
        rows = run.trajectories(step)
        total += len(rows)
        wrong = sum(row["category"] == "wrong" for row in rows) / len(rows)
        assert metrics["speciarl/rate/wrong"] == pytest.approx(wrong)  # of true verdicts
        changed = sum(row["category"] != row["seen_category"] for row in rows) / len(rows)
        assert metrics["speciarl/noise_rate"] == pytest.approx(changed)
    assert 2 <= moved <= total / 2


def assert_a_replay_equals_what_was_logged(run: LaptopRun, reward: str, by_deviation: bool = True) -> None:
    """`speciarl replay` tells reward, noise and penalties from the dump alone, and has the trainer's advantages."""
    rollouts, _ = log.read(run.folder / "rollouts")
    rows = [row for step in run.metrics for row in run.trajectories(step)]
    found = against_log(rollouts)
    assert (found.compared, found.equal, found.first_difference) == (len(rows), len(rows), None)
    assert {kind.reward.name for kind in rollouts.logged.settings} == {reward.partition("(")[0]}
    summary = replay(rollouts, rewards.parse(reward), log="").rewards[reward]
    assert summary.mean == pytest.approx(statistics.mean(row["group_reward"] for row in rows))
    spread = summary.grpo if by_deviation else summary.dr_grpo
    assert spread.mean_abs == pytest.approx(statistics.mean(abs(row["advantage"]) for row in rows), abs=1e-4)


def _member(category: str) -> Member:
    return Unparsable() if category == "unparsable" else Verdict(Category[category.upper()], None, Source.TAXONOMY)


def _fetched_in(uid: str, stored_in: int) -> int:
    """The step in which a prompt was drawn, which in asynchronous modes may be an earlier one than learnt from it."""
    steps = range(stored_in, -1, -1)
    return next(step for step in steps if uid in {prompt_uid(SEED, step, ordinal) for ordinal in range(PROMPTS)})
