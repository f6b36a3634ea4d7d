"""The taxonomy file: what the taxonomy judge reads, also where names repeat."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.pipeline.taxonomy import has_hierarchy, taxonomy
from speciarl.category import Category
from speciarl.errors import DataPrepError
from speciarl.taxonomy import Taxonomy
from speciarl.verdict import Pair


def loaded(paths: list[tuple[str, ...]], folder: Path) -> Taxonomy:
    (folder / "taxonomy.json").write_text(json.dumps(taxonomy(paths)))
    return Taxonomy.load(folder / "taxonomy.json")


PLANES = [
    ("Boeing", "Boeing 737", "737-200"),
    ("Boeing", "Boeing 737", "737-300"),
    ("Boeing", "Boeing 717", "Boeing 717"),
    ("Airbus", "A380", "A380"),
    ("McDonnell Douglas", "MD-80", "MD-80"),
    ("McDonnell Douglas", "MD-80", "MD-87"),
]


def test_relations(tmp_path: Path) -> None:
    tree = loaded(PLANES, tmp_path)
    for truth, prediction, category in (
        ("737-200", "737-200", Category.SPECIFIC),
        ("737-200", "Boeing 737", Category.LESS_SPECIFIC),
        ("737-200", "boeing", Category.GENERIC),
        ("737-200", "737-300", Category.WRONG),
        ("A380", "A380", Category.SPECIFIC),
        ("A380", "Airbus", Category.LESS_SPECIFIC),  # the family of one variant is no level of its own
        ("MD-87", "MD-80", Category.LESS_SPECIFIC),
        ("MD-80", "MD-80", Category.SPECIFIC),
    ):
        assert tree.judge(Pair(truth, prediction)) is category, (truth, prediction)


def test_inner_nodes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    tree = loaded([("Audi", "Sedan", "Audi S4"), ("BMW", "Sedan", "BMW M3"), ("BMW", "Coupe", "BMW M6")], tmp_path)
    assert tree.judge(Pair("Audi S4", "sedan")) is Category.LESS_SPECIFIC
    assert tree.judge(Pair("BMW M3", "BMW Sedan")) is Category.LESS_SPECIFIC
    assert tree.judge(Pair("BMW M3", "Audi Sedan")) is Category.WRONG


def test_equal_labels_are_refused_with_both_paths() -> None:
    with pytest.raises(DataPrepError, match="bird > Jay and plane > jay"):
        taxonomy([("bird", "Jay"), ("plane", "jay")])


def test_the_same_path_twice_is_one_node() -> None:
    assert len(taxonomy([("a", "b"), ("a", "b")])["nodes"]) == 2


def test_labels_without_levels() -> None:
    assert not has_hierarchy([("a",), ("b",)])
    assert has_hierarchy([("a",), ("b", "c")])
    assert [node["parent"] for node in taxonomy([("a",), ("b",)])["nodes"]] == [None, None]


def test_the_order_of_the_labels_does_not_matter() -> None:
    assert taxonomy(PLANES) == taxonomy(PLANES[::-1])


names = st.sampled_from(["alpha", "Beta", "gamma", "delta-1", "one two"])


@given(st.lists(st.tuples(names, names), max_size=8))
def test_every_label_is_known_to_the_judge(inner: list[tuple[str, str]]) -> None:
    paths = [(first, second, f"leaf {number}") for number, (first, second) in enumerate(inner)]
    nodes = taxonomy(paths)["nodes"]
    ids = {node["id"] for node in nodes}
    assert len(ids) == len(nodes)
    assert all(node["parent"] is None or node["parent"] in ids for node in nodes)
    assert {path[-1] for path in paths} <= {node["name"] for node in nodes}
