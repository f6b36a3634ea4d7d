"""The reward that remembers: two agent-loop workers share its memory, and a resumed run remembers what it knew."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from laptop_run import IMAGES, LaptopRun, train

from speciarl.category import Category
from speciarl.reward import recalling
from speciarl.reward.best_so_far import rewards
from speciarl.training.level_memory import FILE
from speciarl.verdict import Source, Verdict

pytestmark = pytest.mark.timeout(1800)  # several runs, a minute each on an idle machine

ANCHORED = (
    "recipe/reward=best_so_far",
    f"data.train_max_samples={IMAGES}",  # every image in every step
    "actor_rollout_ref.rollout.agent.num_workers=2",
    "trainer.total_training_steps=3",
    "trainer.save_freq=2",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, laptop_data: Path) -> LaptopRun:
    return train(tmp_path_factory.mktemp("whole"), laptop_data, *ANCHORED)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory, laptop_data: Path, whole: LaptopRun) -> LaptopRun:
    """Another run that goes on from the first one's step 2."""
    folder = tmp_path_factory.mktemp("resumed")
    shutil.copytree(whole.folder / "global_step_2", folder / "global_step_2")
    (folder / "latest_checkpointed_iteration.txt").write_text("2")
    return train(folder, laptop_data, *ANCHORED)


def level(name: str) -> Category | None:
    return None if name == "none" else Category[name.upper()]


def reached(rows: list[dict[str, Any]]) -> Category:
    """The group's own level."""
    found = level(rows[0]["reference"])
    assert found is not None
    return found


def test_each_step_is_measured_against_the_best_of_all_before(whole: LaptopRun) -> None:
    best: dict[str, Category] = {}
    rose = fell = 0
    for step in (1, 2, 3):
        groups = whole.groups(step).values()
        assert len({rows[0]["sample_id"] for rows in groups}) == IMAGES
        for rows in groups:
            image = rows[0]["sample_id"]
            assert {level(row["best_so_far"]) for row in rows} == {best.get(image)}
            verdicts = [
                Verdict(Category[row["category"].upper()], None, Source.TAXONOMY)
                for row in rows
                if row["category"] != "unparsable"
            ]
            earned = [row["score"] for row in rows if row["category"] != "unparsable"]
            assert earned == recalling(rewards, best.get(image))(verdicts)  # type: ignore[arg-type]
            before = best.get(image)
            rose += before is not None and reached(rows) > before
            fell += before is not None and reached(rows) < before
        for rows in groups:
            image = rows[0]["sample_id"]
            best[image] = max(reached(rows), best.get(image, Category.WRONG))
    assert fell  # so that the memory has made a difference
    assert rose + fell < 2 * IMAGES


def test_the_memory_is_saved_with_the_checkpoint(whole: LaptopRun) -> None:
    saved = json.loads((whole.folder / "global_step_2" / FILE).read_text())["images"]
    assert len(saved) == IMAGES
    assert {step for levels in saved.values() for step in levels.values()} <= {1, 2}


def test_a_resumed_run_goes_on_with_it(whole: LaptopRun, resumed: LaptopRun) -> None:
    assert sorted(resumed.metrics) == [3]

    def rows(run: LaptopRun) -> list[tuple[Any, ...]]:
        kept = ("sample_id", "answer", "category", "best_so_far", "score")
        return sorted(tuple(row[name] for name in kept) for row in run.trajectories(3))

    assert rows(resumed) == rows(whole)
    assert "none" not in {row["best_so_far"] for row in resumed.trajectories(3)}
