"""Run verifier: the one verifier service of a run, with the replicas of its judge if it starts those as well."""

import secrets
import socket
from pathlib import Path
from typing import Any

import ray

from speciarl.config import SpeciaRLConfig
from speciarl.training.trainer.judge_pool import ManagedJudges
from speciarl.utils.credentials import write_key
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.pool.ray_actor import LOOPBACK, SLACK_S
from speciarl.verifier_server.service.config import ServiceConfig, parse_settings
from speciarl.verifier_server.service.ray_service import RunService

JUDGE = "judge"
"""Name of the one judge in the run's own service."""

KEY_FILE = "verifier.key"
CLIENTS_KEYS = (
    "request_timeout_s", "total_deadline_s", "retries", "backoff_s", "cache_size", "health_interval_s",
    "max_string_chars", "max_waiting",
)  # fmt: skip
"""What a worker's client has in common with the judge it asks for."""


class RunVerifier:
    """Everything of a run that judges, and the configuration by which workers reach it."""

    def __init__(self, settings: SpeciaRLConfig, device: str) -> None:
        self._settings = settings
        self._judges = ManagedJudges(settings, device)
        self._service: RunService | None = None
        self.judge_urls: list[str] = []
        """Where the judge's servers are, for messages; those of replicas from `start` on."""
        self._key_file = Path(settings.training.judge_log_dir).absolute() / KEY_FILE

    def launch(self) -> None:
        """Begin to start the judge's replicas; see `ManagedJudges.launch`."""
        self._judges.launch()

    def start(self) -> VerifierConfig:
        """Start the service once the replicas are healthy; the workers' configuration. Raises VerifierStartError."""
        judge = self._settings.verifier
        self.judge_urls = [*judge.endpoints, *([judge.service_url] if judge.service_url else [])]
        if judge.service_url:
            return judge
        urls = self._judges.wait()
        self.judge_urls += urls
        if urls:
            judge = judge.model_copy(update={"endpoints": tuple(urls), "pool": None})
        key = secrets.token_urlsafe(32)
        write_key(self._key_file, key)
        self._service = RunService(service_settings(judge, *free_address()), key)
        self._service.start(judge.startup_deadline_s + SLACK_S)
        return client_config(judge, self._service.url, str(self._key_file))

    @property
    def url(self) -> str | None:
        """Root URL of the run's own service; None where there is none."""
        return self._service.url if self._service is not None else None

    def stats(self) -> list[dict[str, float]]:
        """Counters of the run's own service; empty where there is none."""
        return [self._service.stats()] if self._service is not None else []

    def stop(self) -> None:
        """Stop the service, then the replicas, in bounded time; safe at any time."""
        if self._service is not None:
            self._service.stop()
            self._key_file.unlink(missing_ok=True)
        self._judges.stop()


def service_settings(judge: VerifierConfig, host: str, port: int) -> ServiceConfig:
    """The service's settings. It turns nobody away: its clients are the run's own workers."""
    plain: dict[str, Any] = judge.model_dump(mode="json", exclude_unset=True) | {"name": judge.name}
    return parse_settings(
        {
            "host": host,
            "port": port,
            "open_without_key": True,  # the key comes with the actor
            "store": None,
            "limits": {"waiting_pairs": judge.max_waiting + 10_000},
            "judges": {JUDGE: plain},
        }
    )


def client_config(judge: VerifierConfig, url: str, key_file: str) -> VerifierConfig:
    """What a worker needs to ask the run's service."""
    shared = {name: getattr(judge, name) for name in CLIENTS_KEYS}
    return VerifierConfig(name=JUDGE, service_url=url, api_key_file=key_file, startup_deadline_s=60.0, **shared)


def free_address() -> tuple[str, int]:
    """An address of this node that its workers reach, and a port that is free."""
    single = len([node for node in ray.nodes() if node["Alive"]]) == 1
    host = LOOPBACK if single else str(ray.util.get_node_ip_address())
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        free.bind((host, 0))
        return host, int(free.getsockname()[1])
