"""Deadlines that cannot fit each other are refused before a run, with values that do."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.config import SpeciaRLConfig, parse
from speciarl.errors import ConfigError
from speciarl.training.preflight.deadlines import check_deadlines

SYNC, COLOCATED = "speciarl", "speciarl_colocate_async"
ENDPOINT = {"model": "m", "endpoints": ["http://judge:8000/v1"]}
FITTING: dict[str, dict[str, Any]] = {
    "endpoint": ENDPOINT,
    "api": ENDPOINT | {"kind": "openai"},
    "thinking": ENDPOINT | {"thinking": True},
    "pool": {"model": "m", "total_deadline_s": 1200, "pool": {}},
    "service": {"name": "j", "service_url": "http://service:8100"},
    "taxonomy": {"kind": "taxonomy", "taxonomy": "tree.json"},
    "store": ENDPOINT | {"store": {"path": "verdicts.sqlite"}},
}
"""Judges by name, with deadlines that fit."""


def settings(judge: str, changes: dict[str, float]) -> SpeciaRLConfig:
    node: dict[str, Any] = {"verifier": FITTING[judge]}
    for key, value in changes.items():
        *path, last = key.split(".")
        at = node
        for part in path:
            at[part] = dict(at.get(part) or {})
            at = at[part]
        at[last] = value
    return parse(node)


def refusal(judge: str, changes: dict[str, float], mode: str = SYNC) -> str:
    with pytest.raises(ConfigError) as caught:
        check_deadlines(settings(judge, changes), mode)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def suggested(message: str) -> dict[str, float]:
    """The values that a refusal names, by key."""
    found = re.findall(r"speciarl\.([a-z_.]+)=[\d.e+-]+ is too short: .*?; set it to (\d+) or more", message)
    return {key: float(value) for key, value in found}


@pytest.mark.parametrize("judge", FITTING)
@pytest.mark.parametrize("mode", [SYNC, COLOCATED])
def test_what_fits_is_taken(judge: str, mode: str) -> None:
    check_deadlines(settings(judge, {}), mode)


BROKEN: list[tuple[str, dict[str, float], set[str]]] = [
    ("pool", {"reward.outage_deadline_s": 600}, {"reward.outage_deadline_s"}),
    ("pool", {"reward.outage_deadline_s": 991}, {"reward.outage_deadline_s"}),
    ("pool", {"verifier.total_deadline_s": 300}, {"verifier.total_deadline_s"}),
    ("pool", {"verifier.total_deadline_s": 5000}, {"reward.group_deadline_s"}),
    (
        "pool",
        {"verifier.pool.startup_deadline_s": 1800},
        {"verifier.total_deadline_s", "reward.outage_deadline_s"},
    ),
    (
        "pool",
        {"verifier.pool.startup_deadline_s": 7200},
        {"verifier.total_deadline_s", "reward.outage_deadline_s", "reward.group_deadline_s"},
    ),
    ("pool", {"verifier.pool.stop_deadline_s": 300}, {"verifier.total_deadline_s"}),
    ("pool", {"verifier.pool.restart_backoff_s": 600}, {"verifier.total_deadline_s"}),
    ("pool", {"verifier.pool.unhealthy_deadline_s": 600}, {"verifier.total_deadline_s"}),
    ("pool", {"verifier.pool.unhealthy_deadline_s": 5}, {"verifier.pool.unhealthy_deadline_s"}),
    ("pool", {"verifier.pool.placement_deadline_s": 5}, {"verifier.pool.placement_deadline_s"}),
    ("pool", {"verifier.request_timeout_s": 900}, {"verifier.total_deadline_s"}),
    ("endpoint", {"verifier.request_timeout_s": 200}, {"verifier.total_deadline_s"}),
    ("endpoint", {"verifier.request_timeout_s": 301, "verifier.retries": 0}, {"verifier.total_deadline_s"}),
    ("endpoint", {"verifier.total_deadline_s": 29}, {"verifier.total_deadline_s"}),
    ("api", {"verifier.total_deadline_s": 239}, {"verifier.total_deadline_s"}),
    ("endpoint", {"verifier.health_interval_s": 600}, {"verifier.total_deadline_s"}),
    ("endpoint", {"verifier.total_deadline_s": 7200}, {"reward.group_deadline_s"}),
    ("endpoint", {"reward.group_deadline_s": 100}, {"reward.group_deadline_s"}),
    ("endpoint", {"reward.outage_deadline_s": 3}, {"reward.outage_deadline_s"}),
    ("endpoint", {"training.poll_interval_s": 1000}, {"reward.outage_deadline_s"}),
    ("api", {"verifier.request_timeout_s": 180}, {"verifier.total_deadline_s"}),
    ("thinking", {"verifier.request_timeout_s": 60}, {"verifier.request_timeout_s"}),
    (
        "thinking",
        {"verifier.thinking_tokens": 8192},
        {"verifier.request_timeout_s", "verifier.total_deadline_s"},
    ),
    ("thinking", {"reward.outage_deadline_s": 60}, {"reward.outage_deadline_s"}),
    ("service", {"verifier.total_deadline_s": 30}, {"verifier.total_deadline_s"}),
    ("service", {"reward.group_deadline_s": 299}, {"reward.group_deadline_s"}),
    ("store", {"verifier.store.timeout_s": 300}, {"verifier.total_deadline_s"}),
]


@pytest.mark.parametrize(("judge", "changes", "keys"), BROKEN)
def test_what_cannot_fit_is_refused_by_its_keys_with_values_that_fit(
    judge: str, changes: dict[str, float], keys: set[str]
) -> None:
    fitting = suggested(refusal(judge, changes))
    assert fitting.keys() == keys
    check_deadlines(settings(judge, changes | fitting), SYNC)


def test_a_pause_for_weights_counts_in_colocate_async_only() -> None:
    slow = {"training.weights_deadline_s": 3600.0}
    check_deadlines(settings("endpoint", slow), SYNC)
    message = refusal("endpoint", slow, COLOCATED)
    assert suggested(message) == {"reward.group_deadline_s": 3900}
    assert "speciarl.training.weights_deadline_s=3600" in message


def test_a_judge_that_is_never_restarted_is_not_waited_for() -> None:
    check_deadlines(settings("pool", {"verifier.pool.max_restarts": 0, "reward.outage_deadline_s": 15}), SYNC)


seconds = st.floats(1, 10_000)
KEYS = (
    "reward.outage_deadline_s", "reward.group_deadline_s", "training.weights_deadline_s", "training.poll_interval_s",
    "verifier.request_timeout_s", "verifier.total_deadline_s", "verifier.health_interval_s",
    "verifier.pool.startup_deadline_s", "verifier.pool.placement_deadline_s", "verifier.pool.unhealthy_deadline_s",
    "verifier.pool.stop_deadline_s", "verifier.pool.restart_backoff_s",
)  # fmt: skip


@given(st.sampled_from(["pool", "thinking"]), st.sampled_from([SYNC, COLOCATED]), st.data())
def test_the_values_named_always_fit_together(judge: str, mode: str, data: st.DataObject) -> None:
    keys = [key for key in KEYS if judge == "pool" or ".pool." not in key]
    changes = {key: data.draw(seconds) for key in data.draw(st.sets(st.sampled_from(keys)))}
    try:
        check_deadlines(settings(judge, changes), mode)
    except ConfigError as error:
        fitting = suggested(str(error))
        assert fitting
        check_deadlines(settings(judge, changes | fitting), mode)
