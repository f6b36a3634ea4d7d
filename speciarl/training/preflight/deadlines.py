"""Deadline check: refuses a deadline that is shorter than what it waits for may take."""

import math
from dataclasses import dataclass, field

from speciarl.config import SpeciaRLConfig
from speciarl.errors import ConfigError
from speciarl.verifier_server.config import PoolConfig
from speciarl.verifier_server.pool.ray_actor import LOOK_EVERY_S, SLACK_S
from speciarl.verifier_server.pool.vllm_server import HEALTH_TIMEOUT_S, KILL_GRACE_S

SLOWEST_TOKENS_PER_S = 20.0
"""Slowest generation to reckon with: of a large judge on busy GPUs, for each of its requests."""


@dataclass
class _Fitting:
    """Collector of values that are too small: goes on with ones that fit, so that all problems are found at once."""

    given: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def at_least(self, key: str, value: float, least: float, why: str) -> float:
        """The value if it is at least `least`; else a problem is recorded and the least that fits, in whole seconds."""
        given = self.given.setdefault(key, value)
        if value >= least:
            return value
        fitting = math.ceil(least)
        self.problems[key] = f"speciarl.{key}={given:g} is too short: {why}; set it to {fitting} or more"
        return float(fitting)


def check_deadlines(settings: SpeciaRLConfig, mode: str) -> None:
    """Raise ConfigError, in one line, for deadlines that do not fit each other. The values that it names do.

    `mode` is veRL's ``trainer.v1.trainer_mode``.
    """
    fit, verifier, pool = _Fitting(), settings.verifier, settings.verifier.pool
    request_s, outage_s = verifier.request_timeout_s, settings.reward.outage_deadline_s
    thinks = verifier.thinking and not verifier.service_url
    if thinks:
        thought = (
            f"a judge that thinks may take {verifier.thinking_tokens / SLOWEST_TOKENS_PER_S:g} s for "
            f"speciarl.verifier.thinking_tokens={verifier.thinking_tokens} at {SLOWEST_TOKENS_PER_S:g} tokens/s"
        )
        longest_s = verifier.thinking_tokens / SLOWEST_TOKENS_PER_S
        request_s = fit.at_least("verifier.request_timeout_s", request_s, longest_s, thought)
    total_s = fit.at_least(
        "verifier.total_deadline_s",
        verifier.total_deadline_s,
        2 * request_s if verifier.retries else request_s,
        f"it must hold a request that hangs and one more (speciarl.verifier.request_timeout_s={request_s:g})"
        if verifier.retries
        else f"it must hold a request (speciarl.verifier.request_timeout_s={request_s:g})",
    )
    if verifier.kind != "taxonomy" or verifier.service_url:
        total_s = fit.at_least(
            "verifier.total_deadline_s",
            total_s,
            verifier.health_interval_s,
            "a server that is away is looked at that seldom (speciarl.verifier.health_interval_s="
            f"{verifier.health_interval_s:g})",
        )
        if verifier.store is not None and not verifier.service_url:
            total_s = fit.at_least(
                "verifier.total_deadline_s",
                total_s,
                verifier.store.timeout_s + 1,
                "a look-up in the store that hangs must leave time to ask the judge (speciarl.verifier.store.timeout_s="
                f"{verifier.store.timeout_s:g})",
            )
    if thinks:
        outage_s = fit.at_least("reward.outage_deadline_s", outage_s, request_s, f"{thought}, and nothing is heard")
    if pool is not None:
        total_s, outage_s = _check_pool(fit, pool, total_s, outage_s)
    fit.at_least(
        "reward.outage_deadline_s",
        outage_s,
        2 * settings.training.poll_interval_s,
        "the trainer looks at its workers that seldom (speciarl.training.poll_interval_s="
        f"{settings.training.poll_interval_s:g})",
    )
    _check_group(fit, settings, mode, total_s)
    if fit.problems:
        raise ConfigError("; ".join(fit.problems.values()))


def _check_pool(fit: _Fitting, pool: PoolConfig, total_s: float, outage_s: float) -> tuple[float, float]:
    at = "verifier.pool."
    fit.at_least(
        f"{at}placement_deadline_s", pool.placement_deadline_s, SLACK_S, "Ray may take that long to start an actor"
    )
    unhealthy_s = fit.at_least(
        f"{at}unhealthy_deadline_s",
        pool.unhealthy_deadline_s,
        2 * (HEALTH_TIMEOUT_S + LOOK_EVERY_S),
        "it must hold two looks at a replica",
    )
    if not pool.max_restarts:
        return total_s, outage_s
    stopped_s = pool.stop_deadline_s + KILL_GRACE_S
    back_s = unhealthy_s + stopped_s + SLACK_S + pool.restart_backoff_s + pool.startup_deadline_s
    back = (
        f"a judge that got stuck may be back after {back_s:g} s (speciarl.verifier.pool: unhealthy_deadline_s="
        f"{unhealthy_s:g}, restart_backoff_s={pool.restart_backoff_s:g}, stop_deadline_s={pool.stop_deadline_s:g}, "
        f"startup_deadline_s={pool.startup_deadline_s:g})"
    )
    return (
        fit.at_least("verifier.total_deadline_s", total_s, back_s, f"{back}, and until then each pair must wait"),
        fit.at_least("reward.outage_deadline_s", outage_s, back_s, f"{back}, and until then the run must go on"),
    )


def _check_group(fit: _Fitting, settings: SpeciaRLConfig, mode: str, total_s: float) -> None:
    paused = mode.endswith("colocate_async")
    weights_s = settings.training.weights_deadline_s if paused else 0.0
    why = f"it must hold the last verdict of a group (speciarl.verifier.total_deadline_s={total_s:g})"
    if paused:
        why += (
            ", and in colocate_async a pause while new weights are sent (speciarl.training.weights_deadline_s="
            f"{weights_s:g})"
        )
    fit.at_least("reward.group_deadline_s", settings.reward.group_deadline_s, total_s + weights_s, why)
