"""Answer: the text in a model's response that is judged (paper, section on text handling)."""

import functools
import re
import unicodedata

NORMALISER_VERSION = 1
"""Version of `normalise`, part of the keys of stored verdicts: raise it when the output changes for any text."""

ABSTENTIONS: frozenset[str] = frozenset(
    {
        "",
        "none",
        "null",
        "nothing",
        "unknown",
        "unsure",
        "not sure",
        "i m not sure",
        "i am not sure",
        "i don t know",
        "i do not know",
        "don t know",
        "idk",
        "n a",
        "no answer",
        "cannot tell",
        "can t tell",
        "i cannot tell",
        "i can t tell",
        "cannot determine",
        "cannot be determined",
        "unable to determine",
        "unidentified",
    }
)
"""Normalised texts that decline to answer, and nothing else. Whole-string matches only: a sentence that
*contains* one of them ("unknown warbler") still names something and is left to the judge."""

NAME_CHARS = 200
"""Longest text whose normal form is cached; longer ones are rambling and would fill memory."""

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def parse(response_text: str) -> str | None:
    """The answer in a response: the stripped text of its first ``<answer>…</answer>``; None when missing or empty.

    The tag is case-sensitive and the text may span lines. Only the first match counts: a second, better
    answer after an empty one does not rescue the response.
    """
    match = _ANSWER.search(response_text)
    if match is None:
        return None
    return match.group(1).strip() or None


def normalise(text: str) -> str:
    """The normal form of a text, in which names are compared and judged.

    Each character that is no Unicode letter (L*), number (N*), dash (Pd) or white space becomes a space; then
    lower-case, runs of white space collapse to one space, no space at the ends.
    """
    return _normalised_name(text) if len(text) <= NAME_CHARS else squeeze(text).lower()


@functools.lru_cache(maxsize=16_384)
def _normalised_name(text: str) -> str:
    """Cached `normalise`, for names: the rollouts of a batch repeat each other's answers, and each pair its truth."""
    return squeeze(text).lower()


def squeeze(text: str) -> str:
    """The text without what `normalise` drops, in its own upper and lower case.

    ``normalise(squeeze(text)) == normalise(text)``, and it is no longer than that. (`normalise` is not idempotent: the
    lower case of some letters holds marks that it drops.)
    """
    return " ".join("".join(map(_kept, text)).split())


def is_abstention(text: str) -> bool:
    """Whether the text, once normalised, only declines to answer (see `ABSTENTIONS`)."""
    return normalise(text) in ABSTENTIONS


_OPTIONS = re.compile(
    r"\b(?:or|either|neither|maybe|perhaps|possibly|alternatively)\b"
    r"|\b(?:might|may|could|can) (?:also )?be\b"
    r"|\bunless\b"
    r"|[^\W\d_]\s*[/|;]\s*[^\W\d_]"  # a separator between words, not a fraction or a date
    r"|,[^,]*,"  # a list of three; one comma may be "kingfisher, belted"
    r"|\n\s*\S",  # several lines
    re.IGNORECASE,
)


def names_several(text: str) -> bool:
    """Whether an answer seems to hedge: to name several options, or one with a way out.

    A heuristic for watching a run, never for a reward: it looks for words such as "or", "either", "maybe", "could be"
    and "unless", for names parted by a slash, bar or semicolon, for lists with two commas or more, and for several
    lines. It misses "cat and dog" (because of "black and white warbler") and "cat, dog", and it takes a name that holds
    such a word for hedging.
    """
    return _OPTIONS.search(text.strip()) is not None


@functools.lru_cache(maxsize=4096)
def _kept(character: str) -> str:
    kind = unicodedata.category(character)
    return character if kind[0] in "LN" or kind == "Pd" else " "
