"""Report of a replay: tables for the terminal and Markdown, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from speciarl.evaluation.replay.replay import Replay

Cells = Sequence[Sequence[str]]


def as_json(found: Replay) -> str:
    """Everything, with keys sorted; the same replay gives the same text."""
    return json.dumps(asdict(found), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def as_markdown(found: Replay) -> str:
    """Everything as tables in Markdown."""
    blocks = [f"# Replay of {found.log}", "\n".join(_facts(found))]
    blocks += [_markdown(cells) for cells in _tables(found)]
    blocks.append("\n".join(f"* {line}" for line in _remarks(found)))
    return "\n\n".join(blocks) + "\n"


def show(found: Replay, console: Console) -> None:
    """Print everything."""
    for line in _facts(found):
        console.print(Text(line))
    for header, *rows in _tables(found):
        table = Table()
        for place, name in enumerate(header):
            table.add_column(name, justify="right" if place else "left")
        for row in rows:
            # Text, not str, in which rich would take brackets for markup.
            table.add_row(*map(Text, row))
        console.print(table)
    failed = found.check is not None and found.check.first_difference is not None
    for line in _remarks(found):
        console.print(Text(line, style="red" if failed and "differ" in line else ""))


def _facts(found: Replay) -> Iterator[str]:
    yield f"{found.log}: {found.kind}"
    size = "as logged" if found.n is None else f"of {found.n}"
    yield f"{found.rollouts} rollouts in {found.groups} groups {size}"
    yield f"judge {found.judge}; noise {found.noise}: it moved {found.moved:.1%} of the verdicts"


def _remarks(found: Replay) -> Iterator[str]:
    yield from found.notes
    if found.check is None:
        yield "not compared with logged rewards"
        return
    check = found.check
    yield f"logged rewards: {check.equal} of {check.compared} compared rollouts are equal"
    if check.first_difference:
        yield f"first difference: {check.first_difference}"


def _tables(found: Replay) -> Iterator[Cells]:
    rewards = found.rewards
    yield [
        ["reward", "mean", "with penalty", "signal", "groups", "rollouts"],
        *(
            [name, _number(one.mean), _number(one.mean_score), _share(one.signal), str(one.groups), str(one.rollouts)]
            for name, one in rewards.items()
        ),
    ]
    yield [
        ["advantages", "kind", "mean |A|", "std", "min", "max"],
        *(
            [name, kind, *map(_number, (spread.mean_abs, spread.std, spread.min, spread.max))]
            for name, one in rewards.items()
            for kind, spread in (("GRPO", one.grpo), ("Dr.GRPO", one.dr_grpo))
            if spread is not None
        ),
    ]
    if found.agreements:
        yield [
            ["rewards", "equal", "correlation", "same ranking"],
            *(
                [f"{one.first} / {one.second}", _share(one.equal), _number(one.correlation), _share(one.ranking)]
                for one in found.agreements
            ),
        ]
    yield [
        ["outcome", "verdicts", "as seen"],
        *(
            [outcome.replace("_", " "), _share(share), _share(found.seen_outcomes[outcome])]
            for outcome, share in found.outcomes.items()
        ),
    ]


def _markdown(cells: Cells) -> str:
    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"

    header, *rows = cells
    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
