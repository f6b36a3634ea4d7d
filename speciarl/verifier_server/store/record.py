"""Store record: one verdict with its judge, pair and time, its encoding, and the checksum that detects damage."""

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
"""Errors raised by nulls, wrong types, impossible values and wrong checksums when a record is built from them."""


class CorruptRecord(ValueError):
    """Error for content that is no record, or not the record of its key."""


@dataclass(frozen=True, slots=True)
class Record:
    """Record of a verdict with all that another store needs: its judge, its pair, and when it was given."""

    judge: bytes
    """`JudgeIdentity.fingerprint`, 32 bytes."""
    pair: Pair
    """Both texts normalised."""
    verdict: Verdict
    """The verdict, with source STORE."""
    created_us: int
    """Microseconds since 1970, UTC."""

    @classmethod
    def of(cls, judge: bytes, pair: Pair, verdict: Verdict, now_s: float) -> Self:
        """The record of a verdict given at `now_s`, in seconds since 1970."""
        return cls(judge, pair, replace(verdict, source=Source.STORE), int(now_s * 1e6))

    @property
    def key(self) -> bytes:
        """Key of the record, 32 bytes."""
        return verdict_key(self.judge, self.pair)


def encode(record: Record) -> bytes:
    """The record as bytes: header, texts, checksum."""
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
    """The record that is stored as bytes under a key; raises CorruptRecord when it is damaged, foreign or has
    another key."""
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
    return _checked(key, Record(judge, pair, verdict, created_us))


def verified(key: bytes, record: Record, checksum: object) -> Record:
    """The record, rebuilt from its parts, if unchanged; raises one of NOT_OURS when key or checksum do not match."""
    if checksum_of(record) != checksum:
        raise CorruptRecord("the checksum does not fit the verdict")
    return _checked(key, record)


def checksum_of(record: Record) -> bytes:
    """The checksum of a record, 8 bytes."""
    return encode(record)[-CHECKSUM_BYTES:]


def _checksum(body: bytes) -> bytes:
    """Hash without a key: it detects damage, not forgery."""
    return hashlib.blake2b(body, digest_size=CHECKSUM_BYTES).digest()


def _checked(key: bytes, record: Record) -> Record:
    if record.verdict.probabilities is not None and not all(map(math.isfinite, record.verdict.probabilities)):
        raise CorruptRecord("a probability is not finite")
    if record.key != key:
        raise CorruptRecord("it belongs to another key")
    return record


class EntryReader:
    """Reader of one store's entries: decodes them, counts and logs those that cannot be used, and never raises."""

    def __init__(self, where: str, decode: Callable[[bytes, Any], Record] = decode) -> None:
        """`decode` builds the record of a key from what is stored there, and raises CorruptRecord."""
        self.corrupt = 0
        """Number of damaged or foreign entries so far."""
        self._where = where
        self._decode = decode
        self._next_log = 1

    def read(self, key: bytes, content: object) -> Record | None:
        """The record of an entry; None when there is none or it is unusable."""
        if content is None:
            return None
        try:
            return self._decode(key, content)
        except CorruptRecord as error:
            self._report_corrupt(key, error)
            return None

    def _report_corrupt(self, key: bytes, error: CorruptRecord) -> None:
        self.corrupt += 1
        if self.corrupt >= self._next_log:  # logs the 1st, 10th, 100th …: thousands may be damaged at once
            self._next_log = self.corrupt * 10
            _log.warning(
                "verdict store %s: entry %s… is ignored and will be judged and written anew: %s (%d so far)",
                self._where,
                key.hex()[:16],
                error,
                self.corrupt,
            )
