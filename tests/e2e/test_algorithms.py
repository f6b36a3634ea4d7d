"""Every algorithm in two real steps: what tells it from the others is asserted on what was logged and stored."""

from pathlib import Path

import pytest
from laptop_run import IMAGES, ROLLOUTS, STEPS, LaptopRun, train


@pytest.fixture(scope="module")
def grpo(tmp_path_factory: pytest.TempPathFactory, laptop_data: Path) -> LaptopRun:
    return train(tmp_path_factory.mktemp("grpo"), laptop_data)


def test_the_stored_trajectories_are_complete(grpo: LaptopRun) -> None:
    assert sorted(grpo.metrics) == [1, STEPS]
    for step in grpo.metrics:
        groups = grpo.groups(step)
        assert [len(rows) for rows in groups.values()] == [ROLLOUTS] * IMAGES
        for rows in groups.values():
            assert len({row["sample_id"] for row in rows}) == 1
            assert {row["category"] for row in rows} - {"unparsable"}
