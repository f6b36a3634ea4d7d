"""Miniature world: what its policy is taught to say, a distribution over responses for every concept.

A response is ``<think> clear exact</think><answer> dog face</answer>``. The first word of the thought says how
familiar the picture is, the second how specific the answer will be. Both are shared by all domains, which is how
a level learnt by reinforcement in one domain carries over to the others. The probabilities are a construction:
they make a model that is right but too generic, and that knows names for some concepts only.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_prep.emoji.facts import Concept, Stratum

USER_TEXT = "Name it."
FAMILIARITY_WORDS = ("clear", "vague")
LEVEL_WORDS = ("broad", "narrow", "exact", "unsure")
ABSTENTION = "none"
_WORLD_SEED = 7
_CONFUSIONS = 3
_WRONG_SUBGROUP = 0.12


class Level(enum.IntEnum):
    """How specific an answer tries to be; the value indexes ``LEVEL_WORDS``."""

    BROAD = 0
    NARROW = 1
    EXACT = 2
    UNSURE = 3


@dataclass(frozen=True)
class Response:
    """A response before it becomes tokens. ``familiarity`` is None for a response without a thought."""

    familiarity: str | None
    level: Level
    answer: str

    @property
    def text(self) -> str:
        """The response as the policy's tokenizer decodes it."""
        thought = "" if self.familiarity is None else f"<think> {self.familiarity} {LEVEL_WORDS[self.level]}</think>"
        return f"{thought}<answer> {self.answer}</answer>"


LevelShares = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mixture:
    """Probabilities of one pre-training phase.

    ``levels``: shares of broad, narrow, exact, unsure, keyed by stratum or, if ``by_familiarity``, by the drawn
    familiarity word. ``right``: chance that an exact name is the true one, else one of the concept's three
    fixed confusions. ``clear``: chance of the word "clear"; None means responses without a thought.
    """

    levels: Mapping[str, LevelShares]
    right: Mapping[Stratum, float]
    clear: Mapping[Stratum, float] | None = None
    by_familiarity: bool = False


_K, _P, _U = Stratum.KNOWN, Stratum.PARTIAL, Stratum.UNKNOWN
_MOSTLY_EXACT: Mapping[str, LevelShares] = {
    _K: (0.07, 0.08, 0.85, 0.0),
    _P: (0.15, 0.15, 0.70, 0.0),
    _U: (0.50, 0.30, 0.20, 0.0),
}
_LEANS_GENERIC: Mapping[str, LevelShares] = {
    _K: (0.48, 0.22, 0.27, 0.03),
    _P: (0.50, 0.23, 0.22, 0.05),
    _U: (0.54, 0.22, 0.17, 0.07),
}
_BY_WORD: Mapping[str, LevelShares] = {"clear": (0.48, 0.22, 0.27, 0.03), "vague": (0.54, 0.22, 0.17, 0.07)}
_SHARP = {_K: 1.0, _P: 0.675, _U: 0.0}
_BLURRED = {_K: 0.60, _P: 0.35, _U: 0.0}
_CLEAR_AT_FIRST = {_K: 0.90, _P: 0.60, _U: 0.12}
_CLEAR = {_K: 0.90, _P: 0.60, _U: 0.06}

NAMING = Mixture(_MOSTLY_EXACT, _SHARP)
NAMING_GENERIC = Mixture(_LEANS_GENERIC, _SHARP)
THINKING = Mixture(_MOSTLY_EXACT, _SHARP, _CLEAR_AT_FIRST)
THINKING_GENERIC = Mixture(_BY_WORD, _SHARP, _CLEAR_AT_FIRST, by_familiarity=True)
FINAL = Mixture(_BY_WORD, _BLURRED, _CLEAR, by_familiarity=True)
"""The distribution that the shipped policy is meant to have."""


class World:
    """The concepts with their fixed confusions; draws responses."""

    def __init__(self, concepts: Sequence[Concept]) -> None:
        """Raises ``ValueError`` when a domain has too few concepts to confuse."""
        self.concepts = tuple(concepts)
        self.confusions = _fixed_confusions(self.concepts)
        subgroups: dict[str, set[str]] = {}
        for concept in self.concepts:
            subgroups.setdefault(concept.domain, set()).add(concept.subgroup)
        self._subgroups = {domain: tuple(sorted(names)) for domain, names in subgroups.items()}

    @property
    def words(self) -> list[str]:
        """Every distinct word of a label or thought, in order of first appearance."""
        labels = (part for concept in self.concepts for part in concept.label_path)
        phrases = (*FAMILIARITY_WORDS, *LEVEL_WORDS, ABSTENTION, *labels)
        return list(dict.fromkeys(word for phrase in phrases for word in phrase.split()))

    def draw(self, concept: Concept, mixture: Mixture, rng: random.Random) -> Response:
        """One response to a picture of ``concept``."""
        familiarity = None
        if mixture.clear is not None:
            familiarity = "clear" if rng.random() < mixture.clear[concept.stratum] else "vague"
        key = familiarity if mixture.by_familiarity and familiarity is not None else concept.stratum
        level = Level(rng.choices(range(len(Level)), mixture.levels[key])[0])
        return Response(familiarity, level, self._answer(concept, level, mixture, rng))

    def _answer(self, concept: Concept, level: Level, mixture: Mixture, rng: random.Random) -> str:
        if level is Level.BROAD:
            return concept.group
        if level is Level.UNSURE:
            return ABSTENTION
        if level is Level.NARROW:
            others = [name for name in self._subgroups[concept.domain] if name != concept.subgroup]
            if concept.stratum is Stratum.UNKNOWN and rng.random() < _WRONG_SUBGROUP:
                return rng.choice(others)
            return concept.subgroup
        if rng.random() < mixture.right[concept.stratum]:
            return concept.name
        return rng.choice(self.confusions[concept.index])


def _fixed_confusions(concepts: Sequence[Concept]) -> dict[int, tuple[str, ...]]:
    """Three wrong names per concept, from its subgroup where that has enough that the policy can name."""
    rng = random.Random(_WORLD_SEED)
    table: dict[int, tuple[str, ...]] = {}
    for concept in concepts:
        near = [
            other
            for other in concepts
            if other.domain == concept.domain and other.stratum is not Stratum.UNKNOWN and other is not concept
        ]
        close = [other for other in near if other.subgroup == concept.subgroup]
        pool = close if len(close) >= _CONFUSIONS else near
        if len(pool) < _CONFUSIONS:
            raise ValueError(f"{concept.domain} has too few concepts to confuse {concept.name!r} with")
        table[concept.index] = tuple(other.name for other in rng.sample(pool, _CONFUSIONS))
    return table
