"""Build settings: every key of a build, validated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from speciarl.errors import DataPrepError
from speciarl.utils import wrong_keys

TRAIN = "train"
"""Name of the training file, to which `subset`, `prompts` and `count` apply; all other files are for testing."""

TRAIN_VIEWS = 8


def _weighted(value: Any) -> Any:
    """``general`` and ``[general, specific]`` mean equal weights."""
    names = [value] if isinstance(value, str) else value
    return dict.fromkeys(names, 1.0) if isinstance(names, list) else names


def _ranges(value: Any) -> Any:
    """``"0-10,15"`` and ``["0-10", 15]`` as pairs of first and last."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return parts
    pairs = []
    for part in parts:
        if isinstance(part, list | tuple):  # as validated before
            pairs.append(tuple(part))
            continue
        first, dash, last = str(part).partition("-")
        if not (first.strip().isdecimal() and (last.strip().isdecimal() or not dash)):
            raise ValueError(f"{part!r} is no range; write it like 0-10 or 15")
        pairs.append((int(first), int(last or first)))
        if pairs[-1][1] < pairs[-1][0]:
            raise ValueError(f"the range {part!r} ends before it begins")
    return tuple(pairs)


PromptWeights = Annotated[dict[str, Annotated[float, Field(ge=0)]], BeforeValidator(_weighted), Field(min_length=1)]
"""Names or files of templates and how often each is drawn."""


class Part(BaseModel):
    """Base of all settings: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EmojiConfig(Part):
    """Settings of the emoji world. It has its own builder: the shipped models were made for exactly its bytes."""

    out: Path
    """Folder to write into."""
    seed: int = 0
    """Seed of the augmentation."""
    train_views: int = Field(default=TRAIN_VIEWS, ge=1)
    """Views per animal in train."""


class Subset(Part):
    """Subset of a split's samples, chosen in this order: range, few-shot, then percent or count."""

    start: int | None = Field(default=None, ge=0)
    """First sample of the published order, counted from 0."""
    stop: int | None = Field(default=None, ge=1)
    """End of the range: the first sample that is not taken."""
    ranges: Annotated[tuple[tuple[int, int], ...], BeforeValidator(_ranges)] = ()
    """Several ranges in place of one, as ``[0-10,15]``: from the first to the last of each, both taken."""
    per_class: int | None = Field(default=None, ge=1)
    """Few-shot: at most this many random samples of each class."""
    percent: float | None = Field(default=None, gt=0, le=100)
    """Random share of the samples of each dataset."""
    count: int | None = Field(default=None, ge=1)
    """Number of random samples; in a mix, over all datasets together."""
    stratified: bool = False
    """Whether each class keeps its share, under percent and count."""
    draw: Literal["hash", "python"] = "hash"
    """How percent and count choose: by a hash of the sample's id, or by place in the published order with Python's own
    generator, ``random.Random(seed).sample(range(n), count)``, as the paper's release does."""

    @model_validator(mode="after")
    def _one_size(self) -> Subset:
        if self.percent is not None and self.count is not None:
            raise ValueError("give percent or count, not both")
        if self.stratified and self.draw == "python":
            raise ValueError("draw=python knows no classes; give it or stratified, not both")
        if self.ranges and (self.start is not None or self.stop is not None):
            raise ValueError("give ranges, or start and stop, not both")
        if self.stop is not None and self.stop <= (self.start or 0):
            raise ValueError(f"stop {self.stop} is not after start {self.start or 0}")
        return self


class Classes(Part):
    """Classes to use, by label, by the dataset's own key, or by any name above them in the hierarchy."""

    include: list[str] = []
    """Classes to use; empty for all."""
    exclude: list[str] = []
    """Classes to leave out."""


class Source(Part):
    """Settings of one dataset of the build."""

    dataset: str | None = None
    """Name of its reader; the key of this entry when left out."""
    root: Path
    """Folder of its files."""
    options: dict[str, Any] = {}
    """Options of this reader, e.g. ``coop_split``."""
    splits: dict[str, list[str]]
    """The dataset's splits that go into each file, by the file's name."""
    count: int | None = Field(default=None, ge=1)
    """Number of its samples in train."""
    test_count: int | None = Field(default=None, ge=1)
    """Number of its samples in each other file."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of `subset.count` beside datasets that have no count of their own."""
    prompts: PromptWeights | None = None
    """Prompts for this dataset's rows in place of the build's."""

    @field_validator("splits", mode="after")
    @classmethod
    def _files(cls, splits: dict[str, list[str]]) -> dict[str, list[str]]:
        for file in splits:
            if not file.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"{file!r} is no name for a file: use letters, digits, - and _")
        if not any(splits.values()):
            raise ValueError("no split is named")
        return {file: names for file, names in splits.items() if names}


