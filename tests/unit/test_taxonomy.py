"""The exact judge's knowledge."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.taxonomy import Node, Taxonomy, TaxonomyError, UnknownConceptError
from speciarl.verdict import Pair

NODES = (
    Node("animals nature"),
    Node("animal mammal", parent="animals nature"),
    Node("animal bird", parent="animals nature"),
    Node("dog", ("hound",), "animal mammal"),
    Node("Poodle!", ("poodle dog",), "dog"),
    Node("penguin", ("Pingu",), "animal bird"),
    Node("food"),
)
TAXONOMY = Taxonomy(NODES)


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        ("dog", "Dog", Category.SPECIFIC),
        ("dog", "hound", Category.SPECIFIC),
        ("hound", "dog", Category.SPECIFIC),
        ("dog", "animal mammal", Category.LESS_SPECIFIC),
        ("dog", "animals nature", Category.GENERIC),
        ("dog", "poodle", Category.MORE_SPECIFIC),
        ("animals nature", "poodle dog", Category.MORE_SPECIFIC),
        ("dog", "penguin", Category.WRONG),
        ("dog", "animal bird", Category.WRONG),
        ("dog", "food", Category.WRONG),
        ("dog", "dog or penguin", Category.WRONG),
        ("dog", "None", Category.ABSTAIN),
        ("dog", "", Category.ABSTAIN),
        ("poodle", "animal mammal", Category.GENERIC),
    ],
)
def test_judge(truth: str, prediction: str, expected: Category) -> None:
    assert TAXONOMY.judge(Pair(truth, prediction)) is expected


def test_an_unknown_truth_is_no_verdict() -> None:
    with pytest.raises(UnknownConceptError, match="unicorn"):
        TAXONOMY.judge(Pair("unicorn", "dog"))


@given(st.sampled_from(NODES), st.sampled_from(NODES))
def test_judging_the_other_way_round_mirrors_the_category(truth: Node, prediction: Node) -> None:
    there = TAXONOMY.judge(Pair(truth.name, prediction.name))
    back = TAXONOMY.judge(Pair(prediction.name, truth.name))
    wider = {Category.LESS_SPECIFIC, Category.GENERIC}
    assert (there in wider) == (back is Category.MORE_SPECIFIC)
    assert (there is Category.SPECIFIC) == (truth is prediction) == (back is Category.SPECIFIC)
    assert (there is Category.WRONG) == (back is Category.WRONG)


def test_one_name_on_two_levels() -> None:
    taxonomy = Taxonomy(
        [
            Node("hotel", id="subgroup hotel"),
            Node("bellhop bell", parent="subgroup hotel"),
            Node("place"),
            Node("hotel", ("inn",), "place", id="building"),
        ]
    )
    assert taxonomy.judge(Pair("hotel", "inn")) is Category.SPECIFIC
    assert taxonomy.judge(Pair("hotel", "place")) is Category.LESS_SPECIFIC
    assert taxonomy.judge(Pair("bellhop bell", "hotel")) is Category.LESS_SPECIFIC


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([Node("dog"), Node("dog")], "own `id`"),
        ([Node("dog", parent="mammal")], "'dog' has the unknown parent 'mammal'"),
        ([Node("a", parent="b"), Node("b", parent="a")], "own ancestors"),
        ([Node("a", parent="a")], "own ancestors"),
        ([Node("jaguar", id="cat"), Node("jaguar", id="car")], "two leaves are called 'jaguar'"),
    ],
)
def test_inconsistent_hierarchies_are_refused(nodes: list[Node], message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        Taxonomy(nodes)


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_load(tmp_path: Path) -> None:
    nodes = [{"name": "dog", "aliases": ["hound"], "parent": "mammal"}, {"name": "mammal", "parent": None}]
    taxonomy = Taxonomy.load(write(tmp_path / "taxonomy.json", {"version": 1, "nodes": nodes}))
    assert len(taxonomy) == 2
    assert taxonomy.judge(Pair("hound", "mammal")) is Category.LESS_SPECIFIC


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON"),
        ({"nodes": []}, "version None"),
        ({"version": 2, "nodes": []}, "version 2"),
        ({"version": 1}, "no list `nodes`"),
        ({"version": 1, "nodes": ["dog"]}, r"nodes\[0\] is no object"),
        ({"version": 1, "nodes": [{"name": "dog", "parnet": None}]}, "'parnet'"),
        ({"version": 1, "nodes": [{"name": "!!"}]}, "no `name`"),
        ({"version": 1, "nodes": [{"name": "dog", "aliases": "hound"}]}, "aliases"),
        ({"version": 1, "nodes": [{"name": "dog", "parent": 3}]}, "parent"),
    ],
)
def test_unreadable_files_are_refused_in_one_line(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(TaxonomyError, match=message) as caught:
        Taxonomy.load(write(tmp_path / "taxonomy.json", content))
    assert "\n" not in str(caught.value)
