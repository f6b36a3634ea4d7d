"""A service in process, on the hierarchy of two animals."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from openapi_answers import hold

from speciarl.verifier_server.service.app import create_app
from speciarl.verifier_server.service.config import ServiceConfig, parse_settings

TREE = """{"version": 1, "nodes": [
    {"name": "animal"}, {"name": "dog", "parent": "animal"}, {"name": "samoyed", "parent": "dog"}]}"""


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., ServiceConfig]:
    """Settings with the exact judge `gold`, and `main` at the URL of a fake one if that is given."""

    def make(url: str | None = None, **changes: Any) -> ServiceConfig:
        tree = tmp_path / "tree.json"
        tree.write_text(TREE)
        longest = min(512, changes.get("limits", {}).get("string_chars", 512))
        gold = {"kind": "taxonomy", "taxonomy": str(tree), "max_string_chars": longest}
        judges: dict[str, Any] = {"gold": gold}
        if url is not None:
            judges["main"] = {
                "model": "fake",
                "prompt": "compact",
                "probe": False,
                "endpoints": [url],
                "request_timeout_s": 60,
                "total_deadline_s": 120,
                "retries": 1,
                "backoff_s": 0.01,
            }
            judges["main"] |= changes.pop("main", {})
        return parse_settings({"judges": judges, "store": None} | changes)

    return make


@contextlib.asynccontextmanager
async def run_app(app: FastAPI, **client: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The app with its lifespan and its judges ready, and a client for it that holds answers to its document."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service", **client) as http,
    ):
        http.event_hooks["response"].append(hold(app))
        while any(judge.state == "starting" for judge in app.state.core.judges.all()):
            await asyncio.sleep(0.005)
        yield http


@pytest.fixture
def running() -> Callable[..., Any]:
    """Runs a service with given settings, without a socket: ``async with running(settings) as client``."""

    def run(settings: ServiceConfig, **client: Any) -> Any:
        return run_app(create_app(settings), **client)

    return run


@pytest.fixture
def listening() -> Callable[..., Any]:
    """Runs a service with given settings on a free port: ``async with listening(settings) as url``."""

    @contextlib.asynccontextmanager
    async def run(settings: ServiceConfig) -> AsyncIterator[str]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            config = uvicorn.Config(create_app(settings), lifespan="on", log_config=None, timeout_graceful_shutdown=1)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0.005)
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                await serving

    return run
