"""Reasoning: parts a reply's answer from the reasoning before it, as a label inside the reasoning is no verdict.

vLLM with a reasoning parser puts the reasoning into a field of its own (`reasoning`, in older versions
`reasoning_content`), and so do some other servers. The rest leave it in the text, between tags; where the chat template
has opened it already, only the closing tag is there.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from speciarl.utils.text import shorten
from speciarl.verdict import Reason, Unscorable

_OPENING = re.compile(r"<(?:seed:)?think(?:ing)?>|<thought>|\[THINK\]")
_CLOSING = re.compile(r"</(?:seed:)?think(?:ing)?>|</thought>|\[/THINK\]")

_CUT_IN_THOUGHT = (
    "the reply was cut off inside its thought: set `thinking: true`, or turn its thoughts off in `request_fields`",
    "the reply was cut off inside its thought: raise `thinking_tokens`",
)
"""For a judge that must not think, and for one that may."""
_CUT = (
    "the reply was cut off at its length limit; for a model that thinks, set `thinking: true` and raise "
    "`thinking_tokens`, or turn its thoughts off in `request_fields`"
)


def first_choice(reply: object) -> Mapping[str, Any] | None:
    """The first choice of a parsed chat completion; None when it has none."""
    choices = reply.get("choices") if isinstance(reply, Mapping) else None
    if not (isinstance(choices, list) and choices and isinstance(choices[0], Mapping)):
        return None
    return choices[0]


def describe_no_choice(reply: object) -> str:
    """The problem with a reply in which `first_choice` finds none: some services put their errors there in a form of
    their own."""
    return f"the reply is no chat completion with a choice: {shorten(json.dumps(reply, ensure_ascii=False))}"


def answer_text(choice: Mapping[str, Any], thinks: bool = False) -> str | Unscorable:
    """The text after the reasoning, if there is any. Unscorable when there is no text, or when the reply is cut off:
    the beginning of a longer text is no answer. `thinks`: whether the judge may (`thinking`), for the message."""
    message = choice.get("message")
    content = _joined(message.get("content")) if isinstance(message, Mapping) else None
    cut_in_thought = _CUT_IN_THOUGHT[thinks]
    cut = choice.get("finish_reason") == "length"
    in_field = _reasoning_field(message) != ""
    if not isinstance(content, str) or (not content.strip() and (cut or in_field)):
        if cut:
            return Unscorable(Reason.MALFORMED, cut_in_thought if in_field else _CUT)
        return Unscorable(Reason.MALFORMED, _why_empty(choice, in_field))
    closings = list(_CLOSING.finditer(content))  # the last one counts: reasoning may mention the tag
    text = content[closings[-1].end() :] if closings else content
    if _OPENING.search(text):
        return Unscorable(Reason.MALFORMED, cut_in_thought)
    return Unscorable(Reason.MALFORMED, _CUT) if cut else text


def _why_empty(choice: Mapping[str, Any], in_field: bool) -> str:
    """Why a whole reply has no text, in one line."""
    message, reason = choice.get("message"), choice.get("finish_reason")
    refusal = message.get("refusal") if isinstance(message, Mapping) else None
    if isinstance(refusal, str) and refusal.strip():
        return f"the judge refused to answer: {shorten(refusal)}"
    if reason == "content_filter":
        return "the server's content filter withheld the reply (finish_reason 'content_filter')"
    if isinstance(message, Mapping) and message.get("tool_calls"):
        return "the reply is a call of a tool; take tools out of `request_fields`"
    if in_field:
        return "the reply is only a thought, without an answer; turn thoughts off in `request_fields`"
    return f"the reply has no text (finish_reason {reason!r})"


def _joined(content: object) -> object:
    """The text of a content that is a list of parts, without those that hold reasoning; other content as it is."""
    if not isinstance(content, list):
        return content
    parts = [
        part for part in content if isinstance(part, Mapping) and part.get("type") in ("text", "output_text", None)
    ]
    texts = [part for part in content if isinstance(part, str)] + [part.get("text") for part in parts]
    known = [text for text in texts if isinstance(text, str)]
    return "".join(known) if known else None


def shows_thought(reply: object) -> bool:
    """Whether a chat completion holds reasoning, in a field of its own or in its text."""
    choice = first_choice(reply)
    message = choice.get("message") if choice is not None else None
    content = message.get("content") if isinstance(message, Mapping) else None
    in_text = isinstance(content, str) and (_CLOSING.search(content) or _OPENING.search(content))
    return bool(in_text) or _reasoning_field(message) != ""


def _reasoning_field(message: object) -> str:
    if not isinstance(message, Mapping):
        return ""
    thoughts = (message.get(field) for field in ("reasoning", "reasoning_content"))
    return next((thought for thought in thoughts if isinstance(thought, str) and thought.strip()), "")
