"""Start-up: a judge that cannot work is refused at once, in one line that names cause and remedy."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from speciarl.errors import VerifierStartError
from speciarl.utils.deadline import within
from speciarl.verdict import Pair, Reason, Unscorable, Verdict
from speciarl.verifier_server.config import parse_config
from speciarl.verifier_server.judge.decoding import Mode
from speciarl.verifier_server.judge.prompt import load_prompt
from speciarl.verifier_server.llm_verifier import LLMVerifier

pytestmark = pytest.mark.anyio

MakeJudge = Callable[[], Any]
GOLDEN = {"animal mammal": "less specific", "animals nature": "generic", "cat face": "wrong", "none": "abstain"}


@pytest.fixture
def good_judge(fake_judge: MakeJudge) -> Any:
    """A judge that knows the compact prompt's golden pairs."""
    judge = fake_judge()
    judge.answers = GOLDEN | {"dog": "wrong"}
    return judge


@contextlib.asynccontextmanager
async def started(*urls: str, **changes: Any) -> AsyncIterator[LLMVerifier]:
    defaults = {
        "model": "fake",
        "prompt": "compact",
        "request_timeout_s": 60,
        "startup_deadline_s": 30,
        "backoff_s": 0.01,
    }
    verifier = LLMVerifier(parse_config(defaults | {"endpoints": urls} | changes))
    try:
        await verifier.start()
        yield verifier
    finally:
        await verifier.aclose()


async def refusal(*urls: str, **changes: Any) -> str:
    with pytest.raises(VerifierStartError) as caught:
        async with started(*urls, **changes):
            pass
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("judge 'judge': ")
    return message


def mode(verifier: LLMVerifier) -> Mode:
    assert verifier._decoder is not None
    return verifier._decoder.mode


@pytest.mark.parametrize(
    ("features", "decoding", "expected"),
    [
        ({"logprob_token_ids", "allowed_token_ids", "structured_outputs", "tokenize"}, "auto", Mode.FIRST_TOKEN),
        ({"logit_bias", "processed_logprobs", "allowed_token_ids", "tokenize"}, "auto", Mode.FIRST_TOKEN_BIASED),
        ({"logit_bias", "allowed_token_ids", "structured_outputs", "tokenize"}, "auto", Mode.FIRST_TOKEN_TOP),
        ({"processed_logprobs", "allowed_token_ids", "tokenize"}, "auto", Mode.FIRST_TOKEN_TOP),
        ({"allowed_token_ids", "structured_outputs", "tokenize"}, "auto", Mode.FIRST_TOKEN_TOP),
        ({"structured_outputs", "tokenize"}, "auto", Mode.LABEL_CHOICE),
        ({"logprob_token_ids", "structured_outputs"}, "auto", Mode.LABEL_CHOICE),
        ({"logprob_token_ids", "structured_outputs", "tokenize"}, "choice", Mode.LABEL_CHOICE),
    ],
)
async def test_features_are_believed_when_their_effect_is_seen(
    good_judge: Any, features: set[str], decoding: str, expected: Mode
) -> None:
    good_judge.features = features | {"models"}
    async with good_judge.running(), started(good_judge.url, decoding=decoding) as verifier:
        assert mode(verifier) is expected
        assert set(verifier.stats().values()) == {0.0}


@pytest.mark.parametrize(("knows", "expected"), [(True, Mode.JSON_ENUM), (False, Mode.FREE_TEXT)])
async def test_other_apis(good_judge: Any, knows: bool, expected: Mode) -> None:
    good_judge.features = {"response_format"} if knows else set()
    async with good_judge.running(), started(good_judge.url, kind="openai") as verifier:
        assert mode(verifier) is expected
        assert "chat_template_kwargs" not in good_judge.requests[-1]


async def test_a_server_that_ignores_every_constraint_is_refused(good_judge: Any) -> None:
    good_judge.features = {"models", "tokenize"}
    async with good_judge.running():
        assert "ignores the constraint" in await refusal(good_judge.url)
        assert "use `decoding: choice`" in await refusal(good_judge.url, decoding="first_token")


async def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        message = await within(20, refusal(url, startup_deadline_s=0.7))
        assert url in message
        assert "start the server or correct `endpoints`" in message


