"""Judging for a calibration: all gold pairs under load, and some of them again, alone and one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speciarl.evaluation.verify.asking import Asking
from speciarl.verdict import Judgement, Pair
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.verifier import Verifier

PATIENCE = 16
"""Fewest failures in a row after which a judge is asked no more."""


@dataclass(frozen=True)
class Trial:
    """What a judge said."""

    under_load: list[Judgement]
    """On every pair, asked for many at a time, as in a run."""
    repeated: list[int]
    """Which pairs were asked for again, as indices."""
    alone: tuple[list[Judgement], list[Judgement]]
    """On those, twice, one pair at a time."""


async def try_judge(config: VerifierConfig, pairs: Sequence[Pair], repeats: int) -> Trial:
    """Ask a running judge for all pairs, and for `repeats` of them again; each time the judge itself is asked.

    Raises ConfigError for a service, which answers from its store, and VerifierStartError for a judge that cannot work.
    """
    from speciarl.verifier_server.audit import without_memory
    from speciarl.verifier_server.factory import build

    in_process = config.kind == "taxonomy" and not config.service_url
    verifier: Verifier = build(config) if in_process else without_memory(config)
    await verifier.start()
    try:
        chosen = evenly(len(pairs), repeats)
        under_load = await _ask(verifier, pairs, 2 * config.max_concurrency * config.pairs_per_request)
        some = [pairs[index] for index in chosen]
        return Trial(under_load, chosen, (await _ask(verifier, some, 1), await _ask(verifier, some, 1)))
    finally:
        await verifier.aclose()


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices below `count`, spread evenly, so that each kind has its share."""
    wanted = min(wanted, count)
    return [index * count // wanted for index in range(wanted)]


async def _ask(verifier: Verifier, pairs: Sequence[Pair], window: int) -> list[Judgement]:
    said: dict[Pair, Judgement] = {}
    await Asking(verifier, window, max(window, PATIENCE)).ask(pairs, said.__setitem__)
    return [said[pair] for pair in pairs]
