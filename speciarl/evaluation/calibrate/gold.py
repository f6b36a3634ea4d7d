"""Gold pairs: pairs of names whose category follows from where they stand in a hierarchy."""

from __future__ import annotations

import enum
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speciarl.answer import ABSTENTIONS, normalise
from speciarl.category import Category
from speciarl.errors import DataError
from speciarl.taxonomy import Node, Taxonomy, TaxonomyError, UnknownConceptError
from speciarl.verdict import Pair

TRIES = 20
"""Rounds over all truths in search of pairs of one kind; a small hierarchy has fewer than asked for."""

_REFUSALS = tuple(sorted(ABSTENTIONS - {""}))
_SEVERAL = ("{one} or {other}", "either {one} or {other}", "{other} or maybe {one}", "{one} / {other}")


class Kind(enum.StrEnum):
    """How the answer of a gold pair was made from the truth."""

    SAME = "same"
    ALIAS = "alias"
    PARENT = "parent"
    ANCESTOR = "ancestor"
    """One above the parent."""
    CHILD = "child"
    SIBLING = "sibling"
    """Another child of the same parent; another root for a root."""
    REFUSAL = "refusal"
    SEVERAL = "several"
    """The truth and a sibling, as options."""


CATEGORIES = {
    Kind.SAME: Category.SPECIFIC,
    Kind.ALIAS: Category.SPECIFIC,
    Kind.PARENT: Category.LESS_SPECIFIC,
    Kind.ANCESTOR: Category.GENERIC,
    Kind.CHILD: Category.MORE_SPECIFIC,
    Kind.SIBLING: Category.WRONG,
    Kind.REFUSAL: Category.ABSTAIN,
    Kind.SEVERAL: Category.WRONG,
}
"""Category of each kind."""


@dataclass(frozen=True, slots=True)
class GoldPair:
    """A pair with its category."""

    pair: Pair
    kind: Kind

    @property
    def category(self) -> Category:
        """The category that a judge should give."""
        return CATEGORIES[self.kind]


def gold_pairs(taxonomy: Taxonomy, per_kind: int, seed: int) -> list[GoldPair]:
    """A random sample of at most `per_kind` distinct pairs of each kind, with as many truths as there are.

    Names that mean two of its concepts are left out, and pairs of which the hierarchy itself says otherwise. The same
    hierarchy, size and seed give the same pairs; raises DataError when there are none.
    """
    pairs = [pair for kind in Kind for pair in _of_kind(kind, taxonomy, per_kind, random.Random(f"{seed} {kind}"))]
    if not pairs:
        raise DataError("the hierarchy gives no pair whose category is certain; give another one")
    return pairs


def from_file(path: Path) -> Taxonomy:
    """The hierarchy in a taxonomy.json; raises DataError in one line."""
    try:
        return Taxonomy.load(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except TaxonomyError as error:
        raise DataError(f"{error}; prepare the data again") from error


def from_data(files: Sequence[Path]) -> Taxonomy:
    """The hierarchy of the labels in data files in veRL's format (`extra_info.label_path`); raises DataError in one
    line, and DataPrepError for labels that make none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from data_prep.pipeline.taxonomy import taxonomy

    paths: set[tuple[str, ...]] = set()
    for file in files:
        try:
            rows = pq.ParquetFile(file).read(["extra_info.label_path"])["extra_info"].to_pylist()
        except (OSError, pa.ArrowException, KeyError) as error:
            cause = " ".join(str(error).split())
            raise DataError(f"{file} has no extra_info.label_path ({cause}); build it with `speciarl data`") from error
        paths.update(tuple(row["label_path"]) for row in rows if row["label_path"])
    nodes = taxonomy(paths)["nodes"]
    return Taxonomy(Node(node["name"], tuple(node["aliases"]), node["parent"], node["id"]) for node in nodes)


def _of_kind(kind: Kind, taxonomy: Taxonomy, wanted: int, chance: random.Random) -> Iterable[GoldPair]:
    tree = _Tree(taxonomy.nodes)
    truths = sorted(taxonomy.nodes, key=lambda node: node.key)
    chance.shuffle(truths)
    found: dict[Pair, None] = {}  # in order
    for truth in truths * TRIES:
        answer = tree.answer(kind, truth, chance)
        if answer is None or not (tree.is_clear(truth.name) and tree.is_clear(answer)):
            continue
        if _agrees(taxonomy, pair := Pair(truth.name, answer), CATEGORIES[kind]):
            found[pair] = None
        if len(found) == wanted:
            break
    return [GoldPair(pair, kind) for pair in found]


def _agrees(taxonomy: Taxonomy, pair: Pair, category: Category) -> bool:
    try:
        return taxonomy.judge(pair) is category
    except UnknownConceptError:
        return False


class _Tree:
    """The hierarchy, seen from each node."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._by_key = {node.key: node for node in nodes}
        self._children: dict[str | None, list[str]] = {}
        for node in nodes:
            self._children.setdefault(node.parent, []).append(node.name)
        self._meanings = Counter(text for node in nodes for text in {*map(normalise, (node.name, *node.aliases))})

    def is_clear(self, text: str) -> bool:
        """Whether a text means one concept at most."""
        return self._meanings[normalise(text)] <= 1

    def answer(self, kind: Kind, truth: Node, chance: random.Random) -> str | None:
        """A random answer of a kind; None where the node has none."""
        above = self._above(truth)
        siblings = [name for name in self._children[truth.parent] if name != truth.name]
        if kind is Kind.SEVERAL:
            several = {"one": truth.name, "other": chance.choice(siblings)} if siblings else None
            return chance.choice(_SEVERAL).format(**several) if several else None
        choices: dict[Kind, Sequence[str]] = {
            Kind.SAME: (truth.name,),
            Kind.ALIAS: truth.aliases,
            Kind.PARENT: above[:1],
            Kind.ANCESTOR: above[1:],
            Kind.CHILD: self._children.get(truth.key, ()),
            Kind.SIBLING: siblings,
            Kind.REFUSAL: _REFUSALS,
        }
        return chance.choice(choices[kind]) if choices[kind] else None

    def _above(self, node: Node) -> list[str]:
        names = []
        while node.parent is not None:
            node = self._by_key[node.parent]
            names.append(node.name)
        return names
