"""``python -m data_prep`` and ``speciarl data``: from public datasets or your own to the files that training reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from data_prep.emoji import cli as emoji_cli
from speciarl.errors import DataPrepError
from speciarl.utils.cli_errors import USAGE_ERROR, one_line_io_errors

if TYPE_CHECKING:
    from data_prep.config import BuildConfig

TEACHING = """Make parquet files for training and evaluation, from public datasets or your own images.

\b
  list                                        the datasets, their licences and sizes
  fetch cub200                                download and unpack into data/raw/cub200
  build dataset=cub200                        write data/cub200/{train,test}.parquet
  build dataset=image_folder root=my/photos name=mine
  inspect data/cub200/train.parquet           what is in it, and a contact sheet
  validate data/cub200                        is it what training reads?

Exit codes: 0 done, 1 interrupted or disk trouble, 2 wrong input, unfit data or a failed download. More: docs/data.md.
"""

BUILD = """Build train.parquet, test.parquet, taxonomy.json (where labels have a hierarchy) and report.json.

Settings are KEY=VALUE words, as in veRL and Hydra; quote what the shell would take for itself.

\b
  build dataset=cub200                                      from data/raw/cub200 (see `fetch`) to data/cub200
  build dataset=cub200 root=/data/CUB_200_2011 out=data/cub200 subset.count=3000 seed=42
  build dataset=food subset.per_class=16 test_subset.percent=10 test_subset.stratified=true
  build dataset=pets_coop                                   CoOp's split, as in the paper (needs its split file)
  build dataset=cub200 out=data/cub200_paper subset.count=3000 subset.draw=python   the paper's own rows
  build dataset=aircraft 'select.include=[Boeing]'          a label, a class key or any name above
  build dataset=cub200 'prompts={general: 2, specific: 1}'  drawn for each row; a path to a .txt is a prompt too
  build dataset=mix_coop                                    the paper's 6 x 500 images (`mix`: official splits)
  build dataset=mix 'sources.cub200.weight=2' …             see data_prep/conf/dataset/mix.yaml
  build dataset=image_folder root=my/photos name=mine       ROOT/train/CLASS/IMAGE and ROOT/test/CLASS/IMAGE
  build dataset=manifest root=my/list.csv name=mine         columns image, label, split
  build dataset=hub options.repo=OWNER/NAME name=mine       a dataset with an image and a label column
  build dataset=emoji                                       the laptop's world

\b
Other keys:
  dedup.by=bytes|pixels dedup.action=report|drop   images that are in train and test
  pictures.max_pixels=N                            scale larger images down
  on_broken=skip  check_counts=warn                go on without what is broken; it is listed in report.json
  order=shuffled  workers=N  row_group_mb=N

The same seed takes the same rows on any machine. Nothing is written unless all of it is. Images that are RGB JPEG or
PNG already stay byte for byte.
"""

T = TypeVar("T")
app = typer.Typer(help=TEACHING, no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


@app.callback(help=TEACHING)
def _root() -> None:
    """Options that stand before a command; there are none."""


@app.command("list")
def list_datasets() -> None:
    """List the datasets: images by split and classes as published, levels of the hierarchy, licence."""
    from rich.console import Console

    from data_prep import readers
    from data_prep.checks import tables

    with one_line_io_errors():
        tables.datasets((readers.load(name).about for name in readers.NAMES), Console())


@app.command()
def fetch(
    dataset: Annotated[str, typer.Argument(help="Name of a dataset, see `list`.")],
    root: Annotated[Path | None, typer.Option("--root", help="Where to put it (default: data/raw/NAME).")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="An archive or folder that you have, instead of downloading.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never download.")] = False,
    drop_archives: Annotated[bool, typer.Option("--drop-archives", help="Delete archives once unpacked.")] = False,
    quiet: Quiet = False,
) -> None:
    """Get a dataset's files: checked, resumable, unpacked safely. What is there already is not done again."""
    from data_prep import readers
    from data_prep.download.fetch import fetch as obtain

    with one_line_io_errors():
        about = readers.load(dataset).about
        if not about.archives:
            raise DataPrepError(f"{dataset} has nothing to fetch; give its folder to `build dataset={dataset} root=…`")
        place = root or Path("data/raw", dataset)
        typer.echo(f"{about.title} {about.version}. Licence: {about.licence}. {about.homepage}", err=True)
        got = obtain(
            about,
            place,
            source=source,
            offline=offline,
            bars=not quiet,
            keep_archives=not drop_archives,
            say=lambda line: typer.echo(line, err=True),
        )
        typer.echo(f"{got}: ready; next: python -m data_prep build dataset={dataset} root={got}")


