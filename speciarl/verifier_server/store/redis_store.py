"""Redis store: a server, 6.2 or newer, used by many machines at once."""

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from typing import Any, cast

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from speciarl.utils.credentials import public_url
from speciarl.verifier_server.store.interface import Claim, Entries, StoreError
from speciarl.verifier_server.store.key import JudgeIdentity, verified_judges
from speciarl.verifier_server.store.record import EntryReader, Record, encode

LAYOUT = 1
"""Part of every key's name: entries of another layout are never met."""
PROLONGED_TIMES = 10
"""Lease times after which a claim is no longer prolonged, whatever became of the one who made it."""
REWRITES = 3
"""Attempts to replace a damaged entry while others do the same."""

_DELETE_IF = """
if redis.call('TYPE', KEYS[1]).ok ~= 'string' or redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""
"""Deletes a key that holds the given value, or no plain value at all."""

_EXTEND_IF = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""

_log = logging.getLogger(__name__)


class RedisStore:
    """See `VerdictStore`. A single server or a primary with replicas, not Redis Cluster.

    A claim is a key of its own that expires `lease_s` after its holder was last alive; living holders prolong
    theirs.
    """

    def __init__(
        self,
        url: str,
        prefix: str = "speciarl",
        password: str | None = None,
        timeout_s: float = 5.0,
        lease_s: float = 60.0,
    ) -> None:
        """Opens nothing. `timeout_s` bounds each connection attempt and each reply."""
        self.where = public_url(url)
        self._lease_ms = max(int(lease_s * 1000), 1)
        self._client = aioredis.Redis.from_url(
            url,
            password=password,  # one in the URL would win over it
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # One more try at once: after a restart of the server the pooled connections are dead.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        base = f"{prefix}:{LAYOUT}".encode()
        self._entry, self._lease = base + b":verdict:", base + b":lease:"
        self._judges_key, self._opened_key = base + b":judges", base + b":opened"
        self._token = uuid.uuid4().bytes
        self._held: dict[bytes, float] = {}
        self._reader = EntryReader(self.where)
        self._renewal: asyncio.Task[None] | None = None

    @property
    def corrupt(self) -> int:
        """See `VerdictStore.corrupt`."""
        return self._reader.corrupt

    async def open(self) -> None:
        """See `VerdictStore.open`."""
        try:
            with self._failures():
                await self._client.set(self._opened_key, LAYOUT)  # proves that we may write
        except BaseException:
            await self._client.aclose()
            raise
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renew())

    async def get(self, keys: Sequence[bytes]) -> list[Record | None]:
        """See `VerdictStore.get`. One MGET."""
        if not keys:
            return []
        with self._failures():
            contents = await self._client.mget([self._entry + key for key in keys])
        return [self._reader.read(key, content) for key, content in zip(keys, contents, strict=True)]

    async def claim(self, keys: Sequence[bytes]) -> list[Record | Claim]:
        """See `VerdictStore.claim`. One round trip for what is there, two for the rest."""
        found: list[Record | Claim | None] = list(await self.get(keys))
        missing = [index for index, record in enumerate(found) if record is None]
        pipeline = self._client.pipeline(transaction=False)
        for index in missing:
            # In this order: a holder writes its verdict before it gives the lease up, so a lease granted with
            # no verdict to be seen afterwards means that there is none. Whose the lease is says its value and
            # not the reply to SET: that may have been sent twice.
            pipeline.set(self._lease + keys[index], self._token, nx=True, px=self._lease_ms)
            pipeline.get(self._lease + keys[index])
            pipeline.get(self._entry + keys[index])
        replies = await self._execute(pipeline)
        settled = []
        prolong_until = time.monotonic() + PROLONGED_TIMES * self._lease_ms / 1000
        for index, holder, content in zip(missing, replies[1::3], replies[2::3], strict=True):
            key = keys[index]
            record = self._reader.read(key, content)
            if holder == self._token:
                self._held[key] = prolong_until
                if record is not None:
                    settled.append(key)
            found[index] = record or (Claim.GRANTED if holder == self._token else Claim.HELD)
        await self.release(settled)
        return [entry for entry in found if entry is not None]

    async def put(self, judge: JudgeIdentity, records: Sequence[Record]) -> list[Record]:
        """See `VerdictStore.put`. Two round trips unless entries are damaged."""
        keys = [record.key for record in records]
        try:
            kept = await self._put(judge, records, keys)
        except BaseException:
            for key in keys:  # no longer prolonged: others wait for one lease time at most
                self._held.pop(key, None)
            raise
        await self.release(keys)
        return kept

    async def release(self, keys: Sequence[bytes]) -> None:
        """See `VerdictStore.release`."""
        held = [key for key in keys if self._held.pop(key, None) is not None]
        await self._delete_if([(self._lease + key, self._token) for key in held])

    async def judges(self) -> Mapping[bytes, JudgeIdentity]:
        """See `VerdictStore.judges`. Damaged ones are left out; the judge's next verdict writes it anew."""
        with self._failures():
            rows = await cast(Awaitable[dict[bytes, bytes]], self._client.hgetall(self._judges_key.decode()))
        return verified_judges(rows.items())

    async def scan(self, chunk: int = 1000) -> AsyncIterator[Entries]:
        """See `VerdictStore.scan`."""
        pattern = re.sub(rb"([\[\]*?\\^])", rb"\\\1", self._entry) + b"*"
        cursor = None
        while cursor != 0:
            with self._failures():
                cursor, names = await self._client.scan(cursor or 0, match=pattern, count=chunk)
            keys = [cast(bytes, name)[len(self._entry) :] for name in names]
            if keys:
                yield list(zip(keys, await self.get(keys), strict=True))

    async def delete(self, keys: Sequence[bytes]) -> None:
        """See `VerdictStore.delete`."""
        if keys:
            with self._failures():
                await self._client.unlink(*(self._entry + key for key in keys))

    async def aclose(self) -> None:
        """See `VerdictStore.aclose`."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
            await asyncio.wait({renewal})
        with contextlib.suppress(StoreError):  # a server that is gone forgets our leases by itself
            await self.release(list(self._held))
        await self._client.aclose()

    async def _put(self, judge: JudgeIdentity, records: Sequence[Record], keys: Sequence[bytes]) -> list[Record]:
        contents = [encode(record) for record in records]
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hset(self._judges_key, judge.fingerprint, judge.to_json())
        for key, content in zip(keys, contents, strict=True):
            # Not SET with NX and GET at once: that needs Redis 7.
            pipeline.set(self._entry + key, content, nx=True)
            pipeline.get(self._entry + key)
        replies = (await self._execute(pipeline))[2::2]
        kept = []
        for record, key, content, reply in zip(records, keys, contents, replies, strict=True):
            there = record if reply == content else self._reader.read(key, reply)
            kept.append(there or await self._rewrite(record, content, reply))
        return kept

    async def _rewrite(self, record: Record, content: bytes, damaged: object) -> Record:
        """Replace a damaged entry; the record that is there afterwards."""
        name = self._entry + record.key
        for _ in range(REWRITES):
            await self._delete_if([(name, damaged if isinstance(damaged, bytes) else b"")])
            pipeline = self._client.pipeline(transaction=False)
            pipeline.set(name, content, nx=True)
            pipeline.get(name)
            damaged = (await self._execute(pipeline))[1]
            there = record if damaged == content else self._reader.read(record.key, damaged)
            if there is not None:
                return there
        raise StoreError(f"verdict store {self.where}: entry {record.key.hex()} is damaged again and again")

    async def _delete_if(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for name, content in entries:
            pipeline.eval(_DELETE_IF, 1, name, content)
        await self._execute(pipeline)

    async def _renew(self) -> None:
        """Prolong the leases of this process while it lives."""
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            now = time.monotonic()
            self._held = {key: until for key, until in self._held.items() if until > now}
            pipeline = self._client.pipeline(transaction=False)
            for key in self._held:
                pipeline.eval(_EXTEND_IF, 1, self._lease + key, self._token, self._lease_ms)
            try:
                await self._execute(pipeline)
            except StoreError as error:  # look-ups and writes fail as well, and are counted
                _log.debug("leases were not prolonged: %s", error)

    async def _execute(self, pipeline: Any) -> list[Any]:
        """The replies; a ResponseError among them is returned only where an entry has a foreign type."""
        if not len(pipeline):
            return []
        with self._failures():
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, RedisError) and not _is_wrong_type(reply):
                    raise reply
        return replies

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(f"verdict store {self.where} cannot be used: {cause}; check the server") from error


def _is_wrong_type(error: RedisError) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")
