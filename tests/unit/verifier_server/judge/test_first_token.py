"""Labels and what they stand for, down to the judgements of a binary judge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import LABELS, Category
from speciarl.verdict import Reason, Unscorable, Verdict
from speciarl.verifier_server.judge.decoding import Decoder, Mode
from speciarl.verifier_server.judge.first_token import verdict_from_logprobs, verdict_from_top
from speciarl.verifier_server.judge.labels import BINARY, SCHEMES, SIX
from speciarl.verifier_server.judge.probe import describe_clash

TOKENS = (7, 8)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_labels_and_categories_match_worst_first(scheme: object) -> None:
    assert scheme in (SIX, BINARY)
    for known in SCHEMES.values():
        assert list(known.categories) == sorted(set(known.categories))
        assert [known.category(label) for label in known.labels] == list(known.categories)
        assert [known.label(category) for category in known.categories] == list(known.labels)


def test_six_is_the_ladder_and_binary_its_two_outcomes() -> None:
    assert SIX.labels == LABELS
    assert dict(zip(BINARY.labels, BINARY.categories, strict=True)) == {
        "wrong": Category.WRONG,
        "correct": Category.SPECIFIC,
    }
    for scheme, label in ((BINARY, "specific"), (BINARY, "Correct"), (SIX, "correct")):
        with pytest.raises(ValueError, match="is no label; expected one of wrong"):
            scheme.category(label)


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=2))
def test_a_binary_verdict_is_a_category_with_a_margin(values: list[float]) -> None:
    verdict = verdict_from_logprobs(values, BINARY)
    assert verdict.category is (Category.SPECIFIC if values[1] > values[0] else Category.WRONG)
    assert verdict.margin == pytest.approx(abs(values[0] - values[1]))
    assert verdict.probabilities is not None
    assert sum(verdict.probabilities) == pytest.approx(1.0)
    others = [p for category, p in enumerate(verdict.probabilities) if category not in BINARY.categories]
    assert others == [0.0] * 4
    assert verdict.probabilities[verdict.category] == max(verdict.probabilities)


def test_the_bounded_reading_of_a_binary_judge() -> None:
    verdict = verdict_from_top(1, [None, -0.1], -9.0, BINARY)
    assert (verdict.category, verdict.probabilities) == (Category.SPECIFIC, None)
    assert verdict.margin == pytest.approx(8.9)


@pytest.mark.parametrize(
    ("mode", "offer"),
    [
        (Mode.FIRST_TOKEN, {"logprob_token_ids": [7, 8]}),
        (Mode.FIRST_TOKEN_BIASED, {"logit_bias": {"7": 12, "8": 12}, "top_logprobs": 20, "repetition_penalty": 1}),
        (Mode.FIRST_TOKEN_TOP, {"allowed_token_ids": [7, 8]}),
        (Mode.LABEL_CHOICE, {"structured_outputs": {"choice": ["wrong", "correct"]}}),
    ],
)
def test_a_binary_judge_is_offered_two_labels(mode: Mode, offer: dict[str, object]) -> None:
    decoder = Decoder(mode, TOKENS, scheme=BINARY)
    assert offer.items() <= decoder.fields().items()
    assert str(Decoder(Mode.JSON_ENUM, scheme=BINARY).fields()).count("'enum': ['wrong', 'correct']") == 1
    narrowed = [category for _, category in decoder.narrowed()]
    assert narrowed == ([None] if mode is Mode.FIRST_TOKEN else [Category.SPECIFIC, Category.WRONG])


def test_words_of_the_other_scheme_are_off_label() -> None:
    choice = Decoder(Mode.LABEL_CHOICE, scheme=BINARY)
    right = choice.read({"choices": [{"message": {"content": " Correct. "}}]})
    assert isinstance(right, Verdict)
    assert right.category is Category.SPECIFIC
    for decoder, word in ((choice, "specific"), (choice, "abstain"), (Decoder(Mode.LABEL_CHOICE), "correct")):
        judgement = decoder.read({"choices": [{"message": {"content": word}}]})
        assert isinstance(judgement, Unscorable)
        assert judgement.reason is Reason.OFF_LABEL


def test_clashes_are_named_by_the_schemes_labels() -> None:
    assert describe_clash((1, 2), BINARY) is None
    assert "'wrong'/'correct' begin with the same token" in str(describe_clash((1, 1), BINARY))
