"""Ray Serve applications of judges and of the service: one URL for a varying number of replicas.

Unlike the replicas of `JudgePool`, which end with a training run, these outlive the process that deployed them.
"""

import importlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speciarl.errors import ConfigError, VerifierStartError
from speciarl.utils.addresses import KEY_REMEDY, exposure
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.pool.model_download import download_command
from speciarl.verifier_server.pool.ray_pool import refuse_clashing_labels
from speciarl.verifier_server.pool.serve_replica import JudgeReplica
from speciarl.verifier_server.pool.vllm_server import KILL_GRACE_S

POLL_S = 0.5
HEALTH_PERIOD_S = 2.0
STARTS = 3
"""Attempts to start one replica before the deployment fails."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ServeOptions:
    """Address of Ray Serve. Only the options with which Serve was first started on a cluster take effect."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than the loopback interface's needs `open_without_key`, or a service with a
    key."""
    port: int = 8000
    open_without_key: bool = False
    """Listen beyond the loopback interface although there is no key: everybody who reaches the port may judge."""

    def url(self, name: str) -> str:
        """Root URL of an application, without a slash at its end."""
        return f"http://{self.host}:{self.port}/{name}"


@dataclass(frozen=True)
class AppStatus:
    """Status of one application, for display."""

    name: str
    status: str
    """Name of the status in Ray Serve, e.g. RUNNING."""
    replicas: Mapping[str, int]
    """Number of replicas in each of Serve's states."""
    message: str
    """What is wrong, in one line; empty when nothing is."""


def judge_application(config: VerifierConfig, log_dir: str | Path, env: Mapping[str, str]) -> Any:
    """Serve application of a judge's replicas. Raises ConfigError when the judge has no `pool`."""
    pool = config.pool
    if pool is None:
        raise ConfigError(f"judge {config.name!r} has no `pool` to start")
    serve = _serve()
    deployment = serve.deployment(
        JudgeReplica,
        name="judge",
        ray_actor_options={"num_gpus": pool.gpus_per_replica, "num_cpus": pool.cpus_per_replica},
        autoscaling_config={
            "min_replicas": pool.replicas,
            "max_replicas": pool.max_replicas or pool.replicas,
            "target_ongoing_requests": pool.target_ongoing_requests,
            "upscale_delay_s": pool.grow_after_s,
            "downscale_delay_s": pool.shrink_after_s,
        },
        # Twice the target may be in one replica before requests wait in Serve: room to grow under load.
        max_ongoing_requests=max(int(2 * pool.target_ongoing_requests), 1),
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=pool.unhealthy_deadline_s,
        graceful_shutdown_wait_loop_s=1.0,
        # Lies after the deadlines of the replica itself, whose stop may take stop_deadline_s + KILL_GRACE_S.
        graceful_shutdown_timeout_s=pool.stop_deadline_s + 2 * KILL_GRACE_S,
        max_constructor_retry_count=STARTS,
    )
    return deployment.bind(config, pool, str(Path(log_dir).resolve()), dict(env))


def service_application(make_app: Callable[[], Any], num_cpus: float = 1.0) -> Any:
    """Serve application of one replica, in which `make_app` makes the ASGI application that it serves.

    One replica, so that equal pairs of all clients meet in one process and are judged once (single-flight).
    """
    serve = _serve()

    def build() -> Any:  # Serve takes plain functions only
        return make_app()

    return serve.deployment(
        serve.ingress(build)(), name="service", num_replicas=1, ray_actor_options={"num_cpus": num_cpus},
        max_ongoing_requests=10_000, health_check_period_s=HEALTH_PERIOD_S, max_constructor_retry_count=STARTS,
    ).bind()  # fmt: skip


def deploy(
    config: VerifierConfig,
    log_dir: str | Path,
    env: Mapping[str, str] | None = None,
    options: ServeOptions | None = None,
) -> str:
    """Deploy a judge on the Ray cluster this process is connected to; returns its root URL once a replica answers.

    The URL serves as `endpoints` (``URL/v1``) of any verifier. An application of the same name is replaced.
    Raises VerifierStartError in one line, with nothing left running, when there is no room or no replica starts, and
    ConfigError when others could reach it without saying so in `options`.
    """
    options = options or ServeOptions()
    _check_name(config.name)
    _check_exposure(options, "it has no key; give `--open-without-key` (`ServeOptions.open_without_key`)")
    refuse_clashing_labels(config)
    deadline_s = 0.0
    if config.pool is not None:
        deadline_s = config.pool.placement_deadline_s + config.pool.startup_deadline_s
        if download_command(config, config.pool):  # None for a model in a local directory
            deadline_s += config.pool.download_deadline_s
    application = judge_application(config, log_dir, env or {})
    return _run(application, config.name, deadline_s, options)


