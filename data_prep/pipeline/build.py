"""Build: a dataset's files as parquet, taxonomy and report, all of them or none."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from data_prep import readers
from data_prep.config import TRAIN, BuildConfig
from data_prep.images import dedup
from data_prep.images.encode import Encoded, encode
from data_prep.pipeline import listing, prompts, taxonomy
from data_prep.pipeline.issues import Kind, Problem, summary
from data_prep.pipeline.parallel import default_workers, ordered_map
from data_prep.pipeline.parquet import ParquetRows
from data_prep.pipeline.report import FileReport, Report
from data_prep.pipeline.rows import row, schema
from data_prep.pipeline.spool import Spool
from data_prep.readers.base import Dataset, Sample
from data_prep.selection import plan
from speciarl.answer import normalise, same_name
from speciarl.errors import DataPrepError
from speciarl.utils.atomic_files import Drafts

REPORT = "report.json"
FAILED_REPORT = "report.failed.json"
TAXONOMY = "taxonomy.json"

T = TypeVar("T")


class Progress(Protocol):
    """Progress bar: iterates over the items and shows how many are done."""

    def __call__(self, items: Iterable[T], total: int, what: str) -> Iterable[T]: ...


def no_progress(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """The items, without a progress bar."""
    return items


@dataclass(frozen=True, slots=True)
class _Task:
    source: str
    sample: Sample


def build(
    config: BuildConfig,
    progress: Progress = no_progress,
    load: Callable[[str, Mapping[str, Any]], Dataset] = readers.load,
) -> Report:
    """Write ``NAME.parquet`` for every file, taxonomy.json where there is a hierarchy, and report.json.

    Raises DataPrepError for bad input; what is wrong with the data is then listed in report.failed.json and no other
    file is touched. Raises OSError when the folder cannot be written.
    """
    from speciarl import __version__

    report = Report(config.name, config.seed, __version__, dedup=config.dedup.by)
    # Everything that can be wrong with the settings is looked at before the first image.
    pools = _pools(config)
    readers = {name: load(source.dataset or name, source.options) for name, source in config.sources.items()}
    # Pillow warns of odd metadata and large sizes; what matters it raises. All threads share the filters, hence here.
    with warnings.catch_warnings(), Spool(config.out) as spool:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        return _build(config, readers, pools, spool, progress, report)


def _build(
    config: BuildConfig,
    readers: Mapping[str, Dataset],
    pools: Mapping[tuple[str, str], prompts.PromptPool],
    spool: Spool,
    progress: Progress,
    report: Report,
) -> Report:
    workers = config.workers or default_workers()
    listed = _listed(config, readers, spool, report)
    _refuse(config, report)
    chosen = plan.choose(config, listed, _fingerprints(config, workers, progress))
    _refuse_ambiguous_labels(chosen.files)
    report.equal_images = chosen.equal_images
    paths = [sample.label_path for files in listed.values() for samples in files.values() for sample in samples]
    tree = taxonomy.taxonomy(paths) if config.taxonomy and taxonomy.has_hierarchy(paths) else None
    report.taxonomy_nodes = len(tree["nodes"]) if tree else 0
    metadata = _metadata(config, readers, report.version)
    with Drafts() as drafts:
        for file, rows in chosen.files.items():
            report.files[file].few_shot_short = chosen.few_shot_short.get(file, {})
            tasks = [_Task(source, sample) for source, sample in rows]
            draft = drafts.open(config.out / f"{file}.parquet")
            _write(config, file, tasks, pools, draft, metadata, workers, progress, report)
            report.files[file].file_bytes = draft.stat().st_size
        _refuse(config, report)
        if tree is not None:
            drafts.write(config.out / TAXONOMY, _json(tree))
        drafts.write(config.out / REPORT, _json(report.as_json(ok=True)))
        drafts.publish()
    (config.out / FAILED_REPORT).unlink(missing_ok=True)
    if tree is None:
        (config.out / TAXONOMY).unlink(missing_ok=True)  # of an earlier build with other labels
    return report


def _pools(config: BuildConfig) -> dict[tuple[str, str], prompts.PromptPool]:
    """Prompt pools by dataset and file."""
    return {
        (source, file): prompts.load(config.prompts_of(source, file))
        for source in config.sources
        for file in config.files
    }


def _listed(
    config: BuildConfig, readers: Mapping[str, Dataset], spool: Spool, report: Report
) -> dict[str, dict[str, Sequence[Sample]]]:
    listed: dict[str, dict[str, Sequence[Sample]]] = {}
    for file in config.files:
        report.files[file] = FileReport()
        listed[file] = {}
    for name, source in config.sources.items():
        found: dict[str, listing.Listing] = {}
        for file, splits in source.splits.items():
            root = source.root.expanduser()
            found[file] = listing.read(readers[name], root, splits, name, file, transform=spool.store)
            report.problems += found[file].problems
            report.files[file].splits[name] = found[file].counts
        # What is in both leaves train: test files never shrink.
        twice: set[str] = set()
        for file in found:
            if TRAIN in found and file != TRAIN:
                shared = listing.overlap(found[file], found[TRAIN], name, TRAIN)
                report.problems += [problem for problem in shared if problem.sample_id not in twice]
                twice |= {problem.sample_id for problem in shared}
        for file, content in found.items():
            listed[file][name] = [s for s in content.samples if file != TRAIN or s.id not in twice]
    return listed


def _refuse(config: BuildConfig, report: Report) -> None:
    """Raise DataPrepError for problems that the settings do not allow; report.failed.json lists all problems."""
    fatal = [
        problem
        for problem in report.problems
        if problem.kind is not Kind.IGNORED
        and (config.check_counts if problem.kind is Kind.COUNT else config.on_broken) == "fail"
    ]
    if not fatal:
        return
    file = _write_failed(config, report)
    ways = {"check_counts=warn" if problem.kind is Kind.COUNT else "on_broken=skip": None for problem in fatal}
    raise DataPrepError(f"{summary(fatal)} ({file} lists all). Mend the data, or go on all the same: {' '.join(ways)}")


def _write_failed(config: BuildConfig, report: Report) -> Path:
    """Write report.failed.json, with all problems; returns its path."""
    config.out.mkdir(parents=True, exist_ok=True)
    file = config.out / FAILED_REPORT
    with Drafts() as drafts:
        drafts.write(file, _json(report.as_json(ok=False)))
        drafts.publish()
    return file


def _refuse_ambiguous_labels(chosen: plan.Chosen) -> None:
    """Raise DataPrepError for two classes of a dataset whose labels read the same: each would be right for the other.

    A label that is the same to the letter below two parents is one name with two places in the hierarchy.
    """
    first: dict[tuple[str, str], Sample] = {}
    for source, sample in itertools.chain.from_iterable(chosen.values()):
        other = first.setdefault((source, normalise(sample.label)), sample)
        two_places = same_name(sample.label, other.label) and sample.label_path[:-1] != other.label_path[:-1]
        if other.class_key != sample.class_key and not two_places:
            raise DataPrepError(
                f"{source}: the labels {other.label!r} (class {other.class_key!r}) and {sample.label!r} (class "
                f"{sample.class_key!r}) read the same once normalised; rename or exclude one (select.exclude)"
            )


def _fingerprints(config: BuildConfig, workers: int, progress: Progress) -> plan.FingerprintAll:
    def all_of(samples: Sequence[Sample]) -> dict[str, str | None]:
        by = "bytes" if config.dedup.by == "bytes" else "pixels"
        marks = ordered_map(lambda sample: dedup.fingerprint(sample, by), samples, workers)  # type: ignore[arg-type]
        shown = progress(marks, len(samples), f"comparing {by}")
        return {sample.id: mark for sample, mark in zip(samples, shown, strict=True)}

    return all_of


def _metadata(config: BuildConfig, readers: Mapping[str, Dataset], version: str) -> dict[str, str]:
    facts = {}
    for name, reader in readers.items():
        about = reader.about
        facts[name] = {
            "dataset": about.name,
            "title": about.title,
            "version": about.version,
            "licence": about.licence,
            "homepage": about.homepage,
            "levels": list(about.levels),
        }
    return {
        "name": config.name,
        "datasets": json.dumps(facts, ensure_ascii=False),
        "config": json.dumps(config.described(), ensure_ascii=False, sort_keys=True),
        "seed": str(config.seed),
        "version": version,
    }


def _write(
    config: BuildConfig,
    file: str,
    tasks: Sequence[_Task],
    pools: Mapping[tuple[str, str], prompts.PromptPool],
    draft: Path,
    metadata: Mapping[str, str],
    workers: int,
    progress: Progress,
    report: Report,
) -> None:
    """Encode and write the rows of one file. Broken images are collected, so that one build finds all of them."""

    def encoded(task: _Task) -> Encoded | Problem:
        try:
            return encode(task.sample.picture.read(), config.pictures.max_pixels, config.pictures.jpeg_quality)
        except DataPrepError as error:
            sample = task.sample
            return Problem(Kind.BROKEN, task.source, file, sample.id, sample.picture.where, str(error))

    counted = report.files[file]
    results = progress(ordered_map(encoded, tasks, workers), len(tasks), file)
    with ParquetRows(draft, schema(metadata), int(config.row_group_mb * 2**20)) as out:
        for task, image in zip(tasks, results, strict=True):
            if isinstance(image, Problem):
                report.problems.append(image)
                continue
            prompt = pools[task.source, file].pick(config.seed, task.sample.id)
            out.write(row(task.sample, task.source, image, prompt, file, counted.rows))
            counted.add(task.sample, task.source, image, prompt.id)
    if not counted.rows:
        broken = [problem for problem in report.problems if problem.kind is Kind.BROKEN and problem.file == file]
        where = _write_failed(config, report)
        raise DataPrepError(
            f"{file}: none of the {len(tasks)} images can be decoded: {summary(broken)} ({where} lists all)"
        )


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
