"""Checks at the start, so that a judge which cannot work is refused in seconds and not noticed after hours.

Servers ignore request fields they do not know and still reply HTTP 200, and versions differ in what they
know. So nothing is read off a version: each feature is tried and believed only when its effect is seen.
"""

import asyncio
import logging
from collections.abc import Sequence

from speciarl.category import LABELS
from speciarl.errors import VerifierStartError
from speciarl.verdict import Judgement, Pair, Unscorable, Verdict
from speciarl.verifier_server.client import Failure
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.decoding import (
    LABEL_TOKENS,
    Decoder,
    Mode,
    clashing_labels,
    label_mass,
)
from speciarl.verifier_server.dispatch import Dispatcher
from speciarl.verifier_server.label_tokens import server_first_tokens, tokenize_chat
from speciarl.verifier_server.prompt import SAMPLE_PAIR, Golden, Prompt
from speciarl.verifier_server.request import chat_body
from speciarl.verifier_server.routing import Endpoint

POLL_S = 0.5
LEAST_LABEL_MASS = 0.5
"""A judge that puts less probability than this on the labels' first tokens would rather not begin with a
label."""

_FILLER = "golden winged warbler "

_log = logging.getLogger(__name__)


async def probe(config: VerifierConfig, prompt: Prompt, dispatcher: Dispatcher) -> Decoder:
    """Check every endpoint and settle how to decode; raises VerifierStartError with one line: cause and
    remedy."""
    check = _Probe(config, prompt, dispatcher)
    endpoints = dispatcher.router.endpoints
    await asyncio.gather(*(check.reachable(endpoint) for endpoint in endpoints))
    decoder = await check.decoder(endpoints)
    if config.kind == "vllm":
        await asyncio.gather(*(check.prompt_fits(endpoint, decoder) for endpoint in endpoints))
    if config.probe:
        decoder = await check.golden(endpoints, decoder)
    return decoder


