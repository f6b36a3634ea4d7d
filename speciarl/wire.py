"""Wire format: judgements as plain JSON data between the service and its clients."""

from collections.abc import Mapping
from typing import Any

from speciarl.category import Category
from speciarl.verdict import Judgement, Reason, Source, Unscorable, Verdict


def to_wire(judgement: Judgement) -> dict[str, Any]:
    """A judgement as one result of ``POST /v1/judge``, without the caller's id."""
    if isinstance(judgement, Unscorable):
        return {"status": "unscorable", "reason": judgement.reason.value, "detail": judgement.detail}
    return {
        "status": "verdict",
        "category": judgement.category.label,
        "margin": judgement.margin,
        "source": judgement.source.value,
        "probabilities": judgement.probabilities,
    }


def from_wire(item: object) -> Judgement | None:
    """The judgement in what `to_wire` returned, equal to the original; None for data that it never returns."""
    if not isinstance(item, Mapping):
        return None
    try:
        if item.get("status") == "unscorable":
            return Unscorable(Reason(item["reason"]), str(item["detail"]))
        if item.get("status") != "verdict":
            return None
        margin, probabilities = item["margin"], item["probabilities"]
        return Verdict(
            category=Category.from_label(item["category"]),
            margin=None if margin is None else float(margin),
            source=Source(item["source"]),
            probabilities=None if probabilities is None else tuple(map(float, probabilities)),
        )
    except (KeyError, TypeError, ValueError):
        return None
