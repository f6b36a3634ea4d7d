"""The pairs that the miniature judge learns from."""

import random
from collections import Counter

import pytest

from data_prep.emoji.concepts import load_concepts
from speciarl.category import Category
from speciarl.laptop.judge.pairs import HELD_OUT_PERCENT, GradedPair, PairSource
from speciarl.laptop.judge.pretrain import held_out_pairs
from speciarl.taxonomy import UnknownConceptError
from speciarl.verdict import Pair


@pytest.fixture(scope="module")
def source() -> PairSource:
    return PairSource(load_concepts())


@pytest.fixture(scope="module")
def drawn(source: PairSource) -> list[GradedPair]:
    rng = random.Random(0)
    return [source.draw(rng) for _ in range(4000)]


def test_every_category_and_kind_is_drawn(drawn: list[GradedPair]) -> None:
    assert set(Counter(graded.category for graded in drawn)) == set(Category)
    assert len({graded.kind for graded in drawn}) == 19


def test_the_taxonomy_has_the_last_word(source: PairSource, drawn: list[GradedPair]) -> None:
    for graded in drawn:
        try:
            assert source.taxonomy.judge(graded.pair) is graded.category
        except UnknownConceptError:
            assert graded.kind == "invented"


def test_several_answers_labels_and_instructions_are_wrong(drawn: list[GradedPair]) -> None:
    hostile = [graded for graded in drawn if graded.kind in ("hedge", "label", "instruction")]
    assert len(hostile) > 200
    assert {graded.category for graded in hostile} == {Category.WRONG}


def test_held_out_pairs_are_decided_by_the_normalised_text(source: PairSource) -> None:
    for other in ("CAT!", "Bird", "t-rex"):
        assert source.held_out(Pair("Dog  face", other)) is source.held_out(Pair("dog face", f" {other.lower()} "))
    share = sum(source.held_out(Pair("dog", str(number))) for number in range(3000)) / 30
    assert share == pytest.approx(HELD_OUT_PERCENT, abs=2)


def test_facts_of_the_taxonomy_are_never_held_out(source: PairSource) -> None:
    for concept in source.concepts:
        for text in (concept.subgroup, concept.group, *concept.fact.aliases):
            assert not source.held_out(Pair(concept.name, text))


def test_the_held_out_set_is_distinct_natural_and_reproducible(source: PairSource) -> None:
    pairs = held_out_pairs(source, 3000, 0)
    assert pairs == held_out_pairs(source, 3000, 0)
    assert len({graded.pair for graded in pairs}) == len(pairs)
    assert all(source.held_out(graded.pair) and graded.kind != "invented" for graded in pairs)
