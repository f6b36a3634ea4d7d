"""Service process: one uvicorn worker on one socket."""

import asyncio
import json
import logging
import math
import socket
import sys
from datetime import UTC, datetime
from typing import Literal

import uvicorn
from fastapi import FastAPI

from speciarl.errors import ConfigError, SpeciaRLError
from speciarl.verifier_server.service.app import create_app
from speciarl.verifier_server.service.config import ServiceConfig

LogFormat = Literal["text", "json"]


class JsonFormatter(logging.Formatter):
    """Formatter of one JSON object per line: time, level, logger, message, and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line of JSON."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= getattr(record, "fields", {})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Formatter of time, level, message, and the fields as KEY=VALUE; one line but for the stack of an exception."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record as a line, escaped: texts of clients and servers may hold line ends, to forge a line with."""
        fields = getattr(record, "fields", {})
        extra = "".join(f" {key}={value}" for key, value in fields.items() if key not in ("method", "route", "status"))
        return "".join(map(_escaped, super().formatMessage(record) + extra))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def set_up_logging(log_format: LogFormat, level: str) -> None:
    """Send every log of the process to standard error in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.getLogger("uvicorn.access").disabled = True  # `AccessLog` replaces it; this one would log query strings


KEEP_ALIVE_S = 30
BACKLOG = 2048
_POLL_S = 0.02

_log = logging.getLogger(__name__)


def serve(settings: ServiceConfig) -> None:
    """Serve until the process is told to stop, then shut down gracefully: requests under way end first.

    Raises a SpeciaRLError in one line when the socket, the verdict log or a judge cannot start; everything
    else is stopped by then.
    """
    failures: list[SpeciaRLError] = []
    stopping: list[asyncio.Task[None]] = []

    def refuse(error: SpeciaRLError) -> None:
        failures.append(error)
        stopping.append(asyncio.ensure_future(_stop_once_started(server)))

    server, listener = uvicorn_server(create_app(settings, on_failure=refuse), settings)
    with listener:
        host, port = listener.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _log.info("listening on %s", address, extra={"fields": {"url": address, "judges": list(settings.judges)}})
        server.run(sockets=[listener])
    if failures:
        raise failures[0]


def uvicorn_server(app: FastAPI, settings: ServiceConfig) -> tuple[uvicorn.Server, socket.socket]:
    """The server for an application and the socket that it is to listen on; raises ConfigError."""
    listener = listen(settings.host, settings.port)
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
    return uvicorn.Server(config), listener


def listen(host: str, port: int) -> socket.socket:
    """Socket bound to the address; raises ConfigError when that fails."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a restart waits for old connections
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); give another `port` or `host`"
        ) from error
    return listener


async def _stop_once_started(server: uvicorn.Server) -> None:
    # Told to stop before it has started, uvicorn would leave without ending the lifespan.
    while not server.started:
        await asyncio.sleep(_POLL_S)
    server.should_exit = True
