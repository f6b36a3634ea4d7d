"""Cell: one model's answers on one data set with one prompt, from the answer store to a table and back."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from speciarl.answer import parse
from speciarl.errors import DataError
from speciarl.evaluation import tables
from speciarl.evaluation.config import DatasetConfig, SamplingConfig
from speciarl.evaluation.predict.answer import Failure, QuestionFailed
from speciarl.evaluation.predict.answer_store import AnswerStore
from speciarl.evaluation.predict.generate import Missing, runs
from speciarl.evaluation.predict.key import answer_id, base_seed, content_id
from speciarl.evaluation.predict.question import Label, labels, questions

_NAMES = ("model", "dataset", "prompt", "failed")
"""Facts that say nothing of the content."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the data file, with the hashes of its prompt and of its images."""

    label: Label
    prompt: bytes
    images: bytes


@dataclass
class Cell:
    """The questions of a cell, and which answers to them are missing."""

    file: Path
    chosen: list[Label]
    prompt: str | None
    """Text in place of the file's prompts; None keeps them."""
    sampling: SamplingConfig
    greedy: bool
    rows: list[Row] = field(default_factory=list)
    """Filled by `missing`."""
    lacking: int = 0
    """Answers that `missing` found missing."""

    @classmethod
    def of(cls, name: str, dataset: DatasetConfig, prompt: str | None, sampling: SamplingConfig, greedy: bool) -> Cell:
        """The cell of a data set; raises as `labels` does."""
        return cls(Path(dataset.file), labels(name, dataset), prompt, sampling, greedy)

    @property
    def answers(self) -> int:
        """How many answers it has when it is complete."""
        return len(self.chosen) * self.sampling.n

    def seeds(self, prompt: bytes, images: bytes) -> list[int | None]:
        """Seeds of the answers to a question, by index; a single None where greedy."""
        if self.greedy:
            return [None]
        first = base_seed(self.sampling.seed, prompt, images)
        return list(range(first, first + self.sampling.n))

    def missing(self, store: AnswerStore) -> Iterator[Missing]:
        """What is still to be asked, in the order of the rows; questions that are the same to the byte are asked once.

        Reads the images of all rows, a few at a time.
        """
        self.rows.clear()
        self.lacking = 0
        asked: set[tuple[bytes, bytes]] = set()
        for question in questions(self.file, self.chosen, self.prompt):
            row = Row(question.label, question.prompt_id, question.images_id)
            self.rows.append(row)
            if (row.prompt, row.images) in asked:
                continue
            asked.add((row.prompt, row.images))
            for run in runs(store.missing(row.prompt, row.images, self.seeds(row.prompt, row.images))):
                self.lacking += len(run)
                yield Missing(question, row.prompt, row.images, run)

    def content(self) -> dict[str, str]:
        """Hashes of the questions, whatever the order of rows: of images and truths, and of the prompts."""
        data = sorted(
            content_id(row.label.sample_id.encode(), row.images, row.label.ground_truth.encode()) for row in self.rows
        )
        prompts = sorted({row.prompt for row in self.rows})
        return {"data_sha": content_id(*data).hex(), "prompt_sha": content_id(*prompts).hex()}

    def write(
        self, path: Path, store: AnswerStore, setup: str, failures: Mapping[str, QuestionFailed], facts: dict[str, Any]
    ) -> None:
        """Write the table of predictions; a question that failed has a row for each answer that it lacks."""
        tables.write(path, tables.PREDICTIONS, self._records(store, setup, failures), facts)

    def _records(
        self, store: AnswerStore, setup: str, failures: Mapping[str, QuestionFailed]
    ) -> Iterator[dict[str, Any]]:
        # Rows that are the same question share the failure of the one that was asked.
        by_question = {
            (row.prompt, row.images): failures[row.label.sample_id]
            for row in self.rows
            if row.label.sample_id in failures
        }
        for row in self.rows:
            seeds = self.seeds(row.prompt, row.images)
            known = store.answers(row.prompt, row.images, seeds)
            question = content_id(row.prompt, row.images).hex()
            for index, seed in enumerate(seeds):
                answer = known.get(seed)
                record: dict[str, Any] = {
                    "sample_id": row.label.sample_id,
                    "index": index,
                    "data_source": row.label.data_source,
                    "ground_truth": row.label.ground_truth,
                    "label_path": list(row.label.label_path),
                    "question": question,
                    "key": answer_id(setup, row.prompt, row.images, seed),
                    "seed": seed,
                }
                if answer is None:
                    failure = by_question[row.prompt, row.images]
                    record |= {"failure": failure.failure.value, "failure_detail": failure.detail}
                else:
                    record |= {
                        "text": answer.text,
                        "answer": parse(answer.text),
                        "tokens": answer.tokens,
                        "prompt_tokens": answer.prompt_tokens,
                        "finish_reason": answer.finish_reason,
                        "image_width": answer.image_width,
                        "image_height": answer.image_height,
                    }
                yield record


def file_sha(config: DatasetConfig) -> str | None:
    """Hash of a data file and of which rows of it are taken; None for one that only names its images, which may
    change while it does not."""
    first = next(pq.ParquetFile(config.file).iter_batches(batch_size=1, columns=["images"])).to_pylist()[0]["images"]
    if any(image["bytes"] is None for image in first or ()):
        return None
    with Path(config.file).open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b").digest()
    choice = repr((sorted(config.data_source), config.max_samples)).encode()
    return content_id(digest, choice).hex()


def reusable(path: Path, expected: Mapping[str, Any]) -> bool:
    """Whether a table of predictions is complete and has the `expected` facts, so that no image has to be read."""
    if not path.is_file():
        return False
    try:
        found = tables.facts(path)
    except DataError:  # damaged: made again
        return False
    if expected["file_sha"] is None or any(not Failure(failure).lasts for failure in found["failed"]):
        return False
    return all(found.get(name) == value for name, value in expected.items() if name not in _NAMES)


def failed(failures: Mapping[str, QuestionFailed]) -> dict[str, int]:
    """Number of questions by failure."""
    return dict(sorted(Counter(failure.failure.value for failure in failures.values()).items()))
