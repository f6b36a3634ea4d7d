"""From what a client sent as a pair to the pair, or to what is wrong with it: one bad item never fails the others."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from speciarl.verdict import Pair, Reason, Unscorable
from speciarl.verifier_server.decoding import shorten
from speciarl.verifier_server.service.schemas import PairItem


@dataclass(frozen=True, slots=True)
class UnusablePair(Pair):
    """What was sent as a pair and cannot be judged. A text that is none is empty here."""

    why: Unscorable


def read_item(item: object) -> tuple[Pair, str | None]:
    """The pair and its id; of one that is unusable, as much as is sound."""
    try:
        sent = item if isinstance(item, PairItem) else PairItem.model_validate(item)
    except ValidationError as error:
        return _unusable(item, error)
    return Pair(sent.ground_truth, sent.prediction), sent.id


def _unusable(item: object, error: ValidationError) -> tuple[UnusablePair, str | None]:
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    where = ".".join(map(str, first["loc"])) or "pair"
    reason = Reason.TOO_LONG if first["type"] == "string_too_long" else Reason.MALFORMED
    why = Unscorable(reason, f"{shorten(where)}: {first['msg'].removeprefix('Value error, ')}")
    wrong = {problem["loc"][:1] for problem in problems}
    sound = item if isinstance(item, Mapping) and () not in wrong else {}
    truth, prediction, pair_id = (
        sound.get(name) if (name,) not in wrong else None for name in ("ground_truth", "prediction", "id")
    )
    return UnusablePair(truth or "", prediction or "", why), pair_id
