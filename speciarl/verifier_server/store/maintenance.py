"""Store maintenance: statistics and pruning, in one pass and bounded memory, for every kind of store."""

from array import array
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from speciarl.category import Category
from speciarl.verifier_server.store.interface import VerdictStore
from speciarl.verifier_server.store.key import JudgeIdentity
from speciarl.verifier_server.store.record import Record

Advance = Callable[[int], object]
"""Told how many entries more were passed, for a progress bar."""


@dataclass
class JudgeStatistics:
    """The entries of one judge."""

    categories: Counter[Category] = field(default_factory=Counter)
    oldest_us: int = 2**63
    newest_us: int = 0

    @property
    def verdicts(self) -> int:
        """Number of entries."""
        return self.categories.total()

    def count(self, record: Record) -> None:
        """Count one entry."""
        self.categories[record.verdict.category] += 1
        self.oldest_us = min(self.oldest_us, record.created_us)
        self.newest_us = max(self.newest_us, record.created_us)


@dataclass
class Statistics:
    """All entries."""

    judges: dict[bytes, JudgeStatistics] = field(default_factory=dict)
    """By fingerprint; `statistics` puts the one with the most verdicts first, equals in the order of fingerprints."""
    corrupt: int = 0
    """Damaged or foreign entries."""

    @property
    def verdicts(self) -> int:
        """Number of usable entries."""
        return sum(judge.verdicts for judge in self.judges.values())


@dataclass(frozen=True)
class PruneRule:
    """Which entries go. Damaged and foreign ones always do."""

    before_us: int | None = None
    """Those created before this time, in microseconds since 1970."""
    judges: Collection[bytes] | None = None
    """Those of these judges, by fingerprint. Together with `before_us`: those to which both apply."""
    keep: int | None = None
    """Of what then is left, all but so many of the newest."""

    def drops(self, record: Record) -> bool:
        """Whether age or judge tell the entry to go; never without such a condition."""
        if self.before_us is None and self.judges is None:
            return False
        old = self.before_us is None or record.created_us < self.before_us
        return old and (self.judges is None or record.judge in self.judges)


@dataclass
class Pruned:
    """What a pruning took away, or would."""

    corrupt: int = 0
    chosen: int = 0
    """By age or judge."""
    surplus: int = 0
    """Beyond the number to keep."""
    left: int = 0

    @property
    def deleted(self) -> int:
        """All of them."""
        return self.corrupt + self.chosen + self.surplus


def matching_judges(known: Collection[JudgeIdentity], text: str) -> list[JudgeIdentity]:
    """The judges whose model has this name, or whose fingerprint begins so (8 hexadecimal digits or more)."""
    return [
        judge
        for judge in known
        if judge.model == text or (len(text) >= 8 and judge.fingerprint.hex().startswith(text.lower()))
    ]


async def statistics(store: VerdictStore, advance: Advance = lambda _: None) -> Statistics:
    """Count everything."""
    found = Statistics()
    async for entries in store.scan():
        for _, record in entries:
            if record is None:
                found.corrupt += 1
            else:
                found.judges.setdefault(record.judge, JudgeStatistics()).count(record)
        advance(len(entries))
    # A store is scanned in no order (Redis: in another for every server), a listing must not change with it.
    found.judges = dict(sorted(found.judges.items(), key=lambda item: (-item[1].verdicts, item[0])))
    return found


async def prune(store: VerdictStore, rule: PruneRule, dry: bool = False, advance: Advance = lambda _: None) -> Pruned:
    """Delete what the rule says; with `dry` only count. Interrupted, it may be run again.

    With `keep` there are two passes, and 8 bytes of memory per entry: the first finds the age at which to cut. Of
    entries of that very microsecond some may stay beyond the number.
    """
    cut_us = 0 if rule.keep is None else await _cut(store, rule, rule.keep, advance)
    done = Pruned()
    async for entries in store.scan():
        gone = []
        for key, record in entries:
            if record is None:
                done.corrupt += 1
            elif rule.drops(record):
                done.chosen += 1
            elif record.created_us < cut_us:
                done.surplus += 1
            else:
                done.left += 1
                continue
            gone.append(key)
        if not dry:
            await store.delete(gone)
        advance(len(entries))
    return done


async def _cut(store: VerdictStore, rule: PruneRule, keep: int, advance: Advance) -> int:
    """The age of the oldest entry to keep, so that `keep` of those that the rule does not drop remain."""
    ages = array("Q")
    async for entries in store.scan():
        ages.extend(record.created_us for _, record in entries if record is not None and not rule.drops(record))
        advance(len(entries))
    if len(ages) <= keep:
        return 0
    if keep == 0:
        return 2**64
    import numpy as np

    return int(np.partition(np.frombuffer(ages, dtype=np.uint64), len(ages) - keep)[len(ages) - keep])
