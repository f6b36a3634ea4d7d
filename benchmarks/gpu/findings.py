"""What a run's metrics say about the things that must hold, each with a verdict and the figures behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training_run import Run

GOOD, BAD, UNKNOWN = "ok", "FAILED", "not told"
LEAST_CORRELATION = 0.99
"""Of sampled tokens' probabilities in the server and in the trainer, which compute in bfloat16 with other kernels."""
MOST_PROBABILITY_GAP = 0.02
"""Mean difference of those probabilities."""
LEAST_MOVE = 1e-4
"""KL divergence of the policy from the base model below which nothing has been learnt that could be seen."""
SEEN_SHARE = 0.25
"""A server without the adapter would differ from the trainer by about as much as the trainer from the base model."""


@dataclass(frozen=True)
class Finding:
    """One thing that must hold."""

    what: str
    verdict: str
    figures: str


def findings(run: Run, steps: int, rollouts: int, killed_after: int | None) -> list[Finding]:
    """All findings of one run of so many steps with so many rollouts each; `killed_after` None for no kill."""
    found = [_ended(run, steps), _rewards(run, steps, rollouts), _probabilities(run), _adapter(run)]
    return found if killed_after is None else [*found, _kill(run, killed_after, rollouts)]


def _ended(run: Run, steps: int) -> Finding:
    good = run.status == 0 and len(run.steps) == steps
    how = "was ended at its deadline" if run.status is None else f"exit status {run.status}"
    said = f"; {run.said}" if run.said else ""
    return Finding("run ended by itself", GOOD if good else BAD, f"{how}, {len(run.steps)} of {steps} steps{said}")


def _rewards(run: Run, steps: int, rollouts: int) -> Finding:
    lost = sum(step.get("speciarl/failed_rollouts", 0) for step in run.steps.values())
    unscored = max((step.get("speciarl/unscorable_rate", 1) for step in run.steps.values()), default=1)
    counts = ", ".join(f"{run.stored.get(step, 0)}" for step in range(1, steps + 1))
    good = not lost and not unscored and all(run.stored.get(step) == rollouts for step in range(1, steps + 1))
    figures = f"{counts} of {rollouts} by step; {lost:.0f} rollouts failed, at most {unscored:.1%} without a verdict"
    return Finding("every rollout has its reward", GOOD if good else BAD, figures)


def _probabilities(run: Run) -> Finding:
    rows = [step for step in run.steps.values() if "training/rollout_probs_diff_mean" in step]
    if not rows:
        return Finding("server and trainer agree", UNKNOWN, "no step has log-probabilities of both")
    gap = max(row["training/rollout_probs_diff_mean"] for row in rows)
    most = max(row["training/rollout_probs_diff_max"] for row in rows)
    least = min(row["training/rollout_actor_probs_pearson_corr"] for row in rows)
    good = gap <= MOST_PROBABILITY_GAP and least >= LEAST_CORRELATION
    figures = f"probabilities differ by {gap:.2g} on average and {most:.2g} at most, correlation {least:.4f}"
    return Finding("server and trainer agree", GOOD if good else BAD, figures)


def _adapter(run: Run) -> Finding:
    """After an update the policy differs from the base model; that the server samples from the policy, and not from the
    base model, shows in how close its log-probabilities are to the trainer's."""
    what = "adapter synced, seen in the server"
    row = run.steps.get(2, {})
    moved, apart = row.get("actor/kl_loss"), row.get("rollout_corr/k3_kl")
    if moved is None or apart is None:
        return Finding(what, UNKNOWN, "step 2 has no figures for it")
    figures = f"trainer from base model: KL {moved:.2g}; server from trainer: KL {apart:.2g}"
    if moved < LEAST_MOVE:
        return Finding(what, UNKNOWN, f"{figures}; the update was too small to be seen")
    return Finding(what, GOOD if apart < SEEN_SHARE * moved else BAD, figures)


def _kill(run: Run, killed_after: int, rollouts: int) -> Finding:
    """A run whose judge is killed ends with every reward, or with one line of its own that says why it cannot."""
    what = f"judge killed in step {killed_after + 1}"
    if not run.killed:
        return Finding(what, UNKNOWN, "no process of a judge was found to kill")
    complete = run.stored.get(killed_after + 1) == rollouts and run.status == 0
    outcome = "the step has every reward" if complete else run.said or "and the run says nothing about it"
    return Finding(what, GOOD if complete or run.said else BAD, f"{run.killed}; {outcome}")


def rate(row: Mapping[str, Any], amount: float, seconds: str) -> float | None:
    """An amount by the seconds that a part of a step took; None where it took none."""
    taken = row.get(seconds)
    return amount / taken if taken else None
