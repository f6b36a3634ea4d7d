"""Taxonomy file: the hierarchy of a build's labels, as the taxonomy judge reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from speciarl.answer import normalise
from speciarl.errors import DataPrepError
from speciarl.taxonomy import Node, Taxonomy, TaxonomyError
from speciarl.verdict import Pair

FORMAT_VERSION = 1
Path = tuple[str, ...]


def taxonomy(label_paths: Iterable[Path]) -> dict[str, Any]:
    """``{"version": 1, "nodes": [{"id", "name", "aliases", "parent"}, …]}``, parents before children.

    A level that only repeats the name above it (family A380, variant A380, and no other variant) is left out. Inner
    nodes that share a name are called after their parents too, with the shared name as an alias. Raises DataPrepError
    for two classes whose labels are read as the same text, because a ground truth could mean either.
    """
    paths = {_without_repeats(path, lone) for path, lone in _with_lone(label_paths)}
    inner = {path[:depth] for path in paths for depth in range(1, len(path))}
    leaves = paths - inner
    _refuse_equal_labels(leaves)
    shared = Counter(normalise(path[-1]) for path in inner)
    nodes = []
    for path in sorted(inner | leaves, key=lambda path: (len(path), path)):
        name, aliases = path[-1], []
        if path in inner and shared[normalise(name)] > 1 and len(path) > 1:
            name, aliases = f"{path[-2]} {name}", [name]
        parent = " > ".join(path[:-1]) if len(path) > 1 else None
        nodes.append({"id": " > ".join(path), "name": name, "aliases": aliases, "parent": parent})
    _verify(nodes, leaves)
    return {"version": FORMAT_VERSION, "nodes": nodes}


def has_hierarchy(label_paths: Iterable[Path]) -> bool:
    """Whether any label stands below another."""
    return any(len(path) > 1 for path in label_paths)


def _with_lone(label_paths: Iterable[Path]) -> list[tuple[Path, set[Path]]]:
    """Pairs of each path and the set of inner nodes that have a single child."""
    paths = set(label_paths)
    children: dict[Path, set[Path]] = {}
    for path in paths:
        for depth in range(1, len(path)):
            children.setdefault(path[:depth], set()).add(path[: depth + 1])
    lone = {parent for parent, below in children.items() if len(below) == 1}
    return [(path, lone) for path in paths]


def _without_repeats(path: Path, lone: set[Path]) -> Path:
    kept = [
        name
        for depth, name in enumerate(path, start=1)
        # The node above goes, not the leaf: a leaf's name is a ground truth and stays as written.
        if not (depth < len(path) and path[:depth] in lone and normalise(name) == normalise(path[depth]))
    ]
    return tuple(kept)


def _verify(nodes: list[dict[str, Any]], leaves: set[Path]) -> None:
    """Raise DataPrepError unless the taxonomy judge accepts the tree and knows every label in it."""
    try:
        tree = Taxonomy(
            Node(name=node["name"], aliases=tuple(node["aliases"]), parent=node["parent"], id=node["id"])
            for node in nodes
        )
        for path in leaves:
            tree.judge(Pair(path[-1], path[-1]))
    except TaxonomyError as error:
        raise DataPrepError(f"the labels make no hierarchy: {error}; build with taxonomy=false") from error


def _refuse_equal_labels(leaves: set[Path]) -> None:
    first: dict[str, Path] = {}
    for path in sorted(leaves):
        other = first.setdefault(normalise(path[-1]), path)
        if other != path:
            raise DataPrepError(
                f"two classes are read as the same label: {' > '.join(other)} and {' > '.join(path)}; "
                "rename or exclude one (select.exclude), or build with taxonomy=false"
            )
