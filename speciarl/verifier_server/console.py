"""``speciarl verifier top``: a service's metrics as tables in the terminal, refreshed."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group
from rich.table import Table

from speciarl.errors import SpeciaRLError, VerifierStartError
from speciarl.utils.credentials import authorization, public_url, read_key
from speciarl.verdict import Judgement, Unscorable
from speciarl.verifier_server.client.http import Failure
from speciarl.verifier_server.remote_verifier import ServiceClient, read_results
from speciarl.verifier_server.service.metrics import HIT_LEVELS
from speciarl.verifier_server.service.metrics import OF_JUDGES as JUDGE
from speciarl.verifier_server.service.metrics import OF_SERVICE as SERVICE

TIMEOUT_S = 10.0
JUDGE_TIMEOUT_S = 300.0


class ServiceError(SpeciaRLError):
    """A service did not answer as one."""


def metrics_text(url: str, key_file: str | None) -> str:
    """The page of metrics; raises ServiceError."""
    shown = public_url(url)  # the rest goes into a header

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
    """All samples of one page of metrics."""

    at_s: float
    """When it was taken, on the caller's clock."""
    values: Mapping[tuple[str, Labels], float]
    """By sample name and sorted labels."""

    @classmethod
    def parse(cls, text: str, at_s: float) -> Self:
        """Read Prometheus' text format; raises ValueError for anything else."""
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return cls(at_s, {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples})

    def get(self, name: str, **labels: str) -> float | None:
        """One sample."""
        return self.values.get((name, tuple(sorted(labels.items()))))

    def series(self, name: str) -> dict[Labels, float]:
        """All samples of a name, by labels."""
        return {labels: value for (sample, labels), value in self.values.items() if sample == name}

    def sum(self, name: str, **labels: str) -> float:
        """All samples of a name that have these labels, added."""
        return sum(value for found, value in self.series(name).items() if labels.items() <= dict(found).items())


def view(now: Snapshot, before: Snapshot | None) -> Group:
    """The tables. Rates, ratios and means (seconds of an attempt, tokens of a live verdict) are those between the
    snapshots, since the start where there is one only."""
    return Group(
        _judges(now, before),
        _hits(now, before),
        _effort(now, before),
        _endpoints(now),
        _unscorable(now),
        _requests(now, before),
    )


def _gain(now: Snapshot, before: Snapshot | None, name: str, **labels: str) -> float:
    """What a counter gained; a counter below what it was has started anew."""
    value = now.sum(name, **labels)
    earlier = before.sum(name, **labels) if before else 0.0
    return value - earlier if value >= earlier else value


def _rate(now: Snapshot, before: Snapshot | None, name: str, **labels: str) -> str:
    if before is None or now.at_s <= before.at_s:
        return "-"
    return f"{_gain(now, before, name, **labels) / (now.at_s - before.at_s):.1f}"


def _judges(now: Snapshot, before: Snapshot | None) -> Table:
    waiting, limit = now.get(SERVICE + "pairs_waiting"), now.get(SERVICE + "pairs_limit")
    title = f"judges ({waiting or 0:.0f} of at most {limit or 0:.0f} pairs being judged)"
    table = Table(title=title, title_justify="left")
    for column in ("judge", "state", "pairs", "pairs/s", "in flight", "unscorable"):
        table.add_column(column, justify="left" if column in ("judge", "state") else "right")
    for labels, ready in sorted(now.series(JUDGE + "judge_ready").items()):
        judge = dict(labels)["judge"]
        table.add_row(
            judge,
            "ready" if ready else "not ready",
            f"{now.sum(JUDGE + 'pairs_total', judge=judge):.0f}",
            _rate(now, before, JUDGE + "pairs_total", judge=judge),
            f"{now.sum(JUDGE + 'pairs_in_flight', judge=judge):.0f}",
            f"{now.sum(JUDGE + 'unscorable_total', judge=judge):.0f}",
        )
    return table


def _effort(now: Snapshot, before: Snapshot | None) -> Table:
    table = Table(title="effort", title_justify="left")
    for column in ("judge", "queue s", "judge s", "tokens", "restarts", "store"):
        table.add_column(column, justify="left" if column in ("judge", "store") else "right")
    for labels in sorted(now.series(JUDGE + "judge_ready")):
        judge = dict(labels)["judge"]
        attempts = _gain(now, before, JUDGE + "attempts_total", judge=judge)
        tokens = sum(
            _gain(now, before, f"{JUDGE}{kind}_tokens_total", judge=judge) for kind in ("prompt", "completion")
        )
        table.add_row(
            judge,
            _mean(_gain(now, before, JUDGE + "queue_seconds_total", judge=judge), attempts),
            _mean(_gain(now, before, JUDGE + "judge_seconds_total", judge=judge), attempts),
            _mean(tokens, _gain(now, before, JUDGE + "live_total", judge=judge)),
            f"{now.sum(JUDGE + 'replica_restarts_total', judge=judge):.0f}",
            "degraded" if now.get(JUDGE + "store_degraded", judge=judge) else "",
        )
    return table


def _hits(now: Snapshot, before: Snapshot | None) -> Table:
    table = Table("judge", title="answered by", title_justify="left")
    for level in HIT_LEVELS:
        table.add_column(level, justify="right")
    for labels in sorted(now.series(JUDGE + "pairs_total")):
        judge = dict(labels)["judge"]
        pairs = _gain(now, before, JUDGE + "pairs_total", judge=judge)
        gains = (_gain(now, before, f"{JUDGE}{key}_total", judge=judge) for key in HIT_LEVELS.values())
        table.add_row(judge, *(_share(gain, pairs) for gain in gains))
    return table


def _endpoints(now: Snapshot) -> Table:
    table = Table("judge", "server", "state", title="servers", title_justify="left")
    table.add_column("in flight", justify="right")
    table.add_column("failed", justify="right")
    for labels, value in sorted(now.series(JUDGE + "endpoint_state").items()):
        found = dict(labels)
        if value != 1:
            continue
        where = {"judge": found["judge"], "endpoint": found["endpoint"]}
        counts = (now.get(JUDGE + name, **where) or 0.0 for name in ("endpoint_in_flight", "endpoint_failed_total"))
        table.add_row(found["judge"], found["endpoint"], found["state"], *(f"{count:.0f}" for count in counts))
    return table


def _unscorable(now: Snapshot) -> Table:
    table = Table("judge", "reason", title="unscorable", title_justify="left")
    table.add_column("pairs", justify="right")
    for labels, value in sorted(now.series(JUDGE + "unscorable_total").items()):
        if value:
            table.add_row(dict(labels)["judge"], dict(labels)["reason"], f"{value:.0f}")
    return table


def _requests(now: Snapshot, before: Snapshot | None) -> Table:
    table = Table("route", "status", title="requests", title_justify="left")
    for column in ("requests", "requests/s", "mean ms"):
        table.add_column(column, justify="right")
    name = SERVICE + "request_seconds"
    for labels, count in sorted(now.series(name + "_count").items()):
        found = dict(labels)
        seconds, gained = (_gain(now, before, name + part, **found) for part in ("_sum", "_count"))
        rate = _rate(now, before, name + "_count", **found)
        table.add_row(found["route"], found["status"], f"{count:.0f}", rate, _mean(1000 * seconds, gained))
    return table


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _mean(total: float, count: float) -> str:
    return f"{total / count:.3g}" if count else "-"
