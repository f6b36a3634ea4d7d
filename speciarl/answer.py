"""Answer: the text in a model's response that is judged (paper, section on text handling)."""

import functools
import re
import unicodedata

NORMALISER_VERSION = 2
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
    """The normal form of a text, in which names are shown to the judge and kept.

    Unicode NFC, lower case, single spaces. Kept are letters (L*) with their marks (M*), numbers (N*), dashes (Pd), and
    ``+`` and ``#`` at the end of a word (C++, C#); format characters (Cf) and variation selectors vanish; everything
    else becomes a space. The paper's rule makes spaces of marks, format characters and signs as well, and so of काल and
    कुल the same text (docs/rewards.md). Idempotent.
    """
    return _cached_normal_form(text) if len(text) <= NAME_CHARS else _normal_form(text)


def same_name(one: str, other: str) -> bool:
    """Whether two texts are the same name without loss: they differ in case, white space or encoding at most.

    Stricter than equal normal forms, which drop symbols and punctuation.
    """
    return one == other or _lossless(one) == _lossless(other)


def _lossless(text: str) -> str:
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join("".join(character for character in folded if not _vanishes(character)).split())


def _normal_form(text: str) -> str:
    if text.isascii():  # nearly all names; ten times as fast
        return " ".join(_SIGN_IN_A_WORD.sub(" ", _NO_ASCII_NAME.sub(" ", text)).lower().split())
    # What vanishes goes first, since it may stand between a letter and its mark, which NFC is to join.
    joined = unicodedata.normalize("NFC", "".join(one for one in text if not _vanishes(one)))
    words = _SIGN_IN_A_WORD.sub(" ", "".join(map(_kept, joined))).lower().split()
    return unicodedata.normalize("NFC", " ".join(filter(None, map(_without_lone_marks, words))))


_cached_normal_form = functools.lru_cache(maxsize=16_384)(_normal_form)
"""For names: the rollouts of a batch repeat each other's answers, and each pair its truth."""

_NO_ASCII_NAME = re.compile(r"[^A-Za-z0-9+#-]+")
_SIGN_IN_A_WORD = re.compile(r"(?<!\S)[+#]+|[+#]+(?=[^\s+#])")
"""Signs that do not end a word: "+ 3", "salt+pepper"."""


def _without_lone_marks(word: str) -> str:
    """The word without marks at its start, whose letter is no letter (an emoji's, say)."""
    while word and unicodedata.category(word[0])[0] == "M":
        word = word[1:]
    return word


def is_abstention(text: str) -> bool:
    """Whether the text, once normalised, only declines to answer (see `ABSTENTIONS`); "n-a" does as well."""
    form = normalise(text)
    return form in ABSTENTIONS or " ".join(form.replace("-", " ").split()) in ABSTENTIONS


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
    return character if kind[0] in "LNM" or kind == "Pd" or character in "+#" else " "


@functools.lru_cache(maxsize=4096)
def _vanishes(character: str) -> bool:
    """Whether it is invisible and parts nothing: soft hyphen, joiners, directions, variation selectors."""
    selector = "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
    return selector or unicodedata.category(character) == "Cf"
