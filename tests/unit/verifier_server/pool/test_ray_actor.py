"""One replica's actor, without Ray and with a file server for vLLM: what it does when its server ends. With real ones:
test_judge_faults."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from speciarl.verifier_server.config import parse_config
from speciarl.verifier_server.pool import ray_actor
from speciarl.verifier_server.pool.ray_actor import ReplicaActor

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # see `_exit`


class FakeRay:
    """The context of an actor's process."""

    def __init__(self) -> None:
        self.was_current_actor_reconstructed = False
        self.exceptions = SimpleNamespace()

    def get_runtime_context(self) -> "FakeRay":
        """Itself."""
        return self


class Surroundings:
    """A folder that stands for a healthy server's state, and a Ray that makes actors anew when the test says so."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.health = folder / "served" / "health"
        self.health.parent.mkdir()
        self.health.touch()
        self.log = folder / "judge-0.log"
        self.ray = FakeRay()
        self.ended: list[int] = []
        self.actors: list[ReplicaActor] = []
        monkeypatch.setattr(ray_actor, "ray_module", lambda: self.ray)
        monkeypatch.setattr(ray_actor, "vllm_command", self._command)
        monkeypatch.setattr(ray_actor, "LOOK_EVERY_S", 0.05)
        monkeypatch.setattr(ray_actor.os, "_exit", self._exit)

    def actor(self, reconstructed: bool = False, **pool: Any) -> ReplicaActor:
        """What Ray makes, for the first time or anew."""
        self.ray.was_current_actor_reconstructed = reconstructed
        quick = {"restart_backoff_s": 0, "stop_deadline_s": 1, "unhealthy_deadline_s": 0.3, "max_restarts": 2}
        config = parse_config({"model": str(self.log.parent), "name": "small", "pool": quick | pool})
        assert config.pool is not None
        self.actors.append(ReplicaActor(config, config.pool, str(self.log), {}))
        return self.actors[-1]

    def started(self, **pool: Any) -> tuple[ReplicaActor, str]:
        """An actor whose server answers, and its URL."""
        actor = self.actor(**pool)
        actor.start(True)
        until(lambda: actor.ready() is not None)
        return actor, str(actor.ready())

    def kill_server(self) -> None:
        """Kill the file server that listens now."""
        until(lambda: bool(self._servers()))
        for process in self._servers():
            os.kill(process.pid, signal.SIGKILL)

    def _servers(self) -> list[psutil.Process]:
        children = psutil.Process().children(recursive=True)
        return [child for child in children if "http.server" in child.cmdline() and "-I" not in child.cmdline()]

    def _command(self, _config: Any, _pool: Any, host: str, port: int) -> list[str]:
        serve = [sys.executable, "-m", "http.server", str(port)]
        return [*serve, "--bind", host, "--directory", str(self.health.parent)]

    def _exit(self, status: int) -> None:
        self.ended.append(status)
        sys.exit()  # ends the thread, as the real one would the process


def until(condition: Callable[[], bool]) -> None:
    expires = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < expires
        time.sleep(0.02)


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Surroundings]:
    made = Surroundings(tmp_path, monkeypatch)
    yield made
    for actor in made.actors:
        actor.stop()


def test_a_killed_server_ends_its_actor_and_the_next_one_serves_at_the_same_url(
    surroundings: Surroundings, caplog: pytest.LogCaptureFixture
) -> None:
    actor, url = surroundings.started()
    assert (actor.alive(), actor.restarts()) == (True, 0)
    surroundings.kill_server()
    until(lambda: surroundings.ended == [1])
    assert f"the server of judge 'small' at {url} is dead" in caplog.text
    assert "is started again (1 of 2 restarts)" in caplog.text
    successor = surroundings.actor(reconstructed=True)
    until(successor.alive)
    assert (successor.ready(), successor.restarts()) == (url, 1)
    assert (surroundings.log.parent / "judge-0.crash-1.log").exists()


def test_a_stuck_server_ends_its_actor_and_after_too_many_restarts_it_is_given_up(
    surroundings: Surroundings, caplog: pytest.LogCaptureFixture
) -> None:
    surroundings.started(max_restarts=1)
    surroundings.health.unlink()
    until(lambda: surroundings.ended == [1])
    assert "is silent" in caplog.text
    surroundings.health.touch()
    successor = surroundings.actor(reconstructed=True, max_restarts=1)
    until(successor.alive)
    surroundings.kill_server()
    until(lambda: surroundings.ended == [1, 1])
    assert "is given up after 1 restarts; correct `pool`, or raise `max_restarts`" in caplog.text


def test_a_port_that_is_still_held_is_waited_for(surroundings: Surroundings) -> None:
    actor, url = surroundings.started()
    actor.stop()
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", int(url.rpartition(":")[2])))
        held.listen()
        successor = surroundings.actor(reconstructed=True)
        time.sleep(0.3)
        assert not successor.alive()
    until(successor.alive)
    assert successor.ready() == url


def test_a_port_that_is_never_given_back_ends_the_actor(
    surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    actor, url = surroundings.started()
    actor.stop()
    monkeypatch.setattr(ray_actor, "KILL_GRACE_S", 0.0)
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", int(url.rpartition(":")[2])))
        held.listen()
        surroundings.actor(reconstructed=True)
        until(lambda: surroundings.ended == [1])
    assert "is not to be started again ([Errno 98]" in caplog.text


def test_a_stopped_actor_ends_nothing(surroundings: Surroundings) -> None:
    actor, _ = surroundings.started()
    actor.stop()
    until(lambda: not [one for one in threading.enumerate() if one.name == "judge-watch"])
    assert surroundings.ended == []


def test_an_actor_that_died_before_it_was_told_to_start_starts_nothing(surroundings: Surroundings) -> None:
    assert surroundings.actor(reconstructed=True).ready() is None
