"""JSONL of lmms-owc: ``TASK/MODEL/DATE_samples_TASK.jsonl``, each record with ``doc_id``, ``target`` and responses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speciarl.errors import DataError
from speciarl.evaluation.report.foreign.answered import Answered, records


def read(file: Path) -> Iterator[Answered]:
    """Answers of a file; the model is the name of its folder, the data set that of the folder above.

    Of several turns the last one counts, whole, since its answers carry no tags. Labels are taken as they are; those of
    Stanford Cars begin with the year. Raises DataError naming the line and what it lacks.
    """
    folder = file.resolve().parent
    for where, record in records(file):
        try:
            text = _last(record["filtered_resps"] if "filtered_resps" in record else record["resps"])
            yield Answered(
                model=folder.name,
                data_source=folder.parent.name,
                prompt="as_built",
                sample_id=str(record["doc_id"]),
                row=int(record["doc_id"]),
                index=0,
                ground_truth=str(record["target"]),
                prompt_text=folder.parent.name,  # the task has one prompt, which its records need not hold
                text=text,
                answer=text.strip() or None,
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"{where} is no sample of lmms-owc ({error!r}); give another file") from error


def _last(responses: Any) -> str:
    """The last text within nested lists."""
    while isinstance(responses, list):
        responses = responses[-1]
    if not isinstance(responses, str):
        raise TypeError(f"a response is {type(responses).__name__}, no text")
    return responses
