"""Remote verifier: sends pairs to a verifier service (``speciarl verifier serve``)."""

import asyncio
import random
from collections.abc import Mapping
from functools import partial
from typing import Any

import aiohttp

from speciarl.answer import normalise
from speciarl.errors import VerifierStartError
from speciarl.utils.batching import Batcher, in_order
from speciarl.utils.credentials import public_url, read_key
from speciarl.utils.deadline import within
from speciarl.verdict import Judgement, Pair, Reason, Unscorable
from speciarl.verifier_server.client.dispatcher import Dispatcher
from speciarl.verifier_server.client.http import Client, Failure
from speciarl.verifier_server.client.router import Endpoint
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge.decoding import Mode
from speciarl.verifier_server.judge.shortcuts import judge_by_length
from speciarl.verifier_server.verifier import HttpVerifier
from speciarl.wire import from_wire

MOST_PAIRS = 256
"""Most pairs in one request; fewer than the service takes, so that no reply waits for too many pairs."""

GRACE_S = 0.25
"""Seconds from a request's deadline to that of its pairs: the request's failure has the more specific message."""

GATHER_S = 0.002
"""Seconds for which the first pair of a request waits for others."""

POLL_S = 0.5

EXACT = frozenset(mode.value for mode in Mode if mode.exact)
"""Decoding modes that give probabilities, by the names a service reports."""

DEADLINE_SHARE = 0.9
"""Share of `request_timeout_s` after which the service answers with the verdicts it has by then."""

LONGEST_ANSWER_S = 60.0
"""Upper bound of that time, in seconds: a straggler delays neither the other pairs of its request for long, nor those
that wait for a trial request (half-open) to succeed."""


class ServiceClient(Client):
    """HTTP client of one verifier service. What the dispatcher calls a chat is a batch of pairs here."""

    setting = "service_url"

    def __init__(self, url: str, session: aiohttp.ClientSession, timeout_s: float, api_key: str | None = None) -> None:
        super().__init__(url, "vllm", session, timeout_s, api_key)

    async def chat(self, body: Mapping[str, Any]) -> object | Failure:
        """POST a batch of pairs; the parsed JSON, or Failure."""
        return await self.post_root("v1/judge", body)

    async def get(self, route: str) -> object | Failure:
        """GET a route such as ``ready``; the parsed JSON, or Failure."""
        return await self._request("GET", f"{self.root}/{route}")


