"""The response distribution of the miniature world."""

import random
from collections import Counter

import pytest

from data_prep.emoji.concepts import load_concepts
from data_prep.emoji.facts import Stratum
from speciarl.answer import parse
from speciarl.laptop import world as w
from speciarl.laptop.schedule import POLICY_STAGES, JudgeSchedule
from speciarl.laptop.world import FINAL, NAMING, Level, Response, World


@pytest.fixture(scope="module")
def world() -> World:
    return World(load_concepts())


def test_every_mixture_is_a_distribution() -> None:
    for stage in POLICY_STAGES:
        for _, mixture in stage.phases:
            assert all(sum(shares) == pytest.approx(1) for shares in mixture.levels.values())
            assert all(0 <= share <= 1 for share in mixture.right.values())


def test_confusions_are_wrong_names_that_the_policy_can_say(world: World) -> None:
    by_name = {concept.name: concept for concept in world.concepts}
    for concept in world.concepts:
        wrong = world.confusions[concept.index]
        assert len(set(wrong)) == 3
        assert concept.name not in wrong
        assert all(by_name[name].stratum is not Stratum.UNKNOWN for name in wrong)
        assert all(by_name[name].domain == concept.domain for name in wrong)


def test_confusions_never_change(world: World) -> None:
    assert World(load_concepts()).confusions == world.confusions


def test_an_unknown_concept_is_never_named(world: World) -> None:
    rng = random.Random(0)
    for concept in world.concepts:
        if concept.stratum is Stratum.UNKNOWN:
            answers = [world.draw(concept, FINAL, rng).answer for _ in range(30)]
            assert concept.name not in answers


def test_the_final_mixture_leans_generic_but_knows_names(world: World) -> None:
    rng = random.Random(1)
    concept = next(c for c in world.concepts if c.stratum is Stratum.KNOWN)
    drawn = [world.draw(concept, FINAL, rng) for _ in range(4000)]
    levels = Counter(response.level for response in drawn)
    assert levels.most_common(1)[0][0] is Level.BROAD
    exact = [response.answer == concept.name for response in drawn if response.level is Level.EXACT]
    assert sum(exact) / len(exact) == pytest.approx(0.6, abs=0.06)
    clear = sum(response.familiarity == "clear" for response in drawn) / len(drawn)
    assert clear == pytest.approx(0.9, abs=0.03)


def test_a_response_is_written_as_it_is_parsed(world: World) -> None:
    assert Response("clear", Level.EXACT, "dog face").text == "<think> clear exact</think><answer> dog face</answer>"
    assert Response(None, Level.BROAD, "a").text == "<answer> a</answer>"
    rng = random.Random(2)
    for concept in world.concepts[::20]:
        response = world.draw(concept, NAMING, rng)
        assert parse(response.text) == response.answer


def test_schedules_rise_and_fall_and_pass_through_all_phases() -> None:
    for stage in POLICY_STAGES:
        rates = [stage.learning_rate(step) for step in range(stage.steps)]
        assert max(rates) <= stage.peak_lr
        assert rates[0] < max(rates) > rates[-1]
        assert rates[-1] < 0.01 * stage.peak_lr
        assert {id(stage.mixture(step)) for step in range(stage.steps)} == {id(m) for _, m in stage.phases}
    judge = JudgeSchedule()
    assert judge.learning_rate(0) < judge.learning_rate(100) > judge.learning_rate(judge.steps - 1)
    first, _ = judge.cycles[0]
    assert judge.learning_rate(first - 1) < judge.learning_rate(first + 100)
    assert judge.learning_rate(judge.steps) == 0
    assert judge.scaled(0.001).steps == 5


def test_the_words_cover_every_response(world: World) -> None:
    words = set(world.words)
    assert {*w.LEVEL_WORDS, *w.FAMILIARITY_WORDS, w.ABSTENTION} <= words
    assert all(set(text.split()) <= words for concept in world.concepts for text in concept.label_path)
