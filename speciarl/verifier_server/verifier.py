"""A judge model behind one or several HTTP endpoints."""

import asyncio
import dataclasses
import logging
import random
from pathlib import Path
from typing import Literal

import aiohttp
from cachetools import LRUCache

from speciarl.answer import is_abstention, normalise
from speciarl.category import Category
from speciarl.errors import ConfigError, VerifierStartError
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.client import Client
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.decoding import Decoder
from speciarl.verifier_server.dispatch import Dispatcher
from speciarl.verifier_server.probe import probe
from speciarl.verifier_server.prompt import load_prompt
from speciarl.verifier_server.request import chat_body
from speciarl.verifier_server.routing import Endpoint, Router
from speciarl.verifier_server.stats import Stats
from speciarl.verifier_server.store import (
    Keeper,
    Record,
    ResilientStore,
    StoreError,
    VerdictStore,
    close_store,
    identity_of,
    model_revision,
    open_store,
)

CLOSE_S = 10.0
"""Seconds the store may take to close."""

_log = logging.getLogger(__name__)


class LLMVerifier:
    """Judges pairs with a language model, each distinct pair once.

    Cheapest step first: shortcuts, memory, an equal pair already in flight, the store, the judge. A verdict is
    remembered, a failure is not: the next request for the pair asks again.
    """

    def __init__(self, config: VerifierConfig, chance: random.Random | None = None) -> None:
        """Raises ConfigError when the prompt cannot be loaded or a pool was not started yet. Opens
        nothing."""
        if not config.endpoints:
            raise ConfigError(
                f"judge {config.name!r} has no endpoints; start its pool first and use the pool's `config`"
            )
        self.config = config
        self.prompt = load_prompt(config.prompt)
        self._chance = chance or random.Random()
        self._stats = Stats()
        self._memory: LRUCache[Pair, Verdict] = LRUCache(maxsize=config.cache_size)
        self._flights: dict[Pair, asyncio.Task[Judgement]] = {}
        self.endpoints: tuple[Endpoint, ...] = ()
        """The servers, from `start` on."""
        self._session: aiohttp.ClientSession | None = None
        self._dispatcher: Dispatcher | None = None
        self._decoder: Decoder | None = None
        self._store: VerdictStore | None = None
        self._keeper: Keeper | None = None

    async def start(self) -> None:
        """See `Verifier.start`."""
        api_key = _read_key(self.config)
        limit = self.config.max_concurrency
        self._session = aiohttp.ClientSession(
            # Above our own limit, so that aiohttp's hidden queue is never the one that makes a pair wait.
            connector=aiohttp.TCPConnector(limit=limit + 1),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        clients = [self._client(url, self._session, api_key) for url in self.config.endpoints]
        router = Router([Endpoint(client) for client in clients])
        self.endpoints = router.endpoints
        self._dispatcher = Dispatcher(self.config, router, Stats(), self._chance)
        try:
            self._store = await _open_store(self.config)  # before the probe: a wrong path is told at once
            self._decoder = await probe(self.config, self.prompt, self._dispatcher)
            if self._store is not None and self.config.store is not None:
                self._keeper = await self._make_keeper(self._store, self._decoder, self.config.store.timeout_s)
        except BaseException:
            await self.aclose()
            raise
        self._dispatcher = Dispatcher(self.config, router, self._stats, self._chance)
        _log.info(
            "judge %r is ready: %s on %d endpoint(s)",
            self.config.name,
            self._decoder.mode.value,
            len(clients),
        )

    async def verify(self, pair: Pair) -> Judgement:
        """See `Verifier.verify`."""
        self._stats.requests += 1
        judgement = await self._verify(Pair(normalise(pair.ground_truth), normalise(pair.prediction)))
        self._stats.note(judgement)
        return judgement

    def stats(self) -> dict[str, float]:
        """See `Verifier.stats`; the start-up probe is not counted."""
        return self._stats.as_dict() | {"in_flight": float(len(self._flights))}

    async def aclose(self) -> None:
        """See `Verifier.aclose`."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await keeper.aclose()
        store, self._store = self._store, None
        if store is not None:
            await close_store(store, CLOSE_S)
        session, self._session, self._dispatcher = self._session, None, None
        if session is not None:
            await session.close()

    async def _verify(self, pair: Pair) -> Judgement:
        length, limit = len(pair.ground_truth), self.config.max_string_chars
        if length > limit:
            return Unscorable(Reason.TOO_LONG, f"truth of {length} characters; the limit is {limit} (max_string_chars)")
        category = self._shortcut(pair)
        if category is not None:
            self._stats.shortcuts += 1
            return Verdict(category=category, margin=None, source=Source.SHORTCUT)
        known = self._memory.get(pair)
        if known is not None:
            self._stats.memory_hits += 1
            return dataclasses.replace(known, source=Source.MEMORY)
        return await self._join_flight(pair)

    def _shortcut(self, pair: Pair) -> Category | None:
        if len(pair.prediction) > self.config.max_string_chars:
            return Category.WRONG  # a whole essay is no label; were it unscorable, rambling would go unpunished
        if self.config.exact_shortcut and pair.ground_truth and pair.ground_truth == pair.prediction:
            return Category.SPECIFIC
        if self.config.abstain_shortcut and is_abstention(pair.prediction):
            return Category.ABSTAIN
        return None

    async def _join_flight(self, pair: Pair) -> Judgement:
        """Wait for the one task that judges this pair. A caller that goes away takes nothing from the
        others."""
        if self._dispatcher is None or self._decoder is None:
            return Unscorable(Reason.CANCELLED, "the verifier is not running")
        flight = self._flights.get(pair)
        joined = flight is not None
        if flight is None:
            flight = asyncio.create_task(self._judge(pair, self._dispatcher, self._decoder))
            self._flights[pair] = flight
            flight.add_done_callback(lambda _: self._flights.pop(pair))
        try:
            await asyncio.wait({flight})
        except asyncio.CancelledError:
            self._stats.abandoned += 1
            raise
        if flight.cancelled():
            return Unscorable(Reason.CANCELLED, "the verifier was closed")
        judgement = flight.result()
        if isinstance(judgement, Verdict):
            if joined:
                self._stats.deduplicated += 1
                return dataclasses.replace(judgement, source=Source.MEMORY)
            if judgement.source is Source.STORE:
                self._stats.store_hits += 1
            else:
                self._stats.live += 1
        return judgement

    async def _judge(self, pair: Pair, dispatcher: Dispatcher, decoder: Decoder) -> Judgement:
        async def ask(within_s: float) -> Judgement:
            body = chat_body(self.config, self.prompt, decoder, pair)
            return await dispatcher.ask(body, decoder.read, deadline_s=within_s)

        if self._keeper is None:
            judgement = await ask(self.config.total_deadline_s)
        else:
            judgement = await self._keeper.settle(pair, ask)
        if isinstance(judgement, Verdict) and self.config.cache_size:
            self._memory[pair] = judgement
        return judgement

    async def _make_keeper(self, store: VerdictStore, decoder: Decoder, timeout_s: float) -> Keeper:
        try:
            revision = await asyncio.to_thread(model_revision, self.config)
        except OSError as error:
            raise VerifierStartError(
                f"judge {self.config.name!r}: cannot read the model's file {error.filename} ({error.strerror}), by "
                "which the store tells models apart; check its permissions"
            ) from error
        judge = identity_of(self.config, self.prompt, decoder, revision)
        resilient = ResilientStore(store, judge, timeout_s, self._stats, on_earlier=self._remember)
        return Keeper(resilient, judge, self.config.total_deadline_s, self._stats)

    def _remember(self, record: Record) -> None:
        if self.config.cache_size:
            self._memory[record.pair] = record.verdict

    def _client(self, url: str, session: aiohttp.ClientSession, api_key: str | None) -> Client:
        kind: Literal["vllm", "openai"] = "vllm" if self.config.kind == "vllm" else "openai"
        return Client(url, kind, session, self.config.request_timeout_s, api_key)


async def _open_store(config: VerifierConfig) -> VerdictStore | None:
    if config.store is None:
        return None
    try:
        return await open_store(config.store, config.startup_deadline_s)
    except StoreError as error:
        raise VerifierStartError(f"judge {config.name!r}: {error}") from error


def _read_key(config: VerifierConfig) -> str | None:
    if config.api_key_file is None:
        return None
    try:
        key = Path(config.api_key_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "not text"
        raise VerifierStartError(
            f"judge {config.name!r}: cannot read api_key_file {config.api_key_file} ({cause}); check the path"
        ) from error
    if not key or any(character.isspace() or not character.isascii() for character in key):
        raise VerifierStartError(
            f"judge {config.name!r}: api_key_file {config.api_key_file} must hold one key and nothing else"
        )
    return key
