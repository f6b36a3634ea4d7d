"""A verifier behind a service gives what the same judge gives in process, and fails as safely."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speciarl.errors import VerifierStartError
from speciarl.training.preflight.checks import check_verifier
from speciarl.utils.deadline import within
from speciarl.verdict import Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server import build, parse_config
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.remote_verifier import RemoteVerifier, read_results

pytestmark = pytest.mark.anyio

Make = Callable[..., Any]
TEXTS = (
    "dog",
    "Dog!",
    "samoyed",
    "animal",
    "none",
    "I don't know.",
    "",
    "İstanbul dog",
    "ΣΊΣΥΦΟΣ",
    "日本犬 🐶",
    "fox",
    "x" * 600,
    "x y" * 200,
    "…" * 700,
    "dog" + "!" * 3000,  # beyond what the service takes, and still a dog
    "İ." * 500,  # 500 letters, which have 1000 characters in lower case
    "robin\x00 or\tcat",
    "a lone \ud83d surrogate",
)
TRUTHS = ("dog", "samoyed", "fox", "İ", "", "dog" + "!" * 3000, "\udc36 dog", "y" * 600)
PAIRS = [Pair(truth, prediction) for truth in TRUTHS for prediction in TEXTS]


def remote(url: str, **changes: Any) -> VerifierConfig:
    defaults = {"name": "main", "service_url": url, "backoff_s": 0.01, "startup_deadline_s": 30}
    return parse_config(defaults | changes)


@contextlib.asynccontextmanager
async def started(config: VerifierConfig) -> AsyncIterator[Any]:
    verifier = build(config)
    await verifier.start()
    try:
        yield verifier
    finally:
        await verifier.aclose()


@pytest.mark.parametrize("name", ["main", "gold"])
@pytest.mark.parametrize("decoding", ["first_token", "choice"])
async def test_the_same_judgements_as_in_process(
    make_settings: Make, listening: Make, fake_judge: Make, name: str, decoding: str
) -> None:
    """Complete ones: category, margin, probabilities and source, or reason and detail."""
    async with fake_judge().running() as judge:
        judge.answers = {"samoyed": "more specific", "animal": "generic", "fox": "wrong", "": "abstain"}
        settings = make_settings(
            judge.url, main={"decoding": decoding, "abstain_shortcut": True}, limits={"string_chars": 2500}
        )
        async with (
            listening(settings) as url,
            started(settings.judges[name]) as local,
            started(remote(url, name=name)) as far,
        ):
            assert isinstance(far, RemoteVerifier)
            # Together, then again when they are known, then twice at once.
            for pairs in (PAIRS, PAIRS[::-1], [Pair("dog", "never met")] * 2 + [Pair("dog", "dog")] * 2):
                at_home, abroad = [await asyncio.gather(*map(one.verify, pairs)) for one in (local, far)]
                assert abroad == at_home
            assert {one.source for one in abroad if isinstance(one, Verdict)} >= (
                {Source.TAXONOMY} if name == "gold" else {Source.LIVE, Source.MEMORY, Source.SHORTCUT}
            )
            stats = far.stats()
            counted = ("shortcuts", "memory_hits", "store_hits", "deduplicated", "live", "abandoned", "unscorable")
            assert stats["requests"] == 2 * len(PAIRS) + 4 == sum(stats[key] for key in counted)
            assert set(local.stats()) == set(stats)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(
        st.builds(Pair, st.text(st.characters(), max_size=40), st.text(st.characters(), max_size=600)),
        min_size=1,
        max_size=40,
    )
)
def test_any_pairs_are_judged_as_in_process(
    make_settings: Make, listening: Make, fake_judge: Make, pairs: list[Pair]
) -> None:
    async def compare() -> None:
        async with fake_judge().running() as judge:
            service = make_settings(judge.url, limits={"string_chars": 512})
            async with listening(service) as url:
                for name in ("main", "gold"):
                    async with started(service.judges[name]) as local, started(remote(url, name=name)) as far:
                        at_home, abroad = [await asyncio.gather(*map(one.verify, pairs)) for one in (local, far)]
                        assert abroad == at_home

    asyncio.run(compare())


async def test_pairs_asked_together_travel_together_and_are_remembered(
    make_settings: Make, listening: Make, fake_judge: Make
) -> None:
    async with fake_judge().running() as judge, listening(make_settings(judge.url)) as url:
        async with started(remote(url)) as verifier:
            judge.arm()
            pairs = [Pair("dog", f"cat {number}") for number in range(100)] * 2
            first = await asyncio.gather(*map(verifier.verify, pairs))
            assert verifier.stats()["attempts"] == 1
            assert (verifier.stats()["live"], verifier.stats()["deduplicated"], judge.chats) == (100, 100, 100)
            again = await asyncio.gather(*map(verifier.verify, pairs))
            assert verifier.stats()["attempts"] == 1
            assert again == [dataclasses.replace(one, source=Source.MEMORY) for one in first]
        async with started(remote(url, cache_size=0)) as other:
            # Another client, and still the judge is not asked again.
            found = await asyncio.gather(*map(other.verify, pairs[:100]))
            assert {one.source for one in found} == {Source.MEMORY}
            assert judge.chats == 100


async def test_the_services_limit_on_pairs_is_kept(make_settings: Make, listening: Make) -> None:
    settings = make_settings(limits={"pairs_per_request": 7, "waiting_pairs": 70})
    async with listening(settings) as url, started(remote(url, name="gold")) as verifier:
        pairs = [Pair("dog", f"cat {number}") for number in range(20)]
        assert all(isinstance(one, Verdict) for one in await asyncio.gather(*map(verifier.verify, pairs)))
        assert verifier.stats()["attempts"] == 3


async def test_a_service_that_is_full_is_asked_again(make_settings: Make, listening: Make, fake_judge: Make) -> None:
    limits = {"pairs_per_request": 2, "waiting_pairs": 2}
    async with fake_judge().running() as judge, listening(make_settings(judge.url, limits=limits)) as url:
        judge.delay_s = 0.1
        async with started(remote(url)) as one, started(remote(url)) as other:
            waiting = [verifier.verify(Pair("dog", f"cat {n}")) for n, verifier in enumerate([one, one, other, other])]
            assert all(isinstance(found, Verdict) for found in await asyncio.gather(*waiting))
            assert one.stats()["retries"] + other.stats()["retries"] >= 1


async def test_one_slow_pair_holds_nobody_up_for_long(make_settings: Make, listening: Make, fake_judge: Make) -> None:
    may_answer = asyncio.Event()

    async def slow(judge: Any, request: Any) -> Any:
        await may_answer.wait()
        return web.json_response(judge.completion(await request.json()))

    async with (
        fake_judge().running() as judge,
        listening(make_settings(judge.url)) as url,
        started(remote(url, request_timeout_s=2)) as verifier,
    ):
        judge.arm(lambda number: slow if number == 0 else None)
        tasks = [asyncio.create_task(verifier.verify(Pair("dog", f"cat {number}"))) for number in range(5)]
        for quick in tasks[1:]:
            assert isinstance(await within(30, quick), Verdict)
        assert not tasks[0].done()
        # Late in two answers, the slow one is joined by the third request and judged once.
        while verifier.stats()["attempts"] < 3:
            await asyncio.sleep(0.01)
        may_answer.set()
        assert isinstance(await within(30, tasks[0]), Verdict)
        assert judge.chats == 5
        assert verifier.stats()["unscorable"] == 0


@pytest.mark.parametrize("request_timeout_s", [60, 300])
async def test_a_service_that_dies_and_returns_loses_no_verdict(request_timeout_s: float) -> None:
    """Also where a request may take as long as a pair, as for a run's own service."""

    async def answer(request: web.Request) -> web.Response:
        pairs = (await request.json())["pairs"]
        nonlocal failures
        failures += 1
        if failures <= 3:
            assert request.transport is not None
            request.transport.abort()
        verdict = {"status": "verdict", "category": "wrong", "margin": None, "source": "live", "probabilities": None}
        return web.json_response({"results": [verdict] * len(pairs)})

    failures = 0
    async with faulty_service(answer) as url, started(remote(url, request_timeout_s=request_timeout_s)) as verifier:
        assert isinstance(await within(30, verifier.verify(Pair("dog", "cat"))), Verdict)
        assert verifier.stats()["retries"] == 3