class _Probe:
    def __init__(self, config: VerifierConfig, prompt: Prompt, dispatcher: Dispatcher) -> None:
        self._config = config
        self._prompt = prompt
        self._dispatcher = dispatcher

    def _refuse(self, message: str) -> VerifierStartError:
        return VerifierStartError(f"judge {self._config.name!r}: {' '.join(message.split())}")

    async def reachable(self, endpoint: Endpoint) -> None:
        """Wait until the endpoint answers, then check that it serves the model."""
        clock = asyncio.get_running_loop().time
        deadline_s = self._config.startup_deadline_s
        expires = clock() + deadline_s
        failure: Failure | None = None
        while True:
            try:
                # The request's own timeout may be longer than the time that is left.
                reply = await asyncio.wait_for(endpoint.client.models(), max(expires - clock(), 0.01))
            except asyncio.TimeoutError:
                cause = failure.unscorable.detail if failure else f"{endpoint.client.url} gave no reply"
                raise self._unreachable(cause) from None
            if not isinstance(reply, Failure):
                return self._check_served(endpoint, reply)
            if reply.status in (401, 403):
                raise self._refuse(f"{reply.unscorable.detail}; check `api_key_file`")
            if reply.status in (404, 405, 501) and self._config.kind == "openai":
                return None  # some gateways offer no model list; the first request will tell
            if not reply.passing or clock() + POLL_S >= expires:
                raise self._unreachable(reply.unscorable.detail)
            if failure is None:
                _log.info("waiting up to %g s for %s", deadline_s, endpoint.client.url)
            failure = reply
            await asyncio.sleep(POLL_S)

    def _unreachable(self, cause: str) -> VerifierStartError:
        return self._refuse(
            f"no usable endpoint: {cause}; start the server or correct `endpoints` "
            f"(a server that is still loading gets startup_deadline_s={self._config.startup_deadline_s:g})"
        )

    def _check_served(self, endpoint: Endpoint, reply: object) -> None:
        data = reply.get("data") if isinstance(reply, dict) else None
        if not isinstance(data, list):
            raise self._refuse(f"{endpoint.client.url} is no OpenAI-compatible API; correct `endpoints`")
        names = [str(entry.get("id")) for entry in data if isinstance(entry, dict)]
        wanted = self._config.served_name
        # Some APIs list models with a prefix ("models/…") that requests need not have.
        if not any(name == wanted or name.endswith(f"/{wanted}") for name in names):
            listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            raise self._refuse(
                f"{endpoint.client.url} does not serve {wanted!r}; it serves: {listed}; set `served_model_name`"
            )

    async def decoder(self, endpoints: Sequence[Endpoint]) -> Decoder:
        """The first way of decoding that has an effect on every endpoint."""
        config = self._config
        problems = []
        if config.kind == "vllm" and config.decoding != "choice" and not config.thinking:
            found = await self._first_token_decoder(endpoints)
            if isinstance(found, Decoder):
                return found
            if config.decoding == "first_token":
                raise self._refuse(f"{found}; use `decoding: choice`, or another judge model")
            _log.warning("judge %r: %s; using constrained labels instead", config.name, found)
            problems.append(found)
        max_tokens = config.thinking_tokens if config.thinking else LABEL_TOKENS
        modes = (Mode.LABEL_CHOICE,) if config.kind == "vllm" else (Mode.JSON_ENUM, Mode.FREE_TEXT)
        for mode in modes:
            decoder = Decoder(mode, max_tokens=max_tokens)
            problem = await self._first_problem(endpoints, decoder)
            if problem is None:
                return decoder
            problems.append(problem)
        raise self._refuse(f"no way of decoding works: {'; '.join(problems)}; use another server, model or prompt")

    async def _first_token_decoder(self, endpoints: Sequence[Endpoint]) -> Decoder | str:
        messages = self._prompt.messages(SAMPLE_PAIR)
        found = [await server_first_tokens(endpoint.client, self._config, messages) for endpoint in endpoints]
        for tokens in found:
            if isinstance(tokens, Failure):
                return f"first tokens of the labels cannot be found ({tokens.unscorable.detail})"
        if len(set(found)) > 1:
            raise self._refuse("the endpoints tokenize differently; let `endpoints` serve one and the same model")
        first_tokens = found[0]
        assert not isinstance(first_tokens, Failure)
        clash = describe_clash(first_tokens)
        if clash:
            return clash
        problem = "no mode tried"
        for mode in (Mode.FIRST_TOKEN, Mode.FIRST_TOKEN_TOP):
            decoder = Decoder(mode, first_tokens)
            found_problem = await self._first_problem(endpoints, decoder)
            if found_problem is None:
                return decoder
            problem = found_problem
        return f"the server gives no log-probabilities of chosen tokens ({problem})"

    async def _first_problem(self, endpoints: Sequence[Endpoint], decoder: Decoder) -> str | None:
        for endpoint in endpoints:
            for narrowed, category in decoder.narrowed():
                body = chat_body(self._config, self._prompt, narrowed, SAMPLE_PAIR)
                judgement = await self._dispatcher.ask(body, narrowed.read, only=endpoint)
                if isinstance(judgement, Unscorable):
                    return f"{decoder.mode.value}: {judgement.detail}"
                if category is not None and judgement.category != category:
                    return f"{decoder.mode.value}: {endpoint.client.url} ignores the constraint"
        return None

    async def prompt_fits(self, endpoint: Endpoint, decoder: Decoder) -> None:
        """Check that the longest admissible pair leaves room for the answer."""
        limit = self._config.max_string_chars
        longest = (_FILLER * (limit // len(_FILLER) + 1))[:limit]
        chat = await tokenize_chat(endpoint.client, self._config, self._prompt.messages(Pair(longest, longest)))
        if isinstance(chat, Failure):
            _log.warning("judge %r: length not checked (%s)", self._config.name, chat.unscorable.detail)
            return
        tokens, context = chat
        needed = len(tokens) + int(decoder.fields()["max_tokens"])
        if needed > context:
            raise self._refuse(
                f"prompt {self._prompt.name!r} with texts of max_string_chars={limit} "
                f"needs {needed} tokens, the judge "
                f"takes {context}; lower `max_string_chars`, "
                "use a shorter `prompt` or raise the server's max_model_len"
            )

    async def golden(self, endpoints: Sequence[Endpoint], decoder: Decoder) -> Decoder:
        """Judge the golden pairs everywhere; falls back to constrained labels if the judge shuns first
        tokens."""
        jobs = [(endpoint, golden) for endpoint in endpoints for golden in self._prompt.golden]
        if decoder.mode is Mode.FIRST_TOKEN and jobs:
            mass = await self._least_mass(jobs, decoder)
            if mass < LEAST_LABEL_MASS:
                problem = f"the judge begins its reply with a label with probability {mass:.2g} only"
                if self._config.decoding == "first_token":
                    raise self._refuse(f"{problem}; use `decoding: choice`, or another model or prompt")
                _log.warning("judge %r: %s; using constrained labels instead", self._config.name, problem)
                decoder = Decoder(Mode.LABEL_CHOICE)
                unusable = await self._first_problem(endpoints, decoder)
                if unusable is not None:
                    raise self._refuse(f"{problem}, and {unusable}; use another model or prompt")
        judgements = await asyncio.gather(*(self._judge(endpoint, golden, decoder) for endpoint, golden in jobs))
        failed = [
            describe_golden(golden, judgement)
            for (_, golden), judgement in zip(jobs, judgements, strict=True)
            if not (isinstance(judgement, Verdict) and judgement.category in golden.expected)
        ]
        if failed:
            raise self._refuse(
                f"{failed[0]} ({len(failed)} of {len(jobs)} golden pairs fail); "
                "use another model or prompt, or set "
                "`probe: false` to go on regardless"
            )
        return decoder

    async def _judge(self, endpoint: Endpoint, golden: Golden, decoder: Decoder) -> Judgement:
        body = chat_body(self._config, self._prompt, decoder, golden.pair)
        return await self._dispatcher.ask(body, decoder.read, only=endpoint)

    async def _least_mass(self, jobs: Sequence[tuple[Endpoint, Golden]], decoder: Decoder) -> float:
        def read(reply: object) -> float | Unscorable:
            mass = label_mass(reply, decoder.first_tokens)
            return 0.0 if mass is None else mass

        bodies = [(endpoint, chat_body(self._config, self._prompt, decoder, golden.pair)) for endpoint, golden in jobs]
        masses = await asyncio.gather(*(self._dispatcher.ask(body, read, only=endpoint) for endpoint, body in bodies))
        return min((mass for mass in masses if isinstance(mass, float)), default=1.0)


def describe_clash(first_tokens: Sequence[int]) -> str | None:
    """One line on labels that begin with the same token; None when all differ."""
    groups = clashing_labels(first_tokens, LABELS)
    if not groups:
        return None
    listed = " and ".join("/".join(repr(label) for label in group) for group in groups)
    return f"the labels {listed} begin with the same token, so the first token cannot tell them apart"


def describe_golden(golden: Golden, judgement: Judgement) -> str:
    """One line on a golden pair that was not judged as it must be."""
    got = judgement.category.label if isinstance(judgement, Verdict) else f"unscorable: {judgement.detail}"
    expected = " or ".join(sorted(category.label for category in golden.expected))
    pair = golden.pair
    return f"golden pair {pair.ground_truth!r} <- {pair.prediction!r} was judged {got!r}, expected {expected!r}"
