"""Statistics of data files: what they say holds for every value, in the order that DuckDB has."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boilstream.catalog.types import TopicSchema
from boilstream.ingest.parquet import encode
from boilstream.log.footers import MAX_BOUNDED_COLUMNS
from boilstream.log.records import DataFile, Record, TopicCommit, decode, new_writer_id
from boilstream.log.records import encode as encode_record
from boilstream.log.statistics import Bound, ColumnStatistics

INT64 = st.integers(-(2**63), 2**63 - 1)

KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "bool": (pa.bool_(), st.booleans()),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "uint32": (pa.uint32(), st.integers(0, 2**32 - 1)),
    "int64": (pa.int64(), INT64),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float16": (pa.float16(), st.floats(width=16)),
    "float": (pa.float32(), st.floats(width=32)),
    "double": (pa.float64(), st.floats()),
    "decimal9": (pa.decimal128(9, 3), st.decimals(-999_999, 999_999, places=3)),
    "decimal18": (pa.decimal128(18, 0), st.decimals(1 - 10**18, 10**18 - 1, places=0)),
    "decimal38": (pa.decimal128(38, 2), st.decimals(-(10**30), 10**30, places=2)),
    "date": (pa.date32(), st.dates()),
    "time": (pa.time64("us"), st.times()),
    "timestamp": (pa.timestamp("us"), INT64),
    "timestamptz": (pa.timestamp("ms", tz="Europe/Helsinki"), st.integers(-(2**50), 2**50)),
    "text": (pa.string(), st.text()),
    "long text": (pa.large_string(), st.text(st.sampled_from("aé\U0010ffff"), min_size=28, max_size=36)),
}

ORDERED = {
    "double": "DOUBLE",
    "text": "VARCHAR",
    "long text": "VARCHAR",
    "int64": "BIGINT",
    "bool": "BOOLEAN",
}


def stored(schema: pa.Schema, *arrays: pa.Array) -> tuple[TopicSchema, pa.RecordBatch]:
    """The stored form of a batch."""
    topic = TopicSchema.declare(schema)
    batch = pa.RecordBatch.from_arrays(list(arrays), schema=schema)
    return topic, topic.conform(schema).to_stored(batch)


def of_column(values: pa.Array) -> ColumnStatistics:
    topic, batch = stored(pa.schema([("x", values.type)]), values)
    return encode([batch], topic.stored).statistics[1]


def raw(value: Any) -> Any:
    """A stored value as bounds have it."""
    if isinstance(value, pa.Decimal128Scalar):
        return None if value.as_py() is None else int(value.as_py().scaleb(value.type.scale, WIDE))
    if isinstance(value, pa.Date32Scalar | pa.Time64Scalar | pa.TimestampScalar):
        return value.value
    return value.as_py()


WIDE = decimal.Context(prec=50)


def less_or_equal(lesser: Any, greater: Any) -> bool:
    """DuckDB's order: NaN is equal to itself and above all other floats; text goes by bytes of UTF-8."""
    if isinstance(lesser, str):
        return bool(lesser.encode() <= greater.encode())
    if isinstance(lesser, float) and isinstance(greater, float) and greater != greater:
        return True
    return bool(lesser <= greater)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(sorted(KINDS)), st.booleans())
def test_bounds_enclose_all_values_and_survive_json(data: st.DataObject, name: str, nulls: bool) -> None:
    kind, values = KINDS[name]
    column = data.draw(st.lists(values | st.none() if nulls else values, min_size=1, max_size=20))
    topic, batch = stored(pa.schema([("x", kind)]), pa.array(column, kind))
    encoded = encode([batch], topic.stored)
    found = encoded.statistics[1]
    assert found.nulls == column.count(None)
    for value in batch.column(0):
        plain = raw(value)
        if plain is not None:
            assert found.lower is None or less_or_equal(found.lower, plain)
            assert found.upper is None or less_or_equal(plain, found.upper)
    file = DataFile("f", len(column), 1, encoded.statistics)
    record = Record(new_writer_id(0), 1, 0, (TopicCommit("t", "s3.t", "l", (file,)),))
    assert decode(record.key, encode_record(record)) == record


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(sorted(ORDERED)))
def test_duckdb_agrees_with_the_bounds(data: st.DataObject, name: str) -> None:
    kind, values = KINDS[name]
    column = data.draw(st.lists(values, min_size=1, max_size=10))
    found = of_column(pa.array(column, kind))
    outside = f"SELECT count(*) FROM (SELECT unnest(?::{ORDERED[name]}[]) AS x) WHERE x < ? OR x > ?"
    (count,) = duckdb.execute(outside, [column, found.lower, found.upper]).fetchone() or (None,)
    assert count == 0


