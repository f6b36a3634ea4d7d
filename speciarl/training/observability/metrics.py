"""Metrics: computed from stored reward records and the workers' counters, logged by veRL. Names: docs/metrics.md."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from speciarl.answer import names_several
from speciarl.category import Category
from speciarl.metrics import Summary, best_of, key, summarise
from speciarl.training.observability.rollout_stats import RolloutStats
from speciarl.training.reward_info import outcome_of
from speciarl.verdict import Source

QUANTILES = (10, 50, 90)
"""Percentiles of margins that are logged."""


def summary_metrics(prefix: str, summary: Summary) -> dict[str, float]:
    """Rates and scores of one summary, as flat metrics under `prefix`."""
    metrics = {f"{prefix}/rate/{name}": share for name, share in summary.rates.items()}
    return metrics | score_metrics(prefix, summary)


def score_metrics(prefix: str, summary: Summary) -> dict[str, float]:
    """Correctness, specificity (left out where undefined) and their harmonic mean, as flat metrics under `prefix`."""
    metrics = {f"{prefix}/correctness": summary.correctness, f"{prefix}/hm": summary.hm}
    if summary.specificity is not None:
        metrics[f"{prefix}/specificity"] = summary.specificity
    return metrics


def training_metrics(
    infos: Iterable[Mapping[str, Any]],
    stats: RolloutStats,
    verifier_totals: Sequence[Mapping[str, float]],
    low_margin: float,
) -> dict[str, float]:
    """Metrics of one training step, under ``speciarl/``.

    Args:
        infos: the ``reward_extra_info`` record of every trajectory of the step's batch.
        stats: all workers' counters since the step before.
        verifier_totals: the verifier's counters since its start, one mapping for each process that counts.
        low_margin: nats below which a verdict counts as a close call.
    """
    infos = list(infos)
    metrics = _answer_metrics(infos) | _margin_metrics(infos, low_margin) | _reward_metrics(infos)
    metrics |= _group_metrics(stats)
    metrics["speciarl/unscorable_rate"] = stats.unscorable_rate
    metrics["speciarl/failed_rollouts"] = float(stats.failed)
    return metrics | _verifier_metrics(infos, stats, verifier_totals)


def _answer_metrics(infos: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    summary = summarise(outcome_of(info) for info in infos)
    if summary is None:
        return {}
    hedged = sum(names_several(info["answer"]) for info in infos)
    return summary_metrics("speciarl", summary) | {"speciarl/hedging_rate": hedged / len(infos)}


def _margin_metrics(infos: Sequence[Mapping[str, Any]], low_margin: float) -> dict[str, float]:
    margins = np.array([info["margin"] for info in infos if info["margin"] is not None], dtype=float)
    if not margins.size:
        return {}
    quantiles = zip(QUANTILES, np.percentile(margins, QUANTILES), strict=True)
    return {
        "speciarl/margin/mean": float(margins.mean()),
        "speciarl/margin/low_share": float((margins < low_margin).mean()),
        **{f"speciarl/margin/p{percent}": float(value) for percent, value in quantiles},
    }


def _reward_metrics(infos: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of what comes between verdict and stored reward: noise before the group reward, a penalty after it."""
    if not infos:
        return {}
    return {
        "speciarl/noise_rate": sum(info["seen_category"] != info["category"] for info in infos) / len(infos),
        "speciarl/overlong_penalty": sum(info["overlong_penalty"] for info in infos) / len(infos),
    }


def _group_metrics(stats: RolloutStats) -> dict[str, float]:
    metrics = {"speciarl/groups/under_quorum": float(stats.groups_under_quorum)}
    if not stats.groups:  # in asynchronous modes a batch may have ended in the step before
        return metrics
    metrics["speciarl/groups/no_signal_rate"] = stats.groups_no_signal / stats.groups
    for level in Category:
        metrics[f"speciarl/reference/{key(level)}"] = stats.references[key(level)] / stats.groups
    metrics["speciarl/reference/none"] = 1.0 - stats.references.total() / stats.groups
    return metrics


