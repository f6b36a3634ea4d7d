"""Progress of the verify stage: a bar for each cell, with what is unscored by reason."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from speciarl.verdict import Judgement, Unscorable


def bars(console: Console) -> Progress:
    """Bars that are drawn while the ``with`` block runs; where no terminal is, once at its end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[unscored]}", style="yellow"), console=console)


class Bar:
    """Bar of one cell, in distinct pairs."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None, unscored="")
        self._unscored = Counter[str]()

    def begin(self, pairs: int) -> None:
        """Say how many pairs will be judged."""
        self._progress.update(self._task, total=pairs)

    def advance(self, judgement: Judgement) -> None:
        """Count one judgement."""
        self._progress.advance(self._task)
        if isinstance(judgement, Unscorable):
            self._unscored[judgement.reason.value] += 1
            told = ", ".join(f"{reason} {count}" for reason, count in sorted(self._unscored.items()))
            self._progress.update(self._task, unscored=f"unscored: {told}")
