"""Service console: a service's metrics as a table (``speciarl verifier top``), and one judgement (``judge``)."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from speciarl.errors import SpeciaRLError, VerifierStartError
from speciarl.utils.credentials import authorization, public_url, read_key
from speciarl.verdict import Judgement, Unscorable
from speciarl.verifier_server.client.http import Failure
from speciarl.verifier_server.remote_verifier import ServiceClient, read_results
from speciarl.verifier_server.service.metrics import OF_JUDGES as JUDGE
from speciarl.verifier_server.service.metrics import OF_SERVICE as SERVICE

TIMEOUT_S = 10.0
JUDGE_TIMEOUT_S = 300.0


class ServiceError(SpeciaRLError):
    """A service cannot be reached, or does not reply as a verifier service."""


def metrics_text(url: str, key_file: str | None) -> str:
    """The service's metrics in Prometheus' text format; raises ServiceError."""
    shown = public_url(url)  # user name and password go into a header

    async def fetch() -> str:
        key = read_key(key_file, "service", "key file") if key_file else None
        header = authorization(url, key)
        headers = {"Authorization": header} if header else {}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.get(f"{shown.rstrip('/')}/metrics", allow_redirects=False) as reply,
            ):
                if reply.status != 200:
                    hint = "; give the service's key with --key-file" if reply.status == 401 else ""
                    raise ServiceError(f"{shown} replied HTTP {reply.status}{hint}")
                return await reply.text()
        except (aiohttp.ClientError, OSError, UnicodeDecodeError) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise ServiceError(f"{shown} cannot be asked ({cause}); is the service running there?") from error

    return asyncio.run(fetch())


def judge_one(
    url: str, key_file: str | None, judge: str | None, ground_truth: str, prediction: str
) -> tuple[str, Judgement]:
    """Name of the judge and its judgement of one pair; raises ServiceError."""

    async def ask() -> tuple[str, Judgement]:
        key = read_key(key_file, "service", "key file") if key_file else None
        body: dict[str, Any] = {"judge": judge, "pairs": [{"ground_truth": ground_truth, "prediction": prediction}]}
        async with aiohttp.ClientSession() as session:
            reply = await ServiceClient(url, session, JUDGE_TIMEOUT_S, key).chat(body)
        if isinstance(reply, Failure):
            raise ServiceError(reply.unscorable.detail)
        results = read_results(reply, 1)
        if isinstance(results, Unscorable):
            raise ServiceError(f"{public_url(url)} is no verifier service: {results.detail}")
        assert isinstance(reply, Mapping)
        return str(reply.get("judge")), results[0]

    try:
        return asyncio.run(ask())
    except VerifierStartError as error:
        raise ServiceError(str(error)) from error


Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Snapshot:
    """All samples of one scrape of the metrics."""

    at_s: float
    """Time of the scrape, on the caller's clock."""
    values: Mapping[tuple[str, Labels], float]
    """Value by sample name and sorted labels."""

    @classmethod
    def parse(cls, text: str, at_s: float) -> Self:
        """Parse Prometheus' text format; raises ValueError for anything else."""
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return cls(at_s, {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples})

    def get(self, name: str, **labels: str) -> float | None:
        """The value of one sample; None when there is none."""
        return self.values.get((name, tuple(sorted(labels.items()))))


def view(now: Snapshot, before: Snapshot | None) -> Table:
    """A table with one row per verifier metric that is not 0: its value, and its increase per second.

    A histogram is shown by the mean of its values and their rate. Means and increases are those between the snapshots;
    with one snapshot only, those since the start.
    """
    table = Table(title="What is not shown is 0", title_justify="left")
    for column in ("metric", "of"):
        table.add_column(column, overflow="fold")
    for column in ("value", "per second"):
        table.add_column(column, justify="right")
    for (name, labels), value in sorted(now.values.items()):
        if not name.startswith((JUDGE, SERVICE)) or name.endswith(("_bucket", "_created", "_sum")) or not value:
            continue
        shown, increase = f"{value:.6g}", _increase(now, before, name, labels)
        if name.endswith("_count"):
            total = _increase(now, before, name.removesuffix("_count") + "_sum", labels)
            shown = f"{total / increase:.3g} (mean)" if increase else "-"
        grows = name.endswith(("_total", "_count")) and before is not None and now.at_s > before.at_s
        rate = f"{increase / (now.at_s - before.at_s):.1f}" if grows and before is not None else ""
        plain = name.removeprefix("speciarl_").removesuffix("_total").removesuffix("_count")
        table.add_row(plain, ", ".join(text for _, text in labels), shown, rate)
    return table


def _increase(now: Snapshot, before: Snapshot | None, name: str, labels: Labels) -> float:
    """Increase of a counter between the snapshots; one below its earlier value was reset."""
    value = now.values[name, labels]
    earlier = before.values.get((name, labels), 0.0) if before else 0.0
    return value - earlier if value >= earlier else value
