"""Parsing as the paper has it, and normalisation where it differs from the paper's on purpose."""

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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("काल", "काल"),
        ("कुल", "कुल"),
        ("ญี่ปุ่น", "ญี่ปุ่น"),
        ("குயில்", "குயில்"),
        ("Cre\u0300me bru\u0302le\u0301e", "crème brûlée"),  # as folders from a Mac are called
        ("war\u00adbler", "warbler"),
        ("zero\u200bwidth \u202eright", "zerowidth right"),
        ("a\u200d\u0301", "á"),
        ("C++, C#; F# C", "c++ c# f# c"),
        ("+ 3 salt+pepper #tag a+", "3 salt pepper tag a+"),
        ("\u2764\ufe0f", ""),
        ("\U0001f436\u0301 dog", "dog"),
        ("\u0130stanbul", "i\u0307stanbul"),
    ],
)
def test_marks_stay_with_their_letters_and_invisible_characters_part_nothing(text: str, expected: str) -> None:
    assert answer.normalise(text) == expected


def category(character: str) -> str:
    return unicodedata.category(character)


@given(st.text(st.characters()))
@example("\x1c\u2028\u00a0")
@example("ΣΑΣ Σ.Σ")
@example("\u0130\u0307I")
@example("a\ud800 b")
def test_normalised_text_holds_only_what_the_rule_keeps_and_stays_as_it_is(text: str) -> None:
    normalised = answer.normalise(text)
    assert answer.normalise(normalised) == normalised == unicodedata.normalize("NFC", normalised)
    assert normalised == " ".join(normalised.split())
    assert all(c in " +#" or category(c)[0] in "LNM" or category(c) == "Pd" for c in normalised)


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_text_takes_a_shorter_way_to_the_same_form(text: str) -> None:
    assert answer.normalise(text + "é") == f"{answer.normalise(text + 'x')[:-1]}é"


@given(st.text(st.characters()))
def test_a_text_and_its_decomposed_form_are_one(text: str) -> None:
    apart = unicodedata.normalize("NFD", text)
    assert answer.normalise(apart) == answer.normalise(text)
    assert answer.same_name(apart, text)


letters = st.text(st.characters(categories=["L", "N", "S"]), min_size=1)


@given(letters, letters)
def test_the_same_name_has_the_same_letters_numbers_and_symbols(one: str, other: str) -> None:
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", one).casefold())
    assert answer.same_name(one, other) == (
        folded == unicodedata.normalize("NFC", unicodedata.normalize("NFC", other).casefold())
    )
    assert answer.same_name(f" {one}\n", folded)


@pytest.mark.parametrize(
    ("one", "other"), [("C", "C++"), ("rose", "rose!"), ("♥", "♠"), ("काल", "कुल"), ("AT&T", "AT T")]
)
def test_what_differs_in_any_sign_is_not_the_same_name(one: str, other: str) -> None:
    assert not answer.same_name(one, other)


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