class Pictures(Part):
    """How images are stored."""

    max_pixels: int | None = Field(default=None, ge=28 * 28)
    """Most pixels of an image: larger ones are scaled down and stored as JPEG; null leaves all as they are."""
    jpeg_quality: int = Field(default=92, ge=1, le=95)
    """JPEG quality of images that have to be encoded again."""


class Dedup(Part):
    """Duplicates: images that are in more than one place."""

    by: Literal["none", "bytes", "pixels"] = "none"
    """What makes two images equal: the file, or size and colours when decoded. Every image is read once more."""
    action: Literal["report", "drop"] = "report"
    """Whether train loses the images that a test file holds too or that it holds twice. Test files never shrink."""


class BuildConfig(Part):
    """Settings of a build: everything that decides what it writes."""

    name: str = Field(min_length=1)
    """Name of the build in the files' metadata."""
    out: Path
    """Folder to write into."""
    seed: int = 42
    """Seed of every random choice."""
    sources: dict[str, Source] = Field(min_length=1)
    """The datasets; the key becomes `data_source`, by which metrics are reported."""
    subset: Subset = Subset()
    """Which samples go into train."""
    test_subset: Subset = Subset()
    """Which samples go into the other files."""
    select: Classes = Classes()
    """Which classes are used, in all files."""
    order: Literal["published", "shuffled"] = "published"
    """Order of the rows; of a mix, published means one dataset after the other."""
    prompts: PromptWeights = {"general": 1.0}
    """Prompts of train."""
    test_prompts: PromptWeights | None = None
    """Prompts of the other files; null for the same ones."""
    pictures: Pictures = Pictures()
    """How images are stored."""
    dedup: Dedup = Dedup()
    """Images that are in more than one place."""
    on_broken: Literal["fail", "skip"] = "fail"
    """Whether broken images, empty labels and repeated ids end the build, or are left out and listed."""
    check_counts: Literal["fail", "warn"] = "fail"
    """Whether a split of another size than its publisher states ends the build."""
    taxonomy: bool = True
    """Whether to write taxonomy.json where labels have a hierarchy."""
    row_group_mb: float = Field(default=32.0, gt=0, le=1024)
    """Megabytes of images in a row group: what a reader has to hold at once."""
    workers: int | None = Field(default=None, ge=1, le=256)
    """Number of threads; null for one per core, 16 at most."""

    @property
    def files(self) -> list[str]:
        """Names of the files to write, train first."""
        names = dict.fromkeys(file for source in self.sources.values() for file in source.splits)
        return sorted(names, key=lambda file: file != TRAIN)

    def subset_of(self, file: str) -> Subset:
        """The subset settings of a file."""
        return self.subset if file == TRAIN else self.test_subset

    def count_of(self, source: str, file: str) -> int | None:
        """Number of samples of a dataset in a file; None where the dataset has no count of its own."""
        return self.sources[source].count if file == TRAIN else self.sources[source].test_count

    def prompts_of(self, source: str, file: str) -> dict[str, float]:
        """The prompts of a dataset's rows in a file."""
        general = self.prompts if file == TRAIN else self.test_prompts or self.prompts
        return self.sources[source].prompts or general

    def described(self) -> dict[str, Any]:
        """The settings as JSON values, without those that are about the machine and not the rows."""
        plain: dict[str, Any] = self.model_dump(mode="json", exclude={"out", "workers"})
        for source in plain["sources"].values():
            del source["root"]
        return plain


def parse(node: Mapping[str, Any], model: type[BaseModel] = BuildConfig) -> Any:
    """Validate plain settings against `model`; raises DataPrepError naming every wrong key in one line."""
    try:
        return model.model_validate(node)
    except ValidationError as error:
        raise DataPrepError(wrong_keys.describe(error, model)) from error
