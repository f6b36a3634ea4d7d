"""The service as a process: one uvicorn worker on one socket."""

import asyncio
import logging
import math
import socket

import uvicorn

from speciarl.errors import ConfigError, SpeciaRLError
from speciarl.verifier_server.service.app import create_app
from speciarl.verifier_server.service.settings import ServiceConfig

KEEP_ALIVE_S = 30
BACKLOG = 2048
_POLL_S = 0.02

_log = logging.getLogger(__name__)


def serve(settings: ServiceConfig) -> None:
    """Serve until the process is told to stop, then let requests under way end.

    Raises a SpeciaRLError in one line when the socket, the verdict log or a judge cannot be had; everything
    else is stopped by then.
    """
    failures: list[SpeciaRLError] = []
    stopping: list[asyncio.Task[None]] = []

    def refuse(error: SpeciaRLError) -> None:
        failures.append(error)
        stopping.append(asyncio.ensure_future(_stop(server)))

    app = create_app(settings, on_failure=refuse)
    with listen(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        config = uvicorn.Config(
            app,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(settings.stop_deadline_s),
        )
        server = uvicorn.Server(config)
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _log.info("listening on %s", address, extra={"fields": {"url": address, "judges": list(settings.judges)}})
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; raises ConfigError when it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); give another `port` or `host`"
        ) from error
    return listener


async def _stop(server: uvicorn.Server) -> None:
    # Told before it has started, uvicorn would leave without ending the lifespan.
    while not server.started:
        await asyncio.sleep(_POLL_S)
    server.should_exit = True
