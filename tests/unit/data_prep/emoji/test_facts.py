"""The table of emoji facts: parsing, normal form, the committed copy."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.emoji.concepts import load_facts
from data_prep.emoji.facts import Fact, from_csv, label, parse_emoji_test, to_csv
from speciarl.answer import normalise
from speciarl.errors import DataPrepError

_FILE = """\
# group: Animals & Nature

# subgroup: animal-mammal
1F436                      ; fully-qualified     # 🐶 E0.6 dog face
1F43F                      ; unqualified         # 🐿 E0.7 chipmunk
1F43F FE0F                 ; fully-qualified     # 🐿️ E0.7 chipmunk
# group: Flags
# subgroup: flag
1F3C1                      ; fully-qualified     # 🏁 E0.6 chequered flag
"""


def test_parsing_keeps_qualified_entries_of_the_four_groups() -> None:
    facts = parse_emoji_test(_FILE.splitlines(), {"🐶": ("dog_face", "puppy-dog")})
    assert facts == [
        Fact(("1F436",), "animals nature", "animal mammal", "dog face", ("puppy dog",)),
        Fact(("1F43F", "FE0F"), "animals nature", "animal mammal", "chipmunk", ()),
    ]


def test_a_file_without_emoji_is_refused_with_one_line() -> None:
    with pytest.raises(DataPrepError, match=r"is this Unicode's emoji-test\.txt") as caught:
        parse_emoji_test(["# nothing"], {})
    assert "\n" not in str(caught.value)


def test_a_table_without_a_column_is_refused_by_name() -> None:
    with pytest.raises(DataPrepError, match="'subgroup' is missing"):
        from_csv("codepoints,group,name,aliases\n1F436,a,b,\n")


_WORD = st.text("abcdefgh", min_size=1, max_size=6)
_FACT = st.builds(
    Fact,
    st.lists(st.sampled_from(["1F436", "FE0F", "1F43F"]), min_size=1, max_size=3).map(tuple),
    _WORD,
    _WORD,
    _WORD,
    st.lists(_WORD, max_size=3).map(tuple),
)


@settings(deadline=None)
@given(st.lists(_FACT, max_size=5))
def test_the_table_survives_a_round_trip(facts: list[Fact]) -> None:
    assert from_csv(to_csv(facts)) == facts


@settings(deadline=None)
@given(st.text())
def test_a_label_is_its_own_normal_form(text: str) -> None:
    assert label(text) == normalise(label(text)) == label(label(text))


def test_the_committed_table_is_normalised_and_carries_its_notice() -> None:
    facts = load_facts()
    assert len(facts) > 700
    for fact in facts:
        for text in (fact.group, fact.subgroup, fact.name, *fact.aliases):
            assert text == label(text)
