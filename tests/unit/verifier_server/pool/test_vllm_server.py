"""A server process of ours leaves nothing behind, however it or we come to an end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from speciarl.errors import VerifierStartError
from speciarl.verifier_server.config import VerifierConfig, parse_config
from speciarl.verifier_server.pool.server_health import Condition, StartPatience
from speciarl.verifier_server.pool.vllm_server import (
    OF_TRAINING,
    MakeCommand,
    Replica,
    keep_log,
    last_line,
    telling_line,
    vllm_command,
)

SERVER = """
    import http.server, os, pathlib, signal, subprocess, sys, time
    host, port, pids, how = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                              start_new_session=how == "daemon")
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    deaf = subprocess.Popen([sys.executable, "-c", stubborn])
    pathlib.Path(pids + ".new").write_text(f"{os.getpid()} {worker.pid} {deaf.pid}")
    os.rename(pids + ".new", pids)
    print("Loading weights", flush=True)
    if how == "dies":
        print("(APIServer pid=1) ERROR 01-01 00:00:00 [core.py:7] RuntimeError: no such model", flush=True)
        print("Shutting down", flush=True)
        sys.exit(3)
    if how == "slow":
        time.sleep(600)
    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    class Server(http.server.HTTPServer):
        allow_reuse_address = True

    Server((host, port), Handler).serve_forever()
"""


class FakeServer:
    """Stands for `vllm serve`: a process with two workers, one of which does not listen to SIGTERM."""

    def __init__(self, directory: Path) -> None:
        self.script = directory / "server.py"
        self.script.write_text(textwrap.dedent(SERVER))
        self.pid_file = directory / "pids"

    def command(self, how: str = "well") -> MakeCommand:
        """The command line by host and port."""
        return lambda host, port: [sys.executable, str(self.script), host, str(port), str(self.pid_file), how]

    def pids(self) -> list[int]:
        """The server's and its workers' process ids, once it runs."""
        expires = time.monotonic() + 60
        while not self.pid_file.exists():
            assert time.monotonic() < expires
            time.sleep(0.02)
        return [int(pid) for pid in self.pid_file.read_text().split()]


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie that waits for somebody else to collect it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def all_gone(pids: list[int], within_s: float) -> bool:
    expires = time.monotonic() + within_s
    while any(map(runs, pids)):
        if time.monotonic() >= expires:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    fake = FakeServer(tmp_path)
    yield fake
    for pid in fake.pids() if fake.pid_file.exists() else []:
        with contextlib.suppress(ProcessLookupError):
            if runs(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["well", "stubborn", "daemon"])
def test_stop_leaves_no_process(server: FakeServer, tmp_path: Path, how: str) -> None:
    replica = Replica(server.command(how), tmp_path / "log", stop_deadline_s=0.5)
    replica.start()
    assert replica.wait_ready(20) == replica.url
    assert replica.alive()
    begun = time.monotonic()
    replica.stop()
    assert time.monotonic() - begun < 30
    assert not replica.alive()
    assert all_gone(server.pids(), within_s=5)
    replica.stop()


def test_a_server_that_dies_says_why(server: FakeServer, tmp_path: Path) -> None:
    replica = Replica(server.command("dies"), tmp_path / "log", stop_deadline_s=0.5)
    replica.start()
    with pytest.raises(VerifierStartError) as caught:
        replica.wait_ready(20)
    message = str(caught.value)
    assert "died while starting (exit status 3): 'RuntimeError: no such model'" in message
    assert str(tmp_path / "log") in message
    assert "\n" not in message
    assert all_gone(server.pids(), within_s=2)


def test_what_a_killed_server_leaves_is_ended_at_once(server: FakeServer, tmp_path: Path) -> None:
    """However long a stop may take: an engine without its server only holds memory."""
    replica = Replica(server.command(), tmp_path / "log", stop_deadline_s=60)
    replica.start()
    replica.wait_ready(20)
    pids = server.pids()
    os.kill(pids[0], signal.SIGKILL)
    assert all_gone(pids, within_s=8)
    replica.stop()


def test_a_server_that_takes_too_long_is_stopped(server: FakeServer, tmp_path: Path) -> None:
    replica = Replica(server.command("slow"), tmp_path / "log", stop_deadline_s=0.5)
    replica.start()
    pids = server.pids()
    with pytest.raises(VerifierStartError, match=r"not ready within 0\.2 s .*: 'Loading weights'"):
        replica.wait_ready(0.2)
    assert all_gone(pids, within_s=2)


DOWNLOAD = """
    import pathlib, sys, time
    print("downloading org/judge: 1.0 of 2.0 GB", flush=True)
    while not pathlib.Path(sys.argv[1]).exists():
        time.sleep(0.02)
    status = int(pathlib.Path(sys.argv[1]).read_text())
    print("error: org/judge cannot be downloaded: gated" if status else "org/judge is here", flush=True)
    sys.exit(status)
