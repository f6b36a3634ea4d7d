"""Padding rows: where they stand in a batch that veRL fills up with them until it divides into mini-batches."""

from typing import Any


def spread(batch: Any, ranks: int) -> None:
    """Reorder a balanced batch in place: each rank keeps its share of rows, with its padding rows spread evenly.

    veRL leaves the padding at the end of each share. The last mini-batch would then be an update on few rollouts, which
    in a mean over tokens weigh more than others.
    """
    is_padding = [bool(tag.get("is_padding", False)) for tag in batch.tags]
    share = len(is_padding) // ranks
    order: list[int] = []
    for first in range(0, len(is_padding), share):
        rows = range(first, first + share)
        kinds = [[row for row in rows if is_padding[row] is kind] for kind in (False, True)]
        # Rows of a kind stand at the middles of equally long parts of [0, 1); sorting merges both kinds evenly.
        place = {row: (number + 0.5) / len(kind) for kind in kinds for number, row in enumerate(kind)}
        order += sorted(rows, key=place.__getitem__)
    batch.reorder(order)
