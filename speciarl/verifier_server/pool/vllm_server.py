"""vLLM server: starts one `vllm serve` process, checks its health, and stops it with all its descendants."""

import contextlib
import http.client
import itertools
import os
import re
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from speciarl.errors import VerifierStartError
from speciarl.utils.text import shorten
from speciarl.verifier_server.config import PoolConfig, VerifierConfig
from speciarl.verifier_server.pool.server_health import Condition, StartPatience

POLL_S = 0.25
HEALTH_TIMEOUT_S = 5.0
KILL_GRACE_S = 10.0
"""Seconds after the stop deadline in which the subreaper kills what is left."""
SUBREAPER = Path(__file__).with_name("subreaper.py")
"""Script that runs between us and a server, with the server's whole command line in its own."""
_TELLING = re.compile(r"error|exception|killed|out of memory", re.IGNORECASE)
_LOG_PREFIX = re.compile(r"^(\([^)]*\)\s*)?((ERROR|WARNING|INFO)\s+\S+\s+\S+\s+)?(\[[^\]]*\]\s*)?")

REPORT_EVERY_S = 60.0
"""Seconds between two log lines about replicas that are still starting."""

OF_TRAINING = {"VLLM_DISABLE_COMPILE_CACHE": "1", "VLLM_LOGGING_LEVEL": "WARN"}
"""Variables that the training framework sets for its own rollout servers, and judges do not get: a judge keeps what it
has compiled for its next start, and logs how far it has come."""

MakeCommand = Callable[[str, int], list[str]]
"""Function from host and port to the command line of a server that answers ``GET /health``."""


def vllm_command(config: VerifierConfig, pool: PoolConfig, host: str, port: int) -> list[str]:
    """The command line of one replica."""
    options: dict[str, bool | int | float | str | None] = {
        "served-model-name": config.served_name,
        "host": host,
        "port": port,
        "revision": config.revision,
        "dtype": pool.dtype,
        "tensor-parallel-size": pool.tensor_parallel_size,
        "max-model-len": pool.max_model_len,
        "gpu-memory-utilization": pool.gpu_memory_utilization,
        # What FIRST_TOKEN_BIASED reads; the log-probabilities of greedy requests without a bias are the model's own.
        "logprobs-mode": "processed_logprobs",
        "uvicorn-log-level": "warning",
        "enable-prompt-tokens-details": True,
    }
    options |= {name.replace("_", "-"): value for name, value in pool.engine_args.items()}
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", config.model or config.served_name]
    for name, value in options.items():
        if isinstance(value, bool):
            command.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            command += [f"--{name}", str(value)]
    return command


