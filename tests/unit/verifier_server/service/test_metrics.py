"""What Prometheus gets, and what `speciarl verifier top` makes of it."""

import io
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from speciarl.verifier_server.client.router import EndpointStats, State
from speciarl.verifier_server.console import Snapshot, view
from speciarl.verifier_server.service.judges import Judge
from speciarl.verifier_server.service.metrics import DESCRIBED, Metrics, judge_families, replica_restarts
from speciarl.verifier_server.stats import Stats

Make = Callable[..., Any]


def fake_judge_of(stats: dict[str, float], *endpoints: EndpointStats, histograms: Any = None) -> Judge:
    """A judge that counted what the test says."""
    verifier: Any = SimpleNamespace(
        stats=lambda: stats, endpoint_stats=lambda: endpoints, histograms=lambda: histograms or Stats().histograms()
    )
    return Judge("main", SimpleNamespace(), verifier, "ready")  # type: ignore[arg-type]


def endpoint() -> EndpointStats:
    return EndpointStats("http://user:secret@host:1/v1", State.TRIAL, 2, 9, 1, "boom")


def page(*judges: Judge) -> str:
    metrics = Metrics()
    metrics.add(lambda: judge_families(judges))
    return metrics.page().decode()


def shown(now: str, before: str | None = None, seconds: float = 2.0) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(view(Snapshot.parse(now, seconds), None if before is None else Snapshot.parse(before, 0.0)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_statistic_of_a_verifier_is_described() -> None:
    for key in Stats().as_dict():
        assert key in DESCRIBED or key.startswith("unscorable"), key


def test_counters_gauges_and_ratios() -> None:
    stats = Stats().as_dict() | {"requests": 8.0, "memory_hits": 2.0, "deduplicated": 1.0, "unscorable/timeout": 3.0}
    text = page(fake_judge_of(stats | {"in_flight": 4.0}, endpoint()))
    for line in (
        'speciarl_verifier_pairs_total{judge="main"} 8.0',
        'speciarl_verifier_unscorable_total{judge="main",reason="timeout"} 3.0',
        'speciarl_verifier_hit_ratio{judge="main",level="memory"} 0.25',
        'speciarl_verifier_hit_ratio{judge="main",level="deduplicated"} 0.125',
        'speciarl_verifier_pairs_in_flight{judge="main"} 4.0',
        'speciarl_verifier_judge_ready{judge="main"} 1.0',
        'speciarl_verifier_endpoint_in_flight{endpoint="http://host:1/v1",judge="main"} 2.0',
        'speciarl_verifier_endpoint_failed_total{endpoint="http://host:1/v1",judge="main"} 1.0',
        'speciarl_verifier_endpoint_state{endpoint="http://host:1/v1",judge="main",state="trial"} 1.0',
        "# TYPE speciarl_verifier_queue_seconds_total counter",
    ):
        assert line in text.splitlines(), line
    assert "secret" not in text


def test_a_judge_without_pairs_has_no_ratio() -> None:
    assert "hit_ratio{" not in page(fake_judge_of(Stats().as_dict()))


def test_times_of_queue_and_judge_are_histograms() -> None:
    stats = Stats()
    for seconds in (0.02, 0.2, 400.0):
        stats.observe_queue(seconds)
    lines = page(fake_judge_of(stats.as_dict(), histograms=stats.histograms())).splitlines()
    for bound, count in (("0.025", 1), ("0.25", 2), ("300.0", 2), ("+Inf", 3)):
        assert f'speciarl_verifier_queue_time_seconds_bucket{{judge="main",le="{bound}"}} {count}.0' in lines
    assert 'speciarl_verifier_queue_time_seconds_sum{judge="main"} 400.22' in lines
    assert 'speciarl_verifier_judge_time_seconds_count{judge="main"} 0.0' in lines


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


@given(
    st.dictionaries(
        st.one_of(st.sampled_from(sorted(DESCRIBED)), names), st.floats(allow_nan=False, min_value=0), max_size=8
    )
)
def test_whatever_a_verifier_counts_makes_a_page_that_can_be_read(stats: dict[str, float]) -> None:
    text = page(fake_judge_of(stats))
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"speciarl_(verifier|service)_[a-z_]+", name) for name in names)
    now = Snapshot.parse(text, 0.0)
    for key, value in stats.items():
        if key in DESCRIBED:
            total = "_total" if DESCRIBED[key].is_counter else ""
            assert now.get(f"speciarl_verifier_{DESCRIBED[key].name}{total}", judge="main") == value


