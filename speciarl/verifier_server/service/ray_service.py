"""Run service: the verifier service of one run in a Ray actor, which Ray restarts at the same address and key."""

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speciarl.errors import SpeciaRLError, VerifierStartError
from speciarl.verifier_server.pool.ray_actor import SLACK_S, last_line, ray_module
from speciarl.verifier_server.service.app import create_app
from speciarl.verifier_server.service.config import ServiceConfig, parse_settings
from speciarl.verifier_server.service.server import set_up_logging, uvicorn_server
from speciarl.verifier_server.service.service import Core

POLL_S = 0.2
STOP_SLACK_S = 5.0


class ServiceActor:
    """Ray actor that runs the service on a thread of its worker process. No method blocks for long but `stop`.

    Ray constructs the actor anew when its process died, so the constructor does everything: it serves. When the thread
    ends on its own, it ends the process, so that Ray restarts the actor.
    """

    def __init__(self, settings: Mapping[str, Any], port_file: str) -> None:
        """The port is chosen at the first start and kept in `port_file`, from where a restarted actor takes it."""
        set_up_logging("text", "warning")
        self._error: SpeciaRLError | None = None
        self._stopping = False
        kept = Path(port_file)
        self._config = parse_settings({**settings, "port": int(kept.read_text()) if kept.exists() else 0})
        app = create_app(self._config, on_failure=self._fail)
        self._core: Core = app.state.core
        self._server, self._listener = uvicorn_server(app, self._config)
        self._port: int = self._listener.getsockname()[1]
        kept.write_text(str(self._port))
        self._thread = threading.Thread(target=self._serve, name="service", daemon=True)
        self._thread.start()

    def port(self) -> int:
        """Port it listens on."""
        return self._port

    def ready(self) -> bool:
        """Readiness: whether every judge can be asked; raises VerifierStartError in one line when one cannot start."""
        if self._error is not None:
            raise VerifierStartError(str(self._error))
        return self._core.judges.ready

    def stats(self) -> dict[str, float]:
        """The judge's counters since this process started; empty before it is ready."""
        (judge,) = self._core.judges.all()
        return judge.verifier.stats() if judge.verifier is not None else {}

    def process(self) -> int:
        """Process id of the actor."""
        return os.getpid()

    def stop(self) -> None:
        """Graceful shutdown: let requests under way end and close the store."""
        self._stopping = True
        self._server.should_exit = True
        self._thread.join(self._config.stop_deadline_s + STOP_SLACK_S)

    def _fail(self, error: SpeciaRLError) -> None:
        self._error = self._error or error

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        finally:
            if not self._stopping:
                os._exit(1)  # Ray restarts an actor only when its process ends


class RunService:
    """Handle of the trainer on the actor. Needs an initialised Ray; the actor ends with the job."""

    def __init__(self, settings: ServiceConfig, port_file: Path) -> None:
        """`settings` name one judge, and files on this node, to which the actor is pinned."""
        self._settings = settings
        self._port_file = port_file
        self._port = 0
        self._actor: Any = None

    @property
    def url(self) -> str:
        """Root URL of the service, from `start` on."""
        host = self._settings.host
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    def start(self, deadline_s: float) -> None:
        """Start the actor and wait until it is ready; raises VerifierStartError in one line."""
        ray = ray_module()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        plain = self._settings.model_dump(mode="json", exclude_unset=True)
        options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}
        self._port_file.unlink(missing_ok=True)  # left by an earlier run that was killed
        self._actor = ray.remote(ServiceActor).options(**options).remote(plain, str(self._port_file))
        expires = time.monotonic() + deadline_s
        while True:
            try:
                if ray.get(self._actor.ready.remote(), timeout=max(expires - time.monotonic(), POLL_S)):
                    self._port = ray.get(self._actor.port.remote(), timeout=SLACK_S)
                    return
            except ray.exceptions.GetTimeoutError:
                pass
            except ray.exceptions.RayError as error:
                self.stop()
                cause = getattr(error, "cause", None)
                if isinstance(cause, SpeciaRLError):
                    raise VerifierStartError(str(cause)) from error
                raise VerifierStartError(f"the run's verifier service cannot start: {last_line(error)}") from error
            if time.monotonic() >= expires:
                self.stop()
                raise VerifierStartError(
                    f"the run's verifier service was not ready within {deadline_s:g} s; raise "
                    "speciarl.verifier.startup_deadline_s"
                )
            time.sleep(POLL_S)

    def stats(self) -> dict[str, float]:
        """The judge's counters; empty while the service cannot be reached."""
        ray = ray_module()
        try:
            counted: dict[str, float] = ray.get(self._actor.stats.remote(), timeout=SLACK_S)
        except ray.exceptions.RayError:
            return {}
        return counted

    def stop(self) -> None:
        """Stop the service, in bounded time; safe at any time, also twice."""
        actor, self._actor = self._actor, None
        ray = ray_module()
        if actor is None or not ray.is_initialized():
            return
        # The deadline lies after those of the actor, so that it can end by itself. A dead or stuck one is killed below.
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(actor.stop.remote(), timeout=self._settings.stop_deadline_s + STOP_SLACK_S + SLACK_S)
        ray.kill(actor, no_restart=True)
        self._port_file.unlink(missing_ok=True)
