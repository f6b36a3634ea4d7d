"""LLM verifier: judges by shortcut, memory, verdict store or a judge model behind one or several HTTP endpoints."""

import asyncio
import logging
import random
from dataclasses import replace
from functools import partial
from typing import Literal

import aiohttp

from speciarl.answer import is_abstention, same_name
from speciarl.category import Category
from speciarl.errors import ConfigError, VerifierStartError
from speciarl.utils.credentials import read_key
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.client.chat_batch import ChatBatcher, takes_several
from speciarl.verifier_server.client.dispatcher import Dispatcher
from speciarl.verifier_server.client.http import Client
from speciarl.verifier_server.client.pair_batch import PairBatcher
from speciarl.verifier_server.client.router import Endpoint, Router
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge.decoding import Decoder
from speciarl.verifier_server.judge.json_list import ManyDecoder, refuse_misfit
from speciarl.verifier_server.judge.probe import probe
from speciarl.verifier_server.judge.prompt import SAMPLE_PAIR, load_prompt
from speciarl.verifier_server.judge.request import AnyDecoder, ask, chat_body
from speciarl.verifier_server.judge.shortcuts import judge_by_length
from speciarl.verifier_server.stats import Stats
from speciarl.verifier_server.store import (
    ReadThroughStore,
    Record,
    ResilientStore,
    StoreError,
    VerdictStore,
    close_store,
    identity_of,
    model_revision,
    open_store,
)
from speciarl.verifier_server.verifier import HttpVerifier, normalised

PROBE_RETRIES = 3
STORE_CLOSE_S = 10.0
"""Seconds the store may take to close."""

_log = logging.getLogger(__name__)


