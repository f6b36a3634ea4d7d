"""The anti-gaming set, as far as it goes without a judge: what is sent, and what no shortcut may reward."""

import collections
import itertools
import json

import pytest

from speciarl.answer import normalise
from speciarl.category import Category
from speciarl.verdict import Pair, Verdict
from speciarl.verifier_server.config import parse_config
from speciarl.verifier_server.judge.attacks import gaming_set
from speciarl.verifier_server.judge.prompt import load_prompt, shipped_prompts
from speciarl.verifier_server.judge.shortcuts import judge_by_length
from speciarl.verifier_server.llm_verifier import LLMVerifier

SHIPPED = shipped_prompts()
KINDS = {
    "hedge", "negation", "list", "echo", "instruction", "praise", "markup", "empty", "lookalike", "spelling", "ramble",
}  # fmt: skip


def verifier(name: str) -> LLMVerifier:
    """With every shortcut there is."""
    pairs = 8 if load_prompt(name).format == "many" else 1
    mapping = {"model": "m", "endpoints": ["http://h"], "prompt": name, "pairs_per_request": pairs}
    return LLMVerifier(parse_config(mapping | {"exact_shortcut": True, "abstain_shortcut": True}))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_prompt_is_tried_in_all_ways_and_in_its_own_words(name: str) -> None:
    prompt = load_prompt(name)
    attacks = gaming_set(prompt)
    counts = collections.Counter(attack.kind for attack in attacks)
    assert set(counts) == KINDS
    assert counts["hedge"] >= 5
    assert counts["instruction"] >= 5
    assert len(attacks) >= 50
    assert {attack.pair.ground_truth for attack in attacks} == set(prompt.names)
    assert not [attack for attack in attacks if "{" in attack.pair.prediction and "}" not in attack.pair.prediction]
    for mark in ("{truth}", "{other}", "{third}", "{list}", "{label}", "{lookalike}", "{leet}"):
        assert not [attack for attack in attacks if mark in attack.pair.prediction]
    assert all(Category.WRONG in attack.expected <= {Category.WRONG, Category.ABSTAIN} for attack in attacks)
    assert all(attack.expected <= set(prompt.scheme.categories) for attack in attacks)


@pytest.mark.parametrize("name", SHIPPED)
def test_an_attack_is_sent_as_two_texts_and_nothing_else(name: str) -> None:
    prompt = load_prompt(name)
    for attack in gaming_set(prompt):
        content = json.loads(prompt.messages(attack.pair)[-1]["content"][len(prompt.user_prefix) :])
        fields = {"ground_truth": attack.pair.ground_truth, "prediction": normalise(attack.pair.prediction)}
        if prompt.format == "many":
            (content,) = content
            fields["id"] = content["id"]
        assert content == fields


@pytest.mark.parametrize("name", SHIPPED)
def test_neither_shortcuts_nor_the_length_rule_reward_an_attack(name: str) -> None:
    judge = verifier(name)
    outcomes = []
    for attack in gaming_set(judge.prompt):
        pair = Pair(normalise(attack.pair.ground_truth), normalise(attack.pair.prediction))
        ruled = judge_by_length(pair, judge.config.max_string_chars) or judge._shortcut(pair, pair)
        outcomes.append(ruled.category if isinstance(ruled, Verdict) else ruled)
    assert set(outcomes) <= {None, Category.WRONG, Category.ABSTAIN}
    assert Category.WRONG in outcomes  # the essay
    assert Category.ABSTAIN in outcomes  # the empty ones


@pytest.mark.parametrize("name", SHIPPED)
def test_no_attack_is_the_truth_in_other_letters_that_normalising_would_undo(name: str) -> None:
    for attack in gaming_set(load_prompt(name)):
        assert normalise(attack.pair.prediction) != normalise(attack.pair.ground_truth)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_names_of_a_prompt_exclude_each_other(name: str) -> None:
    names = load_prompt(name).names
    assert len(set(names)) == len(names) >= 3
    assert all(one not in two for one, two in itertools.permutations(names, 2))