async def test_somebody_accepts_and_says_nothing() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        message = await refusal(f"http://127.0.0.1:{deaf.getsockname()[1]}", startup_deadline_s=0.7)
        assert "gave no reply" in message


async def test_one_of_two_is_down(good_judge: Any) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        async with good_judge.running():
            assert down in await refusal(good_judge.url, down, startup_deadline_s=0.7)


async def test_a_slow_start_is_waited_for(good_judge: Any) -> None:
    good_judge.warming_up = True
    async with good_judge.running():
        waiting = asyncio.create_task(_start_and_stop(good_judge.url))
        await asyncio.sleep(0.7)
        assert not waiting.done()
        good_judge.warming_up = False
        await within(30, waiting)


async def _start_and_stop(url: str) -> None:
    async with started(url):
        pass


async def test_another_model_is_served(good_judge: Any) -> None:
    good_judge.models = ["llama", "qwen"]
    async with good_judge.running():
        message = await refusal(good_judge.url)
        assert "does not serve 'fake'; it serves: llama, qwen; set `served_model_name`" in message


async def test_prefixed_model_names_are_understood(good_judge: Any) -> None:
    good_judge.models = ["models/fake"]
    async with good_judge.running(), started(good_judge.url):
        pass


async def test_labels_that_begin_with_the_same_token(good_judge: Any) -> None:
    good_judge.label_prefix = " "
    async with good_judge.running():
        message = await refusal(good_judge.url, decoding="first_token")
        assert "'wrong'/'abstain'/'generic'/'less specific'/'specific'/'more specific' begin with the same" in message
        assert "use `decoding: choice`, or another judge model" in message
        async with started(good_judge.url) as verifier:
            assert mode(verifier) is Mode.LABEL_CHOICE


async def test_a_judge_that_would_rather_not_begin_with_a_label(good_judge: Any) -> None:
    good_judge.mass = 0.2
    async with good_judge.running():
        message = await refusal(good_judge.url, decoding="first_token")
        assert "begins its reply with a label with probability 0.2" in message
        async with started(good_judge.url) as verifier:
            assert mode(verifier) is Mode.LABEL_CHOICE
        async with started(good_judge.url, probe=False) as verifier:
            assert mode(verifier) is Mode.FIRST_TOKEN


async def test_a_failing_golden_pair_is_named(good_judge: Any) -> None:
    good_judge.answers = GOLDEN | {"none": "generic"}
    async with good_judge.running():
        message = await refusal(good_judge.url)
        assert "golden pair 'dog face' <- 'none' was judged 'generic', expected 'abstain'" in message
        assert "(1 of 5 golden pairs fail)" in message
        async with started(good_judge.url, probe=False):
            pass


async def test_the_prompt_must_fit(good_judge: Any) -> None:
    good_judge.max_model_len = 600
    async with good_judge.running():
        message = await refusal(good_judge.url, max_string_chars=500)
        assert "the judge takes 600; lower `max_string_chars`" in message
        async with started(good_judge.url, max_string_chars=100):
            pass


async def test_a_passing_fault_during_the_probe_is_tried_again(good_judge: Any) -> None:
    async def busy(_: Any, __: web.Request) -> web.StreamResponse:
        return web.Response(status=503, text="busy")

    good_judge.plan = lambda number: busy if number in (0, 2) else None
    async with good_judge.running(), started(good_judge.url) as verifier:
        assert mode(verifier) is Mode.FIRST_TOKEN


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://no-such-host.invalid:8000"])
async def test_unusable_addresses_take_no_longer_than_allowed(url: str) -> None:
    await within(20, refusal(url, startup_deadline_s=0.5))


SAID = {
    Mode.FIRST_TOKEN: "",
    Mode.FIRST_TOKEN_BIASED: "",
    Mode.FIRST_TOKEN_TOP: "tells the 256 likeliest tokens only.*processed_logprobs",
    Mode.LABEL_CHOICE: "using constrained labels instead, without margins, probabilities",
}
BEST = {
    Mode.FIRST_TOKEN: {"logprob_token_ids", "batch"},
    Mode.FIRST_TOKEN_BIASED: {"logit_bias", "processed_logprobs", "batch"},
    Mode.FIRST_TOKEN_TOP: {"allowed_token_ids", "batch"},
    Mode.LABEL_CHOICE: {"structured_outputs", "batch"},
}


