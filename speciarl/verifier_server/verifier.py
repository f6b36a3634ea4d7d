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
from speciarl.verifier_server.flight import Flight
from speciarl.verifier_server.health import HealthWatch
from speciarl.verifier_server.histogram import Snapshot
from speciarl.verifier_server.probe import probe
from speciarl.verifier_server.prompt import load_prompt
from speciarl.verifier_server.request import chat_body
from speciarl.verifier_server.routing import Endpoint, EndpointStats, Router
from speciarl.verifier_server.stats import Stats

PROBE_RETRIES = 3

_log = logging.getLogger(__name__)


class LLMVerifier:
    """Judges pairs with a language model, each distinct pair once.

    Cheapest step first: shortcuts, memory, an equal pair already in flight, the judge. A verdict is
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
        self._flights: dict[Pair, Flight] = {}
        self.endpoints: tuple[Endpoint, ...] = ()
        """The servers, from `start` on."""
        self._session: aiohttp.ClientSession | None = None
        self._dispatcher: Dispatcher | None = None
        self._decoder: Decoder | None = None
        self._health: HealthWatch | None = None

    async def start(self) -> None:
        """See `Verifier.start`."""
        api_key = _read_key(self.config)
        self._session = aiohttp.ClientSession(
            # No limit but our own, so that aiohttp's hidden queue is never the one that makes a pair wait. vLLM closes
            # idle connections after 5 s; we let go of them first, so that no request meets a closing one.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        clients = [self._client(url, self._session, api_key) for url in self.config.endpoints]
        # The probe meets failures on purpose, to learn what servers can do: they are neither counted nor held against
        # an endpoint, and few tries tell enough.
        trying = self.config.model_copy(update={"retries": min(self.config.retries, PROBE_RETRIES)})
        probed = Router([Endpoint(client) for client in clients], self.config.health_interval_s, Stats())
        try:
            self._decoder = await probe(self.config, self.prompt, Dispatcher(trying, probed, Stats(), self._chance))
        except BaseException:
            await self.aclose()
            raise
        router = Router([Endpoint(client) for client in clients], self.config.health_interval_s, self._stats)
        self.endpoints = router.endpoints
        self._dispatcher = Dispatcher(self.config, router, self._stats, self._chance)
        self._health = HealthWatch(router)
        self._health.start()
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
        waiting = self._dispatcher.waiting if self._dispatcher is not None else 0
        return self._stats.as_dict() | {"in_flight": float(len(self._flights)), "waiting": float(waiting)}

    def histograms(self) -> dict[str, Snapshot]:
        """Distributions of queue and judge seconds by name: bounds, cumulative counts, sum."""
        return self._stats.histograms()

    def endpoint_stats(self) -> list[EndpointStats]:
        """State and counters of each endpoint; none before `start`."""
        now = asyncio.get_running_loop().time()
        return [endpoint.stats(now) for endpoint in self.endpoints]

    async def aclose(self) -> None:
        """See `Verifier.aclose`."""
        session, self._session, self._dispatcher = self._session, None, None  # no new flights from here on
        if self._health is not None:
            await self._health.aclose()
        flights = [flight.task for flight in self._flights.values() if flight.task is not None]
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)
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
        joined = flight is not None and not flight.dropped
        if flight is None or flight.dropped:
            flight = self._launch(pair, self._dispatcher, self._decoder)
        task = flight.task
        assert task is not None
        flight.join()
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            self._stats.abandoned += 1
            raise
        finally:
            flight.leave()
        if task.cancelled():
            return Unscorable(Reason.CANCELLED, "the verifier was closed")
        judgement = task.result()
        if isinstance(judgement, Verdict):
            if joined:
                self._stats.deduplicated += 1
                return dataclasses.replace(judgement, source=Source.MEMORY)
            self._stats.live += 1
        return judgement

    def _launch(self, pair: Pair, dispatcher: Dispatcher, decoder: Decoder) -> Flight:
        flight = Flight()

        def land(_: asyncio.Task[Judgement]) -> None:
            self._stats.dropped += flight.dropped
            if self._flights.get(pair) is flight:  # a dropped one may have a successor
                del self._flights[pair]

        flight.task = asyncio.create_task(self._judge(pair, dispatcher, decoder, flight))
        flight.task.add_done_callback(land)
        self._flights[pair] = flight
        return flight

    async def _judge(self, pair: Pair, dispatcher: Dispatcher, decoder: Decoder, flight: Flight) -> Judgement:
        body = chat_body(self.config, self.prompt, decoder, pair)
        judgement = await dispatcher.ask(body, decoder.read, flight=flight)
        if isinstance(judgement, Verdict) and self.config.cache_size:
            self._memory[pair] = judgement
        return judgement

    def _client(self, url: str, session: aiohttp.ClientSession, api_key: str | None) -> Client:
        kind: Literal["vllm", "openai"] = "vllm" if self.config.kind == "vllm" else "openai"
        return Client(url, kind, session, self.config.request_timeout_s, api_key)


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
