"""Replays of the trainer's rollout dump, which is written here by the trainer's own code."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_logs import LOST, members, write_dump

from speciarl import reward
from speciarl.category import Category
from speciarl.errors import ConfigError, DataError
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.replay import log, rewards
from speciarl.evaluation.replay.check import against_log
from speciarl.evaluation.replay.members import chosen_noise, noisy
from speciarl.evaluation.replay.replay import Replay, replay
from speciarl.reward import Member, Unparsable
from speciarl.reward.barrier import score_group
from speciarl.reward.noise import Noise, RolloutIdentity
from speciarl.verdict import Source, Verdict

OTHERS = ("dynamic(support=2)", "dynamic_single", "binary", "graded_1", "margin_aware")
FEW = settings(max_examples=25)


@st.composite
def spreads(draw: st.DrawFn) -> Verdict:
    """A verdict with margin and probabilities, as a judge that reads label tokens gives it."""
    weights = np.array(draw(st.lists(st.integers(1, 1000), min_size=6, max_size=6)), dtype=float)
    likely = Category(int(weights.argmax()))
    return Verdict(likely, float(draw(st.integers(0, 50)) / 7), Source.LIVE, tuple((weights / weights.sum()).tolist()))


PLAIN = st.sampled_from([*members("waglsmu."), Verdict(Category.WRONG, None, Source.SHORTCUT)])
GROUPS = st.lists(st.lists(PLAIN, min_size=4, max_size=4), min_size=1, max_size=4)
SPREAD_GROUPS = st.lists(st.lists(PLAIN | spreads(), min_size=4, max_size=4), min_size=1, max_size=4)


def by_hand(groups: Sequence[Sequence[Member]], name: str, params: dict[str, Any], quorum: int = 2) -> list[float]:
    """Rewards of all groups, one after the other."""
    outcomes = [score_group(reward.load(name, params), group) for group in groups]
    return [one for outcome in outcomes if outcome.scored >= quorum for one in outcome.rewards if one is not None]


def of(folder: Path, spelled: str = "dynamic", **settings: Any) -> Replay:
    rollouts, _ = log.read(folder)
    return replay(rollouts, rewards.parse(spelled), log="log", **settings)


@FEW
@given(GROUPS, st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from(sorted(reward.NAMES)), st.sampled_from([0.0, -0.3]))
def test_it_equals_what_the_run_logged(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[Member]], probability: float, name: str, penalty: float
) -> None:
    config = {"name": name, "noise": {"probability": probability, "seed": 7}}
    folder = write_dump(tmp_path_factory.mktemp("log"), [groups, groups], config, penalty)
    if not any((folder / f"{step}.jsonl").read_text() for step in (1, 2)):
        return
    rollouts, _ = log.read(folder)
    found = against_log(rollouts)
    assert (found.compared, found.equal, found.first_difference) == (len(rollouts), len(rollouts), None)


@FEW
@given(SPREAD_GROUPS, st.sampled_from(OTHERS))
def test_another_reward_earns_what_training_would(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[Member]], other: str
) -> None:
    groups = [*groups, members("ggsl")]
    folder = write_dump(tmp_path_factory.mktemp("log"), [groups])
    name, _, params = other.rstrip(")").partition("(")
    expected = by_hand(groups, name, {"support": 2} if params else {})
    assert of(folder, other).rewards[other].mean == pytest.approx(np.mean(expected))


def test_probabilities_and_margins_reach_the_reward(tmp_path: Path) -> None:
    doubtful = Verdict(Category.GENERIC, 0.5, Source.STORE, (0.0, 0.1, 0.5, 0.3, 0.1, 0.0))
    folder = write_dump(tmp_path / "log", [[[doubtful, *members("wu")]]], {"name": "margin_aware"})
    rollouts, _ = log.read(folder)
    assert against_log(rollouts).equal == 3
    met: list[Member] = []
    spy = rewards.NamedReward(
        "spy", lambda group: met.extend(group) or [0.0] * len(group), labels_only=False, any_order=False
    )
    rewards.compute(rollouts, rollouts.outcome, spy)
    assert met == [doubtful, Verdict(Category.WRONG, None, Source.LIVE), Unparsable()]


@FEW
@given(
    st.lists(PLAIN, min_size=1, max_size=8), st.randoms(use_true_random=False), st.sampled_from(sorted(reward.NAMES))
)
def test_rewards_that_are_computed_once_for_any_order_do_not_depend_on_it(
    group: list[Member], chance: Random, name: str
) -> None:
    (wanted,) = rewards.parse(name)
    order = chance.sample(range(len(group)), len(group))
    first = wanted.function(group)
    if wanted.any_order:
        assert wanted.function([group[place] for place in order]) == [first[place] for place in order]
    else:
        assert name in ("dynamic_single", "margin_aware")


@FEW
@given(GROUPS, st.floats(0, 1), st.integers(0, 9))
def test_noise_is_drawn_as_in_training(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[Member]], probability: float, seed: int
) -> None:
    groups = [*groups, members("gg.l")]
    noise = Noise(probability=probability, seed=seed)
    rollouts, _ = log.read(write_dump(tmp_path_factory.mktemp("log"), [groups]))
    expected = []
    for number, group in enumerate(groups):
        if sum(one is not LOST for one in group) < 2:
            continue
        moved = [noise.apply(one, RolloutIdentity(f"pets/train/{number}", 1, at)) for at, one in enumerate(group)]
        expected += [
            int(one.category) if isinstance(one, Verdict) else int(Outcome.UNPARSABLE)
            for one in moved
            if one is not LOST
        ]
    assert noisy(rollouts, noise).tolist() == expected


def test_a_run_without_noise_and_with_it_differ_in_noise_alone(tmp_path: Path) -> None:
    groups = [members("wgls"), members("glss")] * 4
    config = {"noise": {"probability": 0.5, "seed": 3}}
    clear, moved = write_dump(tmp_path / "clear", [groups]), write_dump(tmp_path / "moved", [groups], config)
    assert of(moved).moved > 0
    assert of(moved).rewards == of(clear, noise=Noise(probability=0.5, seed=3)).rewards
    assert of(moved, noise=Noise()).rewards == of(clear).rewards
    assert of(moved).rewards != of(clear).rewards
    assert chosen_noise(log.read(moved)[0], 0.1, None) == Noise(probability=0.1, seed=3)
    assert chosen_noise(log.read(moved)[0], None, 4) == Noise(probability=0.5, seed=4)


def test_groups_are_split_in_order_of_sessions_and_the_lost_leave_gaps(tmp_path: Path) -> None:
    folder = write_dump(tmp_path / "log", [[members("gs.lwww"), members("wwwgslg")]])
    found = of(folder, "dynamic_single", n=2)
    # gs | .l | ww and the seventh left out; the second pair is below its quorum: a pair needs both
    assert (found.groups, found.rollouts, found.rewards["dynamic_single"].groups) == (6, 12, 5)
    expected = by_hand([members(pair) for pair in ("gs", "ww", "ww", "wg", "sl")], "dynamic_single", {})
    assert found.rewards["dynamic_single"].mean == pytest.approx(np.mean(expected))
    assert found.rewards["dynamic_single"].rollouts == len(expected)
    assert found.outcomes["unscored"] == pytest.approx(1 / 12)
    with pytest.raises(ConfigError, match="--n 8: the groups of log have at most 7 rollouts"):
        of(folder, n=8)


def test_what_left_no_row_counts_as_unscored(tmp_path: Path) -> None:
    found = of(write_dump(tmp_path / "log", [[members("g..s"), members("w...")]]))
    assert (found.groups, found.rollouts) == (1, 4)  # of the second group, below its quorum, nothing is stored
    assert found.outcomes["unscored"] == 0.5
    assert "2 rollouts failed or got no verdict" in found.notes[0]
    assert "groups that left no row" in found.notes[1]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("group_reward", 0.5, "group_reward is .*0.5.*, replayed .*0.0"),
        ("seen_category", "wrong", "seen_category is wrong, replayed generic"),
        ("score", 0.9, "score is .*0.9"),
    ],
)
def test_a_row_that_is_not_what_training_would_have_is_named(
    tmp_path: Path, column: str, value: object, said: str
) -> None:
    folder = write_dump(tmp_path / "log", [[members("gs")], [members("sl"), members("gs")]])
    file = folder / "2.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[2][column] = value
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = against_log(log.read(folder)[0])
    assert found.compared == 6
    assert found.equal < 6
    assert found.first_difference is not None
    assert found.first_difference.startswith(f"{file}, row 3: ")
    assert re.search(said, found.first_difference)


def test_a_resumed_run_may_change_its_reward(tmp_path: Path) -> None:
    folder = write_dump(tmp_path / "log", [[members("gsl")]])
    later = write_dump(tmp_path / "later", [[], [members("gsl")]], {"name": "graded_1", "noise": {"probability": 1}})
    (later / "2.jsonl").rename(folder / "2.jsonl")
    rollouts, _ = log.read(folder)
    assert against_log(rollouts).equal == 6
    with pytest.raises(ConfigError, match="give --noise"):
        chosen_noise(rollouts, None, None)


def test_a_reward_of_the_run_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    folder = write_dump(tmp_path / "log", [[members("gs")]])
    file = folder / "1.jsonl"
    file.write_text(file.read_text().replace('\\"dynamic\\"', '\\"elsewhere:rewards\\"'))
    with pytest.raises(ConfigError, match=r"^the run's own reward elsewhere:rewards: .* or give --no-check$"):
        against_log(log.read(folder)[0])


def test_an_older_dump_is_replayed_and_not_checked(tmp_path: Path) -> None:
    folder = write_dump(tmp_path / "log", [[members("gs"), members("ww")]])
    file = folder / "1.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        del line["reward_settings"], line["sampled_step"], line["probabilities"]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rollouts, _ = log.read(folder)
    assert against_log(rollouts).compared == 0
    assert "not checked" in rollouts.notes[0]
    assert replay(rollouts, rewards.parse("dynamic"), log="").rewards["dynamic"].mean == 0.25


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"uid": "a_0_0", "cate', "is no whole rollout dump"),
        ('{"uid": "a_0_0"}', "row 3: no `category`"),
        ('{"uid": "a-0"}', "row 3: uid 'a-0' is not PROMPT_SESSION_INDEX"),
        ('{"category": "good"}', "row 3: `category` is 'good', not one of"),
    ],
)
def test_an_unfit_dump_is_named_in_one_line(tmp_path: Path, line: str, said: str) -> None:
    folder = write_dump(tmp_path / "log", [[members("gs")]])
    file = folder / "1.jsonl"
    whole = file.read_text()
    if "uid" not in line or "a-0" in line:
        line = json.dumps(json.loads(whole.splitlines()[0]) | json.loads(line))
    file.write_text(whole + line + "\n")
    with pytest.raises(DataError) as caught:
        log.read(folder)
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_one_step_is_a_log(tmp_path: Path) -> None:
    folder = write_dump(tmp_path / "log", [[members("gs")], [members("ww")]])
    assert len(log.read(folder / "2.jsonl")[0]) == 2
    with pytest.raises(DataError, match="does not exist"):
        log.read(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no verdicts; give a folder that"):
        log.read(tmp_path / "empty")
