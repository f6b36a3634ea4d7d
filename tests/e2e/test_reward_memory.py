"""The reward that remembers: two agent-loop workers share its memory, and a run that ended because its rollout servers
hung when new weights were due remembers, resumed, what it knew."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from laptop_run import IMAGES, LaptopRun, train
from stuck_loop import STOPPED

from speciarl.category import Category
from speciarl.reward import recalling
from speciarl.reward.best_so_far import rewards
from speciarl.reward.memory import BestLevels, read
from speciarl.training.level_memory import FILE
from speciarl.verdict import Source, Verdict

pytestmark = pytest.mark.timeout(1800)  # two runs, two minutes each on an idle machine

SAVED, STEPS = 3, 5
"""The servers hang after the checkpoint of one step; the resumed run goes on to the other."""
WEIGHTS_DEADLINE_S = 30
OPTIONS = (
    "recipe/reward=best_so_far",
    f"data.train_max_samples={IMAGES}",  # every image in every step
    "actor_rollout_ref.rollout.agent.num_workers=2",
    f"trainer.total_training_steps={STEPS}",
    f"trainer.save_freq={SAVED}",
)


def kill_servers(folder: Path) -> list[int]:
    """What was stopped ends with nothing else."""
    listed = folder / STOPPED
    pids = [int(line) for line in listed.read_text().split()] if listed.is_file() else []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    return pids


@pytest.fixture(scope="module")
def hung(tmp_path_factory: pytest.TempPathFactory, laptop_data: Path) -> LaptopRun:
    """The first attempt. Each file of rollouts is written after new weights are sent: the last step's is not."""
    folder = tmp_path_factory.mktemp("run")
    try:
        run = train(
            folder, laptop_data, *OPTIONS, f"speciarl.training.weights_deadline_s={WEIGHTS_DEADLINE_S}",
            "actor_rollout_ref.rollout.agent.agent_loop_manager_class=stuck_loop.StuckManager",
            status=2, modules=[Path(__file__).parent],
        )  # fmt: skip
    finally:
        stopped = kill_servers(folder)
    assert stopped
    return run


@pytest.fixture(scope="module")
def saved(hung: LaptopRun) -> BestLevels:
    """The memory in its checkpoint."""
    return read(hung.folder / f"global_step_{SAVED}" / FILE)


@pytest.fixture(scope="module")
def resumed(laptop_data: Path, hung: LaptopRun, saved: BestLevels) -> LaptopRun:
    return train(hung.folder, laptop_data, *OPTIONS)


def test_servers_that_hang_end_the_run_at_its_checkpoint(hung: LaptopRun) -> None:
    assert f"speciarl: the rollout servers did not take the new weights within {WEIGHTS_DEADLINE_S} s" in hung.log
    assert sorted(hung.metrics) == list(range(1, SAVED))
    assert (hung.folder / "latest_checkpointed_iteration.txt").read_text() == str(SAVED)


def level(name: str) -> Category | None:
    return None if name == "none" else Category[name.upper()]


def reached(rows: list[dict[str, Any]]) -> Category:
    """The group's own level."""
    found = level(rows[0]["reference"])
    assert found is not None
    return found


def assert_measured_against(best: Mapping[str, Category | None], groups: list[list[dict[str, Any]]]) -> None:
    """Every group against the best of all steps before, by image."""
    assert len({rows[0]["sample_id"] for rows in groups}) == IMAGES
    for rows in groups:
        before = best[rows[0]["sample_id"]]
        assert {level(row["best_so_far"]) for row in rows} == {before}
        verdicts = [
            Verdict(Category[row["category"].upper()], None, Source.TAXONOMY)
            for row in rows
            if row["category"] != "unparsable"
        ]
        earned = [row["score"] for row in rows if row["category"] != "unparsable"]
        assert earned == recalling(rewards, before)(verdicts)  # type: ignore[arg-type]


def test_each_step_is_measured_against_the_best_of_all_before(
    hung: LaptopRun, saved: BestLevels, resumed: LaptopRun
) -> None:
    assert sorted(resumed.metrics) == list(range(SAVED + 1, STEPS + 1))
    key = {row["sample_id"]: f"{row['data_source']}/{row['sample_id']}" for row in hung.trajectories(1)}
    best: dict[str, Category | None] = dict.fromkeys(key)
    fell = 0
    for step in range(1, STEPS + 1):
        if step == SAVED:  # its rollouts are not on disk, but what they reached is in the checkpoint
            risen = {image: saved.before(key[image], step + 1) for image in key}
            assert all((risen[image] or Category.WRONG) >= (best[image] or Category.WRONG) for image in key)
            best = risen
            continue
        groups = list((hung if step < SAVED else resumed).groups(step).values())
        assert_measured_against(best, groups)
        now = {rows[0]["sample_id"]: reached(rows) for rows in groups}
        fell += sum(now[image] < (best[image] or Category.WRONG) for image in key)
        best = {image: max(now[image], best[image] or Category.WRONG) for image in key}
        if step < SAVED:
            assert best == {image: saved.before(key[image], step + 1) for image in key}
    assert fell  # so that the memory has made a difference