def deploy_service(
    settings: Any, name: str = "verifier", deadline_s: float = 60.0, options: ServeOptions | None = None
) -> str:
    """Deploy the verifier service with these settings on Ray Serve; returns its root URL. Raises as `deploy`."""

    def make_app() -> Any:  # the import is by name: this package lies below the service
        return importlib.import_module("speciarl.verifier_server.service.app").create_app(settings)

    options = options or ServeOptions()
    _check_name(name)
    if not (settings.key_file or settings.open_without_key):
        _check_exposure(options, KEY_REMEDY)
    return _run(service_application(make_app), name, deadline_s, options)


def remove(name: str) -> bool:
    """Stop an application and wait until its replicas have ended; False when there is none of this name."""
    serve = _serve()
    if name not in serve.status().applications:
        return False
    serve.delete(name)
    return True


def status() -> list[AppStatus]:
    """Status of the applications on the cluster, sorted by name."""
    return [
        AppStatus(
            name,
            app.status.value,
            {
                getattr(state, "value", str(state)): count
                for deployment in app.deployments.values()
                for state, count in deployment.replica_states.items()
            },
            _problem(app),
        )
        for name, app in sorted(_serve().status().applications.items())
    ]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot be part of a URL; name it with letters, digits, dots and dashes only")


def _check_exposure(options: ServeOptions, remedy: str) -> None:
    exposed = None if options.open_without_key else exposure(options.host, remedy)
    if exposed is not None:
        raise ConfigError(exposed)


def _run(application: Any, name: str, deadline_s: float, options: ServeOptions) -> str:
    serve = _serve()
    _start(serve, options)
    serve.run_many(
        [serve.RunTarget(application, name=name, route_prefix=f"/{name}")],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    expires = time.monotonic() + deadline_s
    while True:
        shown = serve.status()
        app = shown.applications.get(name)
        running = app is not None and app.status.value == "RUNNING"
        proxies = [proxy.value for proxy in shown.proxies.values()]  # none where Serve was started without HTTP
        if running and (not proxies or "HEALTHY" in proxies):
            return options.url(name)
        failed = app is not None and app.status.value == "DEPLOY_FAILED"
        if failed or time.monotonic() >= expires:
            said = _problem(app) if app is not None else "Ray Serve knows nothing of it"
            if running:
                said = f"its replicas run, but no proxy of Ray Serve is healthy ({', '.join(proxies)})"
            serve.delete(name)
            what = "could not be started" if failed else f"was not running within {deadline_s:g} s"
            raise VerifierStartError(f"{name!r} {what} on Ray Serve: {said or 'no cause is known'}; correct `pool`")
        time.sleep(POLL_S)


def _start(serve: Any, options: ServeOptions) -> None:
    """Start Serve unless it runs.

    Its controller kills a proxy that is not ready within `RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S` (5 s, less than a busy
    machine takes) and starts another, but the call waits for the first one. A second call finds the controller.
    """
    from ray.exceptions import ActorDiedError

    http = {"host": options.host, "port": options.port}
    try:
        serve.start(http_options=http)
    except ActorDiedError:
        serve.start(http_options=http)


def _problem(app: Any) -> str:
    """Cause that Serve states for an application that does not run, in one line; empty when it runs."""
    if app.status.value == "RUNNING":
        return ""
    messages = [app.message, *(deployment.message for deployment in app.deployments.values())]
    lines: list[str] = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line]
    return (telling or lines or [""])[-1]


def _serve() -> Any:
    """The module `ray.serve`, imported only where used; raises VerifierStartError when dependencies are missing."""
    try:
        from ray import serve
    except ImportError as error:
        raise VerifierStartError(f"Ray Serve is not installed ({error}); install ray[serve]") from error
    return serve
