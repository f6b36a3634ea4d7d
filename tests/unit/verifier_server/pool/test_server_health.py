"""When a server is given up for a new one, and what is kept of the old one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.errors import ConfigError
from speciarl.verifier_server.config import PoolConfig, parse_config
from speciarl.verifier_server.pool.server_health import Condition, LivenessCheck
from speciarl.verifier_server.pool.vllm_server import keep_log

HEALTHY, SILENT, DEAD = Condition.HEALTHY, Condition.SILENT, Condition.DEAD
POOL = PoolConfig(unhealthy_deadline_s=10, startup_deadline_s=30)


def looks(check: LivenessCheck, *seen: tuple[float, Condition]) -> list[bool]:
    return [check.failed(now, condition) for now, condition in seen]


def test_a_dead_server_has_failed_at_once() -> None:
    assert looks(LivenessCheck(POOL, loading=False), (0, HEALTHY), (1, DEAD)) == [False, True]
    assert looks(LivenessCheck(POOL, loading=True), (0, DEAD)) == [True]


def test_a_stuck_server_has_failed_in_the_end_and_a_loading_one_gets_its_time() -> None:
    assert looks(LivenessCheck(POOL, loading=False), (0, SILENT), (9, SILENT), (10, SILENT)) == [False, False, True]
    check = LivenessCheck(POOL, loading=True)
    assert looks(check, (0, SILENT), (29, SILENT), (29.5, HEALTHY), (31, SILENT), (40.9, SILENT)) == [False] * 5
    assert looks(check, (41, SILENT)) == [True]


@given(st.booleans(), st.lists(st.tuples(st.floats(0, 30), st.sampled_from([HEALTHY, SILENT])), max_size=100))
def test_silence_is_forgiven_until_it_has_lasted_too_long(loading: bool, steps: list[tuple[float, Condition]]) -> None:
    check, now, since = LivenessCheck(POOL, loading), 0.0, None
    for seconds, condition in steps:
        now += seconds
        if condition is HEALTHY:
            since, loading = None, False
        elif since is None:
            since = now
        longest = POOL.startup_deadline_s if loading else POOL.unhealthy_deadline_s
        assert check.failed(now, condition) == (since is not None and now - since >= longest)


def test_logs_of_crashes_are_kept_side_by_side(tmp_path: Path) -> None:
    log = tmp_path / "judge-0.log"
    keep_log(log)
    for number in (1, 2):
        log.write_text(f"crash {number}")
        keep_log(log)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "judge-0.crash-1.log": "crash 1",
        "judge-0.crash-2.log": "crash 2",
    }


def test_bounds_of_a_pool_must_be_in_order() -> None:
    with pytest.raises(ConfigError, match=r"`max_replicas` \(1\) is below `replicas` \(2\)"):
        parse_config({"model": "m", "pool": {"replicas": 2, "max_replicas": 1}})
