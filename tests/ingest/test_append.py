"""Appends of many small batches, which are checked and converted together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boilstream.catalog.names import topic_name
from boilstream.catalog.topics import Topic, draft
from boilstream.catalog.types import TopicSchema
from boilstream.errors import InvalidArgument
from boilstream.ingest.append import GROUP_ROWS
from boilstream.query.scan import Segment, read
from tests.ingest.test_engine import MIB, SCHEMA, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("append"), flush_interval=0.0)
    yield world
    world.engine.close(5)
    assert world.engine.budget.used == 0, "every reserved byte is released"


def numbers(*values: int | None) -> pa.RecordBatch:
    return pa.record_batch({"n": pa.array(values, pa.int64())})


_names = iter(range(10**6))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.one_of(st.integers(0, 50), st.just(GROUP_ROWS)), min_size=1, max_size=12),
    through=st.sets(st.integers(0, 11)),
)
def test_all_rows_are_kept_in_their_order(world: World, sizes: list[int], through: set[int]) -> None:
    topic = world.topic(f"order{next(_names)}")
    append = world.engine.open(topic, SCHEMA)
    start = 0
    for position, size in enumerate(sizes):
        batch = numbers(*range(start, start + size))
        if position in through:
            assert append.write_through(batch).column(0).to_pylist() == list(range(start, start + size))
        else:
            append.write(batch)
        start += size
    assert append.rows_sent == start
    if start:
        assert append.finish(lambda: False).rows == start
    append.close()
    assert world.engine.budget.used == 0
    assert sum(file.rows for file in world.index.files(topic.id)) == start
    if start < 1000:
        assert world.rows(topic) == list(range(start))


def test_a_damaged_batch_among_many_is_told_by_its_number(world: World) -> None:
    schema = pa.schema([("t", pa.string())])
    append = world.engine.open(_texts(world), schema)
    for number in range(50):
        good = pa.record_batch({"t": [f"row {number}"]})
        append.write(_damaged() if number == 36 else good)
    with pytest.raises(InvalidArgument, match="batch 37, column 't' is damaged"):
        append.finish(lambda: False)
    append.close()


def test_a_batch_that_follows_a_group_keeps_its_number(world: World) -> None:
    append = world.engine.open(_texts(world), pa.schema([("t", pa.string())]))
    for number in range(5):
        append.write(pa.record_batch({"t": [str(number)]}))
    append.write_through(pa.record_batch({"t": ["x"]}))
    with pytest.raises(InvalidArgument, match="batch 7, column 't' is damaged"):
        append.write_through(_damaged())
    append.close()


def test_dictionaries_that_differ_from_batch_to_batch_are_decoded(world: World) -> None:
    topic = _texts(world)
    kind = pa.dictionary(pa.int8(), pa.string())
    append = world.engine.open(topic, pa.schema([("t", kind)]))
    for number in range(20):
        append.write(pa.record_batch({"t": pa.array([f"v{number}", "same"], kind)}))
    assert append.finish(lambda: False).rows == 40
    append.close()
    statistics = world.index.files(topic.id)[0].statistics[1]
    assert (statistics.lower, statistics.upper) == ("same", "v9")


def _texts(world: World) -> Topic:
    schema = TopicSchema.declare(pa.schema([("t", pa.string())]))
    return world.catalog.create(draft(topic_name("s3", f"texts{next(_names)}"), schema))


def _damaged() -> pa.RecordBatch:
    """Texts whose offsets are not in order, which only a full check finds."""
    offsets = pa.array([0, 5, 3], pa.int32()).buffers()[1]
    text = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"abc")])
    return pa.RecordBatch.from_arrays([text], names=["t"])


def test_streams_that_pause_leave_room_for_others(tmp_path: Path) -> None:
    """What waits for company in a stream cannot be written out by another; so only half of the memory may wait."""
    world = World(tmp_path, memory_limit=MIB, ack_timeout=10)
    topic = world.topic()
    pausing = [world.engine.open(topic, SCHEMA) for _ in range(80)]
    for append in pausing:
        append.write(numbers(*range(1700)))  # about 15 KiB: less than a group
    assert world.append(topic, numbers(*range(30_000))) == 30_000
    for append in pausing:
        assert append.finish(lambda: False).rows == 1700
        append.close()
    world.engine.close(5)
    assert world.engine.budget.used == 0


def test_a_large_batch_is_not_copied_together_with_small_ones(world: World) -> None:
    topic = world.topic("large")
    append = world.engine.open(topic, SCHEMA)
    append.write(numbers(1, 2))
    append.write(numbers(*range(400_000)))
    append.write(numbers(3))
    assert append.finish(lambda: False).rows == 400_003
    append.close()
    assert sum(file.rows for file in world.index.files(topic.id)) == 400_003


def test_a_group_that_does_not_fit_into_one_batch_is_kept_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with texts of more than 2 GiB together, which Arrow leaves in several chunks."""
    batches = [numbers(1, 2), numbers(3), numbers(4, 5)]
    monkeypatch.setattr("boilstream.ingest.append._together", lambda group: [group[0], *group[1:]])
    topic = world.topic("chunks")
    assert world.append(topic, *batches) == 5
    assert world.rows(topic) == [1, 2, 3, 4, 5]


def test_a_hugeint_of_39_digits_is_kept_as_duckdb_sends_it(world: World) -> None:
    """A client without lossless conversion sends HUGEINT as decimals, whose raw 128 bits may be more than 38 digits."""
    kind = pa.opaque(pa.binary(16), "hugeint", "DuckDB")
    declared = TopicSchema.declare(pa.schema([("h", kind)]))
    topic = world.catalog.create(draft(topic_name("s3", "huge"), declared))
    values = [2**127 - 1, -(2**127), 0, 10**38]
    raw = b"".join(value.to_bytes(16, "little", signed=True) for value in values)
    sent = pa.Array.from_buffers(pa.decimal128(38, 0), len(values), [None, pa.py_buffer(raw)])
    append = world.engine.open(topic, pa.schema([("h", sent.type)]))
    for _ in range(3):
        append.write(pa.RecordBatch.from_arrays([sent], names=["h"]))
    assert append.finish(lambda: False).rows == 12
    append.close()
    segments = [Segment(file.key, 0, file.rows) for file in world.index.files(topic.id)]
    found = [value for batch in read(world.store, declared, segments) for value in batch.column(0).storage]
    assert [value.as_py() for value in found] == [raw[start : start + 16] for start in range(0, 64, 16)] * 3


@pytest.mark.parametrize(("kind", "value"), [(pa.time64("us"), 86_400_000_000), (pa.time32("s"), 86_400)])
def test_the_end_of_the_day_is_no_time_of_day(world: World, kind: pa.DataType, value: int) -> None:
    declared = TopicSchema.declare(pa.schema([("t", kind)]))
    topic = world.catalog.create(draft(topic_name("s3", f"time{kind}"), declared))
    array = pa.array([value], pa.int64() if kind.bit_width == 64 else pa.int32()).view(kind)
    append = world.engine.open(topic, pa.schema([("t", kind)]))
    append.write(pa.RecordBatch.from_arrays([array], names=["t"]))
    with pytest.raises(InvalidArgument, match="column 't': a time of day must be before 24:00:00"):
        append.finish(lambda: False)
    append.close()
