"""Judge pool: vLLM replicas as Ray actors with resources of their own, which live as long as the run."""

import logging
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from speciarl.errors import ConfigError, VerifierStartError
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge.first_token import describe_clash
from speciarl.verifier_server.judge.label_tokens import local_first_tokens
from speciarl.verifier_server.judge.prompt import load_prompt
from speciarl.verifier_server.pool.ray_actor import (
    SLACK_S,
    ManagedReplica,
    ReplicaActor,
    last_line,
    ray_module,
    restart_patience_s,
)
from speciarl.verifier_server.pool.restart_policy import StartPatience, Supervisor
from speciarl.verifier_server.pool.vllm_server import POLL_S, REPORT_EVERY_S

_log = logging.getLogger(__name__)


class JudgePool:
    """The replicas of one judge. Needs an initialised Ray; a context manager that stops what it started.

    A replica that dies, or is stuck, is restarted at the same URL, so that endpoints stay valid; `max_restarts` and its
    neighbours bound that. Actors are not detached: they end with the job that started them, even if it is killed. On a
    cluster of one node the servers listen on the loopback interface, otherwise on their node's address, without a
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
        self._replicas: list[ManagedReplica] = []
        self._supervisor: Supervisor | None = None
        self._urls: list[str] = []
        self._placed = False
        self._stopped = False
        self._handover = threading.Lock()
        """Held where a thread that starts the pool and one that stops it would take the same things in hand."""

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
            self._supervise(self._start())
        except BaseException:
            self.stop()
            raise
        return list(self._urls)

    def alive(self) -> list[bool]:
        """Whether each replica's server runs."""
        return [replica.alive() for replica in self._replicas]

    def restarts(self) -> list[int]:
        """How often each replica was restarted."""
        return self._supervisor.restarts if self._supervisor is not None else [0] * len(self._replicas)

    def stop(self) -> None:
        """Stop all replicas, in bounded time. Safe to call at any time, also twice or while another thread
        starts."""
        patience_s = restart_patience_s(self._pool)
        with self._handover:
            self._stopped = True
            if self._supervisor is not None:
                self._supervisor.stop(patience_s)
            replicas, self._replicas, self._urls = self._replicas, [], []
        if not replicas:
            return
        ray = ray_module()
        if not ray.is_initialized():
            return
        if self._placed:  # an actor that has no place yet would never answer, and has nothing to stop
            stopping = [replica.actor.stop.remote() for replica in replicas]
            ray.wait(stopping, num_returns=len(stopping), timeout=patience_s)
        for replica in replicas:
            ray.kill(replica.actor)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> list[str]:
        ray = ray_module()
        for index in range(self._pool.replicas):
            launch = partial(self._launch, str(self._log_dir / f"{self._config.name}-{index}.log"))
            label = f"replica {index} of judge {self._config.name!r}"
            self._replicas.append(ManagedReplica(label, launch, launch(None, 0), restart_patience_s(self._pool)))
        try:
            self._await_placement()
            single_node = sum(bool(node["Alive"]) for node in ray.nodes()) == 1
            ray.get([replica.actor.start.remote(single_node) for replica in self._replicas], timeout=SLACK_S)
            for replica in self._replicas:
                replica.single_node = single_node
            return self._await_ready()
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            message = str(cause) if isinstance(cause, VerifierStartError) else last_line(error)
            raise self._refuse(message) from error
        except ray.exceptions.RayError as error:
            raise self._refuse(f"a replica's actor was lost: {last_line(error)}") from error

    def _launch(self, log_path: str, node_id: str | None, port: int) -> Any:
        """An actor for one replica; see `ManagedReplica.launch`."""
        ray = ray_module()
        options: dict[str, Any] = {"num_gpus": self._pool.gpus_per_replica, "num_cpus": self._pool.cpus_per_replica}
        if node_id is not None:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id, soft=False)
        actor_class = ray.remote(ReplicaActor).options(max_restarts=0, **options)
        return actor_class.remote(self._config, self._pool, log_path, self._env, port)

    def _supervise(self, urls: list[str]) -> None:
        """Hand the replicas to a supervisor, now that all are healthy."""
        with self._handover:
            if self._stopped:
                raise self._refuse("the pool was stopped while it started")
            for replica, url in zip(self._replicas, urls, strict=True):
                replica.url = url
            self._urls = urls
            self._supervisor = Supervisor(self._replicas, self._pool)
            self._supervisor.start()

    def _await_ready(self) -> list[str]:
        ray = ray_module()
        begun = told = time.monotonic()
        patience = StartPatience(self._pool.startup_deadline_s, self._pool.download_deadline_s)
        actors = [replica.actor for replica in self._replicas]
        while True:
            if self._stopped:
                raise self._refuse("the pool was stopped while it started")
            urls = ray.get([actor.ready.remote() for actor in actors], timeout=SLACK_S)
            if all(urls):
                return list(urls)
            progress = ray.get([actor.progress.remote() for actor in actors], timeout=SLACK_S)
            now = time.monotonic()
            waiting = [index for index, url in enumerate(urls) if url is None]
            late = patience.late(any(downloading for downloading, _ in progress), now)
            if late:
                raise self._refuse(
                    f"{len(waiting)} of {len(urls)} replicas: the server {late}; see the logs in {self._log_dir}, then "
                    "raise that deadline or correct `pool`"
                )
            if now - told >= REPORT_EVERY_S:
                told = now
                _log.warning(
                    "judge %r: %d of %d replicas are not ready after %d s; replica %d: %s",
                    self._config.name, len(waiting), len(urls), now - begun, waiting[0], progress[waiting[0]][1],
                )  # fmt: skip
            time.sleep(POLL_S)

    def _await_placement(self) -> None:
        ray = ray_module()
        pool = self._pool
        try:
            placed = [replica.actor.placed.remote() for replica in self._replicas]
            nodes = ray.get(placed, timeout=pool.placement_deadline_s)
            self._placed = True
        except ray.exceptions.GetTimeoutError as error:
            free = ray.available_resources()
            raise self._refuse(
                f"Ray has no room for {pool.replicas} replicas of {pool.gpus_per_replica:g} GPUs and "
                f"{pool.cpus_per_replica:g} CPUs (free: {free.get('GPU', 0):g} GPUs, "
                f"{free.get('CPU', 0):g} CPUs); lower `pool.replicas`, or give Ray more"
            ) from error
        for replica, node in zip(self._replicas, nodes, strict=True):
            replica.node_id = node

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
            f"judge {config.name!r}: no tokenizer in {directory} ({last_line(error)}); correct `model`"
        ) from error
    clash = describe_clash(first_tokens, prompt.scheme)
    if clash:
        raise VerifierStartError(f"judge {config.name!r}: {clash}; use `decoding: choice`, or another judge model")
