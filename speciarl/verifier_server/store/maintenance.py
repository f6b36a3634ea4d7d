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
"""Progress callback: called with the number of entries just processed."""


@dataclass
class JudgeStatistics:
    """Statistics of one judge's entries; times are in microseconds since 1970."""

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
    """Statistics of a whole store."""

    judges: dict[bytes, JudgeStatistics] = field(default_factory=dict)
    """By fingerprint; `statistics` sorts them by number of verdicts, most first, then by fingerprint."""
    corrupt: int = 0
    """Damaged or foreign entries."""

    @property
    def verdicts(self) -> int:
        """Number of usable entries."""
        return sum(judge.verdicts for judge in self.judges.values())


@dataclass(frozen=True)
class PruneRule:
    """Rule that selects the entries to delete. Damaged and foreign ones always are."""

    before_us: int | None = None
    """Delete entries created before this time, in microseconds since 1970."""
    judges: Collection[bytes] | None = None
    """Delete entries of these judges, by fingerprint. Together with `before_us`: entries to which both apply."""
    keep: int | None = None
    """Of the entries left by then, delete all but this number of the newest."""

    def drops(self, record: Record) -> bool:
        """Whether the entry is deleted for its age or judge; never without such a condition."""
        if self.before_us is None and self.judges is None:
            return False
        old = self.before_us is None or record.created_us < self.before_us
        return old and (self.judges is None or record.judge in self.judges)


@dataclass
class Pruned:
    """Numbers of entries that a pruning deleted, or would delete, and that are left."""

    corrupt: int = 0
    chosen: int = 0
    """Deleted by age or judge."""
    surplus: int = 0
    """Deleted beyond the number to keep."""
    left: int = 0

    @property
    def deleted(self) -> int:
        """Number of deleted entries."""
        return self.corrupt + self.chosen + self.surplus


def matching_judges(known: Collection[JudgeIdentity], text: str) -> list[JudgeIdentity]:
    """The judges whose model has this name, or whose fingerprint begins with it (8 hex digits or more)."""
    return [
        judge
        for judge in known
        if judge.model == text or (len(text) >= 8 and judge.fingerprint.hex().startswith(text.lower()))
    ]


async def statistics(store: VerdictStore, advance: Advance = lambda _: None) -> Statistics:
    """Count the entries by judge and category."""
    found = Statistics()
    async for entries in store.scan():
        for _, record in entries:
            if record is None:
                found.corrupt += 1
            else:
                found.judges.setdefault(record.judge, JudgeStatistics()).count(record)
        advance(len(entries))
    # The order of a scan is not defined (each Redis server has its own); a listing must not change with it.
    found.judges = dict(sorted(found.judges.items(), key=lambda item: (-item[1].verdicts, item[0])))
    return found


async def prune(store: VerdictStore, rule: PruneRule, dry: bool = False, advance: Advance = lambda _: None) -> Pruned:
    """Delete the entries that the rule selects; with `dry` only count them. Safe to run again when interrupted.

    With `keep` there are two passes, and 8 bytes of memory per entry: the first finds the cutoff time. Of several
    entries of that very microsecond some may stay beyond the number.
    """
    cutoff_us = 0 if rule.keep is None else await _cutoff_us(store, rule, rule.keep, advance)
    done = Pruned()
    async for entries in store.scan():
        selected = []
        for key, record in entries:
            if record is None:
                done.corrupt += 1
            elif rule.drops(record):
                done.chosen += 1
            elif record.created_us < cutoff_us:
                done.surplus += 1
            else:
                done.left += 1
                continue
            selected.append(key)
        if not dry:
            await store.delete(selected)
        advance(len(entries))
    return done


async def _cutoff_us(store: VerdictStore, rule: PruneRule, keep: int, advance: Advance) -> int:
    """Creation time of the oldest entry to keep, so that `keep` of those that the rule does not drop remain."""
    times_us = array("Q")
    async for entries in store.scan():
        times_us.extend(record.created_us for _, record in entries if record is not None and not rule.drops(record))
        advance(len(entries))
    if len(times_us) <= keep:
        return 0
    if keep == 0:
        return 2**64  # later than any entry
    import numpy as np

    return int(np.partition(np.frombuffer(times_us, dtype=np.uint64), len(times_us) - keep)[len(times_us) - keep])
