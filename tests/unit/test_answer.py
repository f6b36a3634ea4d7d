"""Parsing and normalisation, exactly as the paper has them."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from speciarl import answer

words = st.text(alphabet=st.characters(blacklist_characters="<>"))


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think> clear exact </think> <answer> dog face </answer>", "dog face"),
        ("<answer>one</answer><answer>two</answer>", "one"),
        ("<answer>\n black-capped\n chickadee\n</answer>", "black-capped\n chickadee"),
        ("<answer></answer>", None),
        ("<answer> \n\t </answer>", None),
        ("<answer></answer><answer>late</answer>", None),
        ("<answer>never closed", None),
        ("<Answer>dog</Answer>", None),
        ("dog", None),
        ("", None),
        ("</answer><answer>dog</answer>", "dog"),
        ("<answer>a<answer>b</answer></answer>", "a<answer>b"),
    ],
)
def test_parse(response: str, expected: str | None) -> None:
    assert answer.parse(response) == expected


@given(before=words, inner=words, after=st.text())
def test_parse_finds_the_first_answer(before: str, inner: str, after: str) -> None:
    assert answer.parse(f"{before}<answer>{inner}</answer>{after}") == (inner.strip() or None)


@given(st.text())
def test_parse_gives_stripped_text_or_none(response: str) -> None:
    parsed = answer.parse(response)
    assert parsed is None or (parsed and parsed == parsed.strip() and parsed in response)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Golden-winged  Warbler!", "golden-winged warbler"),
        ("  Boeing\t707\n320 ", "boeing 707 320"),
        ("I don't know.", "i don t know"),
        ("robin/cardinal", "robin cardinal"),
        ("707–320", "707–320"),  # noqa: RUF001 -- an en dash is a dash and stays as it is
        ("snake_case", "snake case"),
        ("ÄRZTE & Café", "ärzte café"),
        ("½ ² Ⅷ", "½ ² ⅷ"),
        ("🐶", ""),
        ("", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert answer.normalise(text) == expected


@given(st.text())
@example("\x1c\u2028\u00a0")
def test_normalised_text_holds_only_what_the_rule_keeps(text: str) -> None:
    normalised = answer.normalise(text)
    assert normalised == normalised.strip()
    assert "  " not in normalised
    # Lower-casing may decompose a letter (U+0130), so a combining mark can appear although none is kept.
    kept = {"L", "N", "M"}
    assert all(c == " " or unicodedata.category(c)[0] in kept or unicodedata.category(c) == "Pd" for c in normalised)


@given(st.text(alphabet=st.characters(blacklist_characters="\u0130")))
def test_normalise_is_idempotent(text: str) -> None:
    once = answer.normalise(text)
    assert answer.normalise(once) == once


@given(st.text(), st.sampled_from(["!", "_", "\t", "\u2028", "…", " "]))
def test_dropped_characters_part_words_and_nothing_else(text: str, filler: str) -> None:
    assert answer.normalise(f"{filler}{text}{filler}{filler}") == answer.normalise(text)
    assert answer.normalise(f"a{filler}b") == "a b"


@pytest.mark.parametrize("text", ["None", "none.", "I don't know!", "N/A", "", "??", "I'm not sure"])
def test_plain_refusals_are_abstentions(text: str) -> None:
    assert answer.is_abstention(text)


@pytest.mark.parametrize("text", ["unknown warbler", "dog", "none of these birds is a robin", "nonesuch"])
def test_texts_that_name_something_are_not(text: str) -> None:
    assert not answer.is_abstention(text)


def test_the_set_of_abstentions_is_normalised() -> None:
    assert all(answer.normalise(text) == text for text in answer.ABSTENTIONS)


@given(st.text(st.characters()))
@example("ΣΑΣ Σ.Σ")
@example("İ\u0307I")
@example("a\ud800 b")
def test_squeezing_leaves_the_normal_form_as_it_is(text: str) -> None:
    kept = "".join(
        one if unicodedata.category(one)[0] in "LN" or unicodedata.category(one) == "Pd" else " " for one in text
    )
    assert answer.normalise(text) == " ".join(kept.lower().split()) == answer.normalise(answer.squeeze(text))
    assert len(answer.squeeze(text)) <= min(len(text), len(answer.normalise(text)))


@pytest.mark.parametrize(
    "text",
    [
        "lion or tiger",
        "Either a lion, OR a tiger",
        "lion/tiger",
        "lion | tiger",
        "lion; tiger",
        "lion, tiger, leopard",
        "a lion\na tiger",
        "could be a lion",
        "maybe a lion",
        "a lion, unless it is a tiger",
    ],
)
def test_hedging_is_noticed(text: str) -> None:
    assert answer.names_several(text)


@pytest.mark.parametrize(
    "text",
    [
        "lion",
        " lion \n",
        "kingfisher, belted",
        "black and white warbler",
        "BMW 3/15 DA-2",
        "Fort Knox",
        "orangutan",
        "mayfly",
        "Boeing 737-800",
        "",
    ],
)
def test_plain_names_are_not_hedging(text: str) -> None:
    assert not answer.names_several(text)
