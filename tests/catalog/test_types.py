"""Schemas of topics: three forms of one schema, and batches between them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyiceberg import types as ice
from pyiceberg.schema import Schema, assign_fresh_schema_ids

from boilstream.catalog.types import (
    MAX_DECLARED_BYTES,
    TopicSchema,
    parse_declared,
    serialize_declared,
)
from boilstream.errors import ConstraintViolated, InvalidArgument
from tests.catalog.arrow_data import LEAVES, arrays, fields


def at_most(examples: int) -> int:
    """So many examples, in the quick run those of its profile."""
    profile = settings.get_profile(settings.get_current_profile_name())
    return min(examples, profile.max_examples) if profile.max_examples < 100 else examples


_relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck))


def _through_parquet(batch: pa.RecordBatch) -> pa.RecordBatch:
    file = io.BytesIO()
    with pq.ParquetWriter(
        file, batch.schema, compression="zstd", compression_level=1, store_decimal_as_integer=True
    ) as writer:
        writer.write_batch(batch)
    table = pq.read_table(io.BytesIO(file.getvalue())).combine_chunks()
    return table.to_batches()[0] if len(table) else batch.slice(0, 0)


@settings(parent=_relaxed, max_examples=at_most(60))
@given(st.data())
def test_every_value_comes_back_from_parquet(data: st.DataObject) -> None:
    schema = pa.schema(data.draw(fields()))
    rows = data.draw(st.integers(0, 6))
    batch = pa.RecordBatch.from_arrays(
        [data.draw(arrays(field.type, rows, field.nullable)) for field in schema], schema=schema
    )
    batch.validate(full=True)
    topic = TopicSchema.declare(schema)
    stored = topic.conform(schema).to_stored(batch)
    stored.validate(full=True)
    assert stored.schema.equals(topic.stored, check_metadata=True)
    for form in (stored, _through_parquet(stored)):
        back = topic.to_declared(form)
        back.validate(full=True)
        assert back.schema.equals(schema)
        assert back.equals(batch)


@settings(parent=_relaxed, max_examples=at_most(100))
@given(fields())
def test_field_ids_are_those_that_creating_the_table_assigns(columns: list[pa.Field]) -> None:
    topic = TopicSchema.declare(pa.schema(columns))
    assert assign_fresh_schema_ids(topic.iceberg).as_struct() == topic.iceberg.as_struct()
    assert _ids(topic.stored) == sorted(topic.iceberg.field_ids)
    assert TopicSchema.load(parse_declared(serialize_declared(topic.declared)), topic.iceberg) == topic


def _ids(fields: Any) -> list[int]:
    """All field ids of an Arrow schema or type, sorted; a field without one raises."""
    found = []
    for field in fields:
        kind = field.type
        found.append(int(field.metadata[b"PARQUET:field_id"]))
        if pa.types.is_map(kind):
            found += _ids([kind.key_field, kind.item_field])
        elif isinstance(kind, pa.ListType | pa.LargeListType):
            found += _ids([kind.value_field])
        elif pa.types.is_struct(kind):
            found += _ids(kind.fields)
    return sorted(found)


@pytest.mark.parametrize("kind", LEAVES, ids=str)
def test_a_stream_may_send_a_column_of_nulls_without_type(kind: pa.DataType) -> None:
    topic = TopicSchema.declare(
        pa.schema([("n", pa.int32()), ("a", kind), ("s", pa.struct([("l", pa.list_(kind))]))])
    )
    sent = pa.record_batch({"n": pa.array([1, 2], pa.int32()), "a": pa.nulls(2), "s": pa.nulls(2)})
    back = topic.to_declared(topic.conform(sent.schema).to_stored(sent))
    assert back.schema == topic.declared
    assert [column.null_count for column in back.columns] == [0, 2, 2]


def test_columns_are_matched_by_name_and_absent_ones_become_null() -> None:
    inner = pa.struct([pa.field("need", pa.int32(), nullable=False), pa.field("may", pa.list_(pa.int8()))])
    topic = TopicSchema.declare(
        pa.schema([("Id", pa.int64()), ("note", pa.string()), ("s", inner), ("t", inner)])
    )
    sent = pa.record_batch(
        {
            "s": pa.array([{"NEED": 1}, None], pa.struct([("NEED", pa.int16())])),
            "ID": pa.array([7, 8], pa.uint8()),
        }
    )
    stored = topic.conform(sent.schema).to_stored(sent)
    assert stored.schema.equals(topic.stored, check_metadata=True)
    assert _through_parquet(stored).to_pylist() == [
        {"Id": 7, "note": None, "s": {"need": 1, "may": None}, "t": None},
        {"Id": 8, "note": None, "s": None, "t": None},
    ]


def test_equal_columns_are_shared_not_copied() -> None:
    schema = pa.schema(
        [("a", pa.int64()), ("b", pa.string()), ("c", pa.list_(pa.struct([("d", pa.float64())])))]
    )
    batch = pa.record_batch([[1, 2], ["x", None], [[{"d": 1.0}], None]], schema=schema)
    topic = TopicSchema.declare(schema)
    stored = topic.conform(schema).to_stored(batch)
    back = topic.to_declared(stored)
    for index in range(3):
        addresses = [buffer.address for buffer in batch.column(index).buffers() if buffer is not None]
        for other in (stored, back):
            assert [b.address for b in other.column(index).buffers() if b is not None] == addresses


def test_all_offending_columns_are_named_at_once() -> None:
    topic = TopicSchema.declare(
        pa.schema(
            [
                pa.field("id", pa.int64(), nullable=False),
                pa.field("score", pa.float32()),
                pa.field(
                    "s", pa.struct([pa.field("x", pa.int32()), pa.field("y", pa.int32(), nullable=False)])
                ),
            ]
        )
    )
    sent = pa.schema([("score", pa.string()), ("extra", pa.int8()), ("s", pa.struct([("x", pa.string())]))])
    with pytest.raises(InvalidArgument) as failure:
        topic.conform(sent)
    for part in (
        "'id': it is missing",
        "'score': string cannot become float",
        "'extra': the topic has no",
        "'s.y'",
        "'s.x'",
    ):
        assert part in failure.value.message


def test_a_long_list_of_problems_is_cut() -> None:
    topic = TopicSchema.declare(pa.schema([("a", pa.int32())]))
    with pytest.raises(InvalidArgument, match="and 980 more") as failure:
        topic.conform(pa.schema([(f"{'x' * 200}{i}", pa.int32()) for i in range(1000)]))
    assert len(failure.value.message) < 5000


def test_a_stream_without_columns_is_refused() -> None:
    topic = TopicSchema.declare(pa.schema([("a", pa.int32())]))
    with pytest.raises(InvalidArgument, match="no columns"):
        topic.conform(pa.schema([]))


@pytest.mark.parametrize(
    ("declared", "values", "sent", "message"),
    [
        (pa.int8(), [1, 2, 300], pa.int32(), "column 'a', row 2: Integer value 300 not in range"),
        (pa.timestamp("s"), [0, 2**62], pa.timestamp("s"), "column 'a', row 1: .*out of bounds timestamp"),
        (pa.timestamp("s"), [0, 1_000_000, 1], pa.timestamp("us"), "column 'a', row 2: .*lose data"),
        (pa.list_(pa.uint8()), [[1], None, [2, -1]], pa.list_(pa.int8()), "column 'a.element', row 2: "),
        (pa.float32(), [0.5, 0.1], pa.float64(), "row 1: Floating point value 0.1 is not exact as float"),
        (pa.float32(), [0.5, None, 1e300], pa.float64(), "row 2: .* value 1e\\+300 is not exact as float"),
        (
            pa.list_(pa.float16()),
            [[0.5], [None, 65520.0]],
            pa.list_(pa.float32()),
            "column 'a.element', row 1: .* 65520.0 is not exact as halffloat",
        ),
        (pa.binary(3), [b"abc", None, b"ab"], pa.binary(), "row 2: .*widths must match"),
        (pa.binary(3), [b"ab", b"abcd"], pa.large_binary(), "row 0: .*widths must match"),
        (pa.uuid(), [b"x" * 16, b"x" * 17], pa.binary(), "row 1: .*widths must match"),
        (
            pa.list_(pa.int8(), 2),
            [[1, 2], None, [3]],
            pa.list_(pa.int8()),
            "row 2: a list does not have the declared length 2",
        ),
        (pa.decimal128(3, 0), [1, 1000], pa.decimal128(38, 0), "column 'a', row 1: "),
        (
            pa.uuid(),
            ["01234567-89ab-cdef-0123-456789abcdef", "nonsense"],
            pa.string(),
            "row 1: the text is not a UUID",
        ),
        (
            pa.map_(pa.string(), pa.int8()),
            [[("x", 1)], [("y", 999)]],
            pa.map_(pa.string(), pa.int64()),
            "'a.value', row 1",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named(
    declared: Any, values: list[Any], sent: Any, message: str
) -> None:
    topic = TopicSchema.declare(pa.schema([("a", declared)]))
    batch = pa.record_batch([pa.array(values, sent)], names=["a"])
    with pytest.raises(InvalidArgument, match=message):
        topic.conform(batch.schema).to_stored(batch)


_NEED = pa.struct([pa.field("x", pa.int32(), nullable=False)])


@pytest.mark.parametrize(
    ("kind", "values", "path"),
    [
        (pa.int32(), [1, None], "a"),
        (_NEED, [{"x": 1}, {"x": None}], "a.x"),
        (pa.list_(pa.field("element", pa.int32(), nullable=False)), [[1], [2, None]], "a.element"),
        (pa.list_(_NEED), [[{"x": 1}, None], [{"x": None}]], "a.element.x"),
        (pa.map_(pa.string(), pa.field("value", pa.int32(), nullable=False)), [[], [("k", None)]], "a.value"),
    ],
)
def test_a_null_where_none_may_be_is_named(kind: pa.DataType, values: list[Any], path: str) -> None:
    topic = TopicSchema.declare(pa.schema([pa.field("a", kind, nullable=False)]))
    batch = pa.record_batch([pa.array(values, kind)], schema=pa.schema([pa.field("a", kind)]))
    with pytest.raises(
        ConstraintViolated, match=f"column '{path}', row 1: null in a column that does not allow"
    ):
        topic.conform(batch.schema).to_stored(batch)
    good = batch.slice(0, 1)
    assert topic.conform(good.schema).to_stored(good).to_pylist() == good.to_pylist()


def test_a_value_that_does_not_fit_breaks_no_constraint() -> None:
    topic = TopicSchema.declare(pa.schema([pa.field("a", pa.int8(), nullable=False)]))
    batch = pa.record_batch({"a": [300]})
    with pytest.raises(InvalidArgument) as caught:
        topic.conform(batch.schema).to_stored(batch)
    assert not isinstance(caught.value, ConstraintViolated)


def numbered(start: int) -> Callable[[int], pa.Array]:
    """A default that counts from `start` in each batch."""
    return lambda rows: pa.array(range(start, start + rows), pa.int64())


def test_a_column_that_is_left_out_gets_its_default() -> None:
    topic = TopicSchema.declare(
        pa.schema(
            [
                pa.field("Key", pa.int16(), nullable=False),
                pa.field("text", pa.string()),
                pa.field("half", pa.float16()),
                pa.field("n", pa.int64()),
            ]
        )
    )
    defaults: dict[str, Callable[[int], pa.Array]] = {
        "Key": numbered(5),
        "half": lambda rows: pa.array([1.5] * rows, pa.float32()).cast(pa.float16()),
        "n": numbered(0),
    }
    sent = pa.record_batch({"N": pa.array([None, 1, 2], pa.int8())})
    stored = topic.conform(sent.schema, defaults).to_stored(sent)
    assert stored.schema.equals(topic.stored, check_metadata=True)
    assert stored.to_pylist() == [
        {"Key": 5, "text": None, "half": 1.5, "n": None},
        {"Key": 6, "text": None, "half": 1.5, "n": 1},
        {"Key": 7, "text": None, "half": 1.5, "n": 2},
    ]
    with pytest.raises(InvalidArgument, match="'Key': it is missing and does not allow nulls"):
        topic.conform(sent.schema, {"n": numbered(0)})
    assert topic.conform(sent.schema, defaults).to_stored(sent.slice(0, 0)).num_rows == 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda rows: pa.nulls(rows, pa.int8()),
            ConstraintViolated,
            "'a', which the stream leaves out: null in",
        ),
        (
            lambda rows: pa.array([1, None, 3][:rows], pa.int8()),
            ConstraintViolated,
            "'a', which the stream leaves out: null in",
        ),
        (
            lambda rows: pa.array([300] * rows),
            InvalidArgument,
            "'a', which the stream leaves out: Integer value 300",
        ),
        (
            lambda rows: pa.array(["x"] * rows),
            InvalidArgument,
            "leaves out: its default does not fit: string",
        ),
    ],
    ids=["nulls", "a null", "range", "type"],
)
def test_a_default_is_held_to_the_rules_of_its_column(
    make: Callable[[int], pa.Array], error: type[InvalidArgument], message: str
) -> None:
    topic = TopicSchema.declare(pa.schema([pa.field("a", pa.int8(), nullable=False), ("b", pa.int8())]))
    sent = pa.record_batch({"b": pa.array([1, 2, 3], pa.int8())})
    with pytest.raises(error, match=message) as caught:
        topic.conform(sent.schema, {"a": make}).to_stored(sent)
    assert type(caught.value) is error


def test_defaults_that_would_be_too_much_are_not_made() -> None:
    topic = TopicSchema.declare(pa.schema([("a", pa.binary(65_536)), ("b", pa.bool_())]))
    sent = pa.record_batch({"b": pa.array([True] * 5000)})
    made: list[int] = []

    def make(rows: int) -> pa.Array:
        made.append(rows)
        return pa.nulls(rows, pa.binary(65_536))

    with pytest.raises(InvalidArgument, match="column 'a': the batch decodes to more than 256 MiB"):
        topic.conform(sent.schema, {"a": make}).to_stored(sent)
    assert made == []


@settings(parent=_relaxed, max_examples=at_most(60))
@given(st.integers(0, 400), st.integers(1, 400), st.sets(st.integers(0, 399), min_size=1, max_size=4))
@example(0, 400, {399})
def test_the_first_bad_row_is_found(start: int, rows: int, bad: set[int]) -> None:
    values = [300 if index in bad else index % 100 for index in range(400)]
    batch = pa.record_batch([pa.array(values, pa.int16())], names=["a"]).slice(start, rows)
    conformer = TopicSchema.declare(pa.schema([("a", pa.int8())])).conform(batch.schema)
    first = next((row for row in range(len(batch)) if row + start in bad), None)
    if first is None:
        assert conformer.to_stored(batch).to_pylist() == batch.to_pylist()
    else:
        with pytest.raises(InvalidArgument, match=f"row {first}:"):
            conformer.to_stored(batch)


def test_not_a_number_and_signed_zero_are_kept() -> None:
    values = [float("nan"), -0.0, float("inf"), float("-inf")]
    schema = pa.schema([("h", pa.float16()), ("f", pa.float32()), ("d", pa.float64())])
    batch = pa.record_batch([pa.array(values, field.type) for field in schema], schema=schema)
    topic = TopicSchema.declare(schema)
    back = topic.to_declared(_through_parquet(topic.conform(schema).to_stored(batch)))
    for column in back.columns:
        assert str(column.to_pylist()) == "[nan, -0.0, inf, -inf]"


def test_files_that_another_engine_rewrote_are_read() -> None:
    schema = pa.schema(
        [("s", pa.large_string()), ("u", pa.uuid()), ("l", pa.large_list(pa.uint8())), ("d", pa.uint64())]
    )
    topic = TopicSchema.declare(schema)
    other = pa.record_batch(
        {
            "s": pa.array(["x", None]).dictionary_encode(),
            "u": pa.array([b"0123456789abcdef", None], pa.binary(16)),
            "l": pa.array([[255, 0], None], pa.list_(pa.int32())),
            "d": pa.array(["18446744073709551615", None]).cast(pa.decimal128(20, 0)),
        }
    )
    back = topic.to_declared(other)
    assert back.schema == schema
    assert back.column("l").to_pylist() == [[255, 0], None]
    assert back.column("d").to_pylist() == [2**64 - 1, None]


def test_a_value_that_another_engine_wrote_and_that_does_not_fit_is_named() -> None:
    topic = TopicSchema.declare(pa.schema([("a", pa.int8())]))
    with pytest.raises(InvalidArgument, match="column 'a': Integer value 300"):
        topic.to_declared(pa.record_batch([pa.array([300], pa.int32())], schema=topic.stored))


def test_the_table_decides_when_it_was_changed_elsewhere() -> None:
    declared = pa.schema(
        [
            pa.field("kept", pa.uint8(), nullable=False),
            ("wider", pa.int16()),
            ("gone", pa.string()),
            ("same", pa.json_()),
        ]
    )
    iceberg = Schema(
        ice.NestedField(1, "kept", ice.IntegerType(), required=False),
        ice.NestedField(2, "wider", ice.LongType(), required=False),
        ice.NestedField(4, "same", ice.StringType(), required=False),
        ice.NestedField(
            7, "new", ice.ListType(9, ice.TimestamptzType(), element_required=True), required=False
        ),
    )
    topic = TopicSchema.load(declared, iceberg)
    element = pa.field("element", pa.timestamp("us", "UTC"), nullable=False)
    assert topic.declared == pa.schema(
        [("kept", pa.uint8()), ("wider", pa.int64()), ("same", pa.json_()), ("new", pa.large_list(element))]
    )
    assert _ids(topic.stored) == [1, 2, 4, 7, 9]


@pytest.mark.parametrize("kind", [ice.UnknownType(), ice.TimestampNanoType()], ids=str)
def test_an_iceberg_type_that_cannot_be_read_is_a_value_error(kind: ice.IcebergType) -> None:
    with pytest.raises(ValueError, match="column 'a'"):
        TopicSchema.load(pa.schema([]), Schema(ice.NestedField(1, "a", kind, required=False)))


@pytest.mark.parametrize(
    "text",
    ["", "not base64!", base64.b64encode(b"no message").decode(), "A" * (MAX_DECLARED_BYTES + 1)],
    ids=["empty", "text", "bytes", "long"],
)
def test_a_damaged_property_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="declared schema"):
        parse_declared(text)


@settings(parent=_relaxed, max_examples=at_most(200))
@given(st.binary(max_size=12), st.integers(0, 400))
def test_a_property_with_changed_bytes_is_read_or_a_value_error(noise: bytes, place: int) -> None:
    schema = pa.schema([("a", pa.list_(pa.uuid())), ("b", pa.timestamp("us", "UTC")), ("c", pa.json_())])
    message = bytearray(base64.b64decode(serialize_declared(schema)))
    message[place : place + len(noise)] = noise
    try:
        read = parse_declared(base64.b64encode(bytes(message)).decode())
    except ValueError:
        return
    assert len(TopicSchema.declare(read).stored) == len(read)


def test_the_width_of_a_row_counts_the_slots_of_fixed_size_lists() -> None:
    schema = pa.schema(
        [("v", pa.list_(pa.float32(), 1536)), ("u", pa.uuid()), ("s", pa.struct([("i", pa.int64())]))]
    )
    assert TopicSchema.declare(schema).row_width == 1536 * 4 + 16 + 8