@pytest.mark.parametrize("best", list(BEST))
async def test_every_step_down_is_one_warning_with_the_remedy(
    good_judge: Any, best: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    good_judge.features = BEST[best] | {"models", "tokenize"}
    async with good_judge.running(), started(good_judge.url, exact_shortcut=False) as verifier:
        assert mode(verifier) is best
        assert verifier.gives_probabilities is (best in (Mode.FIRST_TOKEN, Mode.FIRST_TOKEN_BIASED))
        judgement = await verifier.verify(Pair("rose", "rose"))
        assert isinstance(judgement, Verdict)
        assert not verifier.gives_probabilities or judgement.probabilities is not None
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == bool(SAID[best])
    assert all(re.search(SAID[best], line) for line in warnings)


async def test_one_chat_a_request_is_said_once(good_judge: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with good_judge.running(), started(good_judge.url) as verifier:
        assert verifier.endpoints[0].chat_batcher is None
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "set `chats_per_request: 1`" in line


async def test_a_small_top_is_asked_for_where_a_large_one_is_refused(good_judge: Any) -> None:
    """As a server does that was started without ``--max-logprobs``."""

    def refuse(_: int) -> Any:
        async def fault(judge: Any, request: web.Request) -> web.StreamResponse:
            body = await request.json()
            if body.get("top_logprobs", 0) > 20:
                return web.json_response({"error": {"message": "greater than max allowed: 20"}}, status=400)
            return web.json_response(judge.completion(body))

        return fault

    good_judge.features = {"allowed_token_ids", "models", "tokenize"}
    good_judge.plan = refuse
    async with good_judge.running(), started(good_judge.url) as verifier:
        assert mode(verifier) is Mode.FIRST_TOKEN_TOP
        assert good_judge.requests[-1]["top_logprobs"] == 20


@pytest.mark.parametrize("best", [Mode.FIRST_TOKEN, Mode.FIRST_TOKEN_BIASED, Mode.FIRST_TOKEN_TOP])
async def test_the_labels_mass_is_checked_in_every_mode_also_after_the_start(good_judge: Any, best: Mode) -> None:
    good_judge.features = BEST[best] | {"models", "tokenize", "structured_outputs"}
    async with good_judge.running():
        good_judge.mass = 0.3
        async with started(good_judge.url) as verifier:
            assert mode(verifier) is Mode.LABEL_CHOICE
        good_judge.mass = 0.9
        async with started(good_judge.url, exact_shortcut=False, retries=0) as verifier:
            assert mode(verifier) is best
            good_judge.mass = 0.01
            judgement = await verifier.verify(Pair("rose", "rose"))
            assert isinstance(judgement, Unscorable)
            assert judgement.reason is Reason.OFF_LABEL
        async with started(good_judge.url, exact_shortcut=False, probe=False, min_label_mass=0.001) as verifier:
            assert isinstance(await verifier.verify(Pair("rose", "rose")), Verdict)


@pytest.mark.parametrize(("missed", "refused"), [(1, False), (2, True)])
async def test_one_golden_pair_of_ten_is_a_warning_and_two_are_too_many(
    fake_judge: MakeJudge, missed: int, refused: bool, caplog: pytest.LogCaptureFixture
) -> None:
    judge = fake_judge()
    golden = load_prompt("base").golden
    assert len(golden) == 10
    judge.answers = {entry.pair.prediction: min(entry.expected).label for entry in golden}
    spoilt = [entry for entry in golden if judge.answers[entry.pair.prediction] == "less specific"][:missed]
    spoilt += [entry for entry in golden if judge.answers[entry.pair.prediction] == "wrong"][: missed - len(spoilt)]
    judge.answers |= {entry.pair.prediction: "abstain" for entry in spoilt}
    async with judge.running():
        if refused:
            assert "(2 of 10 golden pairs fail)" in await refusal(judge.url, prompt="base", exact_shortcut=False)
            return
        async with started(judge.url, prompt="base", chats_per_request=1):
            pass
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "(1 of 10 golden pairs fail); the run goes on" in line
