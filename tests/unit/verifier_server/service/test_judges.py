"""Judges that come up together, with replicas of their own where they have a pool."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from speciarl.cli import app
from speciarl.errors import ConfigError, SpeciaRLError, VerifierStartError
from speciarl.verifier_server import build, parse_config
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.pool import ray_runtime
from speciarl.verifier_server.pool.ray_runtime import ManagedPools
from speciarl.verifier_server.service.errors import ApiError
from speciarl.verifier_server.service.judges import Judges
from speciarl.verifier_server.service.metrics import Metrics

Make = Callable[..., Any]
POOLED = {"name": "own", "model": "fake", "prompt": "compact", "probe": False, "pool": {"replicas": 1}}


class FakePools(ManagedPools):
    """Instead of starting replicas, names the servers that the test has."""

    def __init__(self, *urls: str) -> None:
        super().__init__("unused")
        self.urls = urls
        self.threads: list[int] = []
        self.was_stopped = False

    def start(self, config: VerifierConfig) -> VerifierConfig:
        """Fails where there is no server."""
        self.threads.append(threading.get_ident())
        if not self.urls:
            raise VerifierStartError("judge 'own': Ray has no room")
        return config.model_copy(update={"endpoints": self.urls, "pool": None})

    def stop(self) -> None:
        """Remembers it."""
        self.was_stopped = True


@pytest.mark.anyio
async def test_a_judge_with_a_pool_gets_its_replicas_first(fake_judge: Make) -> None:
    async with fake_judge().running() as server:
        pools = FakePools(server.url)
        judges = Judges({"own": parse_config(POOLED)}, pools)
        failures: list[SpeciaRLError] = []
        assert not judges.ready
        await judges.start(failures.append)
        assert (failures, judges.ready) == ([], True)
        judge, _ = judges.get("own")
        assert judge.endpoints == [server.url]
        assert pools.threads != [threading.get_ident()]  # loading takes minutes, and the service answers meanwhile
        await judges.aclose()
        assert pools.was_stopped
        with pytest.raises(ApiError, match="is stopped"):
            judges.get("own")


@pytest.mark.anyio
async def test_a_failing_judge_is_told_at_once_and_once(fake_judge: Make) -> None:
    async with fake_judge().running() as server:
        server.warming_up = True
        slow = parse_config({"model": "fake", "prompt": "compact", "probe": False, "endpoints": [server.url]})
        judges = Judges({"own": parse_config(POOLED), "slow": slow}, FakePools())
        failures: list[SpeciaRLError] = []
        starting = asyncio.create_task(judges.start(failures.append))
        while not failures:
            await asyncio.sleep(0.005)
        assert [judge.state for judge in judges.all()] == ["failed", "starting"]
        assert "no room" in str(failures[0])
        starting.cancel()
        await asyncio.wait({starting})
        await judges.aclose()
        assert [judge.state for judge in judges.all()] == ["failed", "stopped"]
        assert len(failures) == 1


@pytest.mark.anyio
async def test_a_judge_that_fails_unforeseen_is_told_and_the_others_start(
    fake_judge: Make, caplog: pytest.LogCaptureFixture
) -> None:
    class FakeBrokenVerifier:
        """Has a bug in its start."""

        async def start(self) -> None:
            """Fails."""
            raise KeyError("a bug\nof two lines")

    async with fake_judge().running() as server:
        own = parse_config(POOLED | {"pool": None, "endpoints": [server.url]})

        def make(config: VerifierConfig) -> Any:
            return build(config) if config is own else FakeBrokenVerifier()

        judges = Judges({"broken": parse_config(POOLED), "own": own}, FakePools(server.url), make)
        failures: list[SpeciaRLError] = []
        await judges.start(failures.append)
        assert [judge.state for judge in judges.all()] == ["failed", "ready"]
        with pytest.raises(ApiError, match=r"is failed: judge 'broken': KeyError: .*a bug"):
            judges.get("broken")
        assert len(failures) == 1
        assert "\n" not in str(failures[0])
        assert "FakeBrokenVerifier" in caplog.text or "in start" in caplog.text  # the stack, for whoever mends it
        await judges.aclose()


def test_pools_that_were_stopped_start_no_more() -> None:
    pools = ManagedPools("unused")
    pools.stop()
    with pytest.raises(VerifierStartError, match="it was stopped while it started"):
        pools.start(parse_config(POOLED))
    with pytest.raises(ConfigError, match="no `pool`"):
        pools.start(parse_config({"model": "m", "endpoints": ["http://localhost"]}))


def test_a_ray_that_cannot_be_reached_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeRay:
        """Is not there."""

        def is_initialized(self) -> bool:
            """Never."""
            return False

        def init(self, address: str, **_: Any) -> None:
            """Fails."""
            raise ConnectionError(f"Could not find\n a cluster at {address}")

    monkeypatch.setattr(ray_runtime, "ray_module", FakeRay)
    pools = ManagedPools("unused", "host:6379")
    with pytest.raises(VerifierStartError, match=r"Could not find a cluster at host:6379\); correct `ray_address`"):
        pools.start(parse_config(POOLED))
    pools.stop()


def test_two_services_in_a_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.request("/v1/judge", 200, 0.1, 3)
    assert b'route="/v1/judge"' in one.page()
    assert b'route="/v1/judge"' not in other.page()


@pytest.mark.parametrize("arguments", [["verifier"], ["verifier", "serve", "--help"], ["--help"]])
def test_help_teaches(arguments: list[str]) -> None:
    told = CliRunner().invoke(app, arguments).output
    assert "speciarl verifier serve" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve"], "there is no judge: give --config FILE or --verifier NAME"),
        (["serve", "--verifier", "typo"], "there is no recipe/verifier=typo"),
        (["top", "http://127.0.0.1:9", "--once"], "http://127.0.0.1:9 cannot be asked"),
        (["top", "nonsense", "--once"], "nonsense cannot be asked"),
        (["judge", "http://127.0.0.1:9", "--truth", "a", "--prediction", "b"], "http://127.0.0.1:9: "),
        (["judge", "http://h", "--truth", "a", "--prediction", "b", "--key-file", "no"], "cannot read key file no"),
    ],
)
def test_commands_end_in_one_line(arguments: list[str], message: str) -> None:
    ended = CliRunner().invoke(app, ["verifier", *arguments])
    assert ended.exit_code == 2
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
