"""Store interface: the protocol of every verdict store, wherever it keeps its entries."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from speciarl.errors import SpeciaRLError
from speciarl.verifier_server.store.key import JudgeIdentity
from speciarl.verifier_server.store.record import Record

Entries = list[tuple[bytes, Record | None]]
"""Keys with their records; None where the entry is damaged or foreign, that is, not one of our records."""


class StoreError(SpeciaRLError):
    """Error of a store that cannot be used or failed, in one line: which store, cause, remedy where there is one."""


class VerdictStore(Protocol):
    """Store of verdicts by key. The first writer of a key wins; a damaged or foreign entry counts as none.

    Every method raises StoreError when the store fails. A store belongs to one event loop.
    """

    where: str
    """Name in messages: the path, or the URL without a password."""

    @property
    def corrupt(self) -> int:
        """Number of damaged or foreign entries read since the start."""

    async def open(self) -> None:
        """Check that the store can be read and written; create it when it does not exist."""

    async def get(self, keys: Sequence[bytes]) -> list[Record | None]:
        """The records of the keys, in their order; None for a key without a usable entry."""

    async def put(self, judge: JudgeIdentity, records: Sequence[Record]) -> list[Record]:
        """Write records of one judge; returns the record that the store now holds for each, in order.

        Where another writer came first that is the other writer's record, and it is the one to use.
        """

    async def judges(self) -> Mapping[bytes, JudgeIdentity]:
        """Identities of all judges whose records were put, by fingerprint."""

    def scan(self, chunk: int = 1000) -> AsyncIterator[Entries]:
        """All entries, about `chunk` at a time. Those written meanwhile may be missing; Redis may return an
        entry twice while it grows."""

    async def delete(self, keys: Sequence[bytes]) -> None:
        """Delete entries; unknown keys are ignored."""

    async def aclose(self) -> None:
        """Release all resources. Safe to call twice."""
