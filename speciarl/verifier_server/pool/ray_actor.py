"""Replica actor: runs one vLLM server in a Ray worker process, which Ray restarts at the same address."""

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from speciarl.errors import VerifierStartError
from speciarl.utils import atomic_files
from speciarl.verifier_server.config import PoolConfig, VerifierConfig
from speciarl.verifier_server.pool.model_download import download_command
from speciarl.verifier_server.pool.server_health import LivenessCheck
from speciarl.verifier_server.pool.vllm_server import KILL_GRACE_S, Replica, keep_log, vllm_command

LOOPBACK = "127.0.0.1"
SLACK_S = 30.0
"""Seconds within which an idle actor answers, even on a busy machine."""
LOOK_EVERY_S = 1.0
LONGEST_BACKOFF_S = 60.0

_log = logging.getLogger(__name__)


class ReplicaActor:
    """Ray actor that runs one replica; the server dies with the actor's process.

    When the server is dead or stuck the process ends itself, so that Ray restarts the actor, `PoolConfig.max_restarts`
    times. The new actor reads the address from a file beside the server's log, so that the URL stays valid. No method
    blocks for long, so that `stop` never waits behind another call.
    """

    def __init__(self, config: VerifierConfig, pool: PoolConfig, log_path: str, env: Mapping[str, str]) -> None:
        """`env` is added to the server's environment. Starts nothing, unless Ray restarted the actor."""
        self._config = config
        self._pool = pool
        self._log_path = Path(log_path)
        self._env = dict(env)
        self._address_file = self._log_path.with_suffix(".address.json")
        self._replica: Replica | None = None
        self._restarts = 0
        self._stopping = threading.Event()
        self._monitor_thread: threading.Thread | None = None
        if ray_module().get_runtime_context().was_current_actor_reconstructed and self._address_file.exists():
            kept = json.loads(self._address_file.read_bytes())
            self._restarts = kept["restarts"] + 1
            self._replica = self._make_replica(kept["host"], kept["port"])
            self._write_address(self._replica)
            self._start_monitor(self._replica, loading=True)

    def start(self, single_node: bool) -> None:
        """Start the server process for the first time."""
        host = LOOPBACK if single_node else ray_module().util.get_node_ip_address()
        self._replica = self._make_replica(host, 0)
        self._replica.start()
        self._write_address(self._replica)

    def ready(self) -> str | None:
        """The server's URL once it is healthy, None while it starts for the first time; raises VerifierStartError
        when it died."""
        if self._replica is None:
            return None
        if self._monitor_thread is None and self._replica.poll_ready() is None:
            return None
        if self._monitor_thread is None:
            self._start_monitor(self._replica, loading=False)
        return self._replica.url

    def progress(self) -> tuple[bool, str]:
        """Whether the model is still being downloaded, and the last line of the log."""
        return (self._replica.downloading, self._replica.progress()) if self._replica is not None else (False, "")

    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._replica is not None and self._replica.alive()

    def restarts(self) -> int:
        """Number of restarts of this replica."""
        return self._restarts

    def stop(self) -> None:
        """Stop the server."""
        self._stopping.set()
        if self._replica is not None:
            self._replica.stop()

    def _make_replica(self, host: str, port: int) -> Replica:
        return Replica(
            partial(vllm_command, self._config, self._pool),
            self._log_path,
            host=host,
            env=self._env,
            stop_deadline_s=self._pool.stop_deadline_s,
            port=port,
            download=download_command(self._config, self._pool),
        )

    def _write_address(self, replica: Replica) -> None:
        kept = {"host": replica.host, "port": replica.port, "restarts": self._restarts}
        atomic_files.write_text(self._address_file, json.dumps(kept))

    def _start_monitor(self, replica: Replica, loading: bool) -> None:
        self._monitor_thread = threading.Thread(
            target=self._monitor, args=[replica, loading], name="judge-watch", daemon=True
        )
        self._monitor_thread.start()

    def _monitor(self, replica: Replica, loading: bool) -> None:
        """Restart the server if it is `loading`, then check it until it fails, and end this process then."""
        check = LivenessCheck(self._pool, loading)
        try:
            if loading:
                self._restart_server(replica)
            while not self._stopping.wait(LOOK_EVERY_S):
                condition = replica.condition()
                if check.failed(time.monotonic(), condition):
                    said = replica.cause()
                    self._end_process(replica, f"{condition} ({said})" if said else str(condition))
        except (OSError, VerifierStartError) as error:
            self._end_process(replica, f"not to be started again ({error})")

    def _restart_server(self, replica: Replica) -> None:
        pause_s = self._pool.restart_backoff_s * 2.0 ** min(self._restarts - 1, 20)
        self._stopping.wait(min(pause_s, LONGEST_BACKOFF_S))
        keep_log(self._log_path)  # it says why the last server died
        expires = time.monotonic() + self._pool.stop_deadline_s + KILL_GRACE_S
        while not self._stopping.is_set():
            try:
                return replica.start()
            except OSError:  # the last server may still be stopping, and hold the port
                if time.monotonic() >= expires:
                    raise
            self._stopping.wait(LOOK_EVERY_S)

    def _end_process(self, replica: Replica, said: str) -> None:
        """End this process, so that Ray restarts the actor, unless it has done so too often."""
        if self._stopping.is_set():
            return
        most = self._pool.max_restarts
        if self._restarts == most:
            remedy = f"is given up after {most} restarts; correct `pool`, or raise `max_restarts`"
        else:
            remedy = f"is started again ({self._restarts + 1} of {most if most >= 0 else 'any number of'} restarts)"
        _log.error("the server of judge %r at %s is %s and %s", self._config.name, replica.url, said, remedy)
        replica.stop()  # frees the port for the next server
        os._exit(1)  # Ray restarts an actor only when its process ends


def ray_module() -> Any:
    """The module `ray`, imported only where it is used: judges with endpoints of their own do not need it."""
    import ray

    return ray


def last_line(error: BaseException) -> str:
    """The last line of an error's message, which for errors from Ray states the cause."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