class LLMVerifier(HttpVerifier):
    """Judges pairs with a language model, each distinct pair once.

    Cheapest step first: shortcuts, memory, an equal pair in flight (single-flight), the read-through store, the judge.
    A verdict is remembered, a failure is not: the next request for the pair asks again.
    """

    def __init__(self, config: VerifierConfig, chance: random.Random | None = None) -> None:
        """Raises ConfigError when the prompt cannot be loaded or does not fit, or the pool has not been started. Opens
        nothing."""
        if not config.endpoints:
            raise ConfigError(
                f"judge {config.name!r} has no endpoints; start its pool first and use the pool's `config`"
            )
        super().__init__(config, chance)
        self.prompt = load_prompt(config.prompt)
        refuse_misfit(config, self.prompt)
        self._decoder: AnyDecoder | None = None
        self._batcher: PairBatcher | None = None
        self._store: VerdictStore | None = None
        self._read_through: ReadThroughStore | None = None

    async def start(self) -> None:
        """See `Verifier.start`."""
        key_file = self.config.api_key_file
        api_key = read_key(key_file, f"judge {self.config.name!r}") if key_file else None
        self._session = aiohttp.ClientSession(
            # Only `max_concurrency` limits: in aiohttp's own queue a pair would wait unseen. vLLM closes idle
            # connections after 5 s; we close them earlier, so that no request is sent on one that is closing.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        clients = [self._client(url, self._session, api_key) for url in self.config.endpoints]
        # The probe provokes failures, to find out what servers can do. Its own router and counters keep them from
        # ejecting an endpoint and out of the statistics, and few retries suffice.
        probe_config = self.config.model_copy(update={"retries": min(self.config.retries, PROBE_RETRIES)})
        probe_router = Router([Endpoint(client) for client in clients], self.config.health_interval_s, Stats())
        probe_dispatcher = Dispatcher(probe_config, probe_router, Stats(), self._chance)
        try:
            self._store = await _open_store(self.config)  # before the probe: a wrong path is reported at once
            self._decoder = await probe(self.config, self.prompt, probe_dispatcher)
            if self._store is not None and self.config.store is not None:
                timeout_s = self.config.store.timeout_s
                self._read_through = await self._build_read_through(self._store, self._decoder, timeout_s)
            endpoints = [await self._endpoint(client, self._decoder) for client in clients]
        except BaseException:
            await self.aclose()
            raise
        dispatcher = self._connect(endpoints, self.config)
        if isinstance(self._decoder, ManyDecoder):
            ask_many = partial(ask, dispatcher, self.config, self.prompt, self._decoder)
            config = self.config
            self._batcher = PairBatcher(ask_many, config.pairs_per_request, config.gather_s, config.total_deadline_s)
        _log.info(
            "judge %r is ready: %s on %d endpoint(s), %d of which take several chats in one request",
            self.config.name,
            self._decoder.mode.value,
            len(endpoints),
            sum(endpoint.chat_batcher is not None for endpoint in endpoints),
        )

    @property
    def gives_probabilities(self) -> bool:
        """See `Verifier.gives_probabilities`."""
        return isinstance(self._decoder, Decoder) and self._decoder.mode.exact

    @property
    def decoding(self) -> str | None:
        """Decoding mode that the start-up probe has chosen; None before `start`."""
        return self._decoder.mode.value if self._decoder else None

    async def aclose(self) -> None:
        """See `Verifier.aclose`."""
        session, self._session, self._dispatcher = self._session, None, None  # no pair is admitted from here on
        if self._health is not None:
            await self._health.aclose()
        await self._cache.aclose()  # before the batchers, the store and the session, which its tasks use
        if self._batcher is not None:
            await self._batcher.aclose()
        for endpoint in self.endpoints:
            if endpoint.chat_batcher is not None:
                await endpoint.chat_batcher.aclose()
        read_through, self._read_through = self._read_through, None
        if read_through is not None:
            await read_through.aclose()
        store, self._store = self._store, None
        if store is not None:
            await close_store(store, STORE_CLOSE_S)
        if session is not None:
            await session.close()

    async def _verify(self, pair: Pair) -> Judgement:
        if self._dispatcher is None or self._decoder is None:
            return Unscorable(Reason.CANCELLED, "the verifier is not running")
        pair = normalised(pair)
        return await self._cache.single_flight(pair, partial(self._judge, pair, self._dispatcher, self._decoder))

    def _judge_by_text(self, pair: Pair, normal: Pair) -> Judgement | None:
        return judge_by_length(normal, self.config.max_string_chars) or self._shortcut(pair, normal)

    def _shortcut(self, pair: Pair, normal: Pair) -> Verdict | None:
        # On the texts as they came: their normal forms drop signs, and may be equal where the names are not.
        alike = normal.ground_truth and normal.ground_truth == normal.prediction
        if self.config.exact_shortcut and alike and same_name(pair.ground_truth, pair.prediction):
            return Verdict(category=Category.SPECIFIC, margin=None, source=Source.SHORTCUT)
        if self.config.abstain_shortcut and is_abstention(pair.prediction):
            return Verdict(category=Category.ABSTAIN, margin=None, source=Source.SHORTCUT)
        return None

    async def _judge(self, pair: Pair, dispatcher: Dispatcher, decoder: AnyDecoder) -> Judgement:
        async def judge(within_s: float) -> Judgement:
            if self._batcher is not None:
                return await self._batcher.judge(pair)
            (judgement,) = await ask(dispatcher, self.config, self.prompt, decoder, [pair], deadline_s=within_s)
            return judgement

        if self._read_through is None:
            return await judge(self.config.total_deadline_s)
        return await self._read_through.get_or_judge(pair, judge)

    async def _endpoint(self, client: Client, decoder: AnyDecoder) -> Endpoint:
        """The endpoint of a server that passed the probe; its chats share HTTP requests if the server takes several."""
        config = self.config
        # vLLM's batch route ignores fields that it does not know, which `request_fields` might be.
        wanted = config.chats_per_request > 1 and not config.request_fields
        if wanted and isinstance(decoder, Decoder) and decoder.mode.exact:
            # A biased request forces one label, as only a large bias is sure to show. What the judge thinks of the
            # sample pair does not matter, so its label mass is not checked.
            trial = replace(decoder.narrowed()[0][0], least_mass=0.0)
            body = chat_body(config, self.prompt, trial, SAMPLE_PAIR)
            if await takes_several(client, body, trial.read):
                return Endpoint(client, ChatBatcher(client, config.chats_per_request))
            _log.warning(
                "judge %r: %s does not judge several chats of one request, so each goes alone, at some cost of "
                "processor time; use vLLM 0.24 or newer, or set `chats_per_request: 1` to say that this is meant",
                config.name,
                client.url,
            )
        return Endpoint(client)

    async def _build_read_through(self, store: VerdictStore, decoder: AnyDecoder, timeout_s: float) -> ReadThroughStore:
        try:
            revision = await asyncio.to_thread(model_revision, self.config)
        except OSError as error:
            raise VerifierStartError(
                f"judge {self.config.name!r}: cannot read the model's file {error.filename} ({error.strerror}), by "
                "which the store tells models apart; check its permissions"
            ) from error
        judge = identity_of(self.config, self.prompt, decoder, revision)
        resilient = ResilientStore(store, judge, timeout_s, self._stats, on_earlier=self._remember)
        return ReadThroughStore(resilient, judge, self.config.total_deadline_s, self._stats)

    def _remember(self, record: Record) -> None:
        self._cache.remember(record.pair, record.verdict)

    def _client(self, url: str, session: aiohttp.ClientSession, api_key: str | None) -> Client:
        kind: Literal["vllm", "openai"] = "vllm" if self.config.kind == "vllm" else "openai"
        return Client(url, kind, session, self.config.request_timeout_s, api_key, self.config.served_name)


async def _open_store(config: VerifierConfig) -> VerdictStore | None:
    if config.store is None:
        return None
    try:
        return await open_store(config.store, config.store.open_deadline_s)
    except StoreError as error:
        raise VerifierStartError(f"judge {config.name!r}: {error}") from error
