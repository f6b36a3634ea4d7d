"""Store record: one verdict with all that tells whose it is, its bytes, and the checksum that tells damage."""

import hashlib
import logging
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from speciarl.category import Category
from speciarl.verdict import Pair, Source, Verdict
from speciarl.verifier_server.store.key import verdict_key

_log = logging.getLogger(__name__)

RECORD_VERSION = 1
CHECKSUM_BYTES = 8

_HEADER = struct.Struct(">B32sQBBd6dII")
"""Version, judge, creation time, flags, category, margin, probabilities, lengths of the two texts."""
_HAS_MARGIN, _HAS_PROBABILITIES = 1, 2
_NONE = (0.0,) * len(Category)

NOT_OURS = (ValueError, TypeError, AttributeError, OverflowError, struct.error)
"""What nulls, wrong types, impossible values and wrong checksums raise when a record is put together from them."""


class CorruptRecord(ValueError):
    """What is no record, or not the record of its key."""


@dataclass(frozen=True, slots=True)
class Record:
    """A verdict with all that is needed to use it elsewhere: whose it is, of what, and when it was given."""

    judge: bytes
    """`JudgeIdentity.fingerprint`, 32 bytes."""
    pair: Pair
    """Both texts normalised."""
    verdict: Verdict
    """Its source is STORE."""
    created_us: int
    """Microseconds since 1970, UTC."""

    @classmethod
    def of(cls, judge: bytes, pair: Pair, verdict: Verdict, now_s: float) -> Self:
        """The record of a verdict just given; `now_s` is in seconds since 1970."""
        return cls(judge, pair, replace(verdict, source=Source.STORE), int(now_s * 1e6))

    @property
    def key(self) -> bytes:
        """Where the record is kept, 32 bytes."""
        return verdict_key(self.judge, self.pair)


def encode(record: Record) -> bytes:
    """The bytes of a record: header, texts, checksum."""
    verdict = record.verdict
    truth, prediction = record.pair.ground_truth.encode(), record.pair.prediction.encode()
    flags = (_HAS_MARGIN if verdict.margin is not None else 0) | (
        _HAS_PROBABILITIES if verdict.probabilities is not None else 0
    )
    header = _HEADER.pack(
        RECORD_VERSION,
        record.judge,
        record.created_us,
        flags,
        verdict.category,
        verdict.margin or 0.0,
        *(verdict.probabilities or _NONE),
        len(truth),
        len(prediction),
    )
    body = header + truth + prediction
    return body + _checksum(body)


def decode(key: bytes, content: object) -> Record:
    """The record whose bytes are kept under a key; raises CorruptRecord when it is damaged, foreign or belongs
    elsewhere."""
    if not isinstance(content, bytes):
        raise CorruptRecord(f"it holds {type(content).__name__} instead of bytes")
    body, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    if len(body) < _HEADER.size or _checksum(body) != checksum:
        raise CorruptRecord("the checksum does not match")
    version, judge, created_us, flags, category, margin, *numbers = _HEADER.unpack_from(body)
    if version != RECORD_VERSION:
        raise CorruptRecord(f"record version {version} is not {RECORD_VERSION}")
    *probabilities, truth_length, prediction_length = numbers
    texts = body[_HEADER.size :]
    if len(texts) != truth_length + prediction_length:
        raise CorruptRecord("the lengths do not match")
    try:
        pair = Pair(texts[:truth_length].decode(), texts[truth_length:].decode())
        verdict = Verdict(
            category=Category(category),
            margin=margin if flags & _HAS_MARGIN else None,
            source=Source.STORE,
            probabilities=tuple(probabilities) if flags & _HAS_PROBABILITIES else None,
        )
    except ValueError as error:
        raise CorruptRecord(str(error)) from error
    return _of_key(key, Record(judge, pair, verdict, created_us))


def verified(key: bytes, record: Record, checksum: object) -> Record:
    """The record, put together again from its parts; raises one of NOT_OURS when key or checksum tell of a change."""
    if checksum_of(record) != checksum:
        raise CorruptRecord("the checksum does not fit the verdict")
    return _of_key(key, record)


def checksum_of(record: Record) -> bytes:
    """The checksum of a record's bytes, 8 bytes."""
    return encode(record)[-CHECKSUM_BYTES:]


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=CHECKSUM_BYTES).digest()


def _of_key(key: bytes, record: Record) -> Record:
    if record.verdict.probabilities is not None and not all(map(math.isfinite, record.verdict.probabilities)):
        raise CorruptRecord("a probability is not finite")
    if record.key != key:
        raise CorruptRecord("it belongs to another key")
    return record


class EntryReader:
    """Decodes the entries of one store; counts and logs those that cannot be used, and never raises."""

    def __init__(self, where: str, decode: Callable[[bytes, Any], Record] = decode) -> None:
        """`decode` makes the record of a key from what is kept there, and raises CorruptRecord."""
        self.corrupt = 0
        """Damaged or foreign entries met so far."""
        self._where = where
        self._decode = decode
        self._next_log = 1

    def read(self, key: bytes, content: object) -> Record | None:
        """The record; None when there is none or it is unusable."""
        if content is None:
            return None
        try:
            return self._decode(key, content)
        except CorruptRecord as error:
            self._report_corrupt(key, error)
            return None

    def _report_corrupt(self, key: bytes, error: CorruptRecord) -> None:
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
