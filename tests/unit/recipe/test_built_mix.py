"""The mix as people can build it today: six data sets on disk, Stanford Cars as a copy of the Hub, and the recipe that
reads what was built."""

import shutil
from pathlib import Path

import data_prep_fixtures as fixtures
import pyarrow.parquet as pq
import pytest
from composed_run import composed

from data_prep.compose import settings
from data_prep.config import BuildConfig
from speciarl.config import load
from speciarl.training.preflight.checks import check_identities, check_parquet

MIX = ("cub200", "flowers", "food", "pets", "cars", "aircraft")
COOP = ("flowers", "food", "pets")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six data sets as `fetch`, or a user, leaves them."""
    folder = tmp_path_factory.mktemp("raw")
    for name in MIX:
        getattr(fixtures, "make_hub_cars" if name == "cars" else f"make_{name}")(folder / name)
    for name in COOP:
        getattr(fixtures, f"make_coop_{name}")(folder / name)
    return folder


@pytest.mark.parametrize("dataset", ["mix", "mix_coop"])
def test_the_recipe_reads_the_mix_that_was_built(
    dataset: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(raw, "data/raw")
    sizes = [f"sources.{name}.{key}=2" for name in MIX for key in ("count", "test_count")]
    assert fixtures.run(["build", f"dataset={dataset}", "check_counts=warn", "--quiet", *sizes]) == 0
    assert fixtures.run(["build", "dataset=cub200", "check_counts=warn", "--quiet"]) == 0
    config = composed("+recipe=speciarl", "recipe/data=mix")
    for key in ("train_files", "val_files"):
        file = Path(config.data[key])
        check_parquet(file, f"data.{key}", config.data.image_key, load(config).data_hint)
        check_identities(file, f"data.{key}")
    rows = pq.read_table(config.data.train_files).to_pylist()
    assert sorted(row["data_source"] for row in rows) == sorted([*MIX, *MIX])
    (first, second) = (row["reward_model"]["ground_truth"] for row in rows if row["data_source"] == "cars")
    assert {first, second} < set(fixtures.CARS)


def test_a_copy_of_cars_on_the_hub_is_named_by_the_documented_words() -> None:
    repo = "tanganke/stanford_cars"
    for words in (["dataset=cars", f"options.repo={repo}"], ["dataset=mix", f"sources.cars.options.repo={repo}"]):
        config = settings(words)
        assert isinstance(config, BuildConfig)
        assert config.sources["cars"].options["repo"] == repo
