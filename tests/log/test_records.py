from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.log.records import (
    DamagedRecord,
    DataFile,
    Record,
    TopicCommit,
    decode,
    encode,
    new_writer_id,
    parse_key,
    record_key,
)

WRITER = "0019a0b1c2d3e-00c0ffee"

counts = st.integers(0, 2**63)
files = st.builds(DataFile, key=st.text(max_size=20), rows=counts, bytes=counts)
commits = st.builds(
    TopicCommit,
    topic=st.text(max_size=9),
    name=st.text(max_size=9),
    location=st.text(max_size=9),
    files=st.lists(files, max_size=3).map(tuple),
)
records = st.builds(
    Record,
    writer=st.just(WRITER),
    sequence=st.integers(1, 10**19),
    time_ms=counts,
    topics=st.lists(commits, max_size=3).map(tuple),
    dropped=st.lists(st.text(max_size=9), max_size=2).map(tuple),
)


@given(records)
def test_a_record_survives_its_encoding(record: Record) -> None:
    assert decode(record.key, encode(record)) == record


@given(records, st.data())
def test_damage_is_noticed_or_harmless_never_a_crash(record: Record, data: st.DataObject) -> None:
    encoded = bytearray(encode(record))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(decode(record.key, bytes(encoded)), Record)
    except DamagedRecord as error:
        assert str(error)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000, b'{"version": 2}', b'{"version": true}']
)
def test_what_is_not_a_record_is_damaged(body: bytes) -> None:
    with pytest.raises(DamagedRecord):
        decode(record_key(WRITER, 1), body)


def test_a_record_under_another_key_is_damaged() -> None:
    record = Record(WRITER, 7, 0)
    with pytest.raises(DamagedRecord, match="names itself"):
        decode(record_key(WRITER, 8), encode(record))


def test_keys_sort_like_sequences_and_parse_back() -> None:
    keys = [record_key(WRITER, n) for n in (1, 9, 10, 10**19)]
    assert keys == sorted(keys)
    assert [parse_key(key) for key in keys] == [(WRITER, n) for n in (1, 9, 10, 10**19)]


@pytest.mark.parametrize(
    "key", ["_log/x/1.json", f"_log/{WRITER}/1.json", f"log/{WRITER}/{1:020d}.json", "_log/"]
)
def test_foreign_keys_are_not_records(key: str) -> None:
    assert parse_key(key) is None


def test_writer_ids_are_unique_and_sort_by_time() -> None:
    early, late = new_writer_id(1_700_000_000_000), new_writer_id(1_700_000_000_001)
    assert early < late
    assert new_writer_id(1) != new_writer_id(1)
    assert parse_key(record_key(early, 1)) == (early, 1)


def test_the_json_is_readable_by_people() -> None:
    file = DataFile("tables/s3/events-1/data/f.parquet", 10, 1234)
    record = Record(
        WRITER, 1, 1_700_000_000_000, (TopicCommit("uuid", "s3.events", "tables/s3/events-1", (file,)),)
    )
    assert json.loads(encode(record))["topics"][0]["name"] == "s3.events"