@pytest.mark.parametrize(
    ("values", "lower", "upper"),
    [
        (pa.array([2, 1, None]), 1, 2),
        (pa.array([2**64 - 1, 2**63], pa.uint64()), 2**63, 2**64 - 1),
        (pa.array([decimal.Decimal("-1.25"), decimal.Decimal("3.00")], pa.decimal128(9, 2)), -125, 300),
        (pa.array([decimal.Decimal("-1.25"), decimal.Decimal("3.00")], pa.decimal128(38, 2)), -125, 300),
        (pa.array([datetime.date(1970, 1, 3), datetime.date(1969, 12, 31)]), -1, 2),
        (pa.array([1500], pa.timestamp("ms")), 1_500_000, 1_500_000),
        (pa.array([1500], pa.time32("ms")), 1_500_000, 1_500_000),
        (pa.array([2500], pa.duration("s")), 2500, 2500),
        (pa.array([2500], pa.timestamp("ns", tz="UTC")), 2500, 2500),
        (pa.array([0.5, -2.0]), -2.0, 0.5),
        (pa.array([0.5, float("nan"), -2.0]), -2.0, None),
        (pa.array([float("nan")]), None, None),
        (pa.array([float("inf"), 1.0]), 1.0, None),
        (pa.array([float("-inf"), 1.0]), None, 1.0),
        (pa.array(["b", "ä", ""]), "", "ä"),
        (pa.array([40 * "x"]), 32 * "x", 31 * "x" + "y"),
        (pa.array([False, True]), False, True),
        (pa.array([None, None], pa.int64()), None, None),
        (pa.array([b"a"]), None, None),
        (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)], pa.binary(16))), None, None),
        (pa.array([[1, 2], None]), None, None),
        (pa.array([{"a": 1}]), None, None),
    ],
    ids=str,
)
def test_bounds_are_in_the_stored_form(values: pa.Array, lower: Bound | None, upper: Bound | None) -> None:
    found = of_column(values)
    assert (found.lower, found.upper) == (lower, upper)
    assert [type(bound) for bound in (found.lower, found.upper)] == [type(lower), type(upper)]
    assert found.nulls == values.null_count


def test_nulls_of_nested_columns_are_those_of_the_column_not_of_its_children() -> None:
    lists = pa.array([[1, None], None, [], None, [None]])
    structs = pa.array([{"a": None}, None, {"a": 1}, {"a": 2}, None])
    schema = pa.schema([("l", lists.type), ("s", structs.type), ("n", pa.int64())])
    topic, batch = stored(schema, lists, structs, pa.array([1, None, 3, 4, 5]))
    found = encode([batch], topic.stored).statistics
    assert [found[n].nulls for n in (1, 2, 3)] == [2, 2, 1]
    assert found[3] == ColumnStatistics(1, 1, 5)


def test_all_columns_have_nulls_and_the_first_ones_bounds() -> None:
    names = [f"c{n}" for n in range(MAX_BOUNDED_COLUMNS + 5)]
    schema = pa.schema([(name, pa.int64()) for name in names])
    topic, batch = stored(schema, *[pa.array([n, None]) for n in range(len(names))])
    found = encode([batch], topic.stored).statistics
    assert [found[n + 1] for n in range(MAX_BOUNDED_COLUMNS)] == [
        ColumnStatistics(1, n, n) for n in range(MAX_BOUNDED_COLUMNS)
    ]
    assert [found[n + 1] for n in range(MAX_BOUNDED_COLUMNS, len(names))] == 5 * [ColumnStatistics(1)]


def test_statistics_cover_all_batches_and_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boilstream.ingest.parquet.ROW_GROUP_ROWS", 3)
    schema = pa.schema([("x", pa.float64())])
    topic, first = stored(schema, pa.array([5.0, None, 2.0, 9.0]))
    _, second = stored(schema, pa.array([-1.0, None, None]))
    assert encode([first, second], topic.stored).statistics == {1: ColumnStatistics(3, -1.0, 9.0)}
    _, third = stored(schema, pa.array([float("nan"), 7.0]))
    assert encode([first, second, third], topic.stored).statistics == {1: ColumnStatistics(3, -1.0, None)}
