"""Reading a data file as a version of its topic."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boilstream.catalog.types import TopicSchema
from boilstream.errors import InvalidArgument
from tests.catalog.arrow_data import LEAVES, types

COLUMNS = pa.schema(
    [
        pa.field("a", pa.int32(), nullable=False),
        pa.field("a.b", pa.string()),
        pa.field("u", pa.uuid()),
        pa.field("l", pa.large_list(pa.field("element", pa.uint8()))),
    ]
)
UUID = b"0123456789abcdef"


@pytest.fixture
def topic() -> TopicSchema:
    return TopicSchema.declare(COLUMNS)


@pytest.fixture
def batch() -> pa.RecordBatch:
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([UUID, None], pa.binary(16)))
    columns = [
        pa.array([1, 2], pa.int32()),
        pa.array(["x", None]),
        uuids,
        pa.array([[1], None], COLUMNS[3].type),
    ]
    return pa.record_batch(columns, schema=COLUMNS)


def with_ids(schema: pa.Schema, ids: dict[str, int]) -> pa.Schema:
    return pa.schema(
        [f.with_metadata({"PARQUET:field_id": str(ids[f.name])}) for f in schema if f.name in ids]
    )


def read(topic: TopicSchema, file: pa.RecordBatch, columns: list[str] | None = None) -> Any:
    found = topic.reader(file.schema, columns).to_declared(file)
    found.validate(full=True)
    return found


@pytest.mark.parametrize("columns", [["l", "a"], ["a.b"], ["u", "u"], ["a", "a.b", "u", "l"], []])
def test_columns_come_in_the_order_that_was_asked(
    topic: TopicSchema, batch: pa.RecordBatch, columns: list[str]
) -> None:
    stored = topic.conform(COLUMNS).to_stored(batch)
    reader = topic.reader(stored.schema, columns)
    assert reader.names == list(dict.fromkeys(columns))
    assert reader.schema.names == columns
    narrow = stored.select(reader.names)
    for file in (stored, narrow):
        found = reader.to_declared(file)
        assert found.num_rows == 2
        assert found.schema.equals(pa.schema([COLUMNS.field(name) for name in columns]))
        for name, column in zip(columns, found.columns, strict=True):
            assert column.equals(batch.column(name))


def test_batches_of_one_file_may_have_their_columns_in_any_order(
    topic: TopicSchema, batch: pa.RecordBatch
) -> None:
    stored = topic.conform(COLUMNS).to_stored(batch)
    reader = topic.reader(stored.schema, ["a", "l"])
    for names in (["a", "l"], ["l", "u", "a"], ["a", "l"], stored.schema.names):
        assert reader.to_declared(stored.select(names)).equals(batch.select(["a", "l"]))
    swapped = with_ids(pa.schema([("x", pa.int32()), ("y", pa.int32())]), {"x": 77, "y": 1})
    other = topic.reader(swapped, ["a"])
    rows = [[1, 2], [3, 4]]
    assert other.to_declared(pa.record_batch(rows, schema=swapped)).column(0).to_pylist() == [3, 4]
    renumbered = with_ids(swapped, {"x": 1, "y": 77})
    assert other.to_declared(pa.record_batch(rows, schema=renumbered)).column(0).to_pylist() == [1, 2]


def test_names_in_the_file_mean_nothing(topic: TopicSchema) -> None:
    file = pa.record_batch(
        [[7], ["y"], ["other"], [3]],
        schema=with_ids(
            pa.schema([("u", pa.int32()), ("a", pa.string()), ("gone", pa.string()), ("l", pa.int8())]),
            {"u": 1, "a": 2, "gone": 77, "l": 78},
        ),
    )
    assert topic.reader(file.schema).names == ["u", "a"]
    assert read(topic, file).to_pylist() == [{"a": 7, "a.b": "y", "u": None, "l": None}]


def test_a_column_without_id_is_nobodys(topic: TopicSchema) -> None:
    file = pa.record_batch([pa.array([5], pa.int32())], names=["a"])
    found = read(topic, file)
    assert found.column("a").null_count == 1
    assert topic.reader(file.schema).names == []


@settings(deadline=None)
@given(st.one_of(st.sampled_from(LEAVES), types(3)), st.booleans(), st.integers(0, 4))
def test_a_column_that_the_file_does_not_have_is_null(kind: pa.DataType, nullable: bool, rows: int) -> None:
    topic = TopicSchema.declare(pa.schema([pa.field("a", kind, nullable=nullable)]))
    file = pa.record_batch([pa.nulls(rows, pa.int8())], names=["other"]).select([])
    assert file.num_rows == rows
    found = read(topic, file)
    assert found.schema.equals(topic.declared)
    assert found.column(0).to_pylist() == [None] * rows


@pytest.mark.parametrize(
    ("written", "values", "declared"),
    [
        (pa.int32(), [1, None, -(2**31)], pa.int64()),
        (pa.int32(), [1, None, 255], pa.uint32()),
        (pa.float32(), [1.5, None, float("inf")], pa.float64()),
        (pa.decimal128(5, 2), ["1.25", None], pa.decimal128(12, 2)),
        (pa.decimal128(20, 0), ["18446744073709551615", None], pa.decimal128(38, 0)),
        (pa.int64(), [1, None, 127], pa.int8()),
        (pa.float64(), [1.5, None, float("-inf")], pa.float32()),
        (pa.float64(), [1.5, None, float("inf")], pa.float16()),
        (pa.float32(), [1.5, None, float("-inf")], pa.float16()),
        (pa.decimal128(12, 2), ["1.25", None], pa.decimal128(5, 2)),
        (pa.dictionary(pa.int8(), pa.string()), ["x", None], pa.large_string()),
        (pa.binary(16), [UUID, None], pa.uuid()),
        (pa.list_(pa.int32()), [[1], None], pa.large_list(pa.uint8())),
    ],
    ids=str,
)
def test_values_of_narrower_and_wider_types_are_converted(
    written: pa.DataType, values: list[Any], declared: pa.DataType
) -> None:
    topic = TopicSchema.declare(pa.schema([("a", declared)]))
    schema = with_ids(pa.schema([("a", written)]), {"a": 1})
    plain = pa.string() if pa.types.is_decimal(written) else written
    column = pa.array(values, plain).cast(written)
    found = read(topic, pa.record_batch([column], schema=schema)).column(0)
    assert found.type == topic.declared.field(0).type
    if isinstance(found, pa.ExtensionArray):
        found = found.storage
    if pa.types.is_decimal(written):
        found = found.cast(pa.string())
    assert found.to_pylist() == values


def test_nan_fits_every_float() -> None:
    topic = TopicSchema.declare(pa.schema([("a", pa.float32())]))
    schema = with_ids(pa.schema([("a", pa.float64())]), {"a": 1})
    found = read(topic, pa.record_batch([pa.array([float("nan"), -0.0])], schema=schema))
    assert str(found.column(0).to_pylist()) == "[nan, -0.0]"


@pytest.mark.parametrize(
    ("written", "value", "declared"),
    [
        (pa.int64(), 2**31, pa.int32()),
        (pa.int32(), 300, pa.int8()),
        (pa.float64(), 0.1, pa.float32()),
        (pa.float64(), 1e300, pa.float32()),
        (pa.float32(), 0.1, pa.float16()),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_no_other_value(
    written: pa.DataType, value: Any, declared: pa.DataType
) -> None:
    topic = TopicSchema.declare(pa.schema([("a", declared)]))
    schema = with_ids(pa.schema([("a", written)]), {"a": 1})
    with pytest.raises(InvalidArgument, match="column 'a': "):
        read(topic, pa.record_batch([pa.array([value], written)], schema=schema))


def test_a_file_that_cannot_be_of_the_topic_is_refused(topic: TopicSchema) -> None:
    schema = with_ids(pa.schema([("a", pa.string())]), {"a": 1})
    with pytest.raises(
        InvalidArgument, match="a data file of the topic cannot be read: column 'a': string cannot"
    ):
        topic.reader(schema)
    assert topic.reader(schema, ["u"]).names == []


def test_an_unknown_column_is_named(topic: TopicSchema, batch: pa.RecordBatch) -> None:
    with pytest.raises(InvalidArgument, match="column 'A' does not exist"):
        topic.reader(topic.stored, ["a", "A"])


def test_equal_columns_are_shared_not_copied(topic: TopicSchema, batch: pa.RecordBatch) -> None:
    stored = topic.conform(COLUMNS).to_stored(batch)
    found = read(topic, stored, ["a.b", "a"])
    for name in ("a", "a.b"):
        addresses = [buffer.address for buffer in stored.column(name).buffers() if buffer is not None]
        assert [b.address for b in found.column(name).buffers() if b is not None] == addresses
