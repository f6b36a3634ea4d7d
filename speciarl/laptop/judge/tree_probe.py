"""Tree probe, an auxiliary task of the miniature judge: where in the hierarchy does each of two texts stand?

Without it a judge of this size learns its training pairs by heart and fails on held-out ones. The probe reads the
hidden states half-way up, at the tokens that close the two JSON strings, and is thrown away after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from data_prep.emoji.facts import Concept
from speciarl.answer import normalise

NOWHERE = 0
"""Class of a text that is no label."""


@dataclass(frozen=True)
class Place:
    """Classes of a text: its own node, the subgroup and the group it belongs to; ``NOWHERE`` where there is none."""

    node: int = NOWHERE
    subgroup: int = NOWHERE
    group: int = NOWHERE


class TreeMap:
    """From a label or alias to its place."""

    def __init__(self, concepts: Sequence[Concept]) -> None:
        groups = {name: at for at, name in enumerate(dict.fromkeys(c.group for c in concepts), 1)}
        subgroups = {name: at for at, name in enumerate(dict.fromkeys(c.subgroup for c in concepts), 1)}
        above = 1 + len(groups) + len(subgroups)
        self._places = {name: Place(at, NOWHERE, at) for name, at in groups.items()}
        for concept in concepts:
            group, subgroup = groups[concept.group], subgroups[concept.subgroup]
            self._places[concept.subgroup] = Place(len(groups) + subgroup, subgroup, group)
            for text in (concept.name, *concept.fact.aliases):
                self._places[text] = Place(above + concept.index, subgroup, group)
        self.sizes = (above + len(concepts), 1 + len(subgroups), 1 + len(groups))

    def place(self, text: str) -> Place:
        """The place of a text, compared in its normal form."""
        return self._places.get(normalise(text), Place())


class TreeProbe(torch.nn.Module):
    """Three linear classifiers (node, subgroup, group) on hidden states of width ``width``."""

    def __init__(self, width: int, tree: TreeMap) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleList(torch.nn.Linear(width, size) for size in tree.sizes)

    def loss(self, hidden: torch.Tensor, places: Sequence[Place]) -> torch.Tensor:
        """Mean cross-entropy over the three classifiers for hidden states (B, H) and their places."""
        targets = torch.tensor([(p.node, p.subgroup, p.group) for p in places], device=hidden.device)
        losses = [torch.nn.functional.cross_entropy(head(hidden), targets[:, at]) for at, head in enumerate(self.heads)]
        return torch.stack(losses).mean()
