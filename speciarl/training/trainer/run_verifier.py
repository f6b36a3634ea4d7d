"""Run verifier: the one verifier service of a run, and the judge's replicas if the run starts those as well."""

import secrets
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

KEY_FILE, PORT_FILE = "verifier.key", "verifier.port"
CLIENTS_KEYS = (
    "total_deadline_s", "retries", "backoff_s", "cache_size", "health_interval_s", "max_string_chars", "max_waiting",
)  # fmt: skip
"""Settings that a worker's client takes over from the judge's configuration."""


class RunVerifier:
    """Lifetime of a run's judges and verifier service, and the configuration by which workers reach them."""

    def __init__(self, settings: SpeciaRLConfig, device: str) -> None:
        self._settings = settings
        self._judges = ManagedJudges(settings, device)
        self._service: RunService | None = None
        self.judge_urls: list[str] = []
        """URLs of the judge's servers, for messages; those of replicas from `start` on."""
        self._folder = Path(settings.training.judge_log_dir).absolute()

    def launch(self) -> None:
        """Begin to start the judge's replicas; see `ManagedJudges.launch`."""
        self._judges.launch()

    def start(self) -> VerifierConfig:
        """The workers' configuration, once replicas are healthy and the service is up. Raises VerifierStartError."""
        judge = self._settings.verifier
        self.judge_urls = [*judge.endpoints, *([judge.service_url] if judge.service_url else [])]
        if judge.service_url:  # a service that outlives runs: nothing to start
            return judge
        urls = self._judges.wait()
        self.judge_urls += urls
        if urls:
            judge = judge.model_copy(update={"endpoints": tuple(urls), "pool": None})
        key_file = self._folder / KEY_FILE
        # Before the service starts, which reads it; the agent-loop manager reads it for the workers.
        write_key(key_file, secrets.token_urlsafe(32))
        self._service = RunService(service_settings(judge, own_address(), key_file), self._folder / PORT_FILE)
        self._service.start(judge.startup_deadline_s + SLACK_S)
        return client_config(judge, self._service.url, key_file)

    @property
    def url(self) -> str | None:
        """Root URL of the run's own service; None where there is none."""
        return self._service.url if self._service is not None else None

    def stats(self) -> list[dict[str, float]]:
        """Counters of the run's own service; empty where there is none."""
        return [self._service.stats()] if self._service is not None else []

    def stop(self) -> None:
        """Stop the service, then the replicas that it asks, in bounded time; safe at any time."""
        if self._service is not None:
            self._service.stop()
            (self._folder / KEY_FILE).unlink(missing_ok=True)
        self._judges.stop()


def service_settings(judge: VerifierConfig, host: str, key_file: Path) -> ServiceConfig:
    """The service's settings. Its admission limit lies above the judge's own (`max_waiting`), which is to count."""
    plain: dict[str, Any] = judge.model_dump(mode="json", exclude_unset=True) | {"name": judge.name}
    return parse_settings(
        {
            "host": host,
            "port": 0,
            "key_file": str(key_file),
            "store": None,  # else the service would add its default one; the judge's own `store` decides
            "limits": {"waiting_pairs": judge.max_waiting + 10_000},
            "judges": {JUDGE: plain},
        }
    )


def client_config(judge: VerifierConfig, url: str, key_file: Path) -> VerifierConfig:
    """Configuration of a worker's client for the run's service."""
    shared = {name: getattr(judge, name) for name in CLIENTS_KEYS}
    # The service queues pairs and tries them again: a request to it may take longer than one to the judge.
    return VerifierConfig(
        name=JUDGE,
        service_url=url,
        api_key_file=str(key_file),
        startup_deadline_s=60.0,
        request_timeout_s=judge.total_deadline_s,
        **shared,
    )


def own_address() -> str:
    """Address of this node that all workers reach: loopback, closed to other machines, where there is one node."""
    single = len([node for node in ray.nodes() if node["Alive"]]) == 1
    return LOOPBACK if single else str(ray.util.get_node_ip_address())
