"""The miniature tokenizers."""

from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor, AutoTokenizer

from data_prep.emoji.concepts import load_concepts
from speciarl.category import LABELS
from speciarl.laptop.judge.model import build_judge, build_judge_tokenizer
from speciarl.laptop.judge.pairs import PairSource
from speciarl.laptop.policy.model import build_policy, build_policy_tokenizer, save_processor
from speciarl.laptop.tokenizer import SPECIAL_TOKENS, TAGS, build_merging_tokenizer, build_tokenizer, token_id
from speciarl.laptop.world import World

_WORLD = World(load_concepts())
_POLICY = build_policy_tokenizer(_WORLD.words)
_JUDGE = build_judge_tokenizer(PairSource(_WORLD.concepts).words)


@settings(deadline=None)
@given(st.text())
def test_any_text_survives_encoding(text: str) -> None:
    if not any(token in text for token in (*SPECIAL_TOKENS, *TAGS)):
        assert _POLICY.decode(_POLICY.encode(text)) == text
        assert _JUDGE.decode(_JUDGE.encode(text)) == normalize("NFC", text)  # Qwen2's normaliser


def test_ids_are_dense() -> None:
    for tokenizer in (_POLICY, _JUDGE):
        assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_a_word_of_the_world_is_one_token() -> None:
    for concept in _WORLD.concepts:
        for text in concept.label_path:
            assert len(_POLICY.encode(f" {text}")) == len(text.split())
            assert len(_JUDGE.encode(text)) == len(text.split())


def test_tags_survive_decoding_without_special_tokens_and_special_tokens_do_not() -> None:
    text = "<think> clear exact</think><answer> dog face</answer>"
    ids = [*_POLICY.encode(text), token_id(_POLICY, "<|im_end|>")]
    assert _POLICY.decode(ids, skip_special_tokens=True) == text
    assert len(ids) == 9


def test_first_tokens_of_the_labels_differ() -> None:
    first = [_JUDGE.encode(label)[0] for label in LABELS]
    assert len(set(first)) == len(LABELS)
    assert all(len(_JUDGE.encode(label)) <= 2 for label in LABELS)


def test_unusable_words_and_unknown_tokens_are_refused() -> None:
    for build in (build_tokenizer, build_merging_tokenizer):
        with pytest.raises(ValueError, match="not one word"):
            build(["two words"])
    with pytest.raises(ValueError, match="no token 'zebra crossing'"):
        token_id(_POLICY, "zebra crossing")


def test_turns_follow_qwens_format() -> None:
    chat = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    text = _JUDGE.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>system\na<|im_end|>\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n"


def test_stock_auto_classes_encode_as_the_tokenizers_that_were_trained(tmp_path: Path) -> None:
    # A model type can make Transformers load another tokenizer class than the one that was saved.
    build_judge(_JUDGE).save_pretrained(tmp_path / "judge")
    _JUDGE.save_pretrained(tmp_path / "judge")
    build_policy(_POLICY).save_pretrained(tmp_path / "policy")
    save_processor(_POLICY, tmp_path / "policy")
    loaded = [
        (_JUDGE, AutoTokenizer.from_pretrained(tmp_path / "judge")),
        (_POLICY, AutoTokenizer.from_pretrained(tmp_path / "policy")),
        (_POLICY, AutoProcessor.from_pretrained(tmp_path / "policy").tokenizer),
    ]
    for original, copy in loaded:
        assert len(copy) == len(original)
        for concept in _WORLD.concepts:
            text = f'<|im_start|>user\n{{"a": "{concept.name}"}} b1rd {concept.subgroup}<|im_end|>'
            assert copy.encode(text) == original.encode(text)
