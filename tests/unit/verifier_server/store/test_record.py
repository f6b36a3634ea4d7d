"""The bytes of a stored verdict: exact, and any damage is noticed."""

import dataclasses
import hashlib
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.verdict import Pair, Source, Verdict
from speciarl.verifier_server.store.record import CorruptRecord, EntryReader, Record, checksum_of, decode, encode

texts = st.text(st.characters(codec="utf-8"), max_size=30)
finite = st.floats(0, 1e6)
records = st.builds(
    Record,
    judge=st.binary(min_size=32, max_size=32),
    pair=st.builds(Pair, texts, texts),
    verdict=st.builds(
        Verdict,
        category=st.sampled_from(Category),
        margin=st.none() | finite,
        source=st.just(Source.STORE),
        probabilities=st.none() | st.tuples(*[st.floats(0, 1)] * 6),
    ),
    created_us=st.integers(0, 2**63),
)


@given(records)
def test_round_trip(record: Record) -> None:
    assert decode(record.key, encode(record)) == record
    assert encode(record).endswith(checksum_of(record))


@given(records, st.data())
def test_any_flipped_byte_is_noticed(record: Record, data: st.DataObject) -> None:
    content = bytearray(encode(record))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptRecord):
        decode(record.key, bytes(content))


@given(records, st.data())
def test_a_cut_or_padded_record_is_noticed(record: Record, data: st.DataObject) -> None:
    content = encode(record)
    for damaged in (content[: data.draw(st.integers(0, len(content) - 1))], content + data.draw(st.binary(min_size=1))):
        with pytest.raises(CorruptRecord):
            decode(record.key, damaged)


@given(records, records)
def test_a_record_under_the_key_of_another_is_noticed(one: Record, other: Record) -> None:
    if one.key != other.key:
        with pytest.raises(CorruptRecord, match="another key"):
            decode(other.key, encode(one))


@given(st.binary(max_size=300))
def test_foreign_bytes_are_no_record(content: bytes) -> None:
    with pytest.raises(CorruptRecord):
        decode(bytes(32), content)


def test_the_source_is_the_store_and_the_time_is_kept() -> None:
    live = Verdict(Category.GENERIC, 1.5, Source.LIVE, (0.1, 0.1, 0.5, 0.1, 0.1, 0.1))
    record = Record.of(bytes(32), Pair("lion", "cat"), live, 12.5)
    assert record.verdict == dataclasses.replace(live, source=Source.STORE)
    assert record.created_us == 12_500_000


def test_damage_is_counted_and_logged_but_not_each_time(caplog: pytest.LogCaptureFixture) -> None:
    reader = EntryReader("there")
    record = Record.of(bytes(32), Pair("lion", "cat"), Verdict(Category.WRONG, None, Source.LIVE), 0)
    with caplog.at_level(logging.WARNING):
        assert reader.read(record.key, None) is None
        assert reader.corrupt == 0
        assert reader.read(record.key, encode(record)) == record
        for _ in range(99):
            assert reader.read(record.key, b"junk") is None
        assert reader.read(record.key, ["a list"]) is None
    assert reader.corrupt == 100
    assert len(caplog.messages) == 3
    assert "there" in caplog.messages[0]


@pytest.mark.parametrize(
    ("at", "content", "message"),
    [
        (0, b"\2", "version 2"),
        (42, b"\6", "6"),  # no such category
        (43, b"\x7f\xf8" + bytes(6), "finite"),  # a margin that is no number
        (51, b"\x7f\xf0" + bytes(6), "finite"),  # an infinite probability
        (99, b"\0\0\0\1", "lengths"),
        (107, b"\xff", "utf-8"),
    ],
)
def test_a_record_that_is_whole_but_makes_no_sense_is_refused(at: int, content: bytes, message: str) -> None:
    verdict = Verdict(Category.WRONG, 1.0, Source.LIVE, (0.0,) * 6)
    record = Record.of(bytes(32), Pair("lion", "cat"), verdict, 0)
    body = bytearray(encode(record)[:-8])
    body[at : at + len(content)] = content
    whole = bytes(body) + hashlib.blake2b(body, digest_size=8).digest()
    with pytest.raises(CorruptRecord, match=message):
        decode(record.key, whole)
