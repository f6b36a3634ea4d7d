"""From log-probabilities and words to judgements."""

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import LABELS, Category
from speciarl.verdict import Reason, Unscorable, Verdict
from speciarl.verifier_server.judge.decoding import Decoder, Mode
from speciarl.verifier_server.judge.first_token import (
    BIAS,
    FORCE,
    clashing_labels,
    first_difference,
    label_mass,
    verdict_from_logprobs,
    verdict_from_top,
)

TOKENS = (10, 11, 12, 13, 14, 15)
logprobs = st.lists(st.floats(-50, 0), min_size=6, max_size=6)


def reply(chosen: int, reported: dict[int, float], top: dict[int, float] | None = None) -> dict[str, Any]:
    entries = [{"token": f"token_id:{token}", "logprob": value} for token, value in (top or reported).items()]
    position = {"token": f"token_id:{chosen}", "logprob": reported[chosen], "top_logprobs": entries}
    return {"choices": [{"logprobs": {"content": [position]}, "message": {"content": ""}}]}


@given(logprobs)
def test_the_likeliest_label_wins_by_its_margin(values: list[float]) -> None:
    verdict = verdict_from_logprobs(values)
    best, second = sorted(values, reverse=True)[:2]
    assert values[verdict.category] == best
    assert verdict.margin == pytest.approx(best - second)
    assert verdict.probabilities is not None
    assert math.fsum(verdict.probabilities) == pytest.approx(1.0)
    assert verdict.probabilities[verdict.category] == max(verdict.probabilities)


def test_a_tie_goes_to_the_worse_category() -> None:
    verdict = verdict_from_logprobs([-9, -9, -1, -9, -1, -9])
    assert (verdict.category, verdict.margin) == (Category.GENERIC, 0)


@given(logprobs, st.floats(-20, 0))
def test_a_common_shift_changes_nothing(values: list[float], shift: float) -> None:
    shifted = verdict_from_logprobs([value + shift for value in values])
    assert shifted.margin == pytest.approx(verdict_from_logprobs(values).margin, abs=1e-9)


@given(logprobs)
def test_exactly_the_labels_tokens_are_read(values: list[float]) -> None:
    reported = dict(zip(TOKENS, values, strict=True)) | {99: 0.0}
    assert Decoder(Mode.FIRST_TOKEN, TOKENS).read(reply(99, reported)) == verdict_from_logprobs(values)


def test_a_missing_label_is_no_verdict() -> None:
    judgement = Decoder(Mode.FIRST_TOKEN, TOKENS).read(reply(10, dict.fromkeys(TOKENS[:5], -1.0)))
    assert isinstance(judgement, Unscorable)
    assert judgement.reason is Reason.MALFORMED


@given(logprobs, st.sets(st.integers(0, 5), max_size=5))
def test_a_label_outside_the_top_is_bounded_not_valued(values: list[float], hidden: set[int]) -> None:
    best = max(range(6), key=values.__getitem__)
    hidden = hidden - {best}
    floor = min((values[index] for index in range(6) if index not in hidden and index != best), default=values[best])
    seen = [None if index in hidden else min(value, 0.0) for index, value in enumerate(values)]
    truth = [min(value, floor) if index in hidden else value for index, value in enumerate(values)]
    verdict = verdict_from_top(best, seen, floor)
    exact = verdict_from_logprobs(truth)
    assert verdict.category == best
    assert verdict.margin is not None
    assert exact.margin is not None
    if exact.category == best:
        assert verdict.margin <= exact.margin + 1e-9
    assert (verdict.probabilities is None) == bool(hidden) or exact.category != best


def test_the_top_reading_follows_the_token_that_was_chosen() -> None:
    decoder = Decoder(Mode.FIRST_TOKEN_TOP, TOKENS)
    others = {100 + index: -1.0 - index for index in range(20)}
    judgement = decoder.read(reply(13, others | {13: -2.0}, top=others))
    assert isinstance(judgement, Verdict)
    assert judgement.category is Category.LESS_SPECIFIC
    assert judgement.margin == pytest.approx(18.0)  # at least: every other label lies below the twentieth token
    astray = decoder.read(reply(100, others))
    assert isinstance(astray, Unscorable)
    assert astray.reason is Reason.OFF_LABEL


def processed(logits: dict[int, float], biased: tuple[int, ...], bias: float = BIAS) -> dict[str, Any]:
    """The reply of vLLM with ``--logprobs-mode processed_logprobs`` to a greedy request with a bias on some tokens."""
    lifted = {token: value + bias * (token in biased) for token, value in logits.items()}
    most = max(lifted.values())
    total = most + math.log(math.fsum(math.exp(value - most) for value in lifted.values()))
    listed = sorted(lifted, key=lambda token: -lifted[token])[:20]
    reported = {token: lifted[token] - total for token in listed}
    return reply(listed[0], reported)


