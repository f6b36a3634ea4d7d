"""Several pairs in one request: each pair stands or falls by its own entry in the reply."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import LABELS, Category
from speciarl.errors import ConfigError
from speciarl.verdict import Reason, Unscorable, Verdict
from speciarl.verifier_server.config import parse_config
from speciarl.verifier_server.judge.json_list import ManyDecoder, ManyMode, read_verdicts, refuse_misfit
from speciarl.verifier_server.judge.labels import BINARY, SIX
from speciarl.verifier_server.judge.prompt import load_prompt, pair_ids

labels = st.lists(st.sampled_from(LABELS), min_size=1, max_size=20)


def entries(words: list[str]) -> list[dict[str, Any]]:
    return [{"id": name, "category": word} for name, word in zip(pair_ids(len(words)), words, strict=True)]


def said(judgement: object) -> str:
    return judgement.category.label if isinstance(judgement, Verdict) else "unscorable"


@given(labels, st.randoms(), st.sampled_from(["object", "array", "fenced", "spaced"]))
def test_every_pair_gets_its_own_verdict_in_any_order(words: list[str], chance: Any, form: str) -> None:
    listed = entries(words)
    chance.shuffle(listed)
    text = json.dumps(listed if form == "array" else {"verdicts": listed}, indent=2 if form == "spaced" else None)
    text = f"```json\n{text}\n```" if form == "fenced" else text
    judgements = read_verdicts(text, len(words), SIX)
    assert [said(judgement) for judgement in judgements] == words
    assert all(isinstance(j, Verdict) and j.margin is None and j.probabilities is None for j in judgements)


faults = st.sampled_from(
    ["fine", "missing", "twice", "agreeing twice", "no label", "no word", "no category", "a text id"]
)


@given(st.lists(st.tuples(st.sampled_from(LABELS), faults), min_size=1, max_size=12), st.randoms())
def test_a_bad_entry_costs_its_own_pair_only(plan: list[tuple[str, str]], chance: Any) -> None:
    listed: list[Any] = [{"id": 42, "category": "specific"}, {"id": True, "category": "specific"}, None, "specific", 7]
    for entry, (_, fault) in zip(entries([word for word, _ in plan]), plan, strict=True):
        if fault == "twice":
            listed += [entry, entry | {"category": "abstain"}]
        elif fault == "agreeing twice":
            listed += [entry, entry]
        elif fault == "no label":
            listed.append(entry | {"category": "rather specific"})
        elif fault == "no word":
            listed.append(entry | {"category": ["specific"]})
        elif fault == "no category":
            listed.append({"id": entry["id"]})
        elif fault == "a text id":
            listed.append(entry | {"id": str(entry["id"])})
        elif fault == "fine":
            listed.append(entry)
    chance.shuffle(listed)
    judgements = read_verdicts(json.dumps(listed), len(plan), SIX)
    assert len(judgements) == len(plan)
    for judgement, (word, fault) in zip(judgements, plan, strict=True):
        if fault == "fine":
            assert said(judgement) == word
        else:
            assert isinstance(judgement, Unscorable)
            assert judgement.reason is (Reason.OFF_LABEL if fault == "no label" else Reason.MALFORMED)


@given(labels, st.integers(0, 19))
def test_a_judge_that_numbers_the_pairs_itself_gets_none_through(words: list[str], start: int) -> None:
    listed = [{"id": start + index, "category": word} for index, word in enumerate(words)]
    assert {said(judgement) for judgement in read_verdicts(json.dumps(listed), len(words), SIX)} == {"unscorable"}


@given(st.text() | st.sampled_from(["[]", "{}", "null", "1" * 5000, "[" * 100_000, '{"verdicts": {}}', "[1", "NaN"]))
def test_nonsense_is_unscorable_for_all_and_never_an_error(text: str) -> None:
    judgements = read_verdicts(text, 3, SIX)
    assert [said(judgement) for judgement in judgements] == ["unscorable"] * 3
    for reply in ({"choices": [{"message": {"content": text}}]}, {"choices": text}, text, None):
        assert [said(j) for j in ManyDecoder(ManyMode.JSON).read(reply, 2)] == ["unscorable"] * 2


def test_the_labels_are_the_schemes() -> None:
    text = json.dumps(entries(["correct", "wrong", "specific"]))
    judgements = read_verdicts(text, 3, BINARY)
    assert [said(judgement) for judgement in judgements] == ["specific", "wrong", "unscorable"]


@pytest.mark.parametrize("mode", list(ManyMode))
@pytest.mark.parametrize("count", [1, 7])
def test_requests_are_greedy_and_have_room(mode: ManyMode, count: int) -> None:
    fields = ManyDecoder(mode, thought_tokens=100).fields(count)
    assert fields["temperature"] == 0
    longest = json.dumps({"verdicts": entries(["less specific"] * count)}, indent=2)
    compact = json.dumps({"verdicts": entries(["less specific"] * count)})
    assert len(compact.encode()) <= fields["max_tokens"] - 100  # even if every byte were a token
    assert len(longest) / 2 <= fields["max_tokens"] - 100
    pattern = fields.get("structured_outputs", {}).get("regex")
    schema = fields.get("response_format", {}).get("json_schema")
    assert (pattern is None, schema is None) == (mode is not ManyMode.STRUCTURED, mode is not ManyMode.JSON)
    if pattern is not None:
        assert re.fullmatch(pattern, compact)
        assert not re.fullmatch(pattern, compact.replace("less specific", "rather specific", 1))
        assert not re.fullmatch(pattern, json.dumps({"verdicts": entries(["wrong"] * (count + 1))}))
    if schema is not None:
        assert schema["strict"]
        assert schema["schema"]["type"] == "object"
        assert "minItems" not in json.dumps(schema)  # not every API takes it


def test_a_probe_narrows_the_choice_to_one_label() -> None:
    for mode, offer in ((ManyMode.STRUCTURED, '"category": "({})"'), (ManyMode.JSON, "'enum': ['{}']")):
        narrowed = ManyDecoder(mode, BINARY).narrowed()
        assert [category for _, category in narrowed] == [Category.SPECIFIC, Category.WRONG]
        for decoder, category in narrowed:
            assert category is not None
            assert offer.format(BINARY.label(category)) in str(decoder.fields(2))
    assert ManyDecoder(ManyMode.TEXT).narrowed() == [(ManyDecoder(ManyMode.TEXT), None)]


@pytest.mark.parametrize(
    ("prompt", "pairs", "message"),
    [
        ("base", 20, "needs a prompt of format many, and 'base' asks about one pair; set `prompt: many`"),
        ("many", 1, "'many' asks about several pairs at once; set `pairs_per_request` above 1"),
        ("many", 2, None),
        ("base", 1, None),
    ],
)
def test_prompt_and_number_of_pairs_must_fit(prompt: str, pairs: int, message: str | None) -> None:
    mapping = {"name": "j", "model": "m", "endpoints": ["http://h"], "prompt": prompt, "pairs_per_request": pairs}
    config = parse_config(mapping)
    if message is None:
        refuse_misfit(config, load_prompt(prompt))
        return
    with pytest.raises(ConfigError, match=message) as caught:
        refuse_misfit(config, load_prompt(prompt))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("judge 'j': ")
