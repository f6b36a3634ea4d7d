"""Several files at once: each by itself, against the taxonomy, and against one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.errors import DataPrepError
from data_prep.validate import Fault, faults, ground_truths, sample_ids
from speciarl.taxonomy import Taxonomy, TaxonomyError, UnknownConceptError
from speciarl.verdict import Pair

TAXONOMY = "taxonomy.json"


def check(
    files: Sequence[Path], image_key: str, images: int | None, taxonomy: Path | None
) -> Iterator[tuple[Path, list[Fault]]]:
    """Each file with its faults.

    Args:
        images: how many images of a file to decode; None for all.
        taxonomy: must know every ground truth; None for the taxonomy.json beside a file, if there is one.

    Raises DataPrepError when the taxonomy itself cannot be read.
    """
    owners: dict[str, tuple[Path, int]] = {}
    for file in files:
        found = list(faults(file, image_key, images))
        if not found:
            found += _unknown_labels(file, taxonomy or file.with_name(TAXONOMY), required=taxonomy is not None)
            for sample_id, row in sample_ids(file).items():
                other, other_row = owners.setdefault(sample_id, (file, row))
                if other != file:
                    message = f"is {sample_id!r} as in {other}, row {other_row}: tested on what was trained on"
                    found.append(Fault(row, "extra_info.sample_id", message))
        yield file, found


def _unknown_labels(file: Path, taxonomy: Path, required: bool) -> Iterator[Fault]:
    if not taxonomy.is_file():
        if required:
            raise DataPrepError(f"{taxonomy}: no such file")
        return
    try:
        tree = Taxonomy.load(taxonomy)
    except (OSError, TaxonomyError) as error:
        raise DataPrepError(f"{taxonomy}: {error}; build the dataset again") from error
    for truth, row in ground_truths(file).items():
        try:
            tree.judge(Pair(truth, truth))
        except UnknownConceptError:
            yield Fault(row, "reward_model.ground_truth", f"{truth!r} is not in {taxonomy}")
