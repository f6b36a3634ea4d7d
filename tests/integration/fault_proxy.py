"""A fault injector: an HTTP proxy that forwards to a real judge server and misbehaves on command."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web
from reserved_port import reserve_port

Fault = Callable[["FaultProxy", web.Request], Awaitable[web.StreamResponse]]
"""What becomes of one request instead of a plain reply."""

Plan = Callable[[int], Fault | None]
"""The fault of the n-th chat request since `inject`, counted from 0; None for none."""


class FaultProxy:
    """Stands before one server at an address of its own, which stays the same while it is down.

    Faults hit chat requests; with `everything`, health checks and all else too.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""
        self.chats = 0
        """Chat requests since `inject`."""
        self._plan: Plan = lambda _: None
        self._everything = False
        self._reserved: socket.socket | None = None
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._session: aiohttp.ClientSession | None = None

    def inject(self, plan: Plan | None = None, everything: bool = False) -> None:
        """Follow a plan of faults from now on; None ends all faults."""
        self._plan, self._everything, self.chats = plan or (lambda _: None), everything, 0

    async def start(self) -> None:
        """Begin to listen."""
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._session = aiohttp.ClientSession()
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        self._reserved = reserve_port()  # nobody else gets it while we are down
        self.url = f"http://127.0.0.1:{self._reserved.getsockname()[1]}"
        await self.come_up()

    async def go_down(self) -> None:
        """Refuse connections, and break those that are open."""
        assert self._runner is not None
        assert self._runner.server is not None
        if self._site is not None:
            await self._site.stop()
            self._site = None
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def come_up(self) -> None:
        """Take connections (again)."""
        assert self._runner is not None
        assert self._reserved is not None
        if self._site is None:
            self._site = web.TCPSite(self._runner, *self._reserved.getsockname(), reuse_address=True)
            await self._site.start()

    async def stop(self) -> None:
        """End."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()
        if self._reserved is not None:
            self._reserved.close()

    async def forward(self, request: web.Request, data: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the real server's reply to the request, or to `data` in its place; 502 when there is
        none."""
        assert self._session is not None
        url = self.upstream + request.rel_url.raw_path_qs
        headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        body = await request.read() if data is None else data
        try:
            async with self._session.request(request.method, url, data=body, headers=headers) as reply:
                return reply.status, await reply.read()
        except aiohttp.ClientError:
            return 502, b"the judge server cannot be reached"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        is_chat = "/chat/completions" in request.path  # one chat, or several in one request
        number = self.chats
        self.chats += is_chat
        fault = self._plan(number) if is_chat or self._everything else None
        if fault is not None:
            return await fault(self, request)
        status, body = await self.forward(request)
        return web.Response(status=status, body=body, content_type="application/json")


async def reset(_: FaultProxy, request: web.Request) -> web.StreamResponse:
    """Break the connection."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hang(_: FaultProxy, __: web.Request) -> web.StreamResponse:
    """Say nothing for a minute."""
    await asyncio.sleep(60)
    return web.Response(status=504)


async def server_error(_: FaultProxy, __: web.Request) -> web.StreamResponse:
    """HTTP 500."""
    return web.Response(status=500, text="internal error")


async def too_many(_: FaultProxy, __: web.Request) -> web.StreamResponse:
    """HTTP 429 with a wish to be left alone for a second."""
    return web.Response(status=429, text="slow down", headers={"Retry-After": "1"})


async def garbage(_: FaultProxy, __: web.Request) -> web.StreamResponse:
    """HTTP 200 and bytes that are no text."""
    return web.Response(body=b"\x00\xff<html>" * 50, content_type="application/json")


async def cut_json(proxy: FaultProxy, request: web.Request) -> web.StreamResponse:
    """The first half of the real reply, as if that were all."""
    status, body = await proxy.forward(request)
    return web.Response(status=status, body=body[: len(body) // 2], content_type="application/json")


async def broken_off(proxy: FaultProxy, request: web.Request) -> web.StreamResponse:
    """The first half of the real reply, then the end of the connection."""
    status, body = await proxy.forward(request)
    response = web.StreamResponse(status=status, headers={"Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def foreign_label(proxy: FaultProxy, request: web.Request) -> web.StreamResponse:
    """The real reply with a label that is none: another word, and tokens that begin no label."""
    status, body = await proxy.forward(request)
    reply = json.loads(body)
    for choice in reply["choices"]:
        choice["message"]["content"] = "robin"
        for position in (choice.get("logprobs") or {}).get("content") or []:
            for entry in (position, *position["top_logprobs"]):
                entry["token"] = "token_id:0"
    return web.json_response(reply, status=status)


async def slow(proxy: FaultProxy, request: web.Request) -> web.StreamResponse:
    """The real reply, two seconds late."""
    await asyncio.sleep(2)
    status, body = await proxy.forward(request)
    return web.Response(status=status, body=body, content_type="application/json")


def ignoring(*fields: str) -> Fault:
    """The real reply of a server that does not know these request fields, and says nothing about it, as servers do."""

    async def fault(proxy: FaultProxy, request: web.Request) -> web.StreamResponse:
        asked = {name: value for name, value in (await request.json()).items() if name not in fields}
        status, body = await proxy.forward(request, json.dumps(asked).encode())
        return web.Response(status=status, body=body, content_type="application/json")

    return fault