"""


@pytest.fixture
def downloading(server: FakeServer, tmp_path: Path) -> Iterator[tuple[Replica, Path]]:
    """A replica that downloads until its status is in the file."""
    script, finish = tmp_path / "download.py", tmp_path / "finish"
    script.write_text(textwrap.dedent(DOWNLOAD))
    command = [sys.executable, str(script), str(finish)]
    replica = Replica(server.command(), tmp_path / "log", stop_deadline_s=0.5, download=command)
    replica.start()
    yield replica, finish
    replica.stop()


def test_a_server_is_started_when_its_model_is_there(
    server: FakeServer, downloading: tuple[Replica, Path], tmp_path: Path
) -> None:
    replica, finish = downloading
    expires = time.monotonic() + 60
    while not replica.progress():
        assert time.monotonic() < expires
        time.sleep(0.02)
    assert replica.poll_ready() is None
    assert replica.downloading
    assert replica.condition() is Condition.SILENT
    assert replica.progress() == "'downloading org/judge: 1.0 of 2.0 GB'"
    assert not server.pid_file.exists()
    finish.write_text("0")
    assert replica.wait_ready(60, 60) == replica.url
    assert not replica.downloading
    assert replica.condition() is Condition.HEALTHY
    log = (tmp_path / "log").read_text()
    assert log.index("org/judge is here") < log.index("Loading weights")
    pids = server.pids()
    replica.stop()
    assert all_gone(pids, within_s=5)


def test_a_download_that_fails_is_told_as_such(downloading: tuple[Replica, Path], server: FakeServer) -> None:
    replica, finish = downloading
    finish.write_text("1")
    with pytest.raises(VerifierStartError, match=r"has no model to load .*cannot be downloaded: gated"):
        replica.wait_ready(60, 60)
    assert not server.pid_file.exists()
    assert not replica.alive()


def test_a_download_has_a_deadline_of_its_own(downloading: tuple[Replica, Path]) -> None:
    replica, _ = downloading
    with pytest.raises(VerifierStartError, match=r"had not downloaded its model within 0\.5 s .*download_deadline_s"):
        replica.wait_ready(600, 0.5)
    assert not replica.alive()


def test_the_time_to_load_begins_after_the_download() -> None:
    patience = StartPatience(10, 100)
    assert patience.late(True, 0) is None
    assert patience.late(True, 99) is None
    assert patience.late(False, 105) is None
    assert patience.late(False, 114) is None
    assert "startup_deadline_s" in (patience.late(False, 115) or "")
    assert "download_deadline_s" in (StartPatience(10, 0).late(True, 0) or "")


def test_a_judge_keeps_what_it_compiles_and_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the training framework's job environment says otherwise; what somebody else set stays."""
    show = "import os; print({name: os.environ.get(name) for name in ('VLLM_DISABLE_COMPILE_CACHE', "
    show += "'VLLM_LOGGING_LEVEL', 'MINE')})"
    for given, kept in ((("1", "WARN"), (None, None)), (("0", "DEBUG"), ("0", "DEBUG"))):
        monkeypatch.setenv("VLLM_DISABLE_COMPILE_CACHE", given[0])
        monkeypatch.setenv("VLLM_LOGGING_LEVEL", given[1])
        replica = Replica(lambda *_: [sys.executable, "-c", show], tmp_path / "log", env={"MINE": "here"})
        replica.start()
        with pytest.raises(VerifierStartError, match="died while starting"):
            replica.wait_ready(60)
        said = {"VLLM_DISABLE_COMPILE_CACHE": kept[0], "VLLM_LOGGING_LEVEL": kept[1], "MINE": "here"}
        assert (tmp_path / "log").read_text().strip() == str(said)


def test_what_of_the_training_frameworks_environment_is_left_out() -> None:
    """It is veRL's that this is about: should its values change, ours must."""
    from verl.trainer.constants_ppo import PPO_RAY_RUNTIME_ENV

    assert PPO_RAY_RUNTIME_ENV["env_vars"].items() >= OF_TRAINING.items()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", ""), ("a\nb\n\n", "'b'"), ("Loading:  10%|#\rLoading:  90%|###", "'Loading: 90%|###'"), ("\n\r", "")],
)
def test_last_line(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "log").write_text(text)
    assert last_line(tmp_path / "log") == expected
    assert last_line(tmp_path / "none") == ""


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    replica = Replica(lambda *_: ["no-such-program"], tmp_path / "log")
    replica.start()
    with pytest.raises(VerifierStartError, match="no-such-program"):
        replica.wait_ready(20)


