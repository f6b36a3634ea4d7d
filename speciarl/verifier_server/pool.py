"""vLLM judge replicas as Ray actors, with resources of their own, that live as long as the run."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from speciarl.errors import ConfigError, VerifierStartError
from speciarl.verifier_server.config import PoolConfig, VerifierConfig
from speciarl.verifier_server.label_tokens import local_first_tokens
from speciarl.verifier_server.probe import describe_clash
from speciarl.verifier_server.prompt import load_prompt
from speciarl.verifier_server.replica import KILL_GRACE_S, POLL_S, Replica, vllm_command

LOOPBACK = "127.0.0.1"
_SLACK_S = 30.0


class ReplicaActor:
    """One replica inside a Ray worker process; the server dies with that process.

    No method blocks for long, so that `stop` never waits behind another call.
    """

    def __init__(self, config: VerifierConfig, pool: PoolConfig, log_path: str, env: Mapping[str, str]) -> None:
        self._pool = pool
        self._config = config
        self._log_path = Path(log_path)
        self._env = dict(env)
        self._replica: Replica | None = None

    def placed(self) -> bool:
        """Returns as soon as Ray has found room."""
        return True

    def start(self, single_node: bool) -> None:
        """Start the server process."""
        self._replica = Replica(
            partial(vllm_command, self._config, self._pool),
            self._log_path,
            host=LOOPBACK if single_node else _ray().util.get_node_ip_address(),
            env=self._env,
            stop_deadline_s=self._pool.stop_deadline_s,
        )
        self._replica.start()

    def ready(self) -> str | None:
        """The server's URL once it is healthy, None while it starts; raises VerifierStartError when it
        died."""
        return None if self._replica is None else self._replica.poll_ready()

    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._replica is not None and self._replica.alive()

    def stop(self) -> None:
        """Stop the server."""
        if self._replica is not None:
            self._replica.stop()


class JudgePool:
    """The replicas of one judge. Needs an initialised Ray; a context manager that stops what it started.

    The actors are not detached: they end with the job that started them, even if it is killed. On a cluster
    of one node the servers listen on the loopback interface, otherwise on their node's address, without a
    key, like the training framework's own rollout servers.
    """

    def __init__(self, config: VerifierConfig, log_dir: str | Path, env: Mapping[str, str] | None = None) -> None:
        """`env` is added to the servers' environment. Raises ConfigError when the config asks for no pool."""
        if config.pool is None:
            raise ConfigError(f"judge {config.name!r} has no `pool` to start")
        self._config = config
        self._pool = config.pool
        self._log_dir = Path(log_dir)
        self._env = dict(env or {})
        self._actors: list[Any] = []
        self._urls: list[str] = []
        self._placed = False
        self._stopped = False

    @property
    def config(self) -> VerifierConfig:
        """The judge's configuration with the running replicas as endpoints, for `build` in any process."""
        return self._config.model_copy(update={"endpoints": tuple(self._urls), "pool": None})

    def start(self) -> list[str]:
        """Start all replicas at once and return their URLs when all are healthy; once started, just the URLs.

        Raises VerifierStartError in one line, with everything stopped, when there is no room or one fails.
        """
        if self._urls:
            return list(self._urls)
        refuse_clashing_labels(self._config)
        self._placed = self._stopped = False
        try:
            self._urls = self._start()
        except BaseException:
            self.stop()
            raise
        return list(self._urls)

    def alive(self) -> list[bool]:
        """Whether each replica's server runs."""
        ray = _ray()
        return list(ray.get([actor.alive.remote() for actor in self._actors], timeout=_SLACK_S))

    def stop(self) -> None:
        """Stop all replicas, in bounded time. Safe to call at any time, also twice or while another thread
        starts."""
        self._stopped = True
        actors, self._actors, self._urls = self._actors, [], []
        if not actors:
            return
        ray = _ray()
        if not ray.is_initialized():
            return
        if self._placed:  # an actor that has no place yet would never answer, and has nothing to stop
            patience_s = self._pool.stop_deadline_s + KILL_GRACE_S + _SLACK_S
            ray.wait([actor.stop.remote() for actor in actors], num_returns=len(actors), timeout=patience_s)
        for actor in actors:
            ray.kill(actor)

    def __enter__(self) -> "JudgePool":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> list[str]:
        ray = _ray()
        pool = self._pool
        actor_class = ray.remote(ReplicaActor).options(
            num_gpus=pool.gpus_per_replica, num_cpus=pool.cpus_per_replica, max_restarts=0
        )
        for index in range(pool.replicas):
            log_path = str(self._log_dir / f"{self._config.name}-{index}.log")
            self._actors.append(actor_class.remote(self._config, pool, log_path, self._env))
        try:
            self._await_placement()
            single_node = sum(bool(node["Alive"]) for node in ray.nodes()) == 1
            ray.get([actor.start.remote(single_node) for actor in self._actors], timeout=_SLACK_S)
            return self._await_ready()
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            message = str(cause) if isinstance(cause, VerifierStartError) else _last_line(error)
            raise self._refuse(message) from error
        except ray.exceptions.RayError as error:
            raise self._refuse(f"a replica's actor was lost: {_last_line(error)}") from error

    def _await_ready(self) -> list[str]:
        ray = _ray()
        expires = time.monotonic() + self._pool.startup_deadline_s
        actors = list(self._actors)
        while True:
            if self._stopped:
                raise self._refuse("the pool was stopped while it started")
            urls = ray.get([actor.ready.remote() for actor in actors], timeout=_SLACK_S)
            if all(urls):
                return list(urls)
            if time.monotonic() >= expires:
                late = sum(url is None for url in urls)
                raise self._refuse(
                    f"{late} of {len(urls)} replicas were not ready within "
                    f"{self._pool.startup_deadline_s:g} s; "
                    f"see the logs in {self._log_dir}, then raise `pool.startup_deadline_s` or correct `pool`"
                )
            time.sleep(POLL_S)

    def _await_placement(self) -> None:
        ray = _ray()
        pool = self._pool
        try:
            ray.get([actor.placed.remote() for actor in self._actors], timeout=pool.placement_deadline_s)
            self._placed = True
        except ray.exceptions.GetTimeoutError as error:
            free = ray.available_resources()
            raise self._refuse(
                f"Ray has no room for {pool.replicas} replicas of {pool.gpus_per_replica:g} GPUs and "
                f"{pool.cpus_per_replica:g} CPUs (free: {free.get('GPU', 0):g} GPUs, "
                f"{free.get('CPU', 0):g} CPUs); lower `pool.replicas`, or give Ray more"
            ) from error

    def _refuse(self, message: str) -> VerifierStartError:
        return VerifierStartError(f"judge {self._config.name!r}: {' '.join(message.split())}")


def refuse_clashing_labels(config: VerifierConfig) -> None:
    """Refuse a local judge that cannot do the `first_token` decoding asked of it, before it is loaded.

    Raises VerifierStartError. Judges that are not at hand as a directory are checked by the start-up probe.
    """
    directory = Path(config.model or "")
    if config.decoding != "first_token" or not config.model or not directory.is_dir():
        return
    prompt = load_prompt(config.prompt)
    try:
        first_tokens = local_first_tokens(directory, prompt, config.thinking)
    except (OSError, ValueError) as error:
        raise VerifierStartError(
            f"judge {config.name!r}: no tokenizer in {directory} ({_last_line(error)}); correct `model`"
        ) from error
    clash = describe_clash(first_tokens, prompt.scheme)
    if clash:
        raise VerifierStartError(f"judge {config.name!r}: {clash}; use `decoding: choice`, or another judge model")


def _ray() -> Any:
    """Ray, imported where it is used only: judges with endpoints of their own do without it."""
    import ray

    return ray


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
