"""One answer of another's evaluation, in our terms."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speciarl.errors import DataError
from speciarl.evaluation.outcome import Outcome

MISSING = "missing"
"""Failure of an answer that the file should hold but does not: others drop what failed."""
UNKNOWN = "not recorded"
"""What stands for facts that others' files do not hold."""


@dataclass(frozen=True)
class Answered:
    """An answer, and the verdict on it where the file has one."""

    model: str
    data_source: str
    prompt: str
    sample_id: str
    row: int
    """Place of the sample in its data file."""
    index: int
    ground_truth: str
    prompt_text: str
    text: str | None
    answer: str | None
    judge: str = ""
    """Empty where the file has no verdicts."""
    outcome: Outcome = Outcome.UNSCORED
    reason: str | None = None
    detail: str | None = None
    failure: str | None = None

    def prediction(self) -> dict[str, Any]:
        """Its row in a table of predictions."""
        return {
            "sample_id": self.sample_id, "index": self.index, "data_source": self.data_source,
            "ground_truth": self.ground_truth, "label_path": [self.ground_truth],
            "question": _hash([self.prompt_text, self.data_source, self.sample_id]),
            "key": _hash([self.model, self.prompt_text, self.data_source, self.sample_id, self.index, self.text]),
            "seed": None, "failure": self.failure, "failure_detail": None, "text": self.text, "answer": self.answer,
            "tokens": None, "prompt_tokens": None, "finish_reason": None, "image_width": None, "image_height": None,
        }  # fmt: skip


def facts(cell: Sequence[Answered]) -> dict[str, Any]:
    """Facts of a cell's predictions, as far as the file tells them."""
    samples = sorted({(one.sample_id, one.ground_truth) for one in cell})
    return {
        "prompt_sha": _hash(sorted({one.prompt_text for one in cell})), "data_sha": _hash(samples),
        "pixels": UNKNOWN, "sampling": UNKNOWN, "engine": UNKNOWN, "model_sha": UNKNOWN,
    }  # fmt: skip


def complete(cell: Sequence[Answered], others: Sequence[Answered] = ()) -> list[Answered]:
    """The answers of a cell in order, with a failure for each that is missing; raises DataError for one given twice.

    `others` are answers of other cells on the data set: what was asked there was asked here.
    """
    known: dict[tuple[str, int], Answered] = {}
    for one in cell:
        if (one.sample_id, one.index) in known:
            raise DataError(f"answer {one.index} to sample {one.sample_id} of {one.model} is given twice; remove one")
        known[one.sample_id, one.index] = one
    n = 1 + max(one.index for one in cell)
    first = cell[0]
    asked = {one.sample_id: one for one in (*others, *(one for one in others if one.prompt == first.prompt), *cell)}
    samples = sorted(asked.values(), key=lambda one: (one.row, one.sample_id))
    return [
        known.get((like.sample_id, index)) or _missing(like, index, first) for like in samples for index in range(n)
    ]


def verdicts(cell: Sequence[Answered], judge: str) -> Iterator[dict[str, Any]]:
    """Rows of a table of verdicts by one judge; what it did not judge is unscored."""
    for one in cell:
        judged = one.judge == judge and one.failure is None
        unscored = not judged or one.outcome is Outcome.UNSCORED
        reason = (one.reason if judged else f"prediction:{one.failure or MISSING}") if unscored else None
        yield {
            "sample_id": one.sample_id, "index": one.index,
            "outcome": int(Outcome.UNSCORED if unscored else one.outcome), "reason": reason,
            "detail": one.detail if unscored else None, "margin": None, "probabilities": None,
        }  # fmt: skip


def records(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Records of a file with one JSON object a line, each with ``FILE, line N``. Raises DataError for another line."""
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{file}, line {number}", _record(line, f"{file}, line {number}")
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); give another file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not in UTF-8; give another file") from error


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON; remove it, or write the file again") from error
    if not isinstance(record, dict):
        raise DataError(f"{where} is no JSON object; give a file with one a line")
    return record


def as_name(text: str) -> str:
    """A text as a name of folders: other signs than letters, numbers, dots, dashes and underscores become dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "unnamed"


class Names:
    """Names of folders, as `as_name` gives them."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], str] = {}

    def __call__(self, kind: str, text: str) -> str:
        """The name of a text; raises DataError when another text of that kind has it."""
        name = as_name(text)
        other = self._given.setdefault((kind, name), text)
        if other != text:
            raise DataError(f"{kind} {text!r} and {kind} {other!r} would both be called {name!r}; import them apart")
        return name


def _missing(like: Answered, index: int, of: Answered) -> Answered:
    """The failure of the model of `of` to answer a sample like another was."""
    return replace(
        of, sample_id=like.sample_id, row=like.row, ground_truth=like.ground_truth, index=index,
        prompt_text=like.prompt_text if like.prompt == of.prompt else of.prompt_text,
        text=None, answer=None, failure=MISSING, outcome=Outcome.UNSCORED, reason=None, detail=None,
    )  # fmt: skip


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