class RemoteVerifier(HttpVerifier):
    """Judges pairs through a verifier service, with the results that its judge would give in process.

    Pairs asked for at about the same time share a request. Memory and single-flight work as in `LLMVerifier`; the
    service has its own, for all its clients.
    """

    def __init__(self, config: VerifierConfig, chance: random.Random | None = None, key: str | None = None) -> None:
        """Opens nothing. `key` replaces the content of `api_key_file`."""
        super().__init__(config, chance)
        self._key = key
        self._batcher: Batcher[Pair, Judgement] | None = None
        self._max_string_chars = self._most_chars = config.max_string_chars
        """Longest normalised text that is judged, and longest text that is sent; the service's, from `start` on."""
        self._gives_probabilities = False

    @property
    def gives_probabilities(self) -> bool:
        """See `Verifier.gives_probabilities`."""
        return self._gives_probabilities

    async def start(self) -> None:
        """See `Verifier.start`: waits until the service is ready and checks that it has the judge."""
        config = self.config
        key = self._key
        if key is None and config.api_key_file:
            key = read_key(config.api_key_file, f"judge {config.name!r}")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=config.max_concurrency + 1),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        client = ServiceClient(config.service_url or "", self._session, config.request_timeout_s, key)
        try:
            await self._await_ready(client)
            most_pairs = await self._check_judge(client)
        except BaseException:
            await self.aclose()
            raise
        self._batcher = Batcher(
            in_order(partial(self._send, self._connect([Endpoint(client)], config))),
            min(MOST_PAIRS, most_pairs),
            GATHER_S,
            closed=Unscorable(Reason.CANCELLED, "the verifier was closed"),
        )

    async def aclose(self) -> None:
        """See `Verifier.aclose`."""
        if self._health is not None:
            await self._health.aclose()
        await self._cache.aclose()
        session, self._session = self._session, None
        batcher, self._batcher = self._batcher, None
        if batcher is not None:
            await batcher.aclose()
        if session is not None:
            await session.close()

    async def _verify(self, pair: Pair) -> Judgement:
        if self._batcher is None:
            return Unscorable(Reason.CANCELLED, "the verifier is not running")
        return await self._cache.single_flight(pair, partial(self._judge, self._for_service(pair), self._batcher))

    def _cache_key(self, pair: Pair, normal: Pair) -> Pair:
        # The service takes texts for equal names that are alike in more than their normal forms, so it decides.
        return pair

    def _judge_by_text(self, pair: Pair, normal: Pair) -> Judgement | None:
        return judge_by_length(normal, self._max_string_chars)

    def _for_service(self, pair: Pair) -> Pair:
        """The pair within what JSON and the service's limit on texts allow; its normal form is unchanged."""

        def fit(text: str) -> str:
            encodable = text.encode(errors="replace").decode()  # a lone surrogate becomes "?"; `normalise` drops both
            if len(encodable) <= self._most_chars:
                return encodable
            return f"{normalise(encodable)} …"  # it was longer: not to be taken for the same as a shorter text

        return Pair(fit(pair.ground_truth), fit(pair.prediction))

    async def _judge(self, pair: Pair, batcher: Batcher[Pair, Judgement]) -> Judgement:
        """Ask until there is a verdict or the deadline passes. A straggler that has none in one reply is not lost: the
        service goes on judging it, and the next request for it joins (single-flight)."""
        clock = asyncio.get_running_loop().time
        deadline_s = self.config.total_deadline_s
        expires = clock() + deadline_s
        while True:
            try:
                judgement = await within(max(expires - clock(), 0) + GRACE_S, batcher.ask(pair))
            except TimeoutError:
                where = public_url(self.config.service_url or "")
                return Unscorable(Reason.TIMEOUT, f"{where}: no verdict within {deadline_s:g} s")
            late = isinstance(judgement, Unscorable) and judgement.reason is Reason.TIMEOUT
            if not late or clock() >= expires:
                return judgement

    async def _send(self, dispatcher: Dispatcher, pairs: list[Pair]) -> list[Judgement]:
        config = self.config
        answer_s = DEADLINE_SHARE * min(config.request_timeout_s, config.total_deadline_s)
        body = {
            "judge": config.name,
            "deadline_s": min(answer_s, LONGEST_ANSWER_S),
            "pairs": [{"ground_truth": pair.ground_truth, "prediction": pair.prediction} for pair in pairs],
        }
        answer = await dispatcher.ask(body, partial(read_results, count=len(pairs)), pairs=len(pairs))
        return [answer] * len(pairs) if isinstance(answer, Unscorable) else answer

    async def _await_ready(self, client: ServiceClient) -> None:
        clock = asyncio.get_running_loop().time
        deadline_s = self.config.startup_deadline_s
        expires = clock() + deadline_s
        failure: Failure | None = None
        while True:
            try:
                reply = await within(max(expires - clock(), 0.01), client.get("ready"))
            except TimeoutError:
                raise self._unready(failure, f"{client.url} gave no reply") from None
            if not isinstance(reply, Failure):
                if isinstance(reply, Mapping) and reply.get("ready") is True:
                    return
                raise self._refuse(f"{client.url} is no verifier service; correct `service_url`")
            failure = reply
            if not reply.transient or clock() + POLL_S >= expires:
                raise self._unready(failure, "")
            await asyncio.sleep(POLL_S)

    async def _check_judge(self, client: ServiceClient) -> int:
        """Check that the service has the judge, and adopt its limits; returns the most pairs per request."""
        reply = await client.get("v1/judges")
        if isinstance(reply, Failure):
            named = reply.status in (401, 403, 404, 405)  # these come with their remedy
            raise self._refuse(reply.unscorable.detail + ("" if named else "; correct `service_url`"))
        try:
            assert isinstance(reply, Mapping)
            judges = {str(judge["name"]): judge for judge in reply["judges"]}
            judge = judges.get(self.config.name)
            if judge is not None:
                self._gives_probabilities = judge.get("kind") == "taxonomy" or judge.get("decoding") in EXACT
                self._max_string_chars = int(judge["max_string_chars"])
            self._most_chars = int(reply["limits"]["string_chars"])
            most_pairs = int(reply["limits"]["pairs_per_request"])
        except (AssertionError, KeyError, TypeError, ValueError):
            raise self._refuse(f"{client.url} is no verifier service; correct `service_url`") from None
        if judge is None:
            raise self._refuse(f"{client.url} has no such judge; set `name` to one of: {', '.join(judges)}")
        return most_pairs

    def _unready(self, failure: Failure | None, otherwise: str) -> VerifierStartError:
        cause = failure.unscorable.detail if failure else otherwise
        return self._refuse(
            f"the service is not ready: {cause}; start it or correct `service_url` "
            f"(it gets startup_deadline_s={self.config.startup_deadline_s:g})"
        )

    def _refuse(self, message: str) -> VerifierStartError:
        return VerifierStartError(f"judge {self.config.name!r}: {' '.join(message.split())}")


def read_results(reply: object, count: int) -> list[Judgement] | Unscorable:
    """The judgements in a reply to ``POST /v1/judge`` with `count` pairs; Unscorable(malformed) for anything else."""
    results = reply.get("results") if isinstance(reply, Mapping) else None
    if not isinstance(results, list) or len(results) != count:
        return Unscorable(Reason.MALFORMED, f"the service's reply does not hold {count} results")
    judgements = [from_wire(item) for item in results]
    read = [judgement for judgement in judgements if judgement is not None]
    if len(read) < count:
        return Unscorable(Reason.MALFORMED, "the service's reply holds a result that is none")
    return read
