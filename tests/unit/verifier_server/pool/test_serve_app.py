"""What deploying does when Ray Serve is slow to start.

Here Serve is a fake; tests/integration/test_ray_serve.py has the real one.
"""

from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from speciarl.errors import VerifierStartError
from speciarl.verifier_server.pool import serve_app


class State(Enum):
    """As Serve's own enumerations."""

    RUNNING = "RUNNING"
    STARTING = "STARTING"
    HEALTHY = "HEALTHY"


class FakeServe:
    """Its first proxy is killed, the next one becomes healthy after some looks at the status."""

    def __init__(self, killed: int, slow: int = 2) -> None:
        self.killed, self.slow, self.starts, self.looks = killed, slow, 0, 0

    def start(self, http_options: dict[str, Any]) -> None:
        self.starts += 1
        if self.starts <= self.killed:
            raise ActorDiedError()

    def RunTarget(self, application: Any, **_: Any) -> Any:
        return application

    def run_many(self, targets: list[Any], **_: Any) -> None:
        assert self.starts > self.killed

    def delete(self, name: str) -> None:
        assert name == "judge"

    def status(self) -> Any:
        self.looks += 1
        proxy = State.HEALTHY if self.looks > self.slow else State.STARTING
        return SimpleNamespace(applications={"judge": SimpleNamespace(status=State.RUNNING)}, proxies={"node": proxy})


def run(serve: FakeServe, monkeypatch: pytest.MonkeyPatch, deadline_s: float = 60.0) -> str:
    monkeypatch.setattr(serve_app, "_serve", lambda: serve)
    monkeypatch.setattr(serve_app, "POLL_S", 0.01)
    return serve_app._run(object(), "judge", deadline_s, serve_app.ServeOptions(port=1234))


@pytest.mark.parametrize("killed", [0, 1])
def test_a_proxy_that_was_killed_is_replaced_and_waited_for(killed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    serve = FakeServe(killed)
    assert run(serve, monkeypatch) == "http://127.0.0.1:1234/judge"
    assert serve.starts == 1 + killed
    assert serve.looks == 3  # the application runs before anybody can reach it


def test_a_second_death_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ActorDiedError):
        run(FakeServe(2), monkeypatch)


def test_a_proxy_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VerifierStartError, match="no proxy of Ray Serve is healthy \\(STARTING\\)"):
        run(FakeServe(0, slow=10**9), monkeypatch, deadline_s=0.05)
