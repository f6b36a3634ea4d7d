"""Shortcuts: verdicts on texts too long to be judged."""

from speciarl.category import Category
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict


def judge_by_length(pair: Pair, limit: int) -> Judgement | None:
    """What a normalised pair gets for its length alone, None when both texts have at most `limit` characters."""
    length = len(pair.ground_truth)
    if length > limit:
        return Unscorable(Reason.TOO_LONG, f"truth of {length} characters; the limit is {limit} (max_string_chars)")
    if len(pair.prediction) > limit:
        # A whole essay is no label; were it unscorable, rambling would go unpunished.
        return Verdict(category=Category.WRONG, margin=None, source=Source.SHORTCUT)
    return None
