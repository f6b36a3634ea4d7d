"""NDJSON of the paper's release: predictions (``predictions_*``, ``exploration_*``), verdicts (``verification_*``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from speciarl import answer
from speciarl.errors import DataError
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.report.foreign.answered import Answered, records
from speciarl.verdict import Reason

_ERRORS: dict[str, tuple[Outcome, str | None]] = {
    "parsing_vlm_output": (Outcome.UNPARSABLE, None),
    "prediction_too_long": (Outcome.TOO_LONG, None),
    "parsing_ground_truth": (Outcome.UNSCORED, Reason.MALFORMED),
    "parsing_answer_format": (Outcome.UNSCORED, Reason.MALFORMED),
    "api_network_error": (Outcome.UNSCORED, Reason.CONNECTION),
    "api_response_error": (Outcome.UNSCORED, Reason.MALFORMED),
    "api_unknown_error": (Outcome.UNSCORED, Reason.HTTP_ERROR),
}
"""What each of its kinds of error is for us. It marks all of them as done; a failed request is unscored here."""


def read(file: Path) -> Iterator[Answered]:
    """Answers of a file. Raises DataError naming the line and what it lacks."""
    for where, record in records(file):
        try:
            yield _answered(record)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where} is no record of the release ({error!r}); give another file") from error


def _answered(record: Mapping[str, Any]) -> Answered:
    context = record["data_context"]
    response = record["vlm_prediction"]
    text = response if isinstance(response, str) else json.dumps(response, ensure_ascii=False)
    judged = "status" in record
    outcome, reason = _outcome(record) if judged else (Outcome.UNSCORED, None)
    return Answered(
        model=record["model_name"],
        data_source=context["extra_info"].get("data_source") or context["data_source"],
        prompt=context["prompt_info"]["name"],
        sample_id=record["sample_id"],
        row=int(context["index"]),
        index=int(record["prediction_index"]),
        ground_truth=context["reward_model"]["ground_truth"],
        prompt_text=json.dumps(context["prompt"], ensure_ascii=False, sort_keys=True),
        text=text,
        answer=(record["parsed_prediction"] or None) if judged else answer.parse(text),
        judge=_judge(record["verification_config"]) if judged else "",
        outcome=outcome,
        reason=reason,
        detail=record.get("error_detail"),
    )


def _outcome(record: Mapping[str, Any]) -> tuple[Outcome, str | None]:
    if record["status"] == "success":
        return Outcome[record["classification"].upper().replace(" ", "_")], None
    return _ERRORS[record["error_type"]]


def _judge(config: Mapping[str, Any]) -> str:
    return "-".join(filter(None, (config.get("model"), config.get("verifier_prompt")))) or "unnamed"