class Replica:
    """Replica of a judge: one server process. Not thread-safe."""

    def __init__(
        self,
        make_command: MakeCommand,
        log_path: Path,
        host: str = "127.0.0.1",
        env: Mapping[str, str] | None = None,
        stop_deadline_s: float = 20.0,
        port: int = 0,
        download: Sequence[str] | None = None,
    ) -> None:
        """`env` is added to the environment; output goes to `log_path`, which is overwritten. A `port` of 0 is
        replaced by a free one at the first start. `download`: a command to run to its end before the server."""
        self._make_command = make_command
        self._log_path = log_path
        self.host = host
        """Address it listens on."""
        self._env = dict(env or {})
        self._stop_deadline_s = stop_deadline_s
        self._process: subprocess.Popen[bytes] | None = None
        self._reservation: socket.socket | None = None
        self.port = port
        """Port it listens on; 0 until the first start."""
        self._download = download
        self.downloading = False
        """Whether the download command still runs."""

    @property
    def url(self) -> str:
        """Root URL of the server, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        """Start the process; returns at once. Raises OSError when the log cannot be written or the port is taken."""
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        self._reservation = _reserve_port(self.host, self.port)
        self.port = self._reservation.getsockname()[1]
        self._log_path.write_bytes(b"")
        self.downloading = self._download is not None
        self._run(self._download or self._make_command(self.host, self.port))

    def wait_ready(self, deadline_s: float, download_deadline_s: float = 0.0) -> str:
        """Wait until the server is healthy and return its URL.

        Raises VerifierStartError, in one line with what the log says, when it dies or takes too long; it is
        stopped then. `deadline_s` counts from the end of the download, which has a deadline of its own.
        """
        deadlines = StartPatience(deadline_s, download_deadline_s)
        while (url := self.poll_ready()) is None:
            late = deadlines.late(self.downloading, time.monotonic())
            if late:
                self.stop()
                raise self._start_error(late)
            time.sleep(POLL_S)
        return url

    def poll_ready(self) -> str | None:
        """The server's URL if it is healthy, None if it is still starting; raises as `wait_ready` when it
        died."""
        if self._poll_download():
            return None
        if self._healthy():
            self._release_port()
            return self.url
        status = None if self._process is None else self._process.poll()
        if self._process is None or status is not None:
            self.stop()
            raise self._start_error(f"died while starting (exit status {status})")
        return None

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def condition(self) -> Condition:
        """Condition of the server; takes up to HEALTH_TIMEOUT_S."""
        if not self.alive() and not self.downloading:
            return Condition.DEAD
        if self._poll_download() or not self._healthy():
            return Condition.SILENT
        self._release_port()
        return Condition.HEALTHY

    def progress(self) -> str:
        """The last line of the log, while the server starts; empty when there is none."""
        return last_line(self._log_path)

    def cause(self) -> str:
        """Cause of the server's end according to its log, in one line; empty when the log is."""
        return telling_line(self._log_path) or ""

    def stop(self) -> None:
        """Stop the server and all its descendants, in bounded time. Safe to call at any time, also twice."""
        self._release_port()
        self.downloading = False
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # which tells the subreaper to stop the server
        try:
            process.wait(self._stop_deadline_s + KILL_GRACE_S)  # after the deadline of the subreaper itself
        except subprocess.TimeoutExpired:
            process.kill()  # the kernel then sends SIGTERM to the server, whose parent is the subreaper
            process.wait()

    def _run(self, command: Sequence[str]) -> None:
        guarded = [sys.executable, "-I", str(SUBREAPER), str(self._stop_deadline_s)]
        kept = {name: value for name, value in os.environ.items() if OF_TRAINING.get(name) != value}
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*guarded, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**kept, **self._env},
                start_new_session=True,
            )

    def _poll_download(self) -> bool:
        """Whether the download still runs; once it ended, starts the server, or raises VerifierStartError."""
        if not self.downloading or self._process is None:
            return False
        status = self._process.poll()
        if status is None:
            return True
        if status:
            self.stop()
            raise self._start_error(f"has no model to load (exit status {status} of its download)")
        if self._process.stdin is not None:
            self._process.stdin.close()
        self.downloading = False
        self._run(self._make_command(self.host, self.port))
        return False

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=HEALTH_TIMEOUT_S)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _start_error(self, what: str) -> VerifierStartError:
        cause = telling_line(self._log_path)
        said = f": {cause}" if cause else ""
        return VerifierStartError(f"judge server {what}{said}; see {self._log_path}, then correct `model` or `pool`")

    def _release_port(self) -> None:
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None


def last_line(log_path: Path, tail: int = 4096) -> str:
    """The last line of a log, where carriage returns end lines too, quoted and cut; empty for an empty
    log."""
    try:
        with log_path.open("rb") as log:
            log.seek(max(log.seek(0, os.SEEK_END) - tail, 0))
            lines = log.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")
    except OSError:
        return ""
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return shorten(_LOG_PREFIX.sub("", said), 160) if said else ""


def telling_line(log_path: Path, tail: int = 400) -> str | None:
    """The log's last line about an error, else its last line, quoted and cut; None for an empty log."""
    try:
        with log_path.open(encoding="utf-8", errors="replace") as log:
            lines = [line.strip() for line in deque(log, maxlen=tail) if line.strip()]
    except OSError:
        return None
    if not lines:
        return None
    telling = next((line for line in reversed(lines) if _TELLING.search(line)), lines[-1])
    return shorten(_LOG_PREFIX.sub("", telling), 240)


def keep_log(log_path: Path) -> None:
    """Rename a log to the first free name ``NAME.crash-N.log``, as the next server overwrites it."""
    if log_path.exists():
        names = (log_path.with_suffix(f".crash-{number}{log_path.suffix}") for number in itertools.count(1))
        log_path.rename(next(name for name in names if not name.exists()))


def _reserve_port(host: str, port: int) -> socket.socket:
    """Socket that reserves the port (0: a free one), to be held until the server listens there.

    It never listens, so with SO_REUSEADDR on both sides the server may bind the same port, while the kernel
    gives it to no process that asks for any free port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reservation = socket.socket(family, socket.SOCK_STREAM)
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        reservation.bind((host, port))
    except OSError:
        reservation.close()
        raise
    return reservation
