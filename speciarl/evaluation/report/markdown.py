"""Report in Markdown: the paper's table, differences, bounds, definitions, versions and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import yaml

from speciarl.evaluation.report import number_format as form
from speciarl.evaluation.report.scopes import (
    LADDER,
    TITLES,
    Row,
    best_first,
    failed_share,
    missing,
    run_of,
    scopes,
    unscored_share,
)
from speciarl.evaluation.report.summary import sentences
from speciarl.evaluation.results import Cell, Difference, Results


def render(results: Results) -> str:
    """The whole report."""
    parts = [f"# {_text(results.name)}", " ".join(map(_text, sentences(results))), *_tables(results)]
    if results.differences:
        parts += [
            "## Differences",
            "Paired, the second run minus the first; bold where it is sure, whatever the unscored answers are.",
            _differences(results),
        ]
    parts += [
        "## What is not known",
        "Bounds: the number if every unscored answer were as bad, or as good, as can be for it.",
        _unknown(results),
        "## Definitions",
        "\n".join(f"- **{_text(name)}**: {_text(meaning)}" for name, meaning in sorted(results.definitions.items())),
        "## Versions",
        "\n".join(f"- {_text(name)} {_text(version)}" for name, version in sorted(results.versions.items())),
        "## Settings",
        _fenced(yaml.safe_dump(dict(results.settings), allow_unicode=True, sort_keys=True, width=120)),
    ]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A Markdown table, its first `words` columns to the left and the rest, numbers, to the right."""
    rule = [":--" if place < words else "--:" for place in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def _tables(results: Results) -> Iterator[str]:
    for scope in scopes(results):
        yield f"## {_text(scope.title)}"
        header = ["model / prompt", "judge", *(TITLES[metric] for metric in LADDER), "unscored", "failed"]
        yield table(header, map(_row, best_first(scope.rows)), words=2)


def _row(row: Row) -> list[str]:
    numbers = [
        f"{form.number(row.metrics[metric].value)} {form.interval(row.metrics[metric])}".rstrip()
        if metric in row.metrics
        else form.NONE
        for metric in LADDER
    ]
    missing = [form.share(row.unscored), form.share(row.failed)]
    if row.over_budget:
        missing = [f"**{share}** (above budget)" if share != "0" else share for share in missing]
    return [_text(row.label), _text(row.run.judge), *numbers, *missing]


def _differences(results: Results) -> str:
    header = ["data set", "first", "second", "judge", "metric", "difference", "within", "p", "p (Holm)", "detectable"]
    rows = [
        [
            *map(_text, (one.dataset, one.first, one.second, one.judge, TITLES.get(one.metric, one.metric))),
            _change(one),
            form.bounds(one.estimate), form.p_value(one.p), form.p_value(one.p_holm), form.number(one.detectable),
        ]
        for one in results.differences
    ]  # fmt: skip
    return table(header, rows, words=5)


def _change(one: Difference) -> str:
    """The difference with its interval, bold where it is sure."""
    text = f"{form.change(one.estimate.value)} {form.interval(one.estimate, of_change=True)}".rstrip()
    return f"**{text}**" if one.sure else text


def _unknown(results: Results) -> str:
    header = ["run", "data set", "judge", "unscored", "why", "failed"]
    header += [f"{TITLES[metric]} within" for metric in LADDER]
    return table(header, map(_unknown_row, results.cells), words=3)


def _unknown_row(cell: Cell) -> list[str]:
    why = ", ".join(map(_text, missing(cell)))
    within = [form.bounds(cell.metrics[metric]) if metric in cell.metrics else form.NONE for metric in LADDER]
    names = map(_text, (run_of(cell).name, cell.dataset, cell.judge))
    return [*names, form.share(unscored_share(cell)), why or form.NONE, form.share(failed_share(cell)), *within]


def _text(text: str) -> str:
    """A text as it is: on one line, nothing in it taken for Markdown or HTML."""
    return re.sub(r"([\\`*\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{text}{fence}"
