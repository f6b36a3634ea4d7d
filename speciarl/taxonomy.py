"""Taxonomy: a hierarchy of concepts, from which the exact category of a pair is computed."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from speciarl.answer import is_abstention, normalise
from speciarl.category import Category
from speciarl.verdict import Pair

FORMAT_VERSION = 1


class TaxonomyError(ValueError):
    """The taxonomy is inconsistent; the message is one line that names the node."""


class UnknownConceptError(TaxonomyError):
    """The ground truth is not in the taxonomy."""


@dataclass(frozen=True, slots=True)
class Node:
    """One concept of the hierarchy. Its texts need not be normalised."""

    name: str
    aliases: tuple[str, ...] = ()
    parent: str | None = None
    """`id` of the parent; None for a root."""
    id: str = ""
    """Unique key; the name when empty. Needed only where two nodes share a name."""

    @property
    def key(self) -> str:
        """The unique key by which a child's `parent` refers to this node."""
        return self.id or self.name


class Taxonomy:
    """A forest of concepts. No two leaves share a name, nor two inner nodes; other texts may mean several nodes."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        """Raises TaxonomyError for duplicate keys, unknown parents, cycles, and leaves or inner nodes of one name."""
        self._nodes = _index(nodes)
        self._ancestors = {key: self._path_up(key) for key in self._nodes}
        self._by_text: dict[str, set[str]] = {}
        for key, node in self._nodes.items():
            for text in (node.name, *node.aliases):
                self._by_text.setdefault(normalise(text), set()).add(key)
        self._by_name = self._truths()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read ``{"version": 1, "nodes": [{"name", "aliases"?, "parent"?, "id"?}, …]}``.

        Raises OSError when the file cannot be read and TaxonomyError when it makes no sense.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise TaxonomyError(f"{path} is no JSON: {error}") from error
        version = content.get("version") if isinstance(content, dict) else None
        if version != FORMAT_VERSION:
            raise TaxonomyError(f"{path} has taxonomy version {version!r}; this program reads {FORMAT_VERSION}")
        entries = content.get("nodes")
        if not isinstance(entries, list):
            raise TaxonomyError(f"{path} has no list `nodes`")
        return cls(_node(entry, f"{path}, nodes[{index}]") for index, entry in enumerate(entries))

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All concepts, in the order in which they were given."""
        return tuple(self._nodes.values())

    def judge(self, pair: Pair) -> Category:
        """The exact category of a pair, by where the prediction's node lies from the truth's.

        Same node, by name or alias: SPECIFIC. Parent of the truth: LESS_SPECIFIC. Any farther ancestor:
        GENERIC. Descendant: MORE_SPECIFIC. Declining to answer: ABSTAIN. Anything else: WRONG. A text that
        names several nodes is read in the best sense. Raises UnknownConceptError for a ground truth that is
        not held.
        """
        truth = self._truth(pair.ground_truth)
        meant = self._by_text.get(normalise(pair.prediction), set())
        if truth in meant:
            return Category.SPECIFIC
        if not meant and is_abstention(pair.prediction):
            return Category.ABSTAIN
        return max((self._relation(truth, key) for key in meant), default=Category.WRONG)

    def _relation(self, truth: str, other: str) -> Category:
        above = self._ancestors[truth]
        if other in above:
            return Category.LESS_SPECIFIC if other == above[0] else Category.GENERIC
        return Category.MORE_SPECIFIC if truth in self._ancestors[other] else Category.WRONG

    def _truth(self, text: str) -> str:
        key = self._by_name.get(normalise(text))
        if key is None:
            raise UnknownConceptError(f"ground truth {text!r} is not in the taxonomy")
        return key

    def _path_up(self, key: str) -> tuple[str, ...]:
        """Keys of all ancestors, parent first."""
        path = [key]
        while (parent := self._nodes[path[-1]].parent) is not None:
            if parent not in self._nodes:
                raise TaxonomyError(f"{path[-1]!r} has the unknown parent {parent!r}")
            if parent in path:
                raise TaxonomyError(f"{parent!r} is among its own ancestors")
            path.append(parent)
        return tuple(path[1:])

    def _truths(self) -> dict[str, str]:
        """Key of the node that a ground truth means, by its text: names before aliases, leaves before inner nodes."""
        inner = {node.parent for node in self._nodes.values()}
        truths: dict[str, str] = {}
        for wants_leaf in (True, False):
            level: dict[str, str] = {}
            for key, node in self._nodes.items():
                if (key not in inner) is not wants_leaf:
                    continue
                name = normalise(node.name)
                if name in level:
                    kind = "leaves" if wants_leaf else "inner nodes"
                    raise TaxonomyError(f"two {kind} are called {node.name!r}: a ground truth could mean either")
                level[name] = key
            truths = level | truths  # what is there already, the leaves, takes precedence
        for text, keys in self._by_text.items():
            if text not in truths and len(keys) == 1:
                truths[text] = next(iter(keys))
        return truths


def _index(nodes: Iterable[Node]) -> dict[str, Node]:
    index: dict[str, Node] = {}
    for node in nodes:
        if node.key in index:
            raise TaxonomyError(f"two nodes have the key {node.key!r}: give one of them its own `id`")
        index[node.key] = node
    return index


def _node(entry: Any, where: str) -> Node:
    if not isinstance(entry, Mapping):
        raise TaxonomyError(f"{where} is no object")
    unknown = set(entry) - {"name", "aliases", "parent", "id"}
    if unknown:
        raise TaxonomyError(f"{where} has the unknown key {sorted(unknown)[0]!r}")
    name, aliases, parent = entry.get("name"), entry.get("aliases") or [], entry.get("parent")
    if not (isinstance(name, str) and normalise(name)):
        raise TaxonomyError(f"{where} has no `name`")
    if not (isinstance(aliases, list) and all(isinstance(alias, str) for alias in aliases)):
        raise TaxonomyError(f"{where}: `aliases` is no list of strings")
    if not (parent is None or isinstance(parent, str)):
        raise TaxonomyError(f"{where}: `parent` is neither a string nor null")
    return Node(name=name, aliases=tuple(aliases), parent=parent, id=str(entry.get("id") or ""))