def _verifier_metrics(
    infos: Sequence[Mapping[str, Any]], stats: RolloutStats, totals: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    metrics = {"speciarl/verifier/wait_s": stats.waited_s, "speciarl/verifier/judging_s": stats.judging_s}
    if stats.judging_s:
        metrics["speciarl/verifier/hidden_share"] = max(0.0, 1.0 - stats.waited_s / stats.judging_s)
    if stats.rollouts:
        metrics["speciarl/verifier/seconds_per_rollout"] = stats.judge_seconds / stats.rollouts
    sources = Counter(info["verdict_source"] for info in infos if outcome_of(info) is not None)
    if sources:
        for source in Source:
            metrics[f"speciarl/verifier/from/{source}"] = sources[source] / sources.total()
    for name, value in _summed(totals).items():
        metrics[f"speciarl/verifier/total/{name}"] = value
    return metrics


def validation_metrics(
    data_sources: Sequence[str],
    uids: Sequence[str],
    infos: Mapping[str, Sequence[Any]],
    expected: Mapping[tuple[str, str], int],
) -> dict[str, float]:
    """Metrics of one validation pass, under ``val-core/``: one set per data source, and the mean over sources.

    Args:
        data_sources: the source of each scored answer, shape (answers,).
        uids: the prompt of each scored answer, shape (answers,).
        infos: veRL's column-wise ``reward_extra_info``; columns ``category`` and ``answer`` are read, shape (answers,).
        expected: rollouts that were asked for, per (data source, prompt uid); more than `answers` where some failed.
    """
    groups: dict[str, dict[str, list[Category | None]]] = defaultdict(lambda: defaultdict(list))
    hedged: Counter[str] = Counter()
    categories, answers = infos.get("category", ()), infos.get("answer", ())
    for source, uid, category, answer in zip(data_sources, uids, categories, answers, strict=True):
        groups[source][uid].append(outcome_of({"category": category}))
        hedged[source] += names_several(answer)
    asked: Counter[str] = Counter()
    for (source, _), count in expected.items():
        asked[source] += count
    metrics: dict[str, float] = {}
    summaries: dict[str, list[Summary]] = defaultdict(list)
    for source in sorted(set(asked) | set(groups)):
        outcomes = [outcome for group in groups[source].values() for outcome in group]
        if asked[source]:
            metrics[f"val-core/{source}/unscored_rate"] = 1.0 - len(outcomes) / asked[source]
        summary = summarise(outcomes)
        if summary is None:
            continue
        metrics |= summary_metrics(f"val-core/{source}", summary)
        metrics[f"val-core/{source}/hedging_rate"] = hedged[source] / len(outcomes)
        summaries["mean"].append(summary)
        for k in _tries(max(expected.values(), default=1)):
            best = best_of(groups[source].values(), k)
            if best is not None:
                metrics |= score_metrics(f"val-core/{source}/best@{k}", best)
                summaries[f"mean/best@{k}"].append(best)
    for name, parts in summaries.items():
        metrics |= _mean_scores(f"val-core/{name}", parts)
    return metrics


def _tries(most: int) -> Iterator[int]:
    """Values of k for best@k: 2, 4, 8, … below `most`, and `most` itself; none for one answer per prompt."""
    k = 2
    while k < most:
        yield k
        k *= 2
    if most > 1:
        yield most


def _mean_scores(prefix: str, summaries: Sequence[Summary]) -> dict[str, float]:
    metrics = {
        f"{prefix}/hm": sum(summary.hm for summary in summaries) / len(summaries),
        f"{prefix}/correctness": sum(summary.correctness for summary in summaries) / len(summaries),
    }
    specificities = [summary.specificity for summary in summaries if summary.specificity is not None]
    if specificities:
        metrics[f"{prefix}/specificity"] = sum(specificities) / len(specificities)
    return metrics


def _summed(totals: Sequence[Mapping[str, float]]) -> dict[str, float]:
    added: dict[str, float] = defaultdict(float)
    for total in totals:
        for name, value in total.items():
            added[name] += value
    return dict(added)
