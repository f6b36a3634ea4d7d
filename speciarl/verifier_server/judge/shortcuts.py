"""Shortcuts: judgements of texts too long to be sent to a judge."""

from speciarl.category import Category
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict


def judge_by_length(pair: Pair, limit: int) -> Judgement | None:
    """The judgement of a normalised pair by its length; None when both texts have at most `limit` characters."""
    length = len(pair.ground_truth)
    if length > limit:
        return Unscorable(Reason.TOO_LONG, f"truth of {length} characters; the limit is {limit} (max_string_chars)")
    if len(pair.prediction) > limit:
        # A whole essay is no name; were it unscorable, rambling would not be penalised.
        return Verdict(category=Category.WRONG, margin=None, source=Source.SHORTCUT)
    return None
