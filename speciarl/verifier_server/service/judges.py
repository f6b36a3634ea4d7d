"""Judges of the service: started concurrently, looked up by name, closed together."""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping

from speciarl.errors import SpeciaRLError, VerifierStartError
from speciarl.utils.credentials import public_url
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.factory import build
from speciarl.verifier_server.pool.ray_runtime import ManagedPools
from speciarl.verifier_server.service.errors import ApiError
from speciarl.verifier_server.service.requests import Late
from speciarl.verifier_server.service.schemas import JudgeState
from speciarl.verifier_server.verifier import Verifier

RETRY_STARTING_S = 2.0

BuildVerifier = Callable[[VerifierConfig], Verifier]
OnFailure = Callable[[SpeciaRLError], None]

_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Judge:
    """Judge of the service: its configuration, its verifier and its state."""

    name: str
    config: VerifierConfig
    """With the running replicas as endpoints, once its pool has started."""
    verifier: Verifier | None = None
    """Present while the judge can be asked."""
    state: JudgeState = "starting"
    error: str | None = None
    """Cause of the failure in one line, when it failed."""
    late: Late = dataclasses.field(default_factory=dict)
    """Pairs that missed the deadline of a request and go on being judged for the next one."""

    @property
    def decoding(self) -> str | None:
        """Name of its decoding; None before it is ready and for judges without a model."""
        return getattr(self.verifier, "decoding", None)

    @property
    def prompt_hash(self) -> str | None:
        """Hash of its prompt's text; None before it is ready and for judges without a prompt."""
        return getattr(getattr(self.verifier, "prompt", None), "content_hash", None)

    @property
    def prompt(self) -> str | None:
        """Name of its prompt; None for judges without one."""
        return None if self.config.kind == "taxonomy" else self.config.prompt

    @property
    def endpoints(self) -> list[str]:
        """URLs of its servers, without user name, password and query."""
        return [public_url(url) for url in self.config.endpoints]


class Judges:
    """Judges of one service. Bound to the event loop in which they start."""

    def __init__(
        self, configs: Mapping[str, VerifierConfig], pools: ManagedPools, build_verifier: BuildVerifier = build
    ) -> None:
        self._by_name = {name: Judge(name, config) for name, config in configs.items()}
        self._pools = pools
        self._build = build_verifier

    async def start(self, on_failure: OnFailure) -> None:
        """Start all judges concurrently; `on_failure` is called at once for each that cannot, and the others go on."""
        await asyncio.gather(*(self._start(judge, on_failure) for judge in self._by_name.values()))

    async def aclose(self) -> None:
        """Close all judges and stop their replicas. `start` must have ended or been cancelled. Safe to call
        twice."""
        for judge in self._by_name.values():
            verifier, judge.verifier = judge.verifier, None
            judge.state = "failed" if judge.error else "stopped"
            if verifier is not None:
                await verifier.aclose()
        await asyncio.to_thread(self._pools.stop)

    @property
    def ready(self) -> bool:
        """Readiness: whether every judge can be asked."""
        return all(judge.state == "ready" for judge in self._by_name.values())

    def all(self) -> list[Judge]:
        """Every judge, in the order of the settings."""
        return list(self._by_name.values())

    def names(self) -> list[str]:
        """Names of all judges, in the order of the settings."""
        return list(self._by_name)

    def get(self, name: str) -> tuple[Judge, Verifier]:
        """A judge that can be asked; raises ApiError for an unknown name and for a judge that is not ready."""
        judge = self._by_name.get(name)
        if judge is None:
            known = self.names()
            raise ApiError(
                404, "unknown_judge", f"there is no such judge; known: {', '.join(known)}", [{"known": known}]
            )
        if judge.verifier is None:
            message = f"judge {name!r} is {judge.state}" + (f": {judge.error}" if judge.error else "")
            raise ApiError(503, f"judge_{judge.state}", message, retry_after_s=RETRY_STARTING_S)
        return judge, judge.verifier

    async def _start(self, judge: Judge, on_failure: OnFailure) -> None:
        try:
            if judge.config.pool is not None:
                judge.config = await asyncio.to_thread(self._pools.start, judge.config)
            verifier = self._build(judge.config)
            await verifier.start()
        except SpeciaRLError as error:
            self._mark_failed(judge, error, on_failure)
            return
        except Exception as error:  # noqa: BLE001 - after any other error the judge must not stay `starting` for ever
            _log.exception("judge %r cannot start", judge.name)
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            self._mark_failed(judge, VerifierStartError(f"judge {judge.name!r}: {cause}"), on_failure)
            return
        judge.verifier, judge.state = verifier, "ready"
        _log.info("judge %r is ready", judge.name)

    def _mark_failed(self, judge: Judge, error: SpeciaRLError, on_failure: OnFailure) -> None:
        judge.state, judge.error = "failed", str(error)
        on_failure(error)
