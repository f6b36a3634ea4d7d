"""When replicas are restarted, and that the supervisor ends with its pool."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.errors import ConfigError
from speciarl.verifier_server.config import PoolConfig, parse_config
from speciarl.verifier_server.pool.restart_policy import Condition, Order, RestartRule, Supervisor
from speciarl.verifier_server.pool.vllm_server import keep_log

HEALTHY, SILENT, DEAD = Condition.HEALTHY, Condition.SILENT, Condition.DEAD
POOL = PoolConfig(
    max_restarts=2, restart_window_s=100, restart_backoff_s=2, unhealthy_deadline_s=10, startup_deadline_s=30
)


def orders(rule: RestartRule, *seen: tuple[float, Condition]) -> list[Order]:
    return [rule.observe(now, condition) for now, condition in seen]


def test_a_dead_replica_is_restarted_after_a_pause_that_grows() -> None:
    seen = orders(RestartRule(POOL), (0, HEALTHY), (1, DEAD), (2, DEAD), (3, DEAD), (4, DEAD), (7, DEAD), (8, DEAD))
    assert seen == [Order.NOTHING] * 3 + [Order.RESTART] + [Order.NOTHING] * 2 + [Order.RESTART]


def test_too_many_restarts_in_the_window_give_up_once_and_for_all() -> None:
    rule = RestartRule(POOL)
    seen = orders(rule, *((now, DEAD) for now in range(40)))
    assert [order for order in seen if order is not Order.NOTHING] == [Order.RESTART, Order.RESTART, Order.GIVE_UP]
    assert orders(rule, (1000, DEAD), (1001, HEALTHY), (1002, DEAD)) == [Order.NOTHING] * 3
    assert (rule.given_up, rule.total) == (True, 2)


def test_old_restarts_are_forgotten() -> None:
    rule = RestartRule(POOL)
    for begin in (0, 200, 400, 600):
        seen = orders(rule, (begin, DEAD), (begin + 2, DEAD), (begin + 3, SILENT), (begin + 9, HEALTHY))
        assert seen == [Order.NOTHING, Order.RESTART, Order.NOTHING, Order.NOTHING]
    assert rule.total == 4


def test_a_stuck_replica_is_restarted_and_a_loading_one_gets_its_time() -> None:
    rule = RestartRule(POOL)
    assert orders(rule, (0, SILENT), (9, SILENT), (10, SILENT), (12, SILENT)) == [Order.NOTHING] * 3 + [Order.RESTART]
    assert orders(rule, (13, SILENT), (41, SILENT), (42, SILENT), (46, SILENT)) == [Order.NOTHING] * 3 + [Order.RESTART]


def test_a_short_silence_is_forgiven() -> None:
    rule = RestartRule(POOL)
    assert set(orders(rule, (0, SILENT), (9, SILENT), (9.5, HEALTHY), (11, SILENT), (20, SILENT))) == {Order.NOTHING}


def test_no_restarts_allowed() -> None:
    assert RestartRule(PoolConfig(max_restarts=0)).observe(0.0, DEAD) is Order.GIVE_UP


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from(list(Condition))), max_size=200))
def test_restarts_stay_bounded_in_every_window(steps: list[tuple[float, Condition]]) -> None:
    rule, now, restarts = RestartRule(POOL), 0.0, []
    for seconds, condition in steps:
        now += seconds
        order = rule.observe(now, condition)
        if order is Order.RESTART:
            assert condition is not HEALTHY
            restarts.append(now)
        recent = [moment for moment in restarts if now - moment < POOL.restart_window_s]
        assert len(recent) <= POOL.max_restarts
    assert rule.total == len(restarts)


class FakeReplica:
    """A replica of which nothing is real."""

    label = "replica 0 of judge 'fake'"

    def __init__(self, problem: str | None = None) -> None:
        self.now = HEALTHY
        self.restarts = 0
        self._problem = problem

    def condition(self) -> Condition:
        return self.now

    def cause(self) -> str:
        return "'CUDA out of memory'"

    def restart(self) -> str | None:
        self.restarts += 1
        self.now = HEALTHY if self._problem is None else DEAD
        return self._problem


def until(condition: Callable[[], bool]) -> None:
    expires = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < expires
        time.sleep(0.005)


QUICK = PoolConfig(max_restarts=2, restart_backoff_s=0)


def test_the_supervisor_restarts_what_dies_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    well, ill = FakeReplica(), FakeReplica()
    supervisor = Supervisor([well, ill], QUICK, look_every_s=0.01)
    supervisor.start()
    ill.now = DEAD
    until(lambda: ill.restarts == 1)
    supervisor.stop(5)
    assert (supervisor.restarts, supervisor.given_up, well.restarts) == ([0, 1], [False, False], 0)
    assert "replica 0 of judge 'fake' is dead ('CUDA out of memory'); restart number 1" in caplog.text


def test_the_supervisor_gives_up_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    hopeless = FakeReplica("port taken")
    supervisor = Supervisor([hopeless], QUICK, look_every_s=0.01)
    hopeless.now = DEAD
    supervisor.start()
    until(lambda: supervisor.given_up == [True])
    supervisor.stop(5)
    assert hopeless.restarts == 2
    assert caplog.text.count("could not be restarted: port taken") == 2
    assert caplog.text.count("after 2 restarts and is given up") == 1


def test_nothing_is_restarted_after_stop() -> None:
    replica = FakeReplica()
    supervisor = Supervisor([replica], QUICK, look_every_s=0.01)
    supervisor.start()
    supervisor.stop(5)
    replica.now = DEAD
    time.sleep(0.05)
    assert replica.restarts == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "judge-supervisor"]
    supervisor.stop(5)
    Supervisor([replica], QUICK).stop(5)


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
