"""Rollouts of a log: their verdicts in columns, group by group, and what the run logged of their rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from speciarl.config import RewardConfig

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Outcomes: TypeAlias = npt.NDArray[np.int8]
Mask: TypeAlias = npt.NDArray[np.bool_]

QUORUM: int = RewardConfig().quorum
"""Fewest scored rollouts of a group where the log does not tell: that of training."""

NO_ROW = "groups that left no row at all are unknown: no number here counts them"
"""Note on logs of what was judged, which do not tell what was asked for."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a logged reward was computed with."""

    reward: RewardConfig
    rollouts: int
    """Rollouts asked for per prompt."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What a run logged beside its verdicts; all columns of shape (rollouts,)."""

    seen: Outcomes
    """Outcomes as the reward saw them, which noise may have moved."""
    reward: Floats
    """Group rewards, before the overlong penalty."""
    score: Floats
    """Sum of both, as the trainer had it: rounded to float32."""
    settings: tuple[Settings, ...]
    """Each kind of settings in the log: a resumed run may have changed them."""
    which: Ints
    """Index into `settings`; -1 where the log does not tell."""


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Rollouts sorted by group and session. Columns have the shape (rollouts,) unless they say otherwise.

    A rollout that left no row, because it failed or got no verdict, is told by the size of its group.
    """

    kind: str
    """What the log is, e.g. ``rollout dump``."""
    files: tuple[Path, ...]
    file: Ints
    """Index into `files`."""
    line: Ints
    """Number of the row in its file, from 1."""
    group: Ints
    """Groups, numbered from 0 in their order."""
    session: Ints
    """Number of the rollout in its group, from 0."""
    size: Ints
    """Rollouts asked for, of shape (groups,)."""
    quorum: Ints
    """Fewest scored rollouts of each group, of shape (groups,)."""
    outcome: Outcomes
    """Values of `Outcome`, by the verifier's true verdicts."""
    source: Ints
    """Where the verdict came from: index into ``tuple(Source)``."""
    margin: Floats
    """Nats; NaN where there is none."""
    probabilities: pa.Array | None
    """Lists of six numbers, or JSON text of them; null where there are none. None where no row has any."""
    penalty: Floats
    """Overlong penalty, 0 or less."""
    image: pa.Array
    """The image's name in the draws of noise."""
    step: Ints
    """The training step in the draws of noise."""
    truth: pa.Array
    """Ground truths."""
    answer: pa.Array
    """What was judged; empty or null where the response held no answer."""
    logged: Logged | None = None
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know about the log, a line each."""

    def __len__(self) -> int:
        return len(self.group)

    @property
    def starts(self) -> Ints:
        """First row of each group, of shape (groups,). Every group has one."""
        return np.flatnonzero(np.diff(self.group, prepend=-1))

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.files[self.file[row]]}, row {self.line[row]}"

    def take(self, rows: Ints) -> Rollouts:
        """Some of the rows, ascending; their groups are numbered anew, and keep their sizes."""
        left, group = np.unique(self.group[rows], return_inverse=True)
        logged = self.logged
        if logged is not None:
            logged = replace(
                logged,
                seen=logged.seen[rows], reward=logged.reward[rows], score=logged.score[rows], which=logged.which[rows],
            )  # fmt: skip
        return replace(
            self,
            file=self.file[rows], line=self.line[rows], group=group, session=self.session[rows], size=self.size[left],
            quorum=self.quorum[left], outcome=self.outcome[rows], source=self.source[rows], margin=self.margin[rows],
            probabilities=None if self.probabilities is None else self.probabilities.take(rows),
            penalty=self.penalty[rows], image=self.image.take(rows), step=self.step[rows], truth=self.truth.take(rows),
            answer=self.answer.take(rows), logged=logged,
        )  # fmt: skip

    def split(self, n: int) -> Rollouts:
        """Groups of n rollouts: each group in order of its sessions, n at a time; what is left over is dropped.

        All of a larger group is used, so that the numbers are less by chance than those of its first n alone. Sessions
        keep their numbers, and so their noise.
        """
        part = self.session // n
        rows = np.flatnonzero((part + 1) * n <= self.size[self.group])
        parts = int(part.max(initial=0)) + 1
        kept = self.take(rows)
        old = self.group[rows]
        _, first, group = np.unique(old * parts + part[rows], return_index=True, return_inverse=True)
        quorum = np.minimum(self.quorum[old[first]], n)
        return replace(kept, group=group, size=np.full(len(first), n), quorum=quorum)


def in_order(rollouts: Rollouts) -> Rollouts:
    """The rollouts sorted by group and session, whose groups were numbered but not brought together."""
    order = np.lexsort((rollouts.session, rollouts.group))
    return rollouts if np.array_equal(order, np.arange(len(order))) else rollouts.take(order)


def text_codes(column: pa.Array) -> tuple[Ints, Sequence[str | None]]:
    """A column of texts as numbers in the order of appearance, and the texts; null is one of them."""
    encoded = column.dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    return np.asarray(encoded.indices, dtype=np.int64), encoded.dictionary.to_pylist()
