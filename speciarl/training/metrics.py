"""From stored records and workers' counters to the numbers veRL logs. Names are listed in docs/metrics.md."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from speciarl.category import Category
from speciarl.metrics import Summary, summarise
from speciarl.training.sample import outcome_of
from speciarl.training.stats import RolloutStats


def summary_metrics(prefix: str, summary: Summary) -> dict[str, float]:
    """Flat metrics of one summary; specificity is left out where it is undefined."""
    metrics = {f"{prefix}/rate/{name}": share for name, share in summary.rates.items()}
    metrics[f"{prefix}/correctness"] = summary.correctness
    if summary.specificity is not None:
        metrics[f"{prefix}/specificity"] = summary.specificity
    metrics[f"{prefix}/hm"] = summary.hm
    return metrics


def training_metrics(
    infos: Iterable[Mapping[str, Any]], stats: RolloutStats, verifier_totals: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """Metrics of one training step, under ``speciarl/``.

    Args:
        infos: the ``reward_extra_info`` record of every trajectory of the step's batch.
        stats: all workers' counters since the step before.
        verifier_totals: each worker's verifier counters since its start.
    """
    infos = list(infos)
    summary = summarise(outcome_of(info) for info in infos)
    metrics = summary_metrics("speciarl", summary) if summary else {}
    margins = [info["margin"] for info in infos if info["margin"] is not None]
    if margins:
        metrics["speciarl/margin"] = sum(margins) / len(margins)
    metrics["speciarl/unscorable_rate"] = stats.unscorable_rate
    metrics["speciarl/failed_rollouts"] = float(stats.failed)
    metrics["speciarl/groups/under_quorum"] = float(stats.groups_under_quorum)
    if stats.groups:
        metrics["speciarl/groups/no_signal_rate"] = stats.groups_no_signal / stats.groups
    for reference, count in stats.references.items():
        metrics[f"speciarl/reference/{reference}"] = count / stats.groups
    metrics["speciarl/verifier/wait_s"] = stats.waited_s
    if stats.rollouts:
        metrics["speciarl/verifier/seconds_per_rollout"] = stats.judge_seconds / stats.rollouts
    for name, value in _added(verifier_totals).items():
        metrics[f"speciarl/verifier/total/{name}"] = value
    return metrics


def validation_metrics(
    data_sources: Sequence[str],
    infos: Mapping[str, Sequence[Any]],
    expected: Mapping[tuple[str, str], int],
) -> dict[str, float]:
    """Metrics of one validation pass: one set per data source, and the mean over sources.

    Args:
        data_sources: the source of each scored answer, shape (answers,).
        infos: veRL's column-wise ``reward_extra_info``; column ``category`` is read, shape (answers,).
        expected: answers asked for, per (data source, prompt uid).
    """
    outcomes: dict[str, list[Category | None]] = defaultdict(list)
    for source, category in zip(data_sources, infos.get("category", ()), strict=True):
        outcomes[source].append(outcome_of({"category": category}))
    asked: dict[str, int] = defaultdict(int)
    for (source, _), count in expected.items():
        asked[source] += count
    metrics: dict[str, float] = {}
    summaries = []
    for source in sorted(set(asked) | set(outcomes)):
        summary = summarise(outcomes[source])
        if summary is not None:
            summaries.append(summary)
            metrics |= summary_metrics(f"val-core/{source}", summary)
        if asked[source]:
            metrics[f"val-core/{source}/unscored_rate"] = 1.0 - len(outcomes[source]) / asked[source]
    if summaries:
        metrics["val-core/mean/hm"] = sum(summary.hm for summary in summaries) / len(summaries)
        metrics["val-core/mean/correctness"] = sum(summary.correctness for summary in summaries) / len(summaries)
        specificities = [summary.specificity for summary in summaries if summary.specificity is not None]
        if specificities:
            metrics["val-core/mean/specificity"] = sum(specificities) / len(specificities)
    return metrics


def _added(totals: Sequence[Mapping[str, float]]) -> dict[str, float]:
    added: dict[str, float] = defaultdict(float)
    for total in totals:
        for name, value in total.items():
            added[name] += value
    return dict(added)