others = st.lists(st.floats(-40, 0), min_size=30, max_size=60)
BIASED = Decoder(Mode.FIRST_TOKEN_BIASED, TOKENS)


def vocabulary(values: list[float], rest: list[float]) -> dict[int, float]:
    return dict(zip(TOKENS, values, strict=True)) | {100 + index: value for index, value in enumerate(rest)}


@given(st.lists(st.floats(-12, 3), min_size=6, max_size=6), others)
def test_a_bias_gives_every_label_its_exact_probability_also_below_the_likeliest_tokens(
    values: list[float], rest: list[float]
) -> None:
    verdict, exact = BIASED.read(processed(vocabulary(values, rest), TOKENS)), verdict_from_logprobs(values)
    assert isinstance(verdict, Verdict)
    assert verdict.category is exact.category or exact.margin == pytest.approx(0, abs=1e-9)
    assert verdict.margin == pytest.approx(exact.margin, abs=1e-9)
    assert verdict.probabilities == pytest.approx(exact.probabilities)


@given(logprobs, others)
def test_a_label_that_is_crowded_out_counts_next_to_nothing(values: list[float], rest: list[float]) -> None:
    decoder = Decoder(Mode.FIRST_TOKEN_BIASED, TOKENS, least_mass=0.05)
    verdict, exact = decoder.read(processed(vocabulary(values, rest), TOKENS)), verdict_from_logprobs(values)
    if isinstance(verdict, Verdict):
        # Up to five labels of less than 1e-5 each, which the others share among themselves.
        assert verdict.probabilities == pytest.approx(exact.probabilities, abs=5e-5)
        assert verdict.margin is not None
        assert exact.margin is not None
        assert verdict.margin <= exact.margin + 1e-9


@given(st.lists(st.floats(-12, 3), min_size=6, max_size=6), others, st.booleans())
def test_a_bias_tells_the_labels_mass_in_32_bit_numbers_too(
    values: list[float], rest: list[float], short: bool
) -> None:
    logits = vocabulary(values, rest)
    labels = math.fsum(map(math.exp, values))
    answer = processed(logits, TOKENS)
    if short:
        for entry in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            entry["logprob"] = struct.unpack("f", struct.pack("f", entry["logprob"]))[0]
    true = labels / (labels + math.fsum(map(math.exp, rest)))
    assert BIASED.mass(answer) == pytest.approx(true, abs=0.03 if short else 1e-6)


@given(logprobs, others)
def test_log_probabilities_without_the_bias_never_pass_for_such(values: list[float], rest: list[float]) -> None:
    """Of a server that reports them raw, or does not know the field: the probe sees it, and so does each verdict."""
    logits = vocabulary(values, [*rest, 0.0])
    judgement = Decoder(Mode.FIRST_TOKEN_BIASED, TOKENS, least_mass=0.05).read(processed(logits, ()))
    total = math.fsum(map(math.exp, logits.values()))
    if math.fsum(map(math.exp, values)) / total < 0.999:
        assert isinstance(judgement, Unscorable)
    for narrowed, _ in BIASED.narrowed():
        assert narrowed.only is not None
        if math.exp(logits[TOKENS[narrowed.only]]) / total < 0.98:
            assert isinstance(narrowed.read(processed(logits, ())), Unscorable)


def test_a_narrowed_request_forces_one_label() -> None:
    logits = dict(zip(TOKENS, (1.0, -30.0, 0.0, 0.0, 0.0, -60.0), strict=True)) | {99: 5.0}
    for narrowed, category in BIASED.narrowed():
        assert category is not None
        assert narrowed.fields()["logit_bias"] == {str(TOKENS[category]): FORCE}
        judgement = narrowed.read(processed(logits, (TOKENS[category],), FORCE))
        assert isinstance(judgement, Verdict)
        assert judgement.category is category


@pytest.mark.parametrize("mode", [Mode.FIRST_TOKEN, Mode.FIRST_TOKEN_BIASED, Mode.FIRST_TOKEN_TOP])
def test_labels_with_next_to_no_mass_are_no_verdict(mode: Mode) -> None:
    logits = dict.fromkeys(TOKENS, -8.0) | {13: -7.0, 99: 0.0}
    raw = reply(13, logits)
    for least, verdict in ((0.0, True), (0.0025, True), (0.05, False)):
        decoder = Decoder(mode, TOKENS, least_mass=least)
        judgement = decoder.read(processed(logits, TOKENS) if mode is Mode.FIRST_TOKEN_BIASED else raw)
        assert isinstance(judgement, Verdict) is verdict
        if isinstance(judgement, Unscorable):
            assert judgement.reason is Reason.OFF_LABEL
            assert "min_label_mass=0.05" in judgement.detail


