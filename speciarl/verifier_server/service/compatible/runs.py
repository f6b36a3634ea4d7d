"""Run routes of the paper's wire format: state of a run, and its pairs with how often each came up."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from speciarl.verifier_server.service.compatible.schemas import LoggedPair, RunResults, RunState, RunStatus
from speciarl.verifier_server.service.errors import ApiError, responses
from speciarl.verifier_server.service.requests import StrictRoute, json_reply
from speciarl.verifier_server.service.runs.registry import RunRegistry, run_name
from speciarl.verifier_server.service.runs.rows import Row

PAGE_ROWS = 10_000
MOST_ENTRIES = 50_000
ERROR = "error"
"""What the format calls a pair without a verdict."""
BASIC = (
    "ground_truth", "prediction", "classification_result", "count", "first_seen", "last_seen", "model", "run_name",
)  # fmt: skip
"""The fields that `fields=basic` stands for."""
FIELDS = tuple(name for name in LoggedPair.model_fields if name != "id")

_NAME = f" *({'|'.join(('_id', *FIELDS))}) *"

Fields = Annotated[
    str | None,
    Query(
        max_length=500,
        description="Names parted by commas, or `basic`; all without it.",
        json_schema_extra={"pattern": f"^(basic|{_NAME}(,{_NAME})*)$"},
    ),
]
Run = Annotated[
    str, Path(max_length=500, description="Name of the run, as clients send it.", examples=["cub200-seed42"])
]


@dataclass
class _Entry:
    """A pair of a run under one model and prompt; the verdict that was given last."""

    result: str = ERROR
    seen: list[tuple[datetime, str | None]] = field(default_factory=list)
    """When it was judged, and the JSON text of what the client sent with it."""


class Entries:
    """The different pairs of a run, put together from the rows of its log."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._entries: dict[tuple[str, str, str, str], _Entry] = {}
        self._results: Counter[str] = Counter()

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows, in the order of the log."""
        for row in rows:
            key = (row["ground_truth"], row["prediction"], row["model"] or row["judge"], row["prompt"] or "")
            entry = self._entries.setdefault(key, _Entry())
            entry.result = row["category"] or ERROR
            entry.seen.append((row["time"], row["extra_info"]))
            self._results[entry.result] += 1

    def page(self, offset: int, limit: int, names: Iterable[str], with_statistics: bool) -> dict[str, Any]:
        """The response: entries by the time of the last occurrence, the latest first."""
        ordered = sorted(self._entries.items(), key=lambda item: item[1].seen[-1][0], reverse=True)
        chosen = ordered[offset : offset + limit]
        return {
            "run_name": self._run,
            "total_count": len(ordered),
            "returned_count": len(chosen),
            "offset": offset,
            "limit": limit,
            "has_more": offset + len(chosen) < len(ordered),
            "stats": self._statistics() if with_statistics and ordered else None,
            "results": [self._shown(key, entry, tuple(names)) for key, entry in chosen],
        }

    def _shown(self, key: tuple[str, str, str, str], entry: _Entry, names: tuple[str, ...]) -> dict[str, Any]:
        truth, prediction, model, prompt = key
        whole = {
            "ground_truth": truth,
            "prediction": prediction,
            "run_name": self._run,
            "model": model,
            "prompt": prompt,
            "classification_result": entry.result,
            "count": len(entry.seen),
            "first_seen": entry.seen[0][0],
            "last_seen": entry.seen[-1][0],
        }
        if "occurrences" in names:
            whole["occurrences"] = [
                {"timestamp": time, "extra_info": None if info is None else json.loads(info)}
                for time, info in entry.seen
            ]
        digest = hashlib.sha256("\0".join((self._run, *key)).encode("utf-8", "surrogatepass")).hexdigest()
        return {"_id": digest[:24]} | {name: whole[name] for name in names}

    def _statistics(self) -> dict[str, Any]:
        total = self._results.total()
        times = [time for entry in self._entries.values() for time, _ in entry.seen]
        return {
            "classification_distribution": dict(self._results),
            "total_classifications": total,
            "success_rate": round(100 * (total - self._results[ERROR]) / total, 2),
            "models_used": sorted({model for _, _, model, _ in self._entries}),
            "time_range": {"first_seen": min(times), "last_seen": max(times)},
        }


def chosen_fields(text: str | None) -> tuple[str, ...]:
    """The field names in `fields`: all without it, `basic` for the essential ones; raises ApiError for others."""
    if text is None:
        return FIELDS
    if text == "basic":
        return BASIC
    names = tuple(dict.fromkeys(name.strip(" ") for name in text.split(",")))
    unknown = [name for name in names if name not in ("_id", *FIELDS)]
    if unknown:
        message = f"fields: there is no {unknown[0]!r}; known: basic, {', '.join(FIELDS)}"
        raise ApiError(422, "invalid_request", message)
    return tuple(name for name in names if name != "_id")  # always there


def router(registry: RunRegistry) -> APIRouter:
    """Router of the runs of one service in this format."""
    routes = APIRouter(prefix="/api/v1/runs", tags=["compatible"], route_class=StrictRoute)

    @routes.get("/{run}/status", summary="State of a run", responses=responses("invalid_request", "internal"))
    async def status(run: Run) -> RunStatus:
        """Pairs so far, and rows that wait to be written."""
        name = run_name(run)
        waiting = registry.waiting(name)
        pairs, last = registry.activity(name)
        state = RunState.PROCESSING if waiting else RunState.COMPLETED if pairs else RunState.IDLE
        return RunStatus(
            run_name=name, status=state, queue_pending_count=waiting, total_processed=pairs, last_activity=last
        )

    @routes.get(
        "/{run}/results",
        summary="Pairs of a run",
        response_model=RunResults,
        responses=responses("unknown_run", "no_log", "part_gone", "invalid_request", "internal"),
    )
    async def results(
        run: Run,
        limit: Annotated[int, Query(ge=1, le=MOST_ENTRIES, description="Most pairs in the page.")] = 10_000,
        offset: Annotated[int, Query(ge=0, description="Pairs to skip.")] = 0,
        include_stats: Annotated[bool, Query(description="Whether to add statistics of the whole run.")] = False,
        fields: Fields = None,
    ) -> Response:
        """A page of the different pairs of a run, the one judged last first."""
        names = chosen_fields(fields)
        name = run_name(run)
        entries = Entries(name)
        after: str | None = None
        more = True
        while more:
            page = await registry.rows(name, after, PAGE_ROWS)
            after, more = page["next"], page["more"]
            await asyncio.to_thread(entries.add, page["rows"])  # long runs must not hold up those that judge
        return json_reply(await asyncio.to_thread(entries.page, offset, limit, names, include_stats))

    return routes
