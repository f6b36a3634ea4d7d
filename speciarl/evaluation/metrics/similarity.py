"""Similarity: how near answers are to the truth in meaning, by the cosine of a sentence model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speciarl.errors import ConfigError
from speciarl.evaluation.config import MetricsConfig
from speciarl.evaluation.metrics.metric import Family, mean_family
from speciarl.evaluation.metrics.responses import Responses

MAX_TOKENS = 256
"""Longest text that the model is shown, as all-MiniLM-L6-v2 was published."""
BATCH = 64
DECIMALS = 4
"""Cosines are rounded to so many, since their last digits differ between machines."""


class SentenceModel:
    """A sentence model of transformers: the mean of its last hidden states over tokens, scaled to length 1."""

    def __init__(self, name: str) -> None:
        """Raises ConfigError in one line when it cannot be loaded."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModel.from_pretrained(name, dtype=torch.float32)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"metrics.similarity_model {name!r} cannot be loaded ({reason}); give a directory that holds it"
            ) from error
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.eval().to(self._device)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Their directions, shape (texts, size), each of length 1."""
        import torch

        order = sorted(range(len(texts)), key=lambda place: (len(texts[place]), texts[place]))  # little padding
        rows: list[Any] = [None] * len(texts)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                places = order[start : start + BATCH]
                inputs = self._tokenizer(
                    [texts[place] for place in places],
                    padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt",
                ).to(self._device)  # fmt: skip
                mask = inputs["attention_mask"].unsqueeze(-1)
                hidden = (self._model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
                directions = torch.nn.functional.normalize(hidden, dim=-1).cpu().numpy()
                for place, direction in zip(places, directions, strict=True):
                    rows[place] = direction
        return np.stack(rows) if rows else np.zeros((0, 1), np.float32)


class Similarity:
    """Semantic similarity, and concept similarity where a pipeline of spaCy is configured."""

    def __init__(self, config: MetricsConfig) -> None:
        """Raises ConfigError in one line when a model cannot be loaded."""
        if config.similarity_model is None:
            raise ConfigError("metrics.concept_model needs metrics.similarity_model; give both or none")
        self._name, self._concept_name = config.similarity_model, config.concept_model
        self._pipeline = None if config.concept_model is None else _spacy_pipeline(config.concept_model)
        self._model = SentenceModel(config.similarity_model)

    def families(self, responses: Responses) -> list[Family]:
        """The similarities of responses; one family each."""
        answers = sorted({answer for _, answer in responses.pairs})
        found = [self._family("semantic_similarity", responses, {answer: [answer] for answer in answers})]
        if self._pipeline is not None:
            documents = self._pipeline.pipe(answers)
            parts = {
                answer: [answer, *(chunk.text for chunk in document.noun_chunks)]
                for answer, document in zip(answers, documents, strict=True)
            }
            found.append(self._family("concept_similarity", responses, parts))
        return found

    def definitions(self) -> dict[str, str]:
        """What they are, in a sentence each."""
        defined = {
            "semantic_similarity": f"Mean cosine of answer and ground truth by {self._name}; 0 without an answer."
        }
        if self._pipeline is not None:
            defined["concept_similarity"] = (
                f"Mean of the best cosine of the ground truth with the answer or a noun chunk in it, by {self._name} "
                f"and {self._concept_name}; 0 without an answer."
            )
        return defined

    def _family(self, name: str, responses: Responses, parts: dict[str, list[str]]) -> Family:
        texts = sorted(
            {part for several in parts.values() for part in several} | {truth for truth, _ in responses.pairs}
        )
        place = {text: at for at, text in enumerate(texts)}
        vectors = self._model.embed(texts)
        best = [
            float(np.max(vectors[[place[part] for part in parts[answer]]] @ vectors[place[truth]]))
            for truth, answer in responses.pairs
        ]
        cosines = responses.spread(np.array([round(min(1.0, max(-1.0, one)), DECIMALS) for one in best], np.float64))
        missing = ~responses.predicted
        return mean_family(name, self.definitions()[name], cosines, responses.predicted, missing, (-1.0, 1.0))


def _spacy_pipeline(name: str) -> Any:
    try:
        import spacy

        return spacy.load(name)
    except ImportError as error:
        raise ConfigError(f"metrics.concept_model {name!r} needs spaCy; run `pip install spacy`") from error
    except OSError as error:
        raise ConfigError(
            f"metrics.concept_model {name!r} is not installed; run `python -m spacy download {name}`"
        ) from error