@app.command(help=BUILD)
def build(
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Settings, see above.")] = None,
    quiet: Quiet = False,
    show: Annotated[bool, typer.Option("--show", help="Print the settings that would be used, and leave.")] = False,
) -> None:
    """Build a dataset's files; its help is the text BUILD."""
    from data_prep import compose
    from data_prep.config import EmojiConfig

    with one_line_io_errors():
        config = compose.settings(settings or [])
        if show:
            typer.echo(config.model_dump_json(indent=2))
        elif isinstance(config, EmojiConfig):
            emoji_cli.draw(config, quiet)
        else:
            _build(config, quiet)


def _build(config: BuildConfig, quiet: bool) -> None:
    from rich.console import Console
    from tqdm import tqdm

    from data_prep.checks import tables
    from data_prep.pipeline.build import build as run

    def progress(items: Iterable[T], total: int, what: str) -> Iterable[T]:
        bar: Iterable[T] = tqdm(items, total=total, desc=what, unit="image", disable=quiet)
        return bar

    with _ending_on_sigterm():
        report = run(config, progress)
    tables.built(report, Console())
    typer.echo(f"{config.out}: " + ", ".join(f"{name}.parquet ({file.rows})" for name, file in report.files.items()))


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Context in which a scheduler's SIGTERM ends a build as Ctrl-C does, so that no draft is left."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():  # where Python allows no signal handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@app.command()
def inspect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Parquet files or folders with some.")],
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Where to put the contact sheet (default: beside the file).")
    ] = None,
    pictures: Annotated[int, typer.Option("--pictures", min=0, help="Pictures on it; 0 for no sheet.")] = 24,
    quiet: Quiet = False,
) -> None:
    """Show rows, splits, classes, hierarchy depth, image sizes and prompts, and write a contact sheet (JPEG)."""
    from rich.console import Console
    from tqdm import tqdm

    from data_prep.checks import inspection, tables
    from speciarl.utils.atomic_files import write_bytes

    with one_line_io_errors():
        found = _parquet_files(files)
        if sheet is not None and len(found) > 1:
            raise DataPrepError(f"--sheet: {len(found)} files would write the same sheet; inspect one at a time")
        for file in found:
            with tqdm(desc=file.name, unit="row", disable=quiet) as bar:
                contents = inspection.read(file, pictures, bar.update)
            tables.contents(contents, Console())
            if pictures:
                place = sheet or file.with_suffix(".sheet.jpg")
                write_bytes(place, inspection.contact_sheet(contents.sheet))
                typer.echo(f"contact sheet: {place}")


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Parquet files or folders with some.")],
    images: Annotated[int, typer.Option("--images", min=1, help="Images to decode in each file.")] = 32,
    all_images: Annotated[bool, typer.Option("--all-images", help="Decode every image.")] = False,
    image_key: Annotated[str, typer.Option("--image-key", help="Name of the image column.")] = "images",
    taxonomy: Annotated[
        Path | None, typer.Option("--taxonomy", help="Must know every label (default: taxonomy.json beside the file).")
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Faults to print for each file.")] = 20,
) -> None:
    """Check that files hold what training and evaluation read. The exit code is 2 when one does not.

    All text is checked, and a sample of the images. Training runs the same check when it starts.
    """
    from data_prep.checks.validate import check

    with one_line_io_errors():
        verdicts = check(_parquet_files(files), image_key, None if all_images else images, taxonomy)
        bad = 0
        for file, found in verdicts:
            for fault in found[:most]:
                typer.echo(f"{file}: {fault}")
            if len(found) > most:
                typer.echo(f"{file}: and {len(found) - most} more; --most {len(found)} prints all")
            if not found:
                typer.echo(f"{file}: good")
            bad += bool(found)
    if bad:
        raise typer.Exit(USAGE_ERROR)


def _parquet_files(given: Sequence[Path]) -> list[Path]:
    """The given files, and those in the given folders; raises DataPrepError for a folder without any.

    A file that is missing is not refused here: `validate` lists it as a fault.
    """
    found: list[Path] = []
    for path in given:
        inside = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not inside:
            raise DataPrepError(f"{path}: there is no parquet file in this folder")
        found += inside
    return found


app.command("emoji")(emoji_cli.emoji)
app.command("emoji-facts")(emoji_cli.emoji_facts)


def main() -> None:
    """Entry point of ``python -m data_prep``."""
    app(prog_name="python -m data_prep")
