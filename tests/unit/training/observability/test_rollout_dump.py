"""What the rollout dump tells for a replay, beside the record of each trajectory."""

import json

import pytest

from speciarl.category import Category
from speciarl.config import RewardConfig
from speciarl.reward.barrier import GroupOutcome
from speciarl.training.observability.rollout_dump import reward_settings
from speciarl.training.reward_info import reward_extra_info
from speciarl.verdict import Source, Verdict

REWARD = RewardConfig.model_validate(
    {"params": {"support": 2}, "noise": {"probability": 0.25, "seed": 7}, "quorum": 3, "group_deadline_s": 9}
)
SPREAD = (0.1, 0.2, 0.3, 0.15, 0.05, 0.2)


def test_settings_of_training_can_be_read_back() -> None:
    told = json.loads(reward_settings(REWARD, 10, validate=False))
    assert told.pop("rollouts") == 10
    read = RewardConfig.model_validate(told)
    assert (read.name, read.params, read.noise, read.quorum) == ("dynamic", {"support": 2}, REWARD.noise, 3)


def test_validation_has_no_noise_and_no_quorum() -> None:
    told = json.loads(reward_settings(REWARD, 4, validate=True))
    assert told.pop("rollouts") == 4
    read = RewardConfig.model_validate(told)
    assert (read.params, read.noise.probability, read.quorum) == ({"support": 2}, 0.0, 1)


@pytest.mark.parametrize("spread", [None, SPREAD])
def test_a_record_has_the_judges_probabilities_and_the_step_of_its_noise(spread: tuple[float, ...] | None) -> None:
    verdict = Verdict(Category.GENERIC, None, Source.LIVE, spread)
    outcome = GroupOutcome((1.0,), Category.GENERIC, 1)
    record = reward_extra_info(verdict, "dog", outcome, "pets", {}, seen=verdict, group_reward=1.0, sampled_step=5)
    text = record["probabilities"]
    assert (None if text is None else tuple(json.loads(text))) == spread  # to the last digit
    assert record["sampled_step"] == 5
