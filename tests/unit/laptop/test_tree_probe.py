"""The judge's auxiliary task."""

import pytest
import torch

from data_prep.emoji.concepts import load_concepts
from speciarl.laptop.judge.tree_probe import NOWHERE, Place, TreeMap, TreeProbe


@pytest.fixture(scope="module")
def tree() -> TreeMap:
    return TreeMap(load_concepts())


def test_labels_and_aliases_share_a_node_and_junk_has_none(tree: TreeMap) -> None:
    for concept in load_concepts():
        own, above, top = (tree.place(text) for text in reversed(concept.label_path))
        assert (own.subgroup, own.group) == (above.subgroup, top.node)
        assert above.group == own.group == top.group != NOWHERE
        assert (top.subgroup, top.node) == (NOWHERE, top.group)
        assert all(tree.place(alias) == own for alias in concept.fact.aliases)
    assert tree.place("b1rd") == Place()
    assert tree.place("Dog FACE!") == tree.place("dog face")


def test_every_class_is_within_the_heads(tree: TreeMap) -> None:
    places = [tree.place(text) for concept in load_concepts() for text in concept.label_path]
    assert max(place.node for place in places) == tree.sizes[0] - 1
    assert max(place.subgroup for place in places) == tree.sizes[1] - 1
    assert max(place.group for place in places) == tree.sizes[2] - 1
    assert len({place.node for place in places}) == tree.sizes[0] - 1


def test_the_probe_can_learn_places(tree: TreeMap) -> None:
    torch.manual_seed(0)
    probe = TreeProbe(16, tree)
    hidden, places = torch.randn(4, 16), [tree.place("dog"), tree.place("food drink"), Place(), tree.place("drink")]
    optimizer = torch.optim.Adam(probe.parameters(), lr=0.1)
    first = probe.loss(hidden, places)
    for _ in range(50):
        optimizer.zero_grad()
        probe.loss(hidden, places).backward()
        optimizer.step()
    assert probe.loss(hidden, places).item() < 0.05 * first.item()
