"""Build report, written as ``report.json`` beside the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from data_prep.images.dedup import Equal
from data_prep.images.encode import Encoded
from data_prep.pipeline.issues import Problem, by_kind
from data_prep.pipeline.listing import SplitCount
from data_prep.readers.base import Sample

FORMAT_VERSION = 1


@dataclass(slots=True)
class FileReport:
    """Report on one written file."""

    splits: dict[str, dict[str, SplitCount]] = field(default_factory=dict)
    """Sizes as found and as published, by dataset and split."""
    rows: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    """Rows by dataset."""
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows by dataset and label."""
    prompts: Counter[str] = field(default_factory=Counter)
    """Rows by prompt id."""
    unchanged: int = 0
    """Images that stayed byte for byte."""
    changes: Counter[str] = field(default_factory=Counter)
    """Images that were encoded again, by reason."""
    image_bytes: int = 0
    file_bytes: int = 0
    few_shot_short: dict[str, int] = field(default_factory=dict)
    """Classes that have fewer samples than few-shot asks for."""

    def add(self, sample: Sample, source: str, image: Encoded, prompt_id: str) -> None:
        """Count a written row."""
        self.rows += 1
        self.sources[source] += 1
        self.labels[source, sample.label] += 1
        self.prompts[prompt_id] += 1
        self.image_bytes += len(image.data)
        if image.change is None:
            self.unchanged += 1
        else:
            self.changes[image.change] += 1

    def as_json(self) -> dict[str, Any]:
        """The report on the file as JSON values."""
        return {
            "rows": self.rows,
            "file_bytes": self.file_bytes,
            "classes": len(self.labels),
            "sources": dict(sorted(self.sources.items())),
            "prompts": dict(sorted(self.prompts.items())),
            "images": {
                "bytes": self.image_bytes,
                "unchanged": self.unchanged,
                "encoded_again": dict(sorted(self.changes.items())),
            },
            "splits": {
                source: {split: asdict(count) for split, count in counts.items()}
                for source, counts in self.splits.items()
            },
            "few_shot_short": dict(sorted(self.few_shot_short.items())),
        }


@dataclass(slots=True)
class Report:
    """Report on a whole build."""

    name: str
    seed: int
    version: str
    files: dict[str, FileReport] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    dedup: str = "none"
    """Which equality was looked for."""
    equal_images: Sequence[Equal] = ()
    taxonomy_nodes: int = 0
    """0 where there is no hierarchy."""

    def as_json(self, ok: bool) -> dict[str, Any]:
        """The report as JSON values; `ok` says whether the files were written."""
        return {
            "version": FORMAT_VERSION,
            "ok": ok,
            "name": self.name,
            "seed": self.seed,
            "built_by": f"speciarl {self.version}",
            "files": {name: file.as_json() for name, file in self.files.items()},
            "taxonomy_nodes": self.taxonomy_nodes,
            "problem_counts": by_kind(self.problems),
            "problems": [problem.as_json() for problem in self.problems],
            "equal_images": {"by": self.dedup, **_equal_counts(self.equal_images)}
            | {"list": [asdict(equal) for equal in self.equal_images]},
        }


def _equal_counts(found: Sequence[Equal]) -> Mapping[str, int]:
    return {
        "across_files": sum(equal.file != equal.other_file for equal in found),
        "within_a_file": sum(equal.file == equal.other_file for equal in found),
        "with_another_label": sum(equal.labels_differ for equal in found),
    }
