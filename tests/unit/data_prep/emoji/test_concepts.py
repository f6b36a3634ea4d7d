"""Which concepts the miniature world has, their strata and their taxonomy."""

from collections import Counter

import pytest

from data_prep.emoji.concepts import DOMAIN_CAP, load_concepts, select_concepts
from data_prep.emoji.facts import Concept, Fact, Stratum
from data_prep.emoji.taxonomy import taxonomy
from speciarl.category import Category
from speciarl.taxonomy import Node, Taxonomy
from speciarl.verdict import Pair


@pytest.fixture(scope="module")
def concepts() -> list[Concept]:
    return load_concepts()


@pytest.fixture(scope="module")
def judge(concepts: list[Concept]) -> Taxonomy:
    nodes = taxonomy(concepts)["nodes"]
    return Taxonomy(Node(node["name"], tuple(node["aliases"]), node["parent"]) for node in nodes)


def test_the_world_has_the_expected_size(concepts: list[Concept]) -> None:
    counts = Counter(concept.domain for concept in concepts)
    assert 500 <= len(concepts) <= 620
    assert set(counts) == set(DOMAIN_CAP)
    assert all(counts[domain] <= cap for domain, cap in DOMAIN_CAP.items())
    assert [concept.index for concept in concepts] == list(range(len(concepts)))


def test_names_are_short_unique_and_no_class_of_their_own(concepts: list[Concept]) -> None:
    names = [concept.name for concept in concepts]
    classes = {concept.subgroup for concept in concepts} | {concept.group for concept in concepts}
    assert len(set(names)) == len(names)
    assert not classes.intersection(names)
    assert all(len(name.split()) <= 5 for name in names)
    assert not any("clock" in name.split() for name in names)


@pytest.mark.parametrize("domain", sorted(DOMAIN_CAP))
def test_every_domain_mixes_the_strata_alike(concepts: list[Concept], domain: str) -> None:
    strata = Counter(concept.stratum for concept in concepts if concept.domain == domain)
    total = sum(strata.values())
    assert strata[Stratum.KNOWN] / total == pytest.approx(0.45, abs=0.05)
    assert strata[Stratum.PARTIAL] / total == pytest.approx(0.20, abs=0.05)
    assert strata[Stratum.UNKNOWN] / total == pytest.approx(0.35, abs=0.05)


def test_the_selection_is_a_function_of_the_facts_alone() -> None:
    facts = [Fact((f"1F{n:03X}",), "animals nature", f"kind {n % 3}", f"animal {n}", ()) for n in range(40)]
    assert select_concepts(facts) == select_concepts(list(facts))


def test_an_alias_is_dropped_when_it_is_shared_or_a_name_or_a_code_with_a_digit() -> None:
    facts = [
        Fact(("1F001",), "animals nature", "kind", "dog", ("hound", "pet", "dog2")),
        Fact(("1F002",), "animals nature", "kind", "dog face", ("dog", "pet", "puppy")),
    ]
    first, second = select_concepts(facts)
    assert first.fact.aliases == ("hound",)
    assert second.fact.aliases == ("puppy",)


def test_the_taxonomy_grades_every_label_of_every_concept(concepts: list[Concept], judge: Taxonomy) -> None:
    for concept in concepts:
        graded = [judge.judge(Pair(concept.name, text)) for text in concept.label_path]
        assert graded == [Category.GENERIC, Category.LESS_SPECIFIC, Category.SPECIFIC]
        for alias in concept.fact.aliases:
            assert judge.judge(Pair(concept.name, alias)) is Category.SPECIFIC


def test_another_domain_is_wrong(concepts: list[Concept], judge: Taxonomy) -> None:
    food = next(concept for concept in concepts if concept.domain == "emoji/food")
    assert judge.judge(Pair("dog face", food.name)) is Category.WRONG
    assert judge.judge(Pair("dog face", food.group)) is Category.WRONG
