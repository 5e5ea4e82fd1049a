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
from boilstream.log.statistics import MAX_BOUND_CHARACTERS, MAX_BOUND_INTEGER, ColumnStatistics

WRITER = "0019a0b1c2d3e-00c0ffee"

counts = st.integers(0, 2**63)
bounds = st.one_of(
    st.tuples(*[st.integers(1 - MAX_BOUND_INTEGER, MAX_BOUND_INTEGER - 1)] * 2),
    st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2),
    st.tuples(*[st.text(max_size=MAX_BOUND_CHARACTERS)] * 2),
    st.tuples(*[st.booleans()] * 2),
    st.tuples(st.none(), st.booleans()),
    st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.none()),
)
statistics = st.dictionaries(
    st.integers(1, 2**31 - 1),
    st.builds(lambda nulls, bounds: ColumnStatistics(nulls, *bounds), st.integers(0, 2**40), bounds),
    max_size=3,
)
files = st.builds(
    DataFile, key=st.text(max_size=20), rows=st.integers(2**40, 2**63), bytes=counts, statistics=statistics
)
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


def a_file(statistics: str | None, rows: int = 10) -> bytes:
    """A record with one file that has this JSON as its statistics."""
    more = "" if statistics is None else f', "statistics": {statistics}'
    file = f'{{"key": "f", "rows": {rows}, "bytes": 1{more}}}'
    topic = f'{{"topic": "t", "name": "s3.t", "location": "l", "files": [{file}]}}'
    body = f'"version": 1, "writer": "{WRITER}", "sequence": 1, "time_ms": 0, "topics": [{topic}]'
    return f'{{{body}, "dropped": []}}'.encode()


def test_a_record_of_an_earlier_release_has_no_statistics() -> None:
    record = decode(record_key(WRITER, 1), a_file(None))
    assert record.topics[0].files == (DataFile("f", 10, 1, {}),)


def test_statistics_are_by_field_id() -> None:
    record = decode(record_key(WRITER, 1), a_file('{"7": [1, -1.5, null], "12": [0, "a", "b"]}'))
    assert record.topics[0].files[0].statistics == {
        7: ColumnStatistics(1, -1.5, None),
        12: ColumnStatistics(0, "a", "b"),
    }


@pytest.mark.parametrize(
    "statistics",
    [
        "null",
        "[]",
        '{"0": [0, 1, 2]}',
        '{"-1": [0, 1, 2]}',
        '{"1.0": [0, 1, 2]}',
        '{"\u0661": [0, 1, 2]}',
        '{"2147483648": [0, 1, 2]}',
        '{"1": null}',
        '{"1": {}}',
        '{"1": [0, 1]}',
        '{"1": [0, 1, 2, 3]}',
        '{"1": [null, 1, 2]}',
        '{"1": [-1, 1, 2]}',
        '{"1": [11, 1, 2]}',
        '{"1": [true, 1, 2]}',
        '{"1": [1.0, 1, 2]}',
        '{"1": [0, 1, 2.0]}',
        '{"1": [0, true, 2]}',
        '{"1": [0, "1", 2]}',
        '{"1": [0, NaN, 1.0]}',
        '{"1": [0, 1.0, 1e999]}',
        '{"1": [0, -Infinity, 1.0]}',
        '{"1": [0, [1], [2]]}',
        '{"1": [0, "\\ud800", "b"]}',
        '{"1": [0, 1, 1' + 38 * "0" + "]}",
        '{"1": [0, 1, ' + 5000 * "9" + "]}",
        '{"1": [0, "a", "' + 33 * "b" + '"]}',
    ],
)
def test_statistics_that_cannot_be_are_damage(statistics: str) -> None:
    with pytest.raises(DamagedRecord):
        decode(record_key(WRITER, 1), a_file(statistics))