@pytest.mark.parametrize(("seconds", "deadline_s"), [(20, 18.0), (600, 60.0)])
async def test_a_pair_that_is_late_in_an_answer_is_asked_for_again(seconds: float, deadline_s: float) -> None:
    deadlines: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        deadlines.append((await request.json())["deadline_s"])
        late = {"status": "unscorable", "reason": "timeout", "detail": "no verdict within the request's deadline"}
        verdict = {"status": "verdict", "category": "wrong", "margin": None, "source": "live", "probabilities": None}
        return web.json_response({"results": [late if len(deadlines) < 3 else verdict]})

    config = {"request_timeout_s": seconds, "total_deadline_s": seconds}
    async with faulty_service(answer) as url, started(remote(url, **config)) as verifier:
        assert isinstance(await within(30, verifier.verify(Pair("dog", "cat"))), Verdict)
        assert deadlines == [deadline_s] * 3  # so that the service answers before the request is broken off
        assert verifier.stats()["unscorable"] == 0


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (200, "<html>", Reason.MALFORMED),
        (200, "[]", Reason.MALFORMED),
        (200, '{"results": []}', Reason.MALFORMED),
        (200, '{"results": [{"status": "verdict", "category": "great"}]}', Reason.MALFORMED),
        (200, '{"results": [{"status": "verdict", "category": "wrong", "margin": -1}]}', Reason.MALFORMED),
        (500, "boom", Reason.HTTP_ERROR),
        (401, "who", Reason.HTTP_ERROR),
        (404, '{"error": {"message": "there is no such judge"}}', Reason.HTTP_ERROR),
        (429, "busy", Reason.OVERLOADED),
        (503, "busy", Reason.OVERLOADED),
    ],
)
async def test_a_lasting_fault_is_unscorable_and_bounded(status: int, content: str, reason: Reason) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=content)

    async with faulty_service(answer) as url, started(remote(url, retries=2, total_deadline_s=2)) as verifier:
        judgement = await within(30, verifier.verify(Pair("dog", "cat")))
        assert isinstance(judgement, Unscorable)
        if reason is Reason.OVERLOADED:  # waited out until the deadline; which of the two ends it is a matter of chance
            assert judgement.reason in (reason, Reason.TIMEOUT)
            assert content in judgement.detail
        else:
            assert judgement.reason is reason
        assert verifier.stats()[f"unscorable/{judgement.reason}"] == 1


