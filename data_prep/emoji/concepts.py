"""Concepts of the miniature world, each with its familiarity stratum.

Everything here is a pure function of the committed table: it does not depend on ``--seed``, because the shipped
policy was pre-trained on exactly these strata.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from importlib import resources

from data_prep.emoji.facts import Concept, Fact, Stratum, from_csv, label

DOMAINS = {
    label("Animals & Nature"): "emoji/animals",
    label("Food & Drink"): "emoji/food",
    label("Travel & Places"): "emoji/travel",
    label("Objects"): "emoji/objects",
}
TRAIN_DOMAIN = "emoji/animals"
DOMAIN_CAP = {"emoji/animals": 170, "emoji/food": 140, "emoji/travel": 140, "emoji/objects": 120}
MAX_NAME_WORDS = 5
_SKIPPED_WORDS = frozenset({"clock", "thirty"})
_WORLD_SEED = 7
_K, _P, _U = Stratum.KNOWN, Stratum.PARTIAL, Stratum.UNKNOWN
# 9 known, 4 partial, 7 unknown in every 20 consecutive concepts; dealing it out along subgroup-sorted
# concepts keeps the shares even within each subgroup, so no subgroup gives the stratum away.
_PATTERN = (_K, _K, _U, _K, _P, _U, _K, _U, _K, _U, _P, _K, _K, _U, _P, _K, _U, _K, _P, _U)


def load_facts() -> list[Fact]:
    """The committed table of emoji facts."""
    return from_csv(resources.files("data_prep.emoji").joinpath("taxonomy.csv").read_text(encoding="utf-8"))


def _eligible(facts: Iterable[Fact]) -> list[Fact]:
    """Facts in file order without clock faces, long names, duplicates, and names that are also a class above."""
    facts = list(facts)
    taken = {fact.group for fact in facts} | {fact.subgroup for fact in facts}
    chosen = []
    for fact in facts:
        words = fact.name.split()
        if len(words) > MAX_NAME_WORDS or _SKIPPED_WORDS.intersection(words) or fact.name in taken:
            continue
        taken.add(fact.name)
        chosen.append(fact)
    return chosen


def _cap(facts: Sequence[Fact], limit: int) -> list[Fact]:
    """Thin to ``limit`` by taking the subgroups in turn, so that small subgroups survive; file order is kept."""
    queues: dict[str, list[Fact]] = {}
    for fact in facts:
        queues.setdefault(fact.subgroup, []).append(fact)
    picked: list[Fact] = []
    depth = 0
    while len(picked) < min(limit, len(facts)):
        layer = [queue[depth] for queue in queues.values() if depth < len(queue)]
        picked += layer[: limit - len(picked)]
        depth += 1
    kept = {fact.name for fact in picked}
    return [fact for fact in facts if fact.name in kept]


def _strata(facts: Sequence[Fact]) -> dict[str, Stratum]:
    rng = random.Random(_WORLD_SEED)
    by_subgroup: dict[str, list[str]] = {}
    for fact in facts:
        by_subgroup.setdefault(fact.subgroup, []).append(fact.name)
    order: list[str] = []
    for subgroup in sorted(by_subgroup):
        names = sorted(by_subgroup[subgroup])
        rng.shuffle(names)
        order += names
    return {name: _PATTERN[position % len(_PATTERN)] for position, name in enumerate(order)}


def _own_aliases(fact: Fact, names: frozenset[str], owners: dict[str, int]) -> tuple[str, ...]:
    """Aliases that point to this concept alone. Short codes with a digit, such as "dog2", are no natural name."""
    return tuple(
        alias
        for alias in fact.aliases
        if alias not in names and owners[alias] == 1 and not any(map(str.isdigit, alias))
    )


def select_concepts(facts: Iterable[Fact]) -> list[Concept]:
    """The concepts of all four domains, in the table's order."""
    facts = list(facts)
    eligible = _eligible(facts)
    kept: list[Fact] = []
    for group, domain in DOMAINS.items():
        kept += _cap([fact for fact in eligible if fact.group == group], DOMAIN_CAP[domain])
    strata = _strata(kept)
    names = frozenset(name for fact in facts for name in (fact.group, fact.subgroup, fact.name))
    owners: dict[str, int] = {}
    for fact in facts:
        for alias in fact.aliases:
            owners[alias] = owners.get(alias, 0) + 1
    return [
        Concept(
            index,
            Fact(fact.codepoints, fact.group, fact.subgroup, fact.name, _own_aliases(fact, names, owners)),
            DOMAINS[fact.group],
            strata[fact.name],
        )
        for index, fact in enumerate(kept)
    ]


def load_concepts() -> list[Concept]:
    """The concepts of the shipped miniature world."""
    return select_concepts(load_facts())
