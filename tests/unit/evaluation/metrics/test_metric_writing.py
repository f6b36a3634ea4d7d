"""Metrics of the texts of responses, and similarity by a sentence model."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scored_cells import PAIRS, answers_of

from speciarl.errors import ConfigError
from speciarl.evaluation.config import MetricsConfig
from speciarl.evaluation.metrics.responses import Responses
from speciarl.evaluation.metrics.similarity import SentenceModel, Similarity
from speciarl.evaluation.metrics.writing import families
from speciarl.evaluation.outcome import Outcome


def value(family: Any) -> float:
    return float(family.metrics[0].statistic(family.features.sum(0)))


def one_of_each() -> Responses:
    """The four pairs, one response without an answer, and one that there is not."""
    codes = np.array([[0, 1, 2, 3, Outcome.UNPARSABLE, Outcome.UNSCORED]])
    made = answers_of(codes, predicted=codes != Outcome.UNSCORED).responses
    pair = np.array([[0, 1, 2, 3, -1, -1]])
    tokens = np.array([[10, 10, 10, 10, 60, -1]], np.int32)
    return Responses(
        **{name: getattr(made, name) for name in made.__dataclass_fields__}
        | {"pair": pair, "tokens": tokens, "capped": tokens == 60}
    )


def test_by_hand() -> None:
    found = {family.metrics[0].name: family for family in families(one_of_each(), 100)}
    assert value(found["text_inclusion"]) == pytest.approx(3 / 5)
    assert value(found["exact_match"]) == pytest.approx(1 / 5)
    assert value(found["parse_failures"]) == pytest.approx(1 / 5)
    assert value(found["hedging"]) == pytest.approx(1 / 5)
    assert value(found["cap_hits"]) == pytest.approx(1 / 5)
    assert value(found["tokens"]) == pytest.approx(20)
    unknown = replace(one_of_each(), ended=np.zeros((1, 6), np.bool_))
    assert np.isnan(value({family.metrics[0].name: family for family in families(unknown, 100)}["cap_hits"]))
    assert value(found["words"]) == pytest.approx((2 + 1 + 1 + 5) / 4)
    tokens, words = found["tokens"], found["words"]
    assert tokens.metrics[0].bounds(tokens.features.sum(0)) == pytest.approx((100 / 6, 200 / 6))
    assert words.metrics[0].bounds(words.features.sum(0)) == (2.0, None)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sentence model of the same kind as all-MiniLM-L6-v2, of random weights."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "vocab.txt").write_text(
        "\n".join(
            [
                "[PAD]",
                "[UNK]",
                "[CLS]",
                "[SEP]",
                "[MASK]",
                *"abcdefghijklmnopqrstuvwxyz",
                *(f"##{one}" for one in "abcdefghijklmnopqrstuvwxyz"),
            ]
        )
    )
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=57, **size)).save_pretrained(folder)
    return str(folder)


def test_semantic_similarity(tiny_model: str) -> None:
    responses = one_of_each()
    similarity = Similarity(MetricsConfig(similarity_model=tiny_model))
    (family,) = similarity.families(responses)
    model = SentenceModel(tiny_model)
    texts = sorted({text for pair in PAIRS for text in pair})
    vectors = dict(zip(texts, model.embed(texts), strict=True))
    cosines = [float(vectors[truth] @ vectors[answer]) for truth, answer in PAIRS]
    assert cosines[2] == pytest.approx(1)
    assert value(family) == pytest.approx(sum(cosines) / 5, abs=1e-4)  # the one without an answer counts 0
    assert list(similarity.definitions()) == ["semantic_similarity"]


def test_padding_does_not_change_a_direction(tiny_model: str) -> None:
    model = SentenceModel(tiny_model)
    assert model.embed(["dog", "golden winged warbler"])[0] == pytest.approx(model.embed(["dog"])[0], abs=1e-5)


def test_concept_similarity_takes_the_best_noun_chunk(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class FakePipeline:
        """Noun chunks are what stands between "or"."""

        def pipe(self, texts: list[str]) -> list[Any]:
            return [
                SimpleNamespace(noun_chunks=[SimpleNamespace(text=part) for part in text.split(" or ")])
                for text in texts
            ]

    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=lambda name: FakePipeline()))
    similarity = Similarity(MetricsConfig(similarity_model=tiny_model, concept_model="en_core_web_sm"))
    semantic, concept = similarity.families(one_of_each())
    assert value(concept) > value(semantic)  # "beagle or a fox hound" holds "beagle"
    assert set(similarity.definitions()) == {"semantic_similarity", "concept_similarity"}


def test_models_that_are_not_there(tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.similarity_model .* cannot be loaded"):
        SentenceModel(str(tmp_path))
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ConfigError, match="needs spaCy; run `pip install spacy`"):
        Similarity(MetricsConfig(similarity_model=tiny_model, concept_model="en_core_web_sm"))
    with pytest.raises(ConfigError, match=r"needs metrics\.similarity_model"):
        Similarity(MetricsConfig(concept_model="en_core_web_sm"))