@pytest.mark.parametrize("request_timeout_s", [0.1, 0.5])
async def test_a_service_that_says_nothing_is_a_timeout(request_timeout_s: float) -> None:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(600)
        return web.Response()

    async with (
        faulty_service(answer) as url,
        started(remote(url, request_timeout_s=request_timeout_s, total_deadline_s=0.5)) as verifier,
    ):
        judgement = await within(30, verifier.verify(Pair("dog", "cat")))
        assert isinstance(judgement, Unscorable)
        assert judgement.reason is Reason.TIMEOUT


async def test_closing_releases_those_who_wait(make_settings: Make, listening: Make, fake_judge: Make) -> None:
    async with fake_judge().running() as judge, listening(make_settings(judge.url)) as url:
        verifier = build(remote(url))
        assert (await verifier.verify(Pair("dog", "cat"))) == Unscorable(
            Reason.CANCELLED, "the verifier is not running"
        )
        await verifier.start()
        judge.arm()
        judge.gate.clear()
        waiting = asyncio.create_task(verifier.verify(Pair("dog", "cat")))
        while not judge.chats:
            await asyncio.sleep(0.01)
        await within(30, verifier.aclose())
        judgement = await within(30, waiting)
        assert isinstance(judgement, Unscorable)
        assert judgement.reason is Reason.CANCELLED
        await verifier.aclose()


