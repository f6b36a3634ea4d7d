"""Verdict store interface: what every store offers, wherever it keeps its entries."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from speciarl.errors import SpeciaRLError
from speciarl.verifier_server.store.key import JudgeIdentity
from speciarl.verifier_server.store.record import Record

Entries = list[tuple[bytes, Record | None]]
"""Keys with their records; None where the entry is damaged or foreign."""


class StoreError(SpeciaRLError):
    """A store cannot be used, or failed. One line: which store, cause, remedy where there is one."""


class VerdictStore(Protocol):
    """Verdicts by key. The first one written for a key stays; a damaged or foreign entry counts as none.

    Every method raises StoreError when the store fails. A store belongs to one event loop.
    """

    where: str
    """For messages: the path, or the URL without a password."""

    @property
    def corrupt(self) -> int:
        """Damaged or foreign entries met since the start."""

    async def open(self) -> None:
        """Check that the store can be read and written, and make it when it does not exist."""

    async def get(self, keys: Sequence[bytes]) -> list[Record | None]:
        """The records of the keys, in their order."""

    async def put(self, judge: JudgeIdentity, records: Sequence[Record]) -> list[Record]:
        """Keep records of one judge; what the store now holds, in order.

        That is another record than the one given when somebody was faster: that one is to be used.
        """

    async def judges(self) -> Mapping[bytes, JudgeIdentity]:
        """Every judge that records were put of, by fingerprint."""

    def scan(self, chunk: int = 1000) -> AsyncIterator[Entries]:
        """All entries, about `chunk` at a time. What is written meanwhile may be missing; Redis may give an
        entry twice while it grows."""

    async def delete(self, keys: Sequence[bytes]) -> None:
        """Delete entries; unknown keys are ignored."""

    async def aclose(self) -> None:
        """Release everything. Safe to call twice."""
