"""Verifier protocol, and the base class of verifiers that ask servers over HTTP."""

import abc
import asyncio
import random
from typing import Protocol

import aiohttp

from speciarl.answer import normalise
from speciarl.verdict import Judgement, Pair, Verdict
from speciarl.verifier_server.client.dispatcher import Dispatcher
from speciarl.verifier_server.client.health import HealthWatch
from speciarl.verifier_server.client.router import Endpoint, EndpointStats, Router
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.stats import Snapshot, Stats
from speciarl.verifier_server.store.memory_cache import VerdictCache


def normalised(pair: Pair) -> Pair:
    """The pair in the normal form in which it is compared, kept and judged."""
    return Pair(normalise(pair.ground_truth), normalise(pair.prediction))


class Verifier(Protocol):
    """Protocol of all verifiers, which judge pairs. Bound to the event loop in which it was started."""

    async def start(self) -> None:
        """Open connections and check that the judge works; raises VerifierStartError when it does not."""

    @property
    def gives_probabilities(self) -> bool:
        """Whether every verdict of a judge has probabilities, or is certain because no model is asked; known after
        `start`."""

    async def verify(self, pair: Pair) -> Judgement:
        """Judge one pair, in bounded time. A failure of the judge gives Unscorable and never raises."""

    def recall(self, pair: Pair, times: int = 1) -> Judgement | None:
        """The judgement of a pair for which no judge has to be asked, counted as `times` requests; None, with nothing
        counted, for one that has to be judged."""

    def stats(self) -> dict[str, float]:
        """Counters and seconds since the start; the same keys at all times."""

    async def aclose(self) -> None:
        """Release everything; pairs still waiting become Unscorable(cancelled). Safe to call twice."""


class HttpVerifier(abc.ABC):
    """Base class: counters, memory and single-flight, and the dispatcher to some endpoints."""

    def __init__(self, config: VerifierConfig, chance: random.Random | None = None) -> None:
        """Opens nothing."""
        self.config = config
        self._chance = chance or random.Random()
        self._stats = Stats()
        self._cache = VerdictCache(config.cache_size, self._stats)
        self.endpoints: tuple[Endpoint, ...] = ()
        """The servers, from `start` on."""
        self._session: aiohttp.ClientSession | None = None
        self._dispatcher: Dispatcher | None = None
        self._health: HealthWatch | None = None

    async def verify(self, pair: Pair) -> Judgement:
        """See `Verifier.verify`."""
        known = self.recall(pair)
        if known is not None:
            return known
        self._stats.requests += 1
        judgement = await self._verify(pair)
        self._stats.count(judgement)
        return judgement

    def recall(self, pair: Pair, times: int = 1) -> Judgement | None:
        """See `Verifier.recall`."""
        normal = normalised(pair)
        judgement = self._judge_by_text(pair, normal)
        if judgement is None:
            judgement = self._cache.recall(self._cache_key(pair, normal), times)
        elif isinstance(judgement, Verdict):
            self._stats.count_source(judgement.source, times)
        if judgement is not None:
            self._stats.requests += times
            self._stats.count(judgement, times)
        return judgement

    def stats(self) -> dict[str, float]:
        """See `Verifier.stats`. What was asked during `start` is not counted."""
        waiting = self._dispatcher.waiting if self._dispatcher is not None else 0
        return self._stats.as_dict() | {"in_flight": float(self._cache.in_flight), "waiting": float(waiting)}

    def histograms(self) -> dict[str, Snapshot]:
        """Distributions of queue and judge seconds by name: bounds, cumulative counts, sum."""
        return self._stats.histograms()

    def endpoint_stats(self) -> list[EndpointStats]:
        """State and counters of each endpoint; none before `start`."""
        now = asyncio.get_running_loop().time()
        return [endpoint.stats(now) for endpoint in self.endpoints]

    @abc.abstractmethod
    async def _verify(self, pair: Pair) -> Judgement:
        """The judgement of a pair that `recall` does not know, with verdicts counted by their source."""

    def _cache_key(self, pair: Pair, normal: Pair) -> Pair:
        """The key of a pair, given as it came and normalised, in memory and in flight."""
        return normal

    @abc.abstractmethod
    def _judge_by_text(self, pair: Pair, normal: Pair) -> Judgement | None:
        """The judgement of a pair, given as it came and normalised, by its text alone; None for one that needs a
        judge."""

    def _connect(self, endpoints: list[Endpoint], config: VerifierConfig) -> Dispatcher:
        """Start the health watch of the endpoints; returns the dispatcher to them."""
        router = Router(endpoints, config.health_interval_s, self._stats)
        self.endpoints = router.endpoints
        self._health = HealthWatch(router)
        self._health.start()
        self._dispatcher = Dispatcher(config, router, self._stats, self._chance)
        return self._dispatcher
