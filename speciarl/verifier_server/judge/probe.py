"""Start-up probe: refuses a judge that cannot work in seconds, instead of letting a run find out after hours.

Servers ignore request fields they do not know and still reply HTTP 200, and versions differ in what they know. So no
feature is inferred from a version: each is tried, and used only when its effect is observed.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from speciarl.errors import VerifierStartError
from speciarl.utils.deadline import within
from speciarl.verdict import Judgement, Pair, Unscorable, Verdict
from speciarl.verifier_server.client.dispatcher import Dispatcher
from speciarl.verifier_server.client.http import Failure, missing_model
from speciarl.verifier_server.client.router import LONGEST_RETRY_AFTER_S, Endpoint
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge.decoding import LABEL_TOKENS, TOP_LOGPROBS, WIDE_TOP_LOGPROBS, Decoder, Mode
from speciarl.verifier_server.judge.first_token import describe_clash
from speciarl.verifier_server.judge.json_list import ManyDecoder, ManyMode
from speciarl.verifier_server.judge.label_tokens import server_first_tokens, tokenize_chat
from speciarl.verifier_server.judge.labels import Scheme
from speciarl.verifier_server.judge.prompt import SAMPLE_PAIR, Golden, Prompt
from speciarl.verifier_server.judge.reasoning import shows_thought
from speciarl.verifier_server.judge.request import AnyDecoder, ask, chat_body

POLL_S = 0.5
LEAST_LABEL_MASS = 0.5
"""Least label mass for a golden pair; a judge below it would rather not begin with a label."""

MOST_MISSES = 1
"""Golden pairs that an endpoint may fail with a warning: floating-point sums depend on what else is in the batch, so a
close call may go either way."""

FEW_GOLDEN = 10
"""With fewer golden pairs than that, none may fail."""

EXACT_REMEDY = "start the server with `--logprobs-mode processed_logprobs`, as a `pool` does, or use vLLM 0.28 or newer"
"""Remedy for a vLLM server that does not report the probabilities of all labels."""

_FILLER = "golden winged warbler "

_log = logging.getLogger(__name__)


async def probe(config: VerifierConfig, prompt: Prompt, dispatcher: Dispatcher) -> AnyDecoder:
    """Check every endpoint and choose the decoding; raises VerifierStartError with one line: cause and remedy."""
    check = _Probe(config, prompt, dispatcher)
    endpoints = dispatcher.router.endpoints
    # Some servers show their list of models while they still load the model.
    dispatcher.loading_until = asyncio.get_running_loop().time() + config.startup_deadline_s
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
        self._many = prompt.format == "many"

    def _refuse(self, message: str) -> VerifierStartError:
        return VerifierStartError(f"judge {self._config.name!r}: {' '.join(message.split())}")

    async def reachable(self, endpoint: Endpoint) -> None:
        """Wait until the endpoint replies, then check that it serves the model."""
        clock = asyncio.get_running_loop().time
        deadline_s = self._config.startup_deadline_s
        begun = clock()
        expires = begun + deadline_s
        failure: Failure | None = None
        while True:
            try:
                # The request's own timeout may be longer than the time that is left.
                reply = await within(max(expires - clock(), 0.01), endpoint.client.models())
            except TimeoutError:
                cause = failure.unscorable.detail if failure else f"{endpoint.client.url} gave no reply"
                raise self._unreachable(cause) from None
            if not isinstance(reply, Failure):
                return self._check_served(endpoint, reply)
            pause_s = min(reply.retry_after_s or POLL_S, LONGEST_RETRY_AFTER_S)
            if reply.busy:  # up, and only asks for time: that is not what `startup_deadline_s` bounds
                expires = max(expires, begun + self._config.total_deadline_s)
            given_up = not reply.transient or clock() + pause_s >= expires
            known_state = reply.status is None or reply.busy or reply.status == 503  # not there, or not ready
            if self._config.kind == "openai" and given_up and not known_state:
                # Some gateways offer no model list, or not to every key: the first request will tell.
                detail = reply.unscorable.detail
                _log.warning("judge %r: no list of models, so the first request decides: %s", self._config.name, detail)
                endpoint.client.trust_model()
                return None
            if reply.status in (401, 403):
                raise self._refuse(reply.unscorable.detail)
            if given_up:
                raise self._unreachable(reply.unscorable.detail)
            if failure is None:
                _log.info("waiting up to %g s for %s", expires - begun, endpoint.client.url)
            failure = reply
            await asyncio.sleep(pause_s)

    def _unreachable(self, cause: str) -> VerifierStartError:
        return self._refuse(
            f"no usable endpoint: {cause}; start the server or correct `endpoints` "
            f"(a server that is still loading gets startup_deadline_s={self._config.startup_deadline_s:g})"
        )

    def _check_served(self, endpoint: Endpoint, reply: object) -> None:
        problem = missing_model(reply, self._config.served_name)
        if problem is None:
            return
        if self._config.kind == "openai":  # lists of gateways are of many kinds, and not all are complete
            _log.warning("judge %r: %s %s", self._config.name, endpoint.client.url, problem)
            endpoint.client.trust_model()
        else:
            raise self._refuse(f"{endpoint.client.url} {problem}")

    async def decoder(self, endpoints: Sequence[Endpoint]) -> AnyDecoder:
        """The first decoding, from best to most general, that has an effect on every endpoint."""
        config = self._config
        problems = []
        if config.kind == "vllm" and config.decoding != "choice" and not config.thinking and not self._many:
            found = await self._first_token_decoder(endpoints)
            if isinstance(found, Decoder):
                return found
            if config.decoding == "first_token":
                raise self._refuse(f"{found}; use `decoding: choice`, or another judge model")
            _log.warning(
                "judge %r: %s; using constrained labels instead, without margins, probabilities and the check that the "
                "judge means a label",
                config.name,
                found,
            )
            problems.append(found)
        for decoder in self._text_decoders():
            problem = await self._first_problem(endpoints, decoder)
            if problem is None and config.thinking and config.kind == "vllm":  # other APIs may hide the reasoning
                problem = await self._thinking_problem(endpoints, decoder)
            if problem is None:
                return decoder
            problems.append(problem)
        other = "a server other than vLLM needs `kind: openai`; else " if config.kind == "vllm" else ""
        raise self._refuse(
            f"no way of decoding works: {'; '.join(problems)}; {other}use another server, model or prompt"
        )

    def _text_decoders(self) -> Sequence[AnyDecoder]:
        """Decoders of whole labels, best first. Without a constraint, reasoning can precede the label on any server."""
        config, scheme = self._config, self._prompt.scheme
        unconstrained = config.kind == "openai" or config.thinking
        if self._many:
            many = [ManyMode.STRUCTURED if config.kind == "vllm" else ManyMode.JSON]
            many += [ManyMode.TEXT] if unconstrained else []
            return [ManyDecoder(mode, scheme, config.thinking_tokens if config.thinking else 0) for mode in many]
        modes = [Mode.LABEL_CHOICE if config.kind == "vllm" else Mode.JSON_ENUM]
        modes += [Mode.FREE_TEXT] if unconstrained else []
        max_tokens = config.thinking_tokens if config.thinking else LABEL_TOKENS
        return [Decoder(mode, max_tokens=max_tokens, scheme=scheme) for mode in modes]

    async def _first_token_decoder(self, endpoints: Sequence[Endpoint]) -> Decoder | str:
        found = [await server_first_tokens(endpoint.client, self._config, self._prompt) for endpoint in endpoints]
        for tokens in found:
            if isinstance(tokens, Failure):
                return f"first tokens of the labels cannot be found ({tokens.unscorable.detail})"
        if len(set(found)) > 1:
            raise self._refuse("the endpoints tokenize differently; let `endpoints` serve one and the same model")
        first_tokens = found[0]
        assert not isinstance(first_tokens, Failure)
        clash = describe_clash(first_tokens, self._prompt.scheme)
        if clash:
            return clash
        problems = []
        for mode, top in (
            (Mode.FIRST_TOKEN, TOP_LOGPROBS),
            (Mode.FIRST_TOKEN_BIASED, TOP_LOGPROBS),
            (Mode.FIRST_TOKEN_TOP, WIDE_TOP_LOGPROBS),
            (Mode.FIRST_TOKEN_TOP, TOP_LOGPROBS),
        ):
            # The sample pair shows what a server can do, whatever its judge thinks of it; golden pairs test the judge.
            trial = Decoder(mode, first_tokens, scheme=self._prompt.scheme, top=top)
            problem = await self._first_problem(endpoints, trial)
            if problem is None:
                return self._with_mass_check(trial)
            problems.append(problem)
        return f"the server gives no log-probabilities of chosen tokens ({'; '.join(problems)}); {EXACT_REMEDY}"

    def _with_mass_check(self, trial: Decoder) -> Decoder:
        """The decoder with the check of the label mass; warns where it does not report all labels."""
        if not trial.mode.exact:
            _log.warning(
                "judge %r: the server tells the %d likeliest tokens only; a label that is not among them has no "
                "probability, and the margin is a lower bound then; %s",
                self._config.name,
                trial.top,
                EXACT_REMEDY,
            )
        return replace(trial, least_mass=self._config.min_label_mass)

    async def _first_problem(self, endpoints: Sequence[Endpoint], decoder: AnyDecoder) -> str | None:
        pairs = [SAMPLE_PAIR] * min(self._config.pairs_per_request, 2)
        for endpoint in endpoints:
            for narrowed, category in decoder.narrowed():
                for judgement in await self._ask(narrowed, pairs, endpoint):
                    if isinstance(judgement, Unscorable):
                        return f"{decoder.mode.value}: {judgement.detail}"
                    if category is not None and judgement.category != category:
                        return f"{decoder.mode.value}: {endpoint.client.url} ignores the constraint"
        return None

    async def _thinking_problem(self, endpoints: Sequence[Endpoint], decoder: AnyDecoder) -> str | None:
        """The first endpoint whose replies hold no reasoning, in one line; None when all do. Without a reasoning parser
        a server lets a constrained judge give the label at once."""
        for endpoint in endpoints:
            body = chat_body(self._config, self._prompt, decoder, SAMPLE_PAIR)
            if await self._dispatcher.ask(body, shows_thought, only=endpoint) is not True:
                return (
                    f"{decoder.mode.value}: {endpoint.client.url} shows no thought; start it with "
                    "`--reasoning-parser`, or set `thinking: false`"
                )
        return None

    async def _ask(self, decoder: AnyDecoder, pairs: Sequence[Pair], endpoint: Endpoint) -> Sequence[Judgement]:
        return await ask(self._dispatcher, self._config, self._prompt, decoder, pairs, endpoint)

    async def prompt_fits(self, endpoint: Endpoint, decoder: AnyDecoder) -> None:
        """Check that the longest admissible pairs leave room for the answer in the context."""
        limit = self._config.max_string_chars
        longest = (_FILLER * (limit // len(_FILLER) + 1))[:limit]
        pairs = [Pair(longest, longest)] * self._config.pairs_per_request
        chat = await tokenize_chat(endpoint.client, self._config, self._prompt.messages(*pairs))
        if isinstance(chat, Failure):
            _log.warning("judge %r: length not checked (%s)", self._config.name, chat.unscorable.detail)
            return
        tokens, context = chat
        fields = decoder.fields() if isinstance(decoder, Decoder) else decoder.fields(len(pairs))
        needed = len(tokens) + int(fields["max_tokens"])
        if needed > context:
            raise self._refuse(
                f"prompt {self._prompt.name!r} with texts of max_string_chars={limit} "
                + (f"and pairs_per_request={len(pairs)} " if self._many else "")
                + f"needs {needed} tokens, the judge takes {context}; lower `max_string_chars`, "
                + ("lower `pairs_per_request`, " if self._many else "")
                + ("lower `thinking_tokens`, " if self._config.thinking else "")
                + "use a shorter `prompt` or raise the server's max_model_len"
            )

    async def golden(self, endpoints: Sequence[Endpoint], decoder: AnyDecoder) -> AnyDecoder:
        """Judge the golden pairs on every endpoint; falls back to constrained labels if the judge avoids the labels'
        first tokens. Returns the decoder."""
        jobs = [(endpoint, golden) for endpoint in endpoints for golden in self._prompt.golden]
        if isinstance(decoder, Decoder) and decoder.mode.by_first_token and jobs:
            mass = await self._smallest_mass(jobs, decoder)
            if mass < LEAST_LABEL_MASS:
                problem = f"the judge begins its reply with a label with probability {mass:.2g} only"
                if self._config.decoding == "first_token":
                    raise self._refuse(f"{problem}; use `decoding: choice`, or another model or prompt")
                _log.warning("judge %r: %s; using constrained labels instead", self._config.name, problem)
                decoder = Decoder(Mode.LABEL_CHOICE, scheme=self._prompt.scheme)
                unusable = await self._first_problem(endpoints, decoder)
                if unusable is not None:
                    raise self._refuse(f"{problem}, and {unusable}; use another model or prompt")
        by_endpoint = await asyncio.gather(*(self._failed_golden(endpoint, decoder) for endpoint in endpoints))
        failed = [line for lines in by_endpoint for line in lines]
        if not failed:
            return decoder
        found = f"{failed[0]} ({len(failed)} of {len(jobs)} golden pairs fail)"
        may_miss = MOST_MISSES if len(self._prompt.golden) >= FEW_GOLDEN else 0
        if max(map(len, by_endpoint)) > may_miss:
            raise self._refuse(f"{found}; use another model or prompt, or set `probe: false` to go on regardless")
        _log.warning(
            "judge %r: %s; the run goes on, as one close call tells little; look at the judge with `speciarl verifier "
            "audit`",
            self._config.name,
            found,
        )
        return decoder

    async def _failed_golden(self, endpoint: Endpoint, decoder: AnyDecoder) -> list[str]:
        """One line for each golden pair that the endpoint does not judge as expected."""
        golden, size = self._prompt.golden, self._config.pairs_per_request
        parts = [[entry.pair for entry in golden[at : at + size]] for at in range(0, len(golden), size)]
        answers = await asyncio.gather(*(self._ask(decoder, part, endpoint) for part in parts))
        judgements = [judgement for answer in answers for judgement in answer]
        return [
            describe_golden(entry, judgement, self._prompt.scheme)
            for entry, judgement in zip(golden, judgements, strict=True)
            if not passes(entry, judgement)
        ]

    async def _smallest_mass(self, jobs: Sequence[tuple[Endpoint, Golden]], decoder: Decoder) -> float:
        def read(reply: object) -> float | Unscorable:
            return decoder.mass(reply) or 0.0

        bodies = [(endpoint, chat_body(self._config, self._prompt, decoder, golden.pair)) for endpoint, golden in jobs]
        masses = await asyncio.gather(*(self._dispatcher.ask(body, read, only=endpoint) for endpoint, body in bodies))
        return min((mass for mass in masses if isinstance(mass, float)), default=1.0)


def passes(golden: Golden, judgement: Judgement) -> bool:
    """Whether the pair was judged as expected."""
    return isinstance(judgement, Verdict) and judgement.category in golden.expected


def describe_golden(golden: Golden, judgement: Judgement, scheme: Scheme) -> str:
    """One line on a golden pair that was not judged as expected."""
    got = scheme.label(judgement.category) if isinstance(judgement, Verdict) else f"unscorable: {judgement.detail}"
    expected = " or ".join(scheme.label(category) for category in sorted(golden.expected))
    pair = golden.pair
    return f"golden pair {pair.ground_truth!r} <- {pair.prediction!r} was judged {got!r}, expected {expected!r}"
