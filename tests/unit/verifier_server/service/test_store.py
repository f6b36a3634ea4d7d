"""Verdicts outlive the service, wherever it was told to keep them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speciarl.errors import ConfigError
from speciarl.verifier_server.config import StoreConfig
from speciarl.verifier_server.service.config import STORE_PATH, ServiceConfig, parse_settings
from speciarl.verifier_server.service.config_source import load_settings

Make = Callable[..., Any]
REDIS = "redis://host:6379/0"
SERVED = ["judges.vllm.model=m", "judges.vllm.endpoints=[http://h:1]"]


def settings_of(url: str, **changes: Any) -> ServiceConfig:
    judge = {"model": "fake", "prompt": "compact", "probe": False, "endpoints": [url]}
    return parse_settings({"judges": {"main": judge}} | changes)


async def sources(client: Any) -> list[str]:
    pairs = [{"ground_truth": "robin", "prediction": name} for name in ("warbler", "robin")]
    results = (await client.post("/v1/judge", json={"pairs": pairs})).json()["results"]
    return [result["source"] for result in results]


@pytest.mark.anyio
async def test_the_next_service_finds_the_verdicts_of_the_one_before(
    running: Make, fake_judge: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with fake_judge().running() as judge:
        async with running(settings_of(judge.url)) as client:
            assert await sources(client) == ["live", "shortcut"]
            assert await sources(client) == ["memory", "shortcut"]
        assert (tmp_path / STORE_PATH).is_file()
        async with running(settings_of(judge.url)) as client:
            judge.arm()
            assert await sources(client) == ["store", "shortcut"]
            assert judge.chats == 0
            assert 'speciarl_verifier_store_hits_total{judge="main"} 1.0' in (await client.get("/metrics")).text
        async with running(settings_of(judge.url, store=None)) as client:
            assert await sources(client) == ["live", "shortcut"]


@pytest.mark.parametrize(
    ("place", "overrides", "expected"),
    [
        (None, [], StoreConfig(path=STORE_PATH)),
        ("none", [], None),
        ("here.sqlite", [], StoreConfig(path="here.sqlite")),
        (REDIS, [], StoreConfig(kind="redis", url=REDIS)),
        (REDIS, ["store.prefix=x"], StoreConfig(kind="redis", url=REDIS, prefix="x")),
        ("none", ["judges.vllm.store.path=own"], StoreConfig(path="own")),
        ("here.sqlite", ["judges.vllm.store=null"], None),
        (None, ["store=null"], None),
        (None, ["store.kind=redis", f"store.url={REDIS}"], StoreConfig(kind="redis", url=REDIS)),
    ],
)
def test_where_a_judge_by_recipe_keeps_its_verdicts(
    place: str | None, overrides: list[str], expected: StoreConfig | None
) -> None:
    loaded = load_settings(None, ["vllm", "taxonomy"], [*SERVED, *overrides], place)
    assert loaded.judges["vllm"].store == expected
    assert loaded.judges["taxonomy"].store is None


def test_the_command_line_replaces_the_store_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(f"store: {{kind: redis, url: '{REDIS}'}}\n")
    assert load_settings(file, ["vllm"], SERVED).judges["vllm"].store == StoreConfig(kind="redis", url=REDIS)
    assert load_settings(file, ["vllm"], SERVED, "here").judges["vllm"].store == StoreConfig(path="here")


@pytest.mark.parametrize(
    ("place", "overrides", "message"),
    [
        ("redis", [], "--store redis: say where"),
        ("http://host", [], "store: 'http://host' is no Redis URL"),
        (None, ["store.kind=file"], "store: `path` is missing"),
        (None, ["store.pth=x"], r"store\.pth: there is no such key; known keys: .*path"),
    ],
)
def test_a_wrong_store_is_told_in_one_line(place: str | None, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(None, ["vllm"], [*SERVED, *overrides], place)
    assert "\n" not in str(caught.value)


def test_a_store_alone_is_no_service() -> None:
    with pytest.raises(ConfigError, match="there is no judge: give --config FILE or --verifier NAME"):
        load_settings(None, [], [], "none")
