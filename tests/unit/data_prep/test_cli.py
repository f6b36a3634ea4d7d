"""The command line: settings by key, one-line errors, exit codes, tables."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import data_prep_fixtures as fixtures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_prep_fixtures import run
from PIL import Image
from typer.testing import CliRunner

import speciarl.cli
from data_prep import compose, readers
from data_prep.config import BuildConfig, EmojiConfig
from data_prep.emoji import concepts
from speciarl.errors import DataPrepError

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pets(tmp_path: Path) -> list[str]:
    """Words that build the fixture of Pets."""
    fixtures.make_pets(tmp_path / "raw")
    return ["build", "--quiet", "dataset=pets", f"root={tmp_path}/raw", f"out={tmp_path}/out", "check_counts=warn"]


def error_of(words: list[str], capsys: Capture, code: int = 2) -> str:
    assert run(words) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("speciarl: ")
    return lines[0]


def test_build_inspect_validate(pets: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert run(pets) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}/out: train.parquet (9), test.parquet (6)" in out.replace("\n", "")
    assert "unexpected count" in out
    assert run(["inspect", "--quiet", str(tmp_path / "out" / "train.parquet")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "rows 9 in",
        "splits train 9",
        "sources pets 9",
        "classes 3, 3 to 3 rows",
        "hierarchy depth 2: 9 rows",
    ):
        assert words in out
    assert "JPEG 9" in out
    assert "48 x 32" in out
    assert "9 x general@" in out
    assert "licence: CC BY-SA 4.0" in out
    with Image.open(tmp_path / "out" / "train.sheet.jpg") as sheet:
        assert sheet.size == (960, 2 * 188)
    assert run(["validate", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("good") == 2


def test_validate_names_faults_and_returns_2(pets: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert run(pets) == 0
    tree = json.loads((tmp_path / "out" / "taxonomy.json").read_text())
    tree["nodes"] = [node for node in tree["nodes"] if node["name"] != "Abyssinian"]
    (tmp_path / "out" / "taxonomy.json").write_text(json.dumps(tree))
    assert run(["validate", str(tmp_path / "out" / "train.parquet"), str(tmp_path / "none.parquet")]) == 2
    out = capsys.readouterr().out
    assert "train.parquet: row 0: reward_model.ground_truth 'Abyssinian' is not in" in out
    assert "none.parquet: does not exist" in out


def test_the_same_from_speciarl_data(pets: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(speciarl.cli.app, ["data", *pets])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "report.json").is_file()
    assert CliRunner().invoke(speciarl.cli.app, ["data", "validate", str(tmp_path / "none")]).exit_code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "dataset=NAME is missing; known: aircraft, "),
        (["dataset=cub2000"], "dataset: there is no 'cub2000'; did you mean cub200?"),
        (["dataset=cub200", "--quiet", "subset.cuont=3"], "subset.cuont: there is no such key; did you mean count?"),
        (["dataset=cub200", "subset.count=many"], "subset.count: Input should be a valid integer"),
        (["dataset=cub200", "subset.count=0"], "subset.count: Input should be greater than or equal to 1"),
        (["dataset=cub200", "subset.count=3", "subset.percent=5"], "subset: give percent or count, not both"),
        (["dataset=cub200", "subset.start=5", "subset.stop=5"], "subset: stop 5 is not after start 5"),
        (
            ["dataset=cub200", "subset.draw=python", "subset.stratified=true"],
            "subset: draw=python knows no classes; give",
        ),
        (["dataset=cub200", "subset.draw=dice"], "subset.draw: Input should be 'hash' or 'python'"),
        (["dataset=cub200", "dedup.by=looks"], "dedup.by: Input should be 'none', 'bytes' or 'pixels'"),
        (["dataset=cub200", "subset.count"], "'subset.count' is no setting; write KEY=VALUE"),
        (["dataset=cub200", "options.coop=x"], "options.coop: there is no such key; known: last_word_level"),
        (["dataset=mix", "sources.cars.cuont=1"], "sources.cars.cuont: there is no such key; did you mean count?"),
        (["dataset=mix", "+sources.cars.cuont=1"], "sources.cars.cuont: there is no such key; did you mean count?"),
        (["dataset=image_folder", "name=mine"], "root: is missing; set it as root=VALUE"),
        (["dataset=cub200", "prompts={general: -1}"], "prompts.general: Input should be greater than or equal to 0"),
        (["dataset=cub200", "prompts=generel"], "prompts: there is no prompt 'generel'"),
        (["dataset=emoji", "subset.count=5"], "subset: has no effect on dataset=emoji"),
        (["dataset=emoji", "train_views=0"], "train_views: Input should be greater than or equal to 1"),
    ],
)
def test_wrong_settings_give_one_line_with_the_key(words: list[str], message: str, capsys: Capture) -> None:
    assert error_of(["build", *words], capsys).removeprefix("speciarl: ").startswith(message)


def test_missing_files_tell_how_to_get_them(tmp_path: Path, capsys: Capture) -> None:
    line = error_of(["build", "dataset=cub200", f"root={tmp_path}/none", f"out={tmp_path}/out"], capsys)
    assert "python -m data_prep fetch cub200" in line


def test_an_unwritable_folder_is_exit_code_1(pets: list[str], tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "file" in error_of([*pets, f"out={tmp_path}/file/out"], capsys, code=1)


def test_an_unknown_class_and_too_large_a_subset(pets: list[str], capsys: Capture) -> None:
    assert "there is no class 'Poodle'" in error_of([*pets, "select.include=[Poodle]"], capsys)
    assert "train: 100 samples are wanted of pets, which has 9" in error_of([*pets, "subset.count=100"], capsys)


def test_every_dataset_has_its_settings_and_they_are_its_own() -> None:
    assert set(compose.names()) == {
        *readers.NAMES,
        "mix",
        *(f"{name}_coop" for name in ("flowers", "food", "pets", "mix")),
    }
    own = {"image_folder": ["root=x"], "manifest": ["root=x"]}
    for name in readers.NAMES:
        config = compose.settings([f"dataset={name}", *own.get(name, [])])
        if name == "emoji":
            continue
        assert isinstance(config, BuildConfig)
        (source,) = config.sources.values()
        about = readers.load(name, source.options).about
        assert (about.name, config.out) == (name, Path("data", name))
        if about.splits:
            assert {split for splits in source.splits.values() for split in splits} <= set(about.splits)


@pytest.mark.parametrize("name", ["flowers", "food", "pets"])
def test_coops_split_is_an_option_of_its_own_and_lands_where_the_official_one_does(name: str) -> None:
    coop, official = (compose.settings([f"dataset={name}{end}"]) for end in ("_coop", ""))
    assert isinstance(coop, BuildConfig)
    assert isinstance(official, BuildConfig)
    assert coop.sources[name].splits == {"train": ["coop_train"], "test": ["coop_test"]}
    assert not any(split.startswith("coop") for splits in official.sources[name].splits.values() for split in splits)
    assert (coop.out, coop.name) == (official.out, official.name)


def test_settings_reach_the_build() -> None:
    words = ["dataset=food", "subset.per_class=16", "test_subset.percent=10", "test_subset.stratified=true", "seed=3"]
    config = compose.settings([*words, "prompts=[general,specific]", "splits.train=[coop_train,coop_val]"])
    assert isinstance(config, BuildConfig)
    assert (config.seed, config.subset.per_class, config.test_subset.percent) == (3, 16, 10)
    assert (config.subset.stratified, config.test_subset.stratified) == (False, True)
    assert config.prompts == {"general": 1.0, "specific": 1.0}
    assert config.sources["food"].splits == {"train": ["coop_train", "coop_val"], "test": ["test"]}


def test_emoji_by_both_commands_gives_the_same_bytes(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = concepts.load_concepts()[:5]
    monkeypatch.setattr(concepts, "load_concepts", lambda: few)  # drawing all takes ten seconds
    assert run(["emoji", "--quiet", "--seed", "5", "--train-views", "1", "--out", str(tmp_path / "a")]) == 0
    assert run(["build", "--quiet", "dataset=emoji", "seed=5", "train_views=1", f"out={tmp_path}/b"]) == 0
    for name in ("train.parquet", "test.parquet", "taxonomy.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert run(["validate", str(tmp_path / "a")]) == 0
    capsys.readouterr()


def test_the_defaults_of_both_commands_for_emoji_agree() -> None:
    import inspect

    from data_prep.emoji.cli import emoji

    config = compose.settings(["dataset=emoji"])
    assert isinstance(config, EmojiConfig)
    defaults = {name: parameter.default for name, parameter in inspect.signature(emoji).parameters.items()}
    assert (config.seed, config.train_views) == (defaults["seed"], defaults["train_views"])
    assert config == EmojiConfig(out=config.out)


def test_inspect_names_the_row_of_an_image_that_cannot_be_opened(
    pets: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert run(pets) == 0
    rows = pq.read_table(tmp_path / "out" / "test.parquet").to_pylist()
    rows[5]["images"][0]["bytes"] = b"none"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "broken.parquet", row_group_size=6)
    assert "broken.parquet, row 5: an image cannot be opened" in error_of(
        ["inspect", "--quiet", str(tmp_path / "broken.parquet")], capsys
    )


def test_list_shows_every_dataset_with_its_licence(capsys: Capture) -> None:
    assert run(["list"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for name in readers.NAMES:
        assert name in out
    assert "CC BY-SA 4.0" in out
    assert "5994" in out


def test_fetch_takes_what_the_user_has(tmp_path: Path, capsys: Capture) -> None:
    fixtures.make_cub200(tmp_path / "mine")
    assert run(["fetch", "cub200", "--offline", "--from", str(tmp_path / "mine"), "--root", str(tmp_path / "r")]) == 0
    assert "build dataset=cub200 root=" in capsys.readouterr().out
    assert "nothing to fetch" in error_of(["fetch", "manifest"], capsys)
    assert "no dataset 'cub'" in error_of(["fetch", "cub"], capsys)


def test_help_teaches(capsys: Capture) -> None:
    assert run(["build", "--help"]) == 0
    out = capsys.readouterr().out
    for words in ("build dataset=cub200", "subset.count=3000", "dedup.by=", "on_broken=skip"):
        assert words in out
    assert run(["--help"]) == 0
    assert "Exit codes" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_build_without_leftovers(kind: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "a_class"
    folder.mkdir(parents=True)
    # Reading a pipe that nobody writes to keeps the build at work until the signal comes.
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(fixtures.jpeg(str(number)))
    os.mkfifo(folder / "3.jpg")
    out = tmp_path / "out"
    words = ["dataset=image_folder", f"root={tmp_path}/raw", f"out={out}", "splits.train=[all]", "splits.test=[]"]
    process = subprocess.Popen(
        [sys.executable, "-m", "data_prep", "build", "--quiet", *words],
        stderr=subprocess.PIPE,
        # A test run in the background of a shell inherits that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not (out / ".train.parquet.draft").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(kind)
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # lets the reading thread end as soon as it reads
                os.close(os.open(folder / "3.jpg", os.O_WRONLY | os.O_NONBLOCK))
            time.sleep(0.05)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1, said
    assert b"interrupted" in said
    assert list(out.iterdir()) == []


def test_a_contact_sheet_has_a_place_for_every_picture() -> None:
    from data_prep.checks.inspection import contact_sheet

    pictures = [("a rather long label that will not fit", fixtures.png(str(number))) for number in range(7)]
    with Image.open(io.BytesIO(contact_sheet(pictures))) as sheet:
        assert sheet.size == (960, 376)
        assert sheet.getpixel((955, 300)) == (255, 255, 255)


def test_settings_of_hydra_are_closed_again() -> None:
    from hydra.core.global_hydra import GlobalHydra

    with pytest.raises(DataPrepError):
        compose.settings(["dataset=cub200", "nothing=1"])
    assert not GlobalHydra.instance().is_initialized()