async def test_it_waits_for_a_service_that_is_starting(make_settings: Make, listening: Make, fake_judge: Make) -> None:
    async with fake_judge().running() as judge:
        judge.warming_up = True
        async with listening(make_settings(judge.url)) as url:
            starting = asyncio.create_task(check_verifier(remote(url, startup_deadline_s=60)))
            await asyncio.sleep(0.2)
            assert not starting.done()
            judge.warming_up = False
            await within(30, starting)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "typo"}, "has no such judge; set `name` to one of: gold, main"),
        ({"service_url": "http://127.0.0.1:9", "startup_deadline_s": 0.3}, "the service is not ready: .*service_url"),
        ({"api_key_file": "missing"}, "cannot read api_key_file missing"),
    ],
)
async def test_what_cannot_start_says_why_in_one_line(
    make_settings: Make, listening: Make, fake_judge: Make, changes: dict[str, Any], message: str
) -> None:
    async with fake_judge().running() as judge, listening(make_settings(judge.url)) as url:
        with pytest.raises(VerifierStartError, match=message) as caught:
            await check_verifier(remote(url, **changes))
        assert "\n" not in str(caught.value)
        # A model server is no verifier service.
        with pytest.raises(VerifierStartError, match="correct `service_url`"):
            await check_verifier(remote(judge.url))


async def test_the_key_is_sent_and_asked_for(make_settings: Make, listening: Make, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sesame")
    async with listening(make_settings(key_file=str(key))) as url:
        async with started(remote(url, name="gold", api_key_file=str(key))) as verifier:
            assert isinstance(await verifier.verify(Pair("dog", "cat")), Verdict)
        with pytest.raises(VerifierStartError, match="check `api_key_file`"):
            await check_verifier(remote(url, name="gold"))


async def test_what_all_callers_left_is_given_up_at_the_service_too(
    make_settings: Make, listening: Make, fake_judge: Make
) -> None:
    async with (
        fake_judge().running() as judge,
        listening(make_settings(judge.url)) as url,
        started(remote(url)) as verifier,
    ):
        judge.arm()
        judge.gate.clear()
        tasks = [asyncio.create_task(verifier.verify(Pair("dog", f"cat {number}"))) for number in range(5)]
        async with aiohttp.ClientSession() as session:

            async def metric(name: str) -> float:
                async with session.get(f"{url}/metrics") as page:
                    for line in (await page.text()).splitlines():
                        if line.startswith(f'speciarl_verifier_{name}{{judge="main"}} '):
                            return float(line.split()[-1])
                raise AssertionError(name)

            async def until(name: str, value: float) -> None:
                while await metric(name) != value:
                    await asyncio.sleep(0.02)

            await within(30, until("pairs_in_flight", 5))
            tasks[0].cancel()
            await asyncio.sleep(0.1)
            assert await metric("pairs_in_flight") == 5  # its companions' request goes on
            for task in tasks[1:]:
                task.cancel()
            await within(30, until("pairs_in_flight", 0))
            assert await metric("dropped_total") == 5
        assert verifier.endpoint_stats()[0].in_flight == 0
        judge.gate.set()
        assert isinstance(await within(30, verifier.verify(Pair("dog", "cat 1"))), Verdict)


@contextlib.asynccontextmanager
async def faulty_service(answer: Any) -> AsyncIterator[str]:
    """Says it is ready and has the judge `main`; judges as the test wants."""

    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"ready": True, "judges": {}})

    async def judges(_: web.Request) -> web.Response:
        limits = {"pairs_per_request": 100, "string_chars": 50_000}
        return web.json_response({"judges": [{"name": "main", "max_string_chars": 512}], "limits": limits})

    app = web.Application()
    app.add_routes([web.get("/ready", ready), web.get("/v1/judges", judges), web.post("/v1/judge", answer)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_a_reply_with_another_number_of_results_is_refused() -> None:
    assert isinstance(read_results({"results": []}, 1), Unscorable)
    assert read_results({"results": []}, 0) == []
