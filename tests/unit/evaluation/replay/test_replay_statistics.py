"""Statistics of rewards, against veRL's own function and against the plain definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_logs import members, write_dump
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

from speciarl.evaluation.replay import log, rewards
from speciarl.evaluation.replay.replay import replay
from speciarl.evaluation.replay.rollouts import Rollouts
from speciarl.evaluation.replay.statistics import advantages, agreements, summarise

SCORES = st.lists(st.lists(st.sampled_from([-1.0, 0.0, 0.25, 1.0]), min_size=1, max_size=6), min_size=1, max_size=6)


def starts(groups: list[list[float]]) -> np.ndarray:
    return np.cumsum([0, *map(len, groups)])[:-1]


@settings(max_examples=40)
@given(SCORES, st.booleans())
def test_advantages_are_verls(groups: list[list[float]], by_deviation: bool) -> None:
    flat = [score for group in groups for score in group]
    index = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    theirs, _ = compute_grpo_outcome_advantage(
        torch.tensor(flat, dtype=torch.float64)[:, None], torch.ones(len(flat), 1, dtype=torch.float64), index,
        norm_adv_by_std_in_grpo=by_deviation,
    )  # fmt: skip
    assert advantages(np.array(flat), starts(groups), by_deviation) == pytest.approx(theirs[:, 0].numpy(), abs=1e-6)


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> Rollouts:
    groups = [members("gsl"), members("www"), members("ugs"), members("g.s")]
    found, _ = log.read(write_dump(tmp_path_factory.mktemp("log"), [groups], penalty=-0.5))
    return found


@settings(max_examples=40)
@given(st.data())
def test_agreement_is_what_a_plain_loop_counts(rollouts: Rollouts, data: st.DataObject) -> None:
    size = len(rollouts)
    values = st.lists(st.sampled_from([0.0, 0.5, 1.0, float("nan")]), min_size=size, max_size=size)
    one, other = np.array(data.draw(values)), np.array(data.draw(values))
    (found,) = agreements(rollouts, {"a": one, "b": other})
    both = [row for row in range(size) if one[row] == one[row] and other[row] == other[row]]
    if not both:
        assert (found.equal, found.correlation, found.ranking) == (None, None, None)
        return
    assert found.equal == pytest.approx(sum(one[row] == other[row] for row in both) / len(both))
    same = {int(rollouts.group[first]): True for first in both}
    for first in both:
        for second in both:
            if rollouts.group[first] == rollouts.group[second]:
                agree = np.sign(one[first] - one[second]) == np.sign(other[first] - other[second])
                same[int(rollouts.group[first])] &= bool(agree)
    assert found.ranking == pytest.approx(sum(same.values()) / len(same))
    if found.correlation is None:
        assert len({one[row] for row in both}) == 1 or len({other[row] for row in both}) == 1
    else:
        assert found.correlation == pytest.approx(np.corrcoef(one[both], other[both])[0, 1])


def test_a_summary_by_hand(rollouts: Rollouts) -> None:
    found = replay(rollouts, rewards.parse("dynamic,binary"), log="log")
    summary = found.rewards["dynamic"]
    # rewards 0 1 0 | 0 0 0 | -1 0 1 | 0 . 1, and half a point off for every second session
    assert (summary.rollouts, summary.groups, summary.signal) == (11, 4, 0.75)
    assert summary.mean == pytest.approx(2 / 11)
    assert summary.mean_score == pytest.approx((2 - 1.5) / 11)
    assert summary.dr_grpo is not None
    assert summary.dr_grpo.max == pytest.approx(7 / 6)  # 1 of mean -1/6: the third group pays 0.5 in its second session
    assert (found.agreements[0].equal, found.agreements[0].ranking) == (1.0, 1.0)
    assert found.outcomes["unscored"] == pytest.approx(1 / 12)
    assert found.outcomes["wrong"] == pytest.approx(3 / 11)
    assert sum(share for name, share in found.outcomes.items() if name != "unscored") == pytest.approx(1)


def test_nothing_rewarded_is_no_number(rollouts: Rollouts) -> None:
    summary = summarise(rollouts, np.full(len(rollouts), np.nan))
    assert (summary.rollouts, summary.mean, summary.signal, summary.grpo) == (0, None, None, None)
