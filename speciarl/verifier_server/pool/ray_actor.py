"""Replica actor: one vLLM server in a Ray actor, and the handle by which a pool holds it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from speciarl.verifier_server.config import PoolConfig, VerifierConfig
from speciarl.verifier_server.pool.model_download import download_command
from speciarl.verifier_server.pool.restart_policy import Condition
from speciarl.verifier_server.pool.vllm_server import KILL_GRACE_S, Replica, keep_log, vllm_command

LOOPBACK = "127.0.0.1"
SLACK_S = 30.0
"""Seconds within which an idle actor answers, on a busy machine too."""


class ReplicaActor:
    """One replica inside a Ray worker process; the server dies with that process.

    No method blocks for long, so that `stop` never waits behind another call.
    """

    def __init__(
        self, config: VerifierConfig, pool: PoolConfig, log_path: str, env: Mapping[str, str], port: int = 0
    ) -> None:
        self._pool = pool
        self._config = config
        self._log_path = Path(log_path)
        self._env = dict(env)
        self._port = port
        self._replica: Replica | None = None

    def placed(self) -> str:
        """The node's id, as soon as Ray has found room."""
        node: str = ray_module().get_runtime_context().get_node_id()
        return node

    def start(self, single_node: bool) -> None:
        """Start the server process."""
        if self._port:  # in place of a server whose log is worth keeping
            keep_log(self._log_path)
        self._replica = Replica(
            partial(vllm_command, self._config, self._pool),
            self._log_path,
            host=LOOPBACK if single_node else ray_module().util.get_node_ip_address(),
            env=self._env,
            stop_deadline_s=self._pool.stop_deadline_s,
            port=self._port,
            download=download_command(self._config, self._pool),
        )
        self._replica.start()

    def ready(self) -> str | None:
        """The server's URL once it is healthy, None while it starts; raises VerifierStartError when it
        died."""
        return None if self._replica is None else self._replica.poll_ready()

    def progress(self) -> tuple[bool, str]:
        """Whether it still downloads its model, and what its log says last."""
        return (self._replica.downloading, self._replica.progress()) if self._replica is not None else (False, "")

    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._replica is not None and self._replica.alive()

    def condition(self) -> Condition:
        """How the server does."""
        return Condition.DEAD if self._replica is None else self._replica.condition()

    def cause(self) -> str:
        """What the server's log says of its end."""
        return "" if self._replica is None else self._replica.cause()

    def restart(self) -> str | None:
        """Start the server again at the same address; what went wrong, if that could not even be begun."""
        if self._replica is None:
            return "it was never started"
        try:
            self._replica.restart()
        except OSError as error:
            return str(error)
        return None

    def stop(self) -> None:
        """Stop the server."""
        if self._replica is not None:
            self._replica.stop()


@dataclass(eq=False)
class ManagedReplica:
    """The pool's side of one replica: a `Supervised` whose actor may be replaced by another one."""

    label: str
    launch: Callable[[str | None, int], Any]
    """Makes an actor on the node with this id (None: anywhere), for a server at this port (0: any)."""
    actor: Any
    patience_s: float
    """Seconds a restart may take to stop what is left of the server."""
    single_node: bool = True
    node_id: str | None = None
    url: str | None = None
    lost: bool = False
    """Whether the actor itself died."""

    def condition(self) -> Condition:
        """See `Supervised.condition`."""
        ray = ray_module()
        if not ray.is_initialized():
            return Condition.SILENT  # the run ends, and this replica with it
        try:
            seen: Condition = ray.get(self.actor.condition.remote(), timeout=SLACK_S)
        except ray.exceptions.RayActorError:
            self.lost = True
            return Condition.DEAD
        except ray.exceptions.GetTimeoutError:
            return Condition.SILENT
        return seen

    def alive(self) -> bool:
        """Whether the server process runs."""
        ray = ray_module()
        try:
            runs: bool = ray.get(self.actor.alive.remote(), timeout=SLACK_S)
        except ray.exceptions.RayActorError:
            return False
        return runs

    def cause(self) -> str:
        """See `Supervised.cause`."""
        if self.lost:
            return "its actor was lost"
        ray = ray_module()
        try:
            said: str = ray.get(self.actor.cause.remote(), timeout=SLACK_S)
        except ray.exceptions.RayError as error:
            return last_line(error)
        return said

    def restart(self) -> str | None:
        """See `Supervised.restart`. A lost actor is replaced on its node, so that the address stays the same."""
        ray = ray_module()
        try:
            if not self.lost:
                problem: str | None = ray.get(self.actor.restart.remote(), timeout=self.patience_s)
                return problem
            self.actor = self.launch(self.node_id, urlsplit(self.url or "").port or 0)
            self.lost = False
            ray.get(self.actor.start.remote(self.single_node), timeout=SLACK_S)
        except ray.exceptions.RayError as error:
            return last_line(error)
        return None


def restart_patience_s(pool: PoolConfig) -> float:
    """Seconds that stopping and starting one server may take."""
    return pool.stop_deadline_s + KILL_GRACE_S + SLACK_S


def ray_module() -> Any:
    """Ray, imported where it is used only: judges with endpoints of their own do without it."""
    import ray

    return ray


def last_line(error: BaseException) -> str:
    """The last line of an error's message, which for errors from Ray is the telling one."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
