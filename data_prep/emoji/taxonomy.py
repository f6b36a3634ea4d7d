"""Emoji taxonomy: the miniature world's hierarchy in the form that the taxonomy judge reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_prep.emoji.facts import Concept

FORMAT_VERSION = 1


def taxonomy(concepts: Sequence[Concept]) -> dict[str, Any]:
    """``{"version": 1, "nodes": [{"name", "aliases", "parent"}, …]}``: groups, then subgroups, then names."""
    groups = dict.fromkeys(concept.group for concept in concepts)
    subgroups = {concept.subgroup: concept.group for concept in concepts}
    nodes: list[dict[str, Any]] = [{"name": group, "aliases": [], "parent": None} for group in groups]
    nodes += [{"name": name, "aliases": [], "parent": group} for name, group in subgroups.items()]
    nodes += [
        {"name": concept.name, "aliases": list(concept.fact.aliases), "parent": concept.subgroup}
        for concept in concepts
    ]
    return {"version": FORMAT_VERSION, "nodes": nodes}
