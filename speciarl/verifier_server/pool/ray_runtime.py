"""Managed pools: the judge pools of one process, on a Ray cluster that it starts or joins."""

import threading
from pathlib import Path
from typing import Any

from speciarl.errors import VerifierStartError
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.pool.ray_actor import ray_module
from speciarl.verifier_server.pool.ray_pool import JudgePool


class ManagedPools:
    """Judge pools of one process. Every method blocks and may be called from any thread."""

    def __init__(self, log_dir: str | Path, ray_address: str | None = None) -> None:
        """Starts nothing. `ray_address` None means a Ray of our own on this machine."""
        self._log_dir = Path(log_dir)
        self._address = ray_address
        self._lock = threading.Lock()
        self._pools: dict[str, JudgePool] = {}
        self._owns_ray = False
        self._stopped = False

    def start(self, config: VerifierConfig) -> VerifierConfig:
        """Start the replicas of a judge with a `pool`; returns its configuration with them as endpoints.

        Raises VerifierStartError in one line.
        """
        from speciarl.cpu import environment, stack  # loads torch, which a service without replicas does not need

        env = environment.variables() if stack.active() else {}
        pool = JudgePool(config, self._log_dir, env)
        with self._lock:
            if self._stopped:
                raise VerifierStartError(f"judge {config.name!r}: it was stopped while it started")
            self._init_ray(config)
            self._pools[config.name] = pool
        pool.start()
        return pool.config

    def restarts(self) -> dict[str, list[int]]:
        """Number of restarts of each replica, by judge."""
        with self._lock:
            return {name: pool.restarts() for name, pool in self._pools.items()}

    def stop(self) -> None:
        """Stop all replicas, and Ray if it is ours. Safe to call at any time, also twice."""
        with self._lock:
            self._stopped = True
            pools, self._pools = self._pools, {}
            owns_ray, self._owns_ray = self._owns_ray, False
        for pool in pools.values():
            pool.stop()
        if owns_ray:
            ray_module().shutdown()

    def _init_ray(self, config: VerifierConfig) -> None:
        ray = ray_module()
        if ray.is_initialized():
            return
        options: dict[str, Any] = {"configure_logging": False}  # what replicas log does reach our output
        if self._address is None:
            options["include_dashboard"] = False
        try:
            ray.init(address=self._address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            cause = " ".join(str(error).split())
            raise VerifierStartError(
                f"judge {config.name!r}: Ray cannot be reached ({cause}); correct `ray_address`"
            ) from error
        self._owns_ray = True