def test_forbidden_tokens_and_logits_are_no_log_probabilities() -> None:
    """With `allowed_token_ids`, processed log-probabilities of all others are minus infinity, and the labels' mass is 1
    by force; raw logits are above 0."""
    for odd in (-9999.0, 3.0):
        for mode in (Mode.FIRST_TOKEN, Mode.FIRST_TOKEN_TOP):
            decoder = Decoder(mode, TOKENS)
            assert isinstance(decoder.read(reply(10, dict.fromkeys(TOKENS, -1.0) | {99: odd})), Unscorable)


def test_what_decides_verdicts_is_in_the_identity() -> None:
    assert Decoder(Mode.LABEL_CHOICE, least_mass=0.5).identity == Decoder(Mode.LABEL_CHOICE).identity
    one, other = (Decoder(Mode.FIRST_TOKEN, TOKENS, least_mass=mass) for mass in (0.0, 0.5))
    assert one.identity != other.identity


@pytest.mark.parametrize("label", LABELS)
def test_words(label: str) -> None:
    choice = Decoder(Mode.LABEL_CHOICE)
    for content in (label, f" {label.title()}.\n"):
        judgement = choice.read({"choices": [{"message": {"content": content}}]})
        assert judgement == Verdict(Category.from_label(label), None, judgement.source)  # type: ignore[union-attr]
    wrapped = {"choices": [{"message": {"content": json.dumps({"category": label})}}]}
    judgement = Decoder(Mode.JSON_ENUM).read(wrapped)
    assert isinstance(judgement, Verdict)
    assert judgement.category.label == label


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "logprobs", "token", "logprob", "top_logprobs"]), inner
        )
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from([Decoder(mode, TOKENS) for mode in Mode]))
def test_nonsense_is_unscorable_and_never_an_error(value: Any, decoder: Decoder) -> None:
    for content in (value, {"choices": [value]}, {"choices": [{"message": value, "logprobs": value}]}):
        assert isinstance(decoder.read(content), Unscorable)


def test_numbers_that_are_none() -> None:
    bad = reply(10, dict.fromkeys(TOKENS, -1.0))
    bad["choices"][0]["logprobs"]["content"][0]["top_logprobs"][2]["logprob"] = math.nan
    assert isinstance(Decoder(Mode.FIRST_TOKEN, TOKENS).read(bad), Unscorable)


@pytest.mark.parametrize("field", ["token", "logprob"])
@pytest.mark.parametrize("value", [None, [], "x", 10**400])
def test_a_log_probability_that_cannot_be_read_is_no_verdict(field: str, value: Any) -> None:
    for where in ("chosen", "listed"):
        bad = reply(10, dict.fromkeys(TOKENS, -1.0))
        position = bad["choices"][0]["logprobs"]["content"][0]
        entry = position if where == "chosen" else position["top_logprobs"][2]
        entry[field] = value
        judgement = Decoder(Mode.FIRST_TOKEN, TOKENS).read(bad)
        assert isinstance(judgement, Unscorable)
        assert judgement.reason is Reason.MALFORMED


@pytest.mark.parametrize("content", ["1" * 5000, "[" * 100_000, '{"category": ' * 50_000])
def test_json_without_end_or_bottom_is_no_verdict(content: str) -> None:
    judgement = Decoder(Mode.JSON_ENUM).read({"choices": [{"message": {"content": content}}]})
    assert isinstance(judgement, Unscorable)


def test_label_mass() -> None:
    raw = dict.fromkeys(TOKENS, math.log(0.1)) | {99: math.log(0.4)}
    assert label_mass(raw, TOKENS) == pytest.approx(0.6)
    assert Decoder(Mode.FIRST_TOKEN, TOKENS).mass(reply(99, raw)) == pytest.approx(0.6)
    assert Decoder(Mode.FIRST_TOKEN, TOKENS).mass({}) is None


def test_first_difference() -> None:
    assert first_difference([1, 2], [1, 2, 7, 8]) == 7
    assert first_difference([1, 2], [1, 2]) is None
    assert first_difference([1, 2], [1, 3, 7]) is None


def test_clashing_labels() -> None:
    assert clashing_labels(TOKENS) == []
    assert clashing_labels((1, 2, 3, 4, 5, 4)) == [("less specific", "more specific")]
    assert clashing_labels((1,) * 6) == [LABELS]


@pytest.mark.parametrize("mode", list(Mode))
def test_requests_are_greedy_and_short(mode: Mode) -> None:
    fields = Decoder(mode, TOKENS).fields()
    assert fields["temperature"] == 0
    assert fields["max_tokens"] == (1 if mode.value.startswith("first_token") else 48)
    json.dumps(fields)


def test_a_probe_narrows_the_choice_to_one_label() -> None:
    for decoder, category in Decoder(Mode.LABEL_CHOICE).narrowed():
        assert category is not None
        assert decoder.fields()["structured_outputs"] == {"choice": [category.label]}
    for decoder, category in Decoder(Mode.FIRST_TOKEN_TOP, TOKENS).narrowed():
        assert category is not None
        assert decoder.fields()["allowed_token_ids"] == [TOKENS[category]]
