"""Run registry: counts what was judged for each run, and keeps it in the verdict log."""

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from speciarl.category import LABELS
from speciarl.verifier_server.service.config import RUN_CHARS
from speciarl.verifier_server.service.errors import ApiError
from speciarl.verifier_server.service.runs.log import VerdictLog
from speciarl.verifier_server.service.runs.rows import Counts, PartName, Row, read_part
from speciarl.verifier_server.service.runs.schemas import RunInfo

RETRY_AFTER_S = 2.0

CURSOR = "([0-9]{1,12})-([0-9a-f]{8}):([0-9]{1,12})"
"""Pattern of a cursor: number and writer of a file, and how many of its rows were returned."""


class RunRegistry:
    """Registry of all runs of one service. Without a log it counts and keeps no rows."""

    def __init__(self, log: VerdictLog | None, most_runs: int) -> None:
        self._log = log
        self._most = most_runs
        self._runs: dict[str, Counts] = {}

    def start(self) -> None:
        """Open the log and load the counts of its runs; raises ConfigError. Blocks."""
        if self._log is not None:
            self._runs = self._log.start()

    def admit(self, run: str | None) -> None:
        """Admission control: refuse a new run beyond the limit, before anything is judged for it; raises ApiError."""
        if run is not None and run not in self._runs and len(self._runs) >= self._most:
            raise ApiError(409, "too_many_runs", f"the service keeps limits.runs={self._most} runs and has as many")

    def record(self, run: str, rows: Sequence[Row]) -> None:
        """Log and count pairs; raises ApiError when the log cannot take them, and then nothing is counted."""
        if self._log is not None and not self._log.append(run, rows):
            raise ApiError(
                503,
                "log_full",
                "the verdict log takes no rows: the disk is full or too slow, or the service is stopping",
                retry_after_s=RETRY_AFTER_S,
            )
        self._runs.setdefault(run, Counts()).add_rows(rows)

    def names(self) -> list[str]:
        """Names of all runs, sorted."""
        return sorted(self._runs)

    def info(self, run: str) -> RunInfo:
        """Statistics of one run; raises ApiError for an unknown one."""
        counts = self._counts(run)
        categories = {label: counts.by["category"][label] for label in LABELS}
        scored = sum(categories.values())
        return RunInfo(
            run=run,
            pairs=counts.pairs,
            first=counts.first,
            last=counts.last,
            judges=dict(counts.by["judge"]),
            categories=categories,
            sources=dict(counts.by["source"]),
            unscorable=dict(counts.by["reason"]),
            category_rates={label: count / scored for label, count in categories.items()} if scored else None,
            logged=self._log is not None,
        )

    def waiting(self, run: str) -> int:
        """Rows of a run that wait to be written; 0 for an unknown one."""
        return sum(len(rows) for _, rows in self._log.parts(run)[1]) if self._log is not None else 0

    def activity(self, run: str) -> tuple[int, datetime | None]:
        """Pairs of a run so far, and when the last one was judged; none for an unknown run."""
        counts = self._runs.get(run)
        return (counts.pairs, counts.last) if counts is not None else (0, None)

    async def rows(self, run: str, after: str | None, limit: int) -> dict[str, Any]:
        """Page of rows after the cursor; raises ApiError for an unknown run or cursor, a lost file, or no log."""
        self._counts(run)
        if self._log is None:
            raise ApiError(409, "no_log", "the service keeps no rows: it has no `verdict_log`")
        start = _parse_cursor(after)
        rows: list[Row] = []
        cursor = after
        finished, waiting = self._log.parts(run)
        pending = dict(waiting)
        for name in [*finished, *pending]:
            first = _first_row(name, start)
            if first is None:
                continue
            try:
                found = pending[name] if name in pending else await asyncio.to_thread(
                    read_part, self._log.directory / run, name
                )  # fmt: skip
            except OSError as error:
                raise ApiError(410, "part_gone", f"{name.file} of the log cannot be read any more") from error
            taken = found[first : first + limit - len(rows)]
            if taken:
                cursor = f"{name.number}-{name.writer}:{first + len(taken)}"
                rows += taken
            if first + len(taken) < len(found):
                return {"run": run, "rows": rows, "next": cursor, "more": True}
        return {"run": run, "rows": rows, "next": cursor, "more": False}

    def _counts(self, run: str) -> Counts:
        counts = self._runs.get(run)
        if counts is None:
            raise ApiError(404, "unknown_run", "there is no such run; GET /v1/runs lists them")
        return counts


def run_name(text: str) -> str:
    """Name of the run for any text of a client: characters that names cannot have become dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:RUN_CHARS] or "unnamed"


def _parse_cursor(after: str | None) -> tuple[PartName, int]:
    if after is None:
        return PartName(0, ""), 0
    match = re.fullmatch(CURSOR, after)
    if match is None:
        raise ApiError(422, "bad_cursor", "`after` must be the `next` of an earlier page")
    return PartName(int(match[1]), match[2]), int(match[3])


def _first_row(name: PartName, start: tuple[PartName, int]) -> int | None:
    """Index of the first row of a file after the cursor; None when the whole file lies before it.

    A file with the cursor's number by another writer replaced one that was lost: all of its rows are new.
    """
    at, row = start
    if name == at:
        return row
    return 0 if name.number >= at.number else None
