"""Serve replica: one vLLM server inside Ray Serve, behind a proxy."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path

import aiohttp
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from speciarl.errors import VerifierStartError
from speciarl.verifier_server.config import PoolConfig, VerifierConfig
from speciarl.verifier_server.pool.model_download import download_command
from speciarl.verifier_server.pool.server_health import Condition
from speciarl.verifier_server.pool.vllm_server import Replica, vllm_command

_HOP_BY_HOP = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers about one connection, not about the message (RFC 9110, 7.6.1), and those that aiohttp sets anew."""


class JudgeReplica:
    """Ray Serve replica that proxies every request to its vLLM server, and is unhealthy when that is gone.

    Replies are passed on unchanged, streams included, so any client of the OpenAI API can use the pool.
    """

    def __init__(self, config: VerifierConfig, pool: PoolConfig, log_dir: str, env: Mapping[str, str]) -> None:
        """Start the server and wait until it answers; raises VerifierStartError in one line."""
        self._replica = Replica(
            partial(vllm_command, config, pool),
            Path(log_dir) / f"{config.name}-{_own_id()}.log",
            env=env,
            stop_deadline_s=pool.stop_deadline_s,
            download=download_command(config, pool),
        )
        self._session: aiohttp.ClientSession | None = None
        self._replica.start()
        self._url = self._replica.wait_ready(pool.startup_deadline_s, pool.download_deadline_s)

    async def check_health(self) -> None:
        """Health check, called by Ray Serve; raises VerifierStartError when the server died or does not answer."""
        condition = await asyncio.to_thread(self._replica.condition)
        if condition is not Condition.HEALTHY:
            cause = self._replica.cause()
            raise VerifierStartError(f"the judge server is {condition}{': ' + cause if cause else ''}")

    async def __call__(self, request: Request) -> Response:
        """Proxy one request; HTTP 503 while the server cannot be reached, so that clients retry later."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3), timeout=aiohttp.ClientTimeout(total=None)
            )
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        url = f"{self._url}/{path.lstrip('/')}" + (f"?{request.url.query}" if request.url.query else "")
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        body = await request.body()
        try:
            reply = await self._session.request(
                request.method, url, headers=headers, data=body, allow_redirects=False, auto_decompress=False
            )
            if reply.headers.get("Content-Type", "").startswith("text/event-stream"):
                return StreamingResponse(_chunks(reply), reply.status, media_type=reply.headers["Content-Type"])
            async with reply:
                content = await reply.read()
        except (aiohttp.ClientError, OSError) as error:
            return JSONResponse({"error": {"message": f"the judge server cannot be reached: {error}"}}, 503)
        kept = {name: value for name, value in reply.headers.items() if name.lower() not in _HOP_BY_HOP}
        return Response(content, reply.status, kept)

    def __del__(self) -> None:
        """Stop the server; called by Ray Serve before the replica ends."""
        self._replica.stop()


async def _chunks(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with reply:
        async for chunk in reply.content.iter_any():
            yield chunk


def _own_id() -> str:
    from ray import serve

    own: str = serve.get_replica_context().replica_id.unique_id
    return own
