"""Judge pool: vLLM replicas as Ray actors in a placement group, which live as long as the run."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from speciarl.errors import ConfigError, VerifierStartError
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge.first_token import describe_clash
from speciarl.verifier_server.judge.label_tokens import local_first_tokens
from speciarl.verifier_server.judge.prompt import load_prompt
from speciarl.verifier_server.pool.ray_actor import SLACK_S, ReplicaActor, last_line, ray_module
from speciarl.verifier_server.pool.server_health import StartPatience
from speciarl.verifier_server.pool.vllm_server import KILL_GRACE_S, POLL_S, REPORT_EVERY_S

_log = logging.getLogger(__name__)


class JudgePool:
    """Pool of the replicas of one judge. Needs an initialised Ray; a context manager that stops what it started.

    A replica that dies, or is stuck, is restarted by Ray at the same URL, so that endpoints stay valid
    (`ReplicaActor`). Actors are not detached: they end with the job that started them, even if it is killed. On a
    cluster of one node the servers listen on the loopback interface, otherwise on their node's address, without a
    key, like the training framework's own rollout servers. A pool that was stopped does not start again.
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
        self._restarts = [0] * self._pool.replicas
        self._group: Any = None
        """Placement group of Ray: one bundle of resources for each replica, on a node that stays the same."""
        self._urls: list[str] = []
        self._stopped = False
        self._lock = threading.Lock()
        """Held while a thread that starts the pool and one that stops it change the same attributes."""

    @property
    def config(self) -> VerifierConfig:
        """The judge's configuration with the running replicas as endpoints, for `build` in any process."""
        return self._config.model_copy(update={"endpoints": tuple(self._urls), "pool": None})

    def start(self) -> list[str]:
        """Start all replicas concurrently and return their URLs when all are healthy; once started, just the URLs.

        Raises VerifierStartError in one line, with everything stopped, when Ray has no room or a replica fails.
        """
        if self._urls:
            return list(self._urls)
        refuse_clashing_labels(self._config)
        try:
            self._urls = self._start()
        except BaseException:
            self.stop()
            raise
        return list(self._urls)

    def alive(self) -> list[bool]:
        """Whether each replica's server runs."""
        return [bool(self._ask(actor.alive)) for actor in self._actors]

    def restarts(self) -> list[int]:
        """Number of restarts of each replica; the last known one while a replica cannot be asked."""
        for index, actor in enumerate(self._actors):
            self._restarts[index] = self._ask(actor.restarts) or self._restarts[index]
        return list(self._restarts)

    def stop(self) -> None:
        """Stop all replicas, in bounded time. Safe to call at any time, also twice or during `start` in another
        thread."""
        with self._lock:
            self._stopped = True
            actors, self._actors, self._urls = self._actors, [], []
            group, self._group = self._group, None
        ray = ray_module()
        if group is None or not ray.is_initialized():
            return
        stopping = [actor.stop.remote() for actor in actors]
        if stopping:  # the deadline lies after those of the replicas, so that they can end by themselves
            ray.wait(stopping, num_returns=len(stopping), timeout=self._pool.stop_deadline_s + KILL_GRACE_S + SLACK_S)
        for actor in actors:
            ray.kill(actor)
        ray.util.remove_placement_group(group)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> list[str]:
        ray = ray_module()
        pool = self._pool
        wanted = {"GPU": pool.gpus_per_replica, "CPU": pool.cpus_per_replica}
        # Ray refuses an empty bundle, and so small a share of a core blocks nothing else.
        bundle = {name: number for name, number in wanted.items() if number} or {"CPU": 0.001}
        with self._unless_stopped():
            self._group = group = ray.util.placement_group([bundle] * pool.replicas)
        self._await_placement(group)
        single_node = sum(bool(node["Alive"]) for node in ray.nodes()) == 1
        with self._unless_stopped():
            self._actors = [self._make_actor(group, index) for index in range(pool.replicas)]
        try:
            ray.get([actor.start.remote(single_node) for actor in self._actors], timeout=pool.placement_deadline_s)
            return self._await_ready()
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            message = str(cause) if isinstance(cause, VerifierStartError) else last_line(error)
            raise self._start_error(message) from error
        except ray.exceptions.RayError as error:
            raise self._start_error(f"a replica's actor was lost: {last_line(error)}") from error

    def _make_actor(self, group: Any, index: int) -> Any:
        ray = ray_module()
        strategies = ray.util.scheduling_strategies
        options = {
            "num_gpus": self._pool.gpus_per_replica,
            "num_cpus": self._pool.cpus_per_replica,
            "scheduling_strategy": strategies.PlacementGroupSchedulingStrategy(group, index),
            "max_restarts": self._pool.max_restarts,
        }
        log_path = str(self._log_dir / f"{self._config.name}-{index}.log")
        return ray.remote(ReplicaActor).options(**options).remote(self._config, self._pool, log_path, self._env)

    def _ask(self, method: Any) -> Any:
        """Reply of an actor; None while it is restarted, or once its restarts are used up."""
        ray = ray_module()
        if not ray.is_initialized():
            return None  # the run ends, and its replicas with it
        try:
            return ray.get(method.remote(), timeout=SLACK_S)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return None

    @contextlib.contextmanager
    def _unless_stopped(self) -> Iterator[None]:
        """Hold the lock for a block; raises VerifierStartError when the pool was stopped meanwhile."""
        with self._lock:
            if self._stopped:
                raise self._start_error("the pool was stopped while it started")
            yield

    def _await_ready(self) -> list[str]:
        ray = ray_module()
        begun = reported = time.monotonic()
        deadlines = StartPatience(self._pool.startup_deadline_s, self._pool.download_deadline_s)
        while True:
            with self._unless_stopped():
                actors = self._actors
            urls = ray.get([actor.ready.remote() for actor in actors], timeout=SLACK_S)
            if all(urls):
                return list(urls)
            progress = ray.get([actor.progress.remote() for actor in actors], timeout=SLACK_S)
            now = time.monotonic()
            waiting = [index for index, url in enumerate(urls) if url is None]
            late = deadlines.late(any(downloading for downloading, _ in progress), now)
            if late:
                raise self._start_error(
                    f"{len(waiting)} of {len(urls)} replicas: the server {late}; see the logs in {self._log_dir}, then "
                    "raise that deadline or correct `pool`"
                )
            if now - reported >= REPORT_EVERY_S:
                reported = now
                _log.warning(
                    "judge %r: %d of %d replicas are not ready after %d s; replica %d: %s",
                    self._config.name, len(waiting), len(urls), now - begun, waiting[0], progress[waiting[0]][1],
                )  # fmt: skip
            time.sleep(POLL_S)

    def _await_placement(self, group: Any) -> None:
        pool = self._pool
        if group.wait(pool.placement_deadline_s):
            return
        free = ray_module().available_resources()
        raise self._start_error(
            f"Ray has no room for {pool.replicas} replicas of {pool.gpus_per_replica:g} GPUs and "
            f"{pool.cpus_per_replica:g} CPUs (free: {free.get('GPU', 0):g} GPUs, "
            f"{free.get('CPU', 0):g} CPUs); lower `pool.replicas`, or give Ray more"
        )

    def _start_error(self, message: str) -> VerifierStartError:
        return VerifierStartError(f"judge {self._config.name!r}: {' '.join(message.split())}")


def refuse_clashing_labels(config: VerifierConfig) -> None:
    """Refuse a local judge that does not support its `first_token` decoding, before it is loaded.

    Raises VerifierStartError. Judges that are not in a local directory are checked by the start-up probe.
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
