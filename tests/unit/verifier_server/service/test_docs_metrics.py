"""docs/verifier_service.md names exactly what a service exports."""

import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client.metrics_core import Metric

from speciarl.verifier_server.client.router import EndpointStats, State
from speciarl.verifier_server.service import metrics
from speciarl.verifier_server.service.config import LogConfig
from speciarl.verifier_server.service.judges import Judge
from speciarl.verifier_server.service.metrics import Metrics
from speciarl.verifier_server.service.runs.log import VerdictLog
from speciarl.verifier_server.service.service import Admission, own_families
from speciarl.verifier_server.stats import Stats

DOCS = Path(__file__).parents[4] / "docs" / "verifier_service.md"


def documented(prefix: str) -> list[str]:
    """Names in the first column of the table with that prefix, with their labels but `judge` and `endpoint`."""
    section = DOCS.read_text(encoding="utf-8").split(f"prefix `{prefix}`:\n")[1]
    rows = re.findall(r"^\| (`.*?) \|", section.split("\n\n")[0], re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def exported(families: Iterable[Metric], prefix: str) -> set[str]:
    """The same of families that have a sample each."""
    names = set()
    for family in families:
        assert family.samples, family.name
        labels = sorted({*family.samples[0].labels} - {"judge", "endpoint", "le"})
        name = family.name.removeprefix(prefix) + ("_total" if family.type == "counter" else "")
        names.add(f"{name}{{{','.join(labels)}}}" if labels else name)
    return names


def of_judges() -> set[str]:
    """Everything a judge may export, and a managed replica."""
    stats = Stats()
    counted = stats.as_dict() | {
        "in_flight": 0.0,
        "waiting": 0.0,
        "requests": 1.0,
        "unscorable/timeout": 1.0,
        "new": 1.0,
    }
    verifier: Any = SimpleNamespace(
        stats=lambda: counted,
        histograms=stats.histograms,
        endpoint_stats=lambda: [EndpointStats("http://host:1/v1", State.TRIAL, 0, 0, 0, "")],
    )
    judge = Judge("main", SimpleNamespace(), verifier, "ready")  # type: ignore[arg-type]
    families = [*metrics.judge_families([judge]), metrics.replica_restarts({"main": [0]})]
    return exported(families, metrics.OF_JUDGES)


def of_the_service(folder: Path) -> set[str]:
    """Everything it exports of its own work."""
    page = Metrics()
    log = VerdictLog(LogConfig(directory=str(folder)))
    page.add(lambda: own_families(Admission(1), log))
    page.request("/v1/judge", 200, 0.1, 1)
    return exported(page.registry.collect(), metrics.OF_SERVICE)


def test_the_metrics_of_judges() -> None:
    names = documented(metrics.OF_JUDGES)
    assert len(names) == len(set(names))
    assert set(names) == of_judges()


def test_the_metrics_of_the_service(tmp_path: Path) -> None:
    names = documented(metrics.OF_SERVICE)
    assert len(names) == len(set(names))
    assert set(names) == of_the_service(tmp_path)
