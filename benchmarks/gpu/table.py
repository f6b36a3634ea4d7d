"""The check's report: a dated Markdown page of figures, one column for each run."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from findings import Finding, rate
from training_run import Run

MEASURED = 2
"""The step that is shown: the first loads and compiles, the last has its judge killed."""
LIVE = "speciarl/verifier/total/live"
TOTAL = "speciarl/verifier/total"
PARTS = ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights")
"""Of a step, in the order of time; whatever else veRL times follows."""


@dataclass(frozen=True)
class Column:
    """One run in the table."""

    title: str
    run: Run
    findings: Sequence[Finding]


def page(card: str, versions: str, date: time.struct_time, columns: Sequence[Column], notes: Sequence[str]) -> str:
    """The whole page."""
    lines = [
        f"# GPU check, {time.strftime('%Y-%m-%d', date)}",
        "",
        f"* {card}",
        f"* {versions}",
        *(f"* {note}" for note in notes),
        "",
    ]
    rows: dict[str, list[str]] = {}
    for place, column in enumerate(columns):
        for name, value in figures(column.run).items():
            rows.setdefault(name, [""] * len(columns))[place] = value
    lines += _table([f"step {MEASURED}", *(column.title for column in columns)], rows)
    for column in columns:
        lines += ["", f"## {column.title}", ""]
        lines += _table(
            ["must hold", "verdict", "figures"], {one.what: [one.verdict, one.figures] for one in column.findings}
        )
    return "\n".join(lines) + "\n"


def figures(run: Run) -> dict[str, str]:
    """Names and values of one run's column; what a run does not have is left out."""
    row = run.steps.get(MEASURED)
    whole = {"whole run with start-up, s": f"{run.seconds:.0f}"}
    if row is None:
        return whole | _memory(run, {})
    shown = {f"`timing_s/{name}`, s": f"{seconds:.2f}" for name, seconds in _split(row)}
    shown |= _speed(run, row) | _judge(run, row) | _memory(run, row)
    last = run.steps.get(max(run.steps))
    if run.killed and last is not None:
        shown["`timing_s/step` with the judge killed, s"] = f"{last['timing_s/step']:.2f}"
    return shown | whole


def _split(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    timed = {name.removeprefix("timing_s/"): value for name, value in row.items() if name.startswith("timing_s/")}
    order = ["step", *PARTS, *sorted(timed)]
    return [(name, timed[name]) for name in dict.fromkeys(order) if name in timed]


def _speed(run: Run, row: Mapping[str, Any]) -> dict[str, str]:
    """Tokens a second: of the whole step as veRL counts, generated ones, and those of an update."""
    total = row.get("perf/total_num_tokens")
    responses = row.get("response_length/mean", 0.0) * run.stored.get(MEASURED, 0)
    return _present(
        {
            "tokens/s, whole step": (row.get("perf/throughput"), ".0f"),
            "tokens/s, generated": (rate(row, responses, "timing_s/gen"), ".0f"),
            "tokens/s, update": (rate(row, total, "timing_s/update_actor") if total else None, ".0f"),
            "response tokens, mean": (row.get("response_length/mean"), ".0f"),
        }
    )


def _judge(run: Run, row: Mapping[str, Any]) -> dict[str, str]:
    """Verdicts of the measured step; the verifier's counters run on from step to step."""

    def added(counter: str) -> float:
        before = run.steps.get(MEASURED - 1, {})
        return float(row.get(f"{TOTAL}/{counter}", 0.0)) - float(before.get(f"{TOTAL}/{counter}", 0.0))

    verdicts = added("live")
    shown = _present(
        {
            "verdicts of the judge": (verdicts, ".0f"),
            "verdicts/s while any was awaited": (rate(row, verdicts, "speciarl/verifier/judging_s"), ".1f"),
            "waited for nothing but verdicts, s": (row.get("speciarl/verifier/wait_s"), ".2f"),
        }
    )
    if verdicts and added("prompt_tokens"):
        prompt, cached, completed = (
            added(name) / verdicts for name in ("prompt_tokens", "cached_tokens", "completion_tokens")
        )
        shown["tokens per verdict: prompt (cached) + reply"] = f"{prompt:.0f} ({cached:.0f}) + {completed:.1f}"
    return shown


def _memory(run: Run, row: Mapping[str, Any]) -> dict[str, str]:
    shown = {}
    for name, seen, planned in (
        ("trainer's peak, allocated", row.get("perf/max_memory_allocated_gb"), run.plan.get("update_gib")),
        ("trainer's peak, reserved", row.get("perf/max_memory_reserved_gb"), None),
        ("card's peak, all processes", run.peak_gib or None, run.plan.get("peak_gib")),
    ):
        if seen:
            shown[f"{name}, GiB"] = f"{seen:.1f}" + (f" (planned {planned:.1f})" if planned else "")
    return shown


def _present(values: Mapping[str, tuple[float | None, str]]) -> dict[str, str]:
    return {name: format(value, form) for name, (value, form) in values.items() if value is not None}


def _table(header: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

    return [line(header), line(["---"] * len(header)), *(line([name, *cells]) for name, cells in rows.items())]
