"""Reading entries that may be damaged or foreign."""

import logging

from speciarl.verifier_server.store.record import CorruptRecord, Record, decode

_log = logging.getLogger(__name__)


class EntryReader:
    """Decodes the entries of one store; counts and logs those that cannot be used, and never raises."""

    def __init__(self, where: str) -> None:
        self.corrupt = 0
        """Damaged or foreign entries met so far."""
        self._where = where
        self._next_log = 1

    def read(self, key: bytes, content: object) -> Record | None:
        """The record; None when there is none or it is unusable."""
        if content is None:
            return None
        try:
            if not isinstance(content, bytes):
                raise CorruptRecord(f"it holds {type(content).__name__} instead of bytes")
            return decode(key, content)
        except CorruptRecord as error:
            self._note(key, error)
            return None

    def _note(self, key: bytes, error: CorruptRecord) -> None:
        self.corrupt += 1
        if self.corrupt >= self._next_log:  # the 1st, 10th, 100th …: thousands may be damaged at once
            self._next_log = self.corrupt * 10
            _log.warning(
                "verdict store %s: entry %s… is ignored and will be judged and written anew: %s (%d so far)",
                self._where,
                key.hex()[:16],
                error,
                self.corrupt,
            )
