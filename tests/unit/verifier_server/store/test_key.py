"""The key of a stored verdict: everything that changes what a judge says changes it, and nothing else."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.verdict import Pair
from speciarl.verifier_server.config import VerifierConfig, parse_config
from speciarl.verifier_server.judge.decoding import Decoder, Mode
from speciarl.verifier_server.judge.json_list import ManyDecoder, ManyMode
from speciarl.verifier_server.judge.labels import BINARY
from speciarl.verifier_server.judge.prompt import Prompt
from speciarl.verifier_server.store import JudgeIdentity, identity_of, key, model_revision
from speciarl.verifier_server.store.key import verdict_key, verified_judges

texts = st.text(st.characters(codec="utf-8"), max_size=20)
pairs = st.builds(Pair, texts, texts)
judges = st.builds(
    JudgeIdentity,
    kind=texts,
    model=texts,
    revision=st.none() | texts,
    prompt=texts,
    labels=st.lists(texts, max_size=3).map(tuple),
    decoding=texts,
    request=texts,
    pairs_per_request=st.integers(1, 200),
    normaliser=st.integers(1, 9),
)
PAIR = Pair("lion", "cat")
PROMPT = Prompt("base", "Judge.", "Pair: ")
DECODER = Decoder(Mode.FIRST_TOKEN, (1, 2, 3, 4, 5, 6))


def config(**changes: Any) -> VerifierConfig:
    return parse_config({"model": "org/judge", "endpoints": ["http://one/v1"]} | changes)


def identity(prompt: Prompt = PROMPT, decoder: Decoder = DECODER, revision: str | None = None, **changes: Any) -> bytes:
    return identity_of(config(**changes), prompt, decoder, revision).fingerprint


CHANGES: list[dict[str, Any]] = [
    {"model": "org/other"},
    {"revision": "abc"},
    {"prompt": Prompt("base", "Judge!", "Pair: ")},
    {"prompt": Prompt("base", "Judge.", "A pair: ")},
    {"prompt": Prompt("base", "Judge.P", "air: ")},
    {"decoder": Decoder(Mode.FIRST_TOKEN_TOP, (1, 2, 3, 4, 5, 6))},
    {"decoder": Decoder(Mode.FIRST_TOKEN, (1, 2, 3, 4, 5, 7))},
    {"decoder": Decoder(Mode.LABEL_CHOICE)},
    {"decoder": Decoder(Mode.LABEL_CHOICE, max_tokens=2048)},
    {"kind": "openai"},
    {"thinking": True},
    {"request_fields": {"seed": 1}},
    {"request_fields": {"temperature": 0.5}},
    {"request_fields": {"model": "another"}},
    {"pairs_per_request": 8},
]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_judge_changes_the_key(change: dict[str, Any]) -> None:
    assert identity(**change) != identity()
    assert len({identity(**other) for other in CHANGES}) == len(CHANGES)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"endpoints": ["http://two/v1", "http://three/v1"]},
        {"served_model_name": "alias"},
        {"prompt": Prompt("renamed", "Judge.", "Pair: ")},
        {"max_concurrency": 1, "request_timeout_s": 1, "total_deadline_s": 1, "retries": 0, "cache_size": 0},
        {"exact_shortcut": False, "max_string_chars": 9, "probe": False},
    ],
)
def test_where_and_how_patiently_it_is_asked_does_not(change: dict[str, Any]) -> None:
    assert identity(**change) == identity()


@given(judges, judges)
def test_different_judges_have_different_fingerprints(one: JudgeIdentity, other: JudgeIdentity) -> None:
    assert (one == other) == (one.fingerprint == other.fingerprint)


@given(judges, st.sampled_from([field.name for field in dataclasses.fields(JudgeIdentity)]), texts)
def test_every_field_counts(judge: JudgeIdentity, field: str, text: str) -> None:
    old = getattr(judge, field)
    new: Any = old + 1 if isinstance(old, int) else (*old, text) if isinstance(old, tuple) else (old or "") + text + "x"
    assert dataclasses.replace(judge, **{field: new}).key(PAIR) != judge.key(PAIR)


@given(st.binary(min_size=32, max_size=32), pairs, pairs)
def test_no_two_pairs_share_a_key(judge: bytes, one: Pair, other: Pair) -> None:
    assert (one == other) == (verdict_key(judge, one) == verdict_key(judge, other))


@given(st.text("ab", max_size=6), st.integers(0, 6), st.integers(0, 6))
def test_moving_the_seam_between_the_texts_changes_the_key(text: str, first: int, second: int) -> None:
    one, other = (Pair(text[:cut], text[cut:]) for cut in (first, second))
    assert (one == other) == (verdict_key(bytes(32), one) == verdict_key(bytes(32), other))


def test_the_key_is_pinned() -> None:
    """Were this to change, every store would be forgotten: raise KEY_VERSION and mean it."""
    judge = JudgeIdentity("vllm", "m", None, "p", ("wrong", "right"), "d", "{}", 1, 1)
    text = (
        '{"decoding":"d","key_version":1,"kind":"vllm","labels":["wrong","right"],"model":"m","normaliser":1,'
        '"pairs_per_request":1,"prompt":"p","request":"{}","revision":null}'
    )
    assert judge.to_json() == text
    assert judge.key(PAIR) == hashlib.sha256(hashlib.sha256(text.encode()).digest() + b"\0\0\0\4lioncat").digest()


SIX_TEXT = (
    "Scheme(name='six', labels=('wrong', 'abstain', 'generic', 'less specific', 'specific', 'more specific'), "
    "categories=(<Category.WRONG: 0>, <Category.ABSTAIN: 1>, <Category.GENERIC: 2>, <Category.LESS_SPECIFIC: 3>, "
    "<Category.SPECIFIC: 4>, <Category.MORE_SPECIFIC: 5>))"
)
BINARY_TEXT = (
    "Scheme(name='binary', labels=('wrong', 'correct'), categories=(<Category.WRONG: 0>, <Category.SPECIFIC: 4>))"
)


@pytest.mark.parametrize(
    ("decoder", "text"),
    [
        (
            Decoder(Mode.FIRST_TOKEN_TOP, (7, 8), scheme=BINARY, top=256, least_mass=0.05),
            "Decoder(mode=<Mode.FIRST_TOKEN_TOP: 'first_token_top'>, first_tokens=(7, 8), max_tokens=48, "
            f"scheme={BINARY_TEXT}, only=None), least_mass=0.05",
        ),
        (
            Decoder(Mode.LABEL_CHOICE, max_tokens=2048),
            "Decoder(mode=<Mode.LABEL_CHOICE: 'label_choice'>, first_tokens=(), max_tokens=2048, "
            f"scheme={SIX_TEXT}, only=None)",
        ),
        (
            ManyDecoder(ManyMode.STRUCTURED, thought_tokens=512),
            f"ManyDecoder(mode=<ManyMode.STRUCTURED: 'many_structured'>, scheme={SIX_TEXT}, thought_tokens=512, "
            "only=None)",
        ),
    ],
)
def test_how_a_reply_is_decoded_is_pinned(decoder: Decoder | ManyDecoder, text: str) -> None:
    """As in stores of the first version, by whatever names the code goes now: these texts never change."""
    assert decoder.identity == text


@given(judges)
def test_json_round_trip(judge: JudgeIdentity) -> None:
    assert JudgeIdentity.from_json(judge.to_json()) == judge
    rows: list[Any] = [
        (judge.fingerprint, judge.to_json().encode()),
        (bytes(32), judge.to_json().encode()),
        (b"a", b"{"),
        (b"b", b"[]"),
        (b"c", judge.to_json().replace('"key_version":1', '"key_version":2').encode()),
        (b"d", judge.to_json().replace('"normaliser":', '"normaliser":true,"x":').encode()),
        (b"e", 7),
    ]
    assert verified_judges(rows) == {judge.fingerprint: judge}


def test_a_local_model_is_told_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key, "HASHED_BYTES", 100)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1" * 200)
    local = config(model=str(tmp_path))
    seen = [model_revision(local)]
    (tmp_path / ".lock").write_text("")
    assert model_revision(local) == seen[0]
    (tmp_path / "config.json").write_text("[]")  # same length: the content counts
    seen.append(model_revision(local))
    os.utime(tmp_path / "model.safetensors", ns=(0, 1))  # large: trained again in place
    seen.append(model_revision(local))
    (tmp_path / "tokenizer.json").write_text("")
    seen.append(model_revision(local))
    assert len(set(seen)) == 4
    assert model_revision(config(revision="abc")) == "abc"
    assert model_revision(config()) is None
