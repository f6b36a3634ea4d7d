"""Verdicts of another judge on the answers of a log; each distinct pair is asked for once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa

from speciarl.evaluation.outcome import Outcome, of_judgement
from speciarl.evaluation.replay.rollouts import Ints, Rollouts, text_codes
from speciarl.verdict import Judgement, Pair, Source, Verdict
from speciarl.verifier_server.config import VerifierConfig

_SOURCES = {source: place for place, source in enumerate(Source)}


def rejudged(rollouts: Rollouts, config: VerifierConfig) -> Rollouts:
    """The rollouts with the verdicts of a judge whose endpoints stand.

    What has no answer, or one too long for a name, stays as it is. Raises VerifierStartError for a judge that cannot
    work, and ConfigError for one that cannot be built.
    """
    rows, which, pairs = _pairs(rollouts)
    return _with(rollouts, rows, which, asyncio.run(_judge(config, pairs)))


def _pairs(rollouts: Rollouts) -> tuple[Ints, Ints, list[Pair]]:
    """Rows to judge, the pair of each, and the pairs."""
    rows = np.flatnonzero((rollouts.outcome >= Outcome.WRONG) | (rollouts.outcome == Outcome.UNSCORED))
    truths, truth_texts = text_codes(rollouts.truth.take(rows))
    answers, answer_texts = text_codes(rollouts.answer.take(rows))
    answered = np.array([bool(text) for text in answer_texts], dtype=bool)[answers] if len(rows) else rows == 0
    rows, truths, answers = rows[answered], truths[answered], answers[answered]
    distinct, which = np.unique(truths * len(answer_texts) + answers, return_inverse=True)
    codes = (divmod(int(code), len(answer_texts)) for code in distinct)
    return rows, which, [Pair(str(truth_texts[truth]), str(answer_texts[answer])) for truth, answer in codes]


async def _judge(config: VerifierConfig, pairs: list[Pair]) -> list[Judgement]:
    from speciarl.verifier_server.factory import build

    verifier = build(config)
    await verifier.start()
    try:
        return list(await asyncio.gather(*map(verifier.verify, pairs)))
    finally:
        await verifier.aclose()


def _with(rollouts: Rollouts, rows: Ints, which: Ints, judgements: list[Judgement]) -> Rollouts:
    verdicts = [one if isinstance(one, Verdict) else None for one in judgements]
    outcome, source, margin = rollouts.outcome.copy(), rollouts.source.copy(), np.full(len(rollouts), np.nan)
    if len(rows):
        outcome[rows] = np.array([of_judgement(one) for one in judgements], dtype=np.int8)[which]
        source[rows] = np.array([_SOURCES[one.source] if one else 0 for one in verdicts])[which]
        margins = [np.nan if one is None or one.margin is None else one.margin for one in verdicts]
        margin[rows] = np.array(margins)[which]
    texts = [json.dumps(one.probabilities) if one and one.probabilities else None for one in verdicts]
    probabilities = None
    if any(texts):
        column = np.full(len(rollouts), len(texts))
        column[rows] = which
        probabilities = pa.array([*texts, None], pa.string()).take(pa.array(column))
    return replace(rollouts, outcome=outcome, source=source, margin=margin, probabilities=probabilities)
