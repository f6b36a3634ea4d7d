"""Replies of judges that think: the label after the thought, and never one from inside it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import LABELS, Category
from speciarl.verdict import Reason, Unscorable, Verdict
from speciarl.verifier_server.judge.decoding import Decoder, Mode
from speciarl.verifier_server.judge.json_list import ManyDecoder, ManyMode
from speciarl.verifier_server.judge.prompt import pair_ids
from speciarl.verifier_server.judge.reasoning import answer_text, shows_thought

THOUGHT = "The genus is right. Is it specific? specific\nwrong\nNo: less specific."


def choice(content: Any, finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **more}}


ANSWERED = {
    "no thought": choice("generic"),
    "a parser's field": choice("generic", reasoning=THOUGHT),
    "the field of old versions": choice("\n\ngeneric", reasoning_content=THOUGHT),
    "both fields": choice("generic", reasoning=None, reasoning_content=THOUGHT),
    "marks in the text": choice(f"<think>{THOUGHT}</think>\n\ngeneric"),
    "an opening mark in the template": choice(f"{THOUGHT}</think>\n\ngeneric"),
    "an empty thought": choice("<think>\n\n</think>\n\ngeneric"),
    "the closing mark within the thought": choice(f"<think>I must write </think> first. {THOUGHT}</think>generic"),
    "another spelling": choice(f"<thinking>{THOUGHT}</thinking>generic"),
    "yet another": choice(f"[THINK]{THOUGHT}[/THINK]generic"),
    "no finish reason": choice("<think>x</think>generic", finish=None),
}
CUT = {
    "in a parser's field": choice(None, "length", reasoning=THOUGHT),
    "in a field of old versions": choice("", "length", reasoning_content=THOUGHT),
    "in the text": choice(f"<think>{THOUGHT} specific", "length"),
    "in the text, the server gives no reason": choice("<think>specific", None),
    "in a second thought": choice("<think>a</think>specific<think>or", "stop"),
}


@pytest.mark.parametrize("reply", ANSWERED.values(), ids=ANSWERED)
def test_what_follows_the_thought_is_the_answer(reply: dict[str, Any]) -> None:
    for mode in (Mode.LABEL_CHOICE, Mode.FREE_TEXT):
        judgement = Decoder(mode).read({"choices": [reply]})
        assert isinstance(judgement, Verdict)
        assert judgement.category is Category.GENERIC


@pytest.mark.parametrize("reply", CUT.values(), ids=CUT)
@pytest.mark.parametrize("mode", [Mode.LABEL_CHOICE, Mode.JSON_ENUM, Mode.FREE_TEXT])
def test_a_reply_cut_in_its_thought_is_malformed(reply: dict[str, Any], mode: Mode) -> None:
    thinking = Decoder(mode, max_tokens=99)
    for decoder, advice in ((Decoder(mode), "set `thinking: true`"), (thinking, "raise `thinking_tokens`")):
        judgement = decoder.read({"choices": [reply]})
        assert isinstance(judgement, Unscorable)
        assert judgement.reason is Reason.MALFORMED
        assert advice in judgement.detail
        assert "\n" not in judgement.detail


@pytest.mark.parametrize("label", LABELS)
def test_a_label_at_the_length_limit_may_be_the_beginning_of_a_thought(label: str) -> None:
    judgement = Decoder(Mode.FREE_TEXT).read({"choices": [choice(label, "length")]})
    assert isinstance(judgement, Unscorable)
    assert judgement.reason is Reason.MALFORMED
    assert "cut off" in judgement.detail


def test_a_hidden_thought_that_used_up_the_room() -> None:
    """Some hosted models neither show their thought nor say anything when it took all tokens."""
    for content in (None, ""):
        judgement = Decoder(Mode.JSON_ENUM).read({"choices": [choice(content, "length")]})
        assert isinstance(judgement, Unscorable)
        assert "raise `thinking_tokens`, or turn its thoughts off" in judgement.detail
    filtered = Decoder(Mode.JSON_ENUM).read({"choices": [choice(None, "content_filter")]})
    assert isinstance(filtered, Unscorable)
    assert "'content_filter'" in filtered.detail


@given(st.text(), st.sampled_from(LABELS), st.sampled_from(["<think>", ""]))
def test_no_word_of_a_thought_becomes_a_verdict(thought: str, label: str, opening: str) -> None:
    inside = f"{opening}{thought} {label}"
    decoder = Decoder(Mode.FREE_TEXT)
    closed = decoder.read({"choices": [choice(f"{inside}</think>wrong")]})
    assert isinstance(closed, Verdict)
    assert closed.category is Category.WRONG
    assert isinstance(decoder.read({"choices": [choice(inside, "length")]}), Unscorable)
    assert isinstance(decoder.read({"choices": [choice(None, "stop", reasoning=inside)]}), Unscorable)


def test_json_after_a_thought() -> None:
    one = choice('<think>{"category": "specific"}</think>{"category": "wrong"}')
    judgement = Decoder(Mode.JSON_ENUM).read({"choices": [one]})
    assert isinstance(judgement, Verdict)
    assert judgement.category is Category.WRONG
    entries = [{"id": name, "category": "generic"} for name in pair_ids(2)]
    many = choice(f'<think>{{"verdicts": []}}</think>{json.dumps({"verdicts": entries})}')
    judgements = ManyDecoder(ManyMode.STRUCTURED).read({"choices": [many]}, 2)
    assert [j.category for j in judgements if isinstance(j, Verdict)] == [Category.GENERIC] * 2
    cut = ManyDecoder(ManyMode.TEXT, thought_tokens=9).read({"choices": [CUT["in the text"]]}, 2)
    assert all(isinstance(j, Unscorable) and "thinking_tokens" in j.detail for j in cut)


def test_whether_a_judge_thinks() -> None:
    seen = [shows_thought({"choices": [reply]}) for reply in ANSWERED.values()]
    assert seen == [False] + [True] * (len(ANSWERED) - 1)
    for reply in ({}, None, {"choices": [None]}, {"choices": [{"message": 3}]}):
        assert not shows_thought(reply)


@given(st.dictionaries(st.sampled_from(["message", "finish_reason"]), st.none() | st.text() | st.integers()))
def test_nonsense_is_no_answer(nonsense: dict[str, Any]) -> None:
    assert isinstance(answer_text(nonsense), Unscorable)
