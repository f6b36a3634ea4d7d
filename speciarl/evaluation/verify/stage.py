"""Verify stage: every judge of an evaluation on every table of predictions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from speciarl.evaluation import matrix, tables
from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.matrix import Asked
from speciarl.evaluation.verify import judge as judges
from speciarl.evaluation.verify.asking import Asking
from speciarl.evaluation.verify.progress import Bar, bars
from speciarl.evaluation.verify.rows import answers, content_hash, known_verdicts, pair_of, verdict_row
from speciarl.evaluation.verify.standing import Standing, standing
from speciarl.verdict import Judgement, Pair
from speciarl.verifier_server.config import VerifierConfig


@dataclass(frozen=True)
class Verified:
    """What became of one cell."""

    judge: str
    asked: Asked
    answers: int
    unscored: Mapping[str, int]
    """Answers without a verdict, by reason; those without a prediction are ``prediction:FAILURE``."""
    pairs: int
    """Distinct pairs that the verifier was asked for, verdicts in its store included; 0 where the table was reused."""

    @property
    def unscored_share(self) -> float:
        """Share of answers without a verdict, in [0, 1]."""
        return sum(self.unscored.values()) / self.answers if self.answers else 0.0


@dataclass(frozen=True)
class _Job:
    """A table of verdicts to be made, or made anew."""

    asked: Asked
    predictions: Path
    verdicts: Path
    facts: Mapping[str, Any]
    standing: Standing


def verify(config: EvaluationConfig, out: Path, console: Console) -> list[Verified]:
    """Judge all predictions of an evaluation, one judge after the other; returns its cells in the matrix's order.

    A table that is complete is reused, without its judge being started. Answers without a verdict have a row that says
    why, and are asked again the next time; how many there may be is the caller's to decide. Blocks.

    Raises VerifierStartError when a judge cannot be started, ConfigError for one that cannot be configured, and
    DataError when predictions are missing; each in one line.
    """
    from speciarl.verifier_server.audit import running

    done: list[Verified] = []
    for name, described in config.judges.items():
        judge = judges.configuration(described, name, out)
        identity = asyncio.run(judges.identity(judge))
        jobs = list(_jobs(config, out, name, identity))
        to_do = [job for job in jobs if job.standing.state != "complete"]
        pairs: dict[Asked, int] = {}
        if to_do:
            console.print(f"{name}: starting" if judge.pool else f"{name}: connecting", style="dim", highlight=False)
            with running(judge) as live:
                pairs = asyncio.run(_judge_all(live, name, to_do, console))
        for job in jobs:
            now = standing(job.verdicts, job.facts) if job.asked in pairs else job.standing
            done.append(Verified(name, job.asked, now.answers, now.unscored, pairs.get(job.asked, 0)))
    return done


def facts_of(name: str, identity: Mapping[str, Any], predictions: Path, too_long_chars: int) -> dict[str, Any]:
    """The facts that a verdict table is written with; raises DataError when the predictions are missing."""
    return {
        "judge": dict(identity),
        "judge_name": name,
        "predictions_sha": content_hash(predictions),
        "too_long_chars": too_long_chars,
    }


async def judge_cell(
    asking: Asking,
    predictions: Path,
    verdicts: Path,
    facts: Mapping[str, Any],
    *,
    keep: bool = False,
    bar: Bar | None = None,
) -> int:
    """Write the verdicts on a table of predictions; returns the number of distinct pairs that had to be asked for.

    `asking` is that of a started verifier. With `keep`, verdicts of the table that is there, made with the same facts,
    are taken over, and only its failures are asked for again. The table does not say whether a verdict is new or comes
    from a store, so that it is the same bytes either way.
    """
    limit: int = facts["too_long_chars"]
    judgements = known_verdicts(predictions, verdicts, limit) if keep else {}
    pairs = {pair for answer in answers(predictions) if (pair := pair_of(answer, limit)) is not None}
    # Sorted: pairs of one truth follow each other, so that a judge's prefix cache holds more of each prompt.
    missing = sorted(pairs - judgements.keys(), key=lambda pair: (pair.ground_truth, pair.prediction))
    if bar is not None:
        bar.begin(len(missing))

    def keep_judgement(pair: Pair, judgement: Judgement) -> None:
        judgements[pair] = judgement
        if bar is not None:
            bar.advance(judgement)

    await asking.ask(missing, keep_judgement)
    judged = ((answer, pair_of(answer, limit)) for answer in answers(predictions))
    rows = (verdict_row(answer, None if pair is None else judgements[pair], limit) for answer, pair in judged)
    tables.write(verdicts, tables.VERDICTS, rows, facts)
    return len(missing)


def _jobs(config: EvaluationConfig, out: Path, name: str, identity: Mapping[str, Any]) -> Iterator[_Job]:
    for asked in matrix.asked(config):
        predictions, verdicts = asked.predictions(out), asked.verdicts(out, name)
        facts = facts_of(name, identity, predictions, config.metrics.too_long_chars)
        yield _Job(asked, predictions, verdicts, facts, standing(verdicts, facts))


async def _judge_all(judge: VerifierConfig, name: str, jobs: Iterable[_Job], console: Console) -> dict[Asked, int]:
    """Judge tables one after the other; returns the number of pairs asked for, by cell."""
    from speciarl.verifier_server.factory import build

    verifier = build(judge)
    await verifier.start()
    try:
        # Twice what the judge takes at a time, so that it never waits for us.
        window = min(2 * judge.max_concurrency * judge.pairs_per_request, judge.max_waiting)
        asking = Asking(verifier, window)
        pairs = {}
        with bars(console) as progress:
            for job in jobs:
                bar, keep = Bar(progress, f"{name}: {job.asked}"), job.standing.state == "partial"
                pairs[job.asked] = await judge_cell(
                    asking, job.predictions, job.verdicts, job.facts, keep=keep, bar=bar
                )
        return pairs
    finally:
        await verifier.aclose()
