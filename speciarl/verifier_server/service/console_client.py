"""What the command line asks of a running service."""

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp

from speciarl.errors import SpeciaRLError, VerifierStartError
from speciarl.verdict import Judgement, Unscorable
from speciarl.verifier_server.client import Failure
from speciarl.verifier_server.key_file import read_key
from speciarl.verifier_server.remote_verifier import ServiceClient, read_results
from speciarl.verifier_server.urls import authorization, public_url

TIMEOUT_S = 10.0
JUDGE_TIMEOUT_S = 300.0


class ServiceError(SpeciaRLError):
    """A service did not answer as one."""


def metrics_text(url: str, key_file: str | None) -> str:
    """The page of metrics; raises ServiceError."""
    shown = public_url(url)  # the rest goes into a header

    async def fetch() -> str:
        key = read_key(key_file, "service", "key file") if key_file else None
        header = authorization(url, key)
        headers = {"Authorization": header} if header else {}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.get(f"{shown.rstrip('/')}/metrics", allow_redirects=False) as reply,
            ):
                if reply.status != 200:
                    hint = "; give the service's key with --key-file" if reply.status == 401 else ""
                    raise ServiceError(f"{shown} replied HTTP {reply.status}{hint}")
                return await reply.text()
        except (aiohttp.ClientError, OSError, UnicodeDecodeError) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise ServiceError(f"{shown} cannot be asked ({cause}); is the service running there?") from error

    return asyncio.run(fetch())


def judge_one(
    url: str, key_file: str | None, judge: str | None, ground_truth: str, prediction: str
) -> tuple[str, Judgement]:
    """Name of the judge and its judgement of one pair; raises ServiceError."""

    async def ask() -> tuple[str, Judgement]:
        key = read_key(key_file, "service", "key file") if key_file else None
        body: dict[str, Any] = {"judge": judge, "pairs": [{"ground_truth": ground_truth, "prediction": prediction}]}
        async with aiohttp.ClientSession() as session:
            reply = await ServiceClient(url, session, JUDGE_TIMEOUT_S, key).chat(body)
        if isinstance(reply, Failure):
            raise ServiceError(reply.unscorable.detail)
        results = read_results(reply, 1)
        if isinstance(results, Unscorable):
            raise ServiceError(f"{public_url(url)} is no verifier service: {results.detail}")
        assert isinstance(reply, Mapping)
        return str(reply.get("judge")), results[0]

    try:
        return asyncio.run(ask())
    except VerifierStartError as error:
        raise ServiceError(str(error)) from error