@pytest.mark.anyio
async def test_the_page_of_a_service(make_settings: Make, running: Make, fake_judge: Make, tmp_path: Any) -> None:
    log = {"directory": str(tmp_path / "log"), "flush_s": 60}
    async with fake_judge().running() as judge, running(make_settings(judge.url, verdict_log=log)) as client:
        pairs = [{"ground_truth": "dog", "prediction": name} for name in ("cat", "cat", "dog")]
        for name in ("main", "gold"):
            await client.post("/v1/judge", json={"judge": name, "run": "night", "pairs": pairs})
        await client.get(f"/nope/{'x' * 200}")
        reply = await client.get("/metrics")
        assert reply.headers["Content-Type"].startswith("text/plain; version=")
        now = Snapshot.parse(reply.text, 1.0)
        assert now.get("speciarl_verifier_pairs_total", judge="main") == 3
        assert now.get("speciarl_verifier_deduplicated_total", judge="main") == 1
        assert now.get("speciarl_verifier_endpoint_state", judge="main", endpoint=judge.url, state="healthy") == 1
        assert now.get("speciarl_service_request_seconds_count", route="/v1/judge", status="200") == 2
        assert now.get("speciarl_service_request_seconds_count", route="other", status="404") == 1
        assert now.get("speciarl_service_request_pairs_sum", route="/v1/judge") == 6
        assert now.get("speciarl_service_log_rows_waiting") == 6
        assert "xxx" not in reply.text


def test_top_shows_what_is_not_zero_and_by_how_much_it_grew() -> None:
    stats = Stats().as_dict()
    before = page(fake_judge_of(stats | {"requests": 10.0, "live": 10.0}, endpoint()))
    later = {"requests": 30.0, "live": 15.0, "memory_hits": 15.0, "unscorable/off_label": 2.0}
    now = page(fake_judge_of(stats | later, endpoint()))
    told = shown(now, before)
    assert re.search(r"verifier_pairs +│ main +│ +30 │ +10\.0 ", told)
    assert re.search(r"verifier_hit_ratio +│ main, memory +│ +0\.5 │ +│", told)
    assert re.search(r"verifier_endpoint_state +│ http://host:1/v1, main, trial +│ +1 │ +│", told)
    assert re.search(r"verifier_unscorable +│ main, off_label +│ +2 │ +1\.0 ", told)
    assert "store_hits" not in told
    assert "verifier_judge_ready" in told
    assert re.search(r"verifier_pairs +│ main +│ +30 │ +│", shown(now))


def test_top_shows_the_mean_of_the_time_between_two_looks() -> None:
    stats = Stats()
    stats.observe_attempt(100.0)
    before = page(fake_judge_of(stats.as_dict(), histograms=stats.histograms()))
    for seconds in (1.0, 2.0):
        stats.observe_attempt(seconds)
    now = page(fake_judge_of(stats.as_dict(), histograms=stats.histograms()))
    assert re.search(r"verifier_judge_time_seconds +│ main +│ +1\.5 \(mean\) │ +1\.0 ", shown(now, before))
    assert re.search(r"verifier_judge_time_seconds +│ main +│ +- │ +0\.0 ", shown(now, now))


def test_top_survives_a_restart_of_the_service() -> None:
    stats = Stats().as_dict()
    told = shown(page(fake_judge_of(stats | {"requests": 4.0})), page(fake_judge_of(stats | {"requests": 100.0})))
    assert re.search(r"verifier_pairs +│ main +│ +4 │ +2\.0 ", told)


def test_top_refuses_what_is_no_page_of_metrics() -> None:
    with pytest.raises(ValueError, match=r".+"):
        Snapshot.parse("<html>nope</html>", 0.0)


def test_restarts_of_managed_replicas() -> None:
    metrics = Metrics()
    metrics.add(lambda: [replica_restarts({"main": [0, 2]})])
    text = metrics.page().decode()
    assert 'speciarl_verifier_replica_restarts_total{judge="main",replica="0"} 0.0' in text
    assert 'speciarl_verifier_replica_restarts_total{judge="main",replica="1"} 2.0' in text
