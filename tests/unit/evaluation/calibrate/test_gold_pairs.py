"""Gold pairs: every kind, from any hierarchy, and of no category but the one that the hierarchy gives."""

import asyncio
import itertools
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.errors import DataError
from speciarl.evaluation.calibrate.gold import Kind, from_data, from_file, gold_pairs
from speciarl.evaluation.calibrate.judged import judged
from speciarl.evaluation.calibrate.judging import evenly, try_judge
from speciarl.taxonomy import Node, Taxonomy
from speciarl.verifier_server.config import parse_config

NODES = [
    {"name": "animal"},
    {"name": "bird", "parent": "animal"},
    {"name": "cat", "parent": "animal", "aliases": ["felid"]},
    {"name": "warbler", "parent": "bird"},
    {"name": "golden warbler", "parent": "warbler", "aliases": ["setophaga"]},
    {"name": "hooded warbler", "parent": "warbler"},
    {"name": "lion", "parent": "cat", "aliases": ["panthera leo"]},
    {"name": "tiger", "parent": "cat"},
]


def grown(parents: list[int]) -> Taxonomy:
    """A hierarchy in which node i + 1 is a child of node parents[i] % (i + 1)."""
    nodes = [Node("root name")]
    for number, parent in enumerate(parents):
        nodes.append(Node(f"name {number}", (f"alias {number}",), nodes[parent % len(nodes)].key))
    return Taxonomy(nodes)


@pytest.fixture
def hierarchy(tmp_path: Path) -> Path:
    file = tmp_path / "taxonomy.json"
    file.write_text(json.dumps({"version": 1, "nodes": NODES}))
    return file


def test_every_kind_is_there_with_its_category(hierarchy: Path) -> None:
    pairs = gold_pairs(from_file(hierarchy), per_kind=3, seed=0)
    assert Counter(pair.kind for pair in pairs) == dict.fromkeys(Kind, 3)
    assert {pair.category for pair in pairs} == set(Category)
    told = {
        (pair.kind, pair.pair.ground_truth, pair.pair.prediction) for pair in gold_pairs(from_file(hierarchy), 50, 0)
    }
    assert (Kind.PARENT, "lion", "cat") in told
    assert (Kind.ANCESTOR, "lion", "animal") in told
    assert (Kind.CHILD, "cat", "tiger") in told
    assert (Kind.SIBLING, "lion", "tiger") in told
    assert (Kind.ALIAS, "lion", "panthera leo") in told
    assert not {truth for kind, truth, _ in told if kind is Kind.ANCESTOR} & {"animal", "bird", "cat"}


@settings(max_examples=30)
@given(st.lists(st.integers(0, 30), max_size=15), st.integers(1, 12), st.integers(0, 5))
def test_any_hierarchy_gives_distinct_pairs_that_it_judges_alike(parents: list[int], per_kind: int, seed: int) -> None:
    taxonomy = grown(parents)
    pairs = gold_pairs(taxonomy, per_kind, seed)
    assert all(taxonomy.judge(pair.pair) is pair.category for pair in pairs)
    assert len({(pair.kind, pair.pair) for pair in pairs}) == len(pairs)
    assert max(Counter(pair.kind for pair in pairs).values()) <= per_kind
    assert gold_pairs(taxonomy, per_kind, seed) == pairs


def test_another_seed_draws_another_sample() -> None:
    taxonomy = grown(list(range(60)))
    assert gold_pairs(taxonomy, 10, 0) != gold_pairs(taxonomy, 10, 1)


def test_a_name_that_means_two_concepts_makes_no_gold_pair() -> None:
    nodes = [Node("seal", id="a"), Node("stamp", ("seal",), "a"), Node("ring", (), "a")]
    pairs = gold_pairs(Taxonomy(nodes), 50, 0)
    assert not [pair for pair in pairs if "seal" in (pair.pair.ground_truth, pair.pair.prediction)]
    assert {pair.pair.ground_truth for pair in pairs if pair.kind is Kind.SAME} == {"stamp", "ring"}


def test_labels_of_data_files_make_the_hierarchy(tmp_path: Path) -> None:
    def write(name: str, *paths: list[str]) -> Path:
        rows = [{"extra_info": {"index": 0, "label_path": path}, "data_source": "made"} for path in paths]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
        return tmp_path / name

    files = [write("a.parquet", ["animal", "cat", "lion"]), write("b.parquet", ["animal", "cat", "tiger"])]
    taxonomy = from_data(files)
    assert {node.name for node in taxonomy.nodes} == {"animal", "cat", "lion", "tiger"}
    assert {pair.kind for pair in gold_pairs(taxonomy, 5, 0)} == set(Kind) - {Kind.ALIAS}
    pq.write_table(pa.table({"data_source": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet has no extra_info\.label_path .*build it with") as caught:
        from_data([tmp_path / "other.parquet"])
    assert "\n" not in str(caught.value)


def test_a_hierarchy_that_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json cannot be read"):
        from_file(tmp_path / "none.json")
    (tmp_path / "odd.json").write_text('{"version": 7}')
    with pytest.raises(DataError, match="taxonomy version 7"):
        from_file(tmp_path / "odd.json")


def test_the_hierarchy_itself_is_the_perfect_judge(hierarchy: Path) -> None:
    pairs = gold_pairs(from_file(hierarchy), 20, 0)
    config = parse_config({"kind": "taxonomy", "taxonomy": str(hierarchy)})
    trial = asyncio.run(try_judge(config, [pair.pair for pair in pairs], repeats=10))
    assert judged(pairs, trial.under_load).right.all()
    assert trial.alone[0] == trial.alone[1] == [trial.under_load[index] for index in trial.repeated]
    assert len(trial.repeated) == 10


@given(st.integers(0, 50), st.integers(0, 60))
def test_repeated_pairs_are_spread_evenly(count: int, wanted: int) -> None:
    chosen = evenly(count, wanted)
    assert len(set(chosen)) == len(chosen) == min(count, wanted)
    assert chosen == sorted(chosen)
    gaps = {later - earlier for earlier, later in itertools.pairwise(chosen)}
    assert len(gaps) <= 2
    assert all(0 <= index < count for index in chosen)