PARENT = """
    import sys, time
    from pathlib import Path
    from speciarl.verifier_server.pool.vllm_server import Replica
    script, pids, log = sys.argv[1:]
    replica = Replica(lambda h, p: [sys.executable, script, h, str(p), pids, "daemon"], Path(log), stop_deadline_s=0.5)
    replica.start()
    replica.wait_ready(20)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_with_its_parent(server: FakeServer, tmp_path: Path, number: signal.Signals) -> None:
    arguments = [str(server.script), str(server.pid_file), str(tmp_path / "log")]
    command = [sys.executable, "-c", textwrap.dedent(PARENT), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.send_signal(number)
        parent.wait(5)
    assert all_gone(server.pids(), within_s=5)


def test_replicas_started_together_do_not_share_a_port(tmp_path: Path) -> None:
    replicas = [Replica(lambda *_: ["sleep", "600"], tmp_path / str(i), stop_deadline_s=0.2) for i in range(20)]
    try:
        for replica in replicas:
            replica.start()
        assert len({replica.url for replica in replicas}) == len(replicas)
    finally:
        for replica in replicas:
            replica.stop()


def test_a_killed_server_can_be_started_at_the_same_address_again(server: FakeServer, tmp_path: Path) -> None:
    replica = Replica(server.command("well"), tmp_path / "judge-0.log", stop_deadline_s=0.5)
    replica.start()
    url = replica.wait_ready(20)
    assert replica.condition() is Condition.HEALTHY
    old = server.pids()
    os.kill(old[0], signal.SIGKILL)
    assert all_gone(old, within_s=5)
    expires = time.monotonic() + 5
    while replica.condition() is not Condition.DEAD:
        assert time.monotonic() < expires
    assert "Loading weights" in replica.cause()
    server.pid_file.unlink()
    keep_log(tmp_path / "judge-0.log")
    replica.start()
    assert replica.wait_ready(20) == url
    assert (tmp_path / "judge-0.crash-1.log").read_text() == "Loading weights\n"
    replica.stop()
    assert all_gone(server.pids(), within_s=0.5)
    assert replica.condition() is Condition.DEAD


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        replica = Replica(lambda *_: ["sleep", "600"], tmp_path / "log", port=other.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            replica.start()
        assert not replica.alive()


def test_the_environment_is_extended_not_replaced(tmp_path: Path) -> None:
    program = "import os; print('PATH' in os.environ, os.environ['OMP_NUM_THREADS'], 'error', flush=True)"
    replica = Replica(lambda *_: [sys.executable, "-c", program], tmp_path / "log", env={"OMP_NUM_THREADS": "3"})
    replica.start()
    with pytest.raises(VerifierStartError, match="'True 3 error'"):
        replica.wait_ready(20)


def judge(**pool: object) -> VerifierConfig:
    return parse_config({"model": "org/judge", "revision": "abc", "served_model_name": "judge", "pool": pool})


def test_the_vllm_command_line() -> None:
    config = judge(max_model_len=2048, engine_args={"enforce_eager": True, "async-scheduling": False, "seed": 0})
    assert config.pool is not None
    command = " ".join(vllm_command(config, config.pool, "127.0.0.1", 81)[1:])
    assert command.startswith("-m vllm.entrypoints.cli.main serve org/judge --served-model-name judge --host 127.0.0.1")
    assert "--port 81 --revision abc --dtype auto --tensor-parallel-size 1 --max-model-len 2048" in command
    assert command.endswith("--enforce-eager --no-async-scheduling --seed 0")
    assert "gpu-memory" not in command
    assert "--logprobs-mode processed_logprobs" in command


def test_engine_args_have_the_last_word() -> None:
    config = judge(dtype="float16", engine_args={"dtype": "float32", "uvicorn_log_level": None})
    assert config.pool is not None
    command = vllm_command(config, config.pool, "h", 1)
    assert command[command.index("--dtype") + 1] == "float32"
    assert "--uvicorn-log-level" not in command


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("a\nb\n\n", "'b'"),
        ("ValueError: bad\nINFO 01-01 00:00:00 [x.py:1] bye\n", "'ValueError: bad'"),
        ("(EngineCore pid=4) ERROR 01-01 10:00:00 [core.py:1] CUDA out of memory\n", "'CUDA out of memory'"),
    ],
)
def test_telling_line(tmp_path: Path, text: str, expected: str | None) -> None:
    (tmp_path / "log").write_text(text)
    assert telling_line(tmp_path / "log") == expected


def test_no_log_no_line(tmp_path: Path) -> None:
    assert telling_line(tmp_path / "log") is None
