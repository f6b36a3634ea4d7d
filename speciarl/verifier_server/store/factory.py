"""Store factory: builds the store that a configuration describes, opens and closes it in bounded time."""

import logging
from pathlib import Path

from speciarl.utils.deadline import within
from speciarl.verifier_server.config import StoreConfig
from speciarl.verifier_server.store.interface import StoreError, VerdictStore
from speciarl.verifier_server.store.redis_store import RedisStore
from speciarl.verifier_server.store.sqlite_store import FileStore

_log = logging.getLogger(__name__)


def build_store(config: StoreConfig) -> VerdictStore:
    """The store that a configuration describes, not yet open; raises StoreError for a bad URL or password file."""
    if config.kind == "file":
        return FileStore(config.path or "", config.timeout_s)
    password = None if config.password_file is None else _read_password(Path(config.password_file).expanduser())
    try:
        return RedisStore(config.url or "", config.prefix, password, config.timeout_s)
    except ValueError as error:
        raise StoreError(f"verdict store: bad Redis `url`: {error}; write it like redis://host:6379/0") from error


async def open_store(config: StoreConfig, within_s: float) -> VerdictStore:
    """The store that a configuration describes, open; raises StoreError when that fails or takes too long."""
    store = build_store(config)
    try:
        await within(within_s, store.open())
    except TimeoutError:
        raise StoreError(
            f"verdict store {store.where} did not open within {within_s:g} s; check its disk or server"
        ) from None
    return store


async def close_store(store: VerdictStore, within_s: float) -> None:
    """Close a store. A failure or a time-out is only logged, so that a shutdown goes on."""
    try:
        await within(within_s, store.aclose())
    except (StoreError, TimeoutError) as error:
        _log.warning("verdict store %s was not closed: %s", store.where, str(error) or f"no end within {within_s:g} s")


def _read_password(path: Path) -> str:
    try:
        password = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "not text"
        raise StoreError(f"verdict store: cannot read password_file {path} ({cause}); check the path") from error
    if not password:
        raise StoreError(f"verdict store: password_file {path} is empty; it must hold the password and nothing else")
    return password
