"""Redis store: verdicts on a Redis server, 6.2 or newer, shared by many machines."""

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from typing import Any, cast

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from speciarl.utils.credentials import public_url
from speciarl.verifier_server.store.interface import Entries, StoreError
from speciarl.verifier_server.store.key import JudgeIdentity, verified_judges
from speciarl.verifier_server.store.record import EntryReader, Record, encode

LAYOUT = 1
"""Version in every key's name: entries of another layout are never read."""
REWRITES = 3
"""Attempts to replace a damaged entry that other processes replace too."""

_DELETE_IF = """
if redis.call('TYPE', KEYS[1]).ok ~= 'string' or redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""
"""Lua script, as Redis runs one atomically: deletes a key that still holds the given value, or holds no string."""


class RedisStore:
    """Redis implementation of `VerdictStore`: a single server or a primary with replicas, not Redis Cluster.

    Services that share it may judge a new pair at the same time; all use the verdict that was written first.
    """

    def __init__(
        self,
        url: str,
        prefix: str = "speciarl",
        password: str | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """Opens no connection. `timeout_s` bounds each connection attempt and each reply."""
        self.where = public_url(url)
        self._client = aioredis.Redis.from_url(
            url,
            password=password,  # one in the URL takes precedence
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # One retry at once: after a restart of the server the pooled connections are dead.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        base = f"{prefix}:{LAYOUT}".encode()
        self._entry = base + b":verdict:"
        self._judges_key, self._opened_key = base + b":judges", base + b":opened"
        self._reader = EntryReader(self.where)

    @property
    def corrupt(self) -> int:
        """See `VerdictStore.corrupt`."""
        return self._reader.corrupt

    async def open(self) -> None:
        """See `VerdictStore.open`."""
        try:
            with self._as_store_error():
                await self._client.set(self._opened_key, LAYOUT)  # checks that we may write
        except BaseException:
            await self._client.aclose()
            raise

    async def get(self, keys: Sequence[bytes]) -> list[Record | None]:
        """See `VerdictStore.get`. One MGET."""
        if not keys:
            return []
        with self._as_store_error():
            contents = await self._client.mget([self._entry + key for key in keys])
        return [self._reader.read(key, content) for key, content in zip(keys, contents, strict=True)]

    async def put(self, judge: JudgeIdentity, records: Sequence[Record]) -> list[Record]:
        """See `VerdictStore.put`. One pipeline unless entries are damaged."""
        keys = [record.key for record in records]
        contents = [encode(record) for record in records]
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hset(self._judges_key, judge.fingerprint, judge.to_json())
        for key, content in zip(keys, contents, strict=True):
            # SET NX: the first writer wins. Not with GET in the same command, which needs Redis 7.
            pipeline.set(self._entry + key, content, nx=True)
            pipeline.get(self._entry + key)
        replies = (await self._execute(pipeline))[2::2]
        stored = []
        for record, key, content, reply in zip(records, keys, contents, replies, strict=True):
            found = record if reply == content else self._reader.read(key, reply)
            stored.append(found or await self._replace_damaged(record, content, reply))
        return stored

    async def judges(self) -> Mapping[bytes, JudgeIdentity]:
        """See `VerdictStore.judges`. A damaged one is left out; the judge's next verdict writes it anew."""
        with self._as_store_error():
            rows = await cast(Awaitable[dict[bytes, bytes]], self._client.hgetall(self._judges_key.decode()))
        return verified_judges(rows.items())

    async def scan(self, chunk: int = 1000) -> AsyncIterator[Entries]:
        """See `VerdictStore.scan`."""
        # MATCH takes a glob pattern, in which the prefix is to be literal.
        pattern = re.sub(rb"([\[\]*?\\^])", rb"\\\1", self._entry) + b"*"
        cursor = None
        while cursor != 0:
            with self._as_store_error():
                cursor, names = await self._client.scan(cursor or 0, match=pattern, count=chunk)
            keys = [cast(bytes, name)[len(self._entry) :] for name in names]
            if keys:
                yield list(zip(keys, await self.get(keys), strict=True))

    async def delete(self, keys: Sequence[bytes]) -> None:
        """See `VerdictStore.delete`."""
        if keys:
            with self._as_store_error():
                await self._client.unlink(*(self._entry + key for key in keys))

    async def aclose(self) -> None:
        """See `VerdictStore.aclose`."""
        await self._client.aclose()

    async def _replace_damaged(self, record: Record, content: bytes, damaged: object) -> Record:
        """Replace a damaged entry; returns the record stored afterwards, ours or that of another process."""
        name = self._entry + record.key
        for _ in range(REWRITES):
            pipeline = self._client.pipeline(transaction=False)
            pipeline.eval(_DELETE_IF, 1, name, damaged if isinstance(damaged, bytes) else b"")
            pipeline.set(name, content, nx=True)
            pipeline.get(name)
            damaged = (await self._execute(pipeline))[2]
            found = record if damaged == content else self._reader.read(record.key, damaged)
            if found is not None:
                return found
        raise StoreError(f"verdict store {self.where}: entry {record.key.hex()} is damaged again and again")

    async def _execute(self, pipeline: Any) -> list[Any]:
        """Replies of a pipeline; raises StoreError for any error among them but WRONGTYPE, that of a foreign entry."""
        with self._as_store_error():
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, RedisError) and not _is_wrong_type(reply):
                    raise reply
        return replies

    @contextlib.contextmanager
    def _as_store_error(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(f"verdict store {self.where} cannot be used: {cause}; check the server") from error


def _is_wrong_type(error: RedisError) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")
