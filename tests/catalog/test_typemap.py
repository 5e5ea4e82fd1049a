"""Data files as other readers see them: pyiceberg, DuckDB, Parquet itself."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg import types as ice
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import _check_pyarrow_schema_compatible, parquet_files_to_data_files
from pyiceberg.table import Table

from boilstream.catalog.types import TopicSchema

_UUID = UUID("00112233-4455-6677-8899-aabbccddeeff")
_MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_NANOS = 1_767_323_045_123_456_789

_NESTED = pa.list_(
    pa.struct([("m", pa.map_(pa.string(), pa.list_(pa.uint8(), 2))), ("u", pa.list_view(pa.uuid()))])
)

_COLUMNS: list[tuple[str, pa.DataType, Any, ice.IcebergType, Any]] = [
    # name, declared type, what is sent, Iceberg type, what an Iceberg reader sees
    ("bool", pa.bool_(), True, ice.BooleanType(), True),
    ("bool8", pa.bool8(), 1, ice.BooleanType(), True),
    ("i8", pa.int8(), -128, ice.IntegerType(), -128),
    ("u16", pa.uint16(), 65535, ice.IntegerType(), 65535),
    ("u32", pa.uint32(), 2**32 - 1, ice.LongType(), 2**32 - 1),
    ("u64", pa.uint64(), 2**64 - 1, ice.DecimalType(20, 0), Decimal(2**64 - 1)),
    ("f16", pa.float16(), 1.5, ice.FloatType(), 1.5),
    ("f64", pa.float64(), 0.1, ice.DoubleType(), 0.1),
    ("d32", pa.decimal32(9, 2), Decimal("1234567.89"), ice.DecimalType(9, 2), Decimal("1234567.89")),
    ("d64", pa.decimal64(18, 0), Decimal(10**17), ice.DecimalType(18, 0), Decimal(10**17)),
    ("d256", pa.decimal256(38, 10), Decimal("1.5"), ice.DecimalType(38, 10), Decimal("1.5000000000")),
    ("text", pa.large_string(), "täulu", ice.StringType(), "täulu"),
    ("view", pa.string_view(), "x" * 20, ice.StringType(), "x" * 20),
    ("json", pa.json_(), '{"a": 1}', ice.StringType(), '{"a": 1}'),
    ("blob", pa.binary_view(), b"\x00\xff", ice.BinaryType(), b"\x00\xff"),
    ("fixed", pa.binary(3), b"abc", ice.FixedType(3), b"abc"),
    ("hugeint", pa.opaque(pa.binary(16), "hugeint", "DuckDB"), b"h" * 16, ice.FixedType(16), b"h" * 16),
    ("uuid", pa.uuid(), _UUID.bytes, ice.UUIDType(), _UUID),
    ("date64", pa.date64(), date(2026, 1, 2), ice.DateType(), date(2026, 1, 2)),
    ("time32", pa.time32("s"), time(1, 2, 3), ice.TimeType(), time(1, 2, 3)),
    ("time_ns", pa.time64("ns"), 1, ice.LongType(), 1),
    (
        "ts",
        pa.timestamp("ms"),
        _MOMENT.replace(tzinfo=None),
        ice.TimestampType(),
        _MOMENT.replace(tzinfo=None),
    ),
    ("tstz", pa.timestamp("s", "Europe/Helsinki"), _MOMENT, ice.TimestamptzType(), _MOMENT),
    ("ts_ns", pa.timestamp("ns"), _NANOS, ice.LongType(), _NANOS),
    ("took", pa.duration("ms"), 1500, ice.LongType(), 1500),
    (
        "interval",
        pa.month_day_nano_interval(),
        pa.MonthDayNano((1, -1, 256)),
        ice.FixedType(16),
        bytes.fromhex("01000000ffffffff0001000000000000"),
    ),
    ("täulu / 1.x", pa.int64(), 1, ice.LongType(), 1),
    (
        "nested",
        _NESTED,
        [{"m": [("k", [1, 2])], "u": [_UUID.bytes]}],
        ice.ListType(
            29,
            ice.StructType(
                ice.NestedField(
                    30,
                    "m",
                    ice.MapType(
                        32,
                        ice.StringType(),
                        33,
                        ice.ListType(34, ice.IntegerType(), element_required=False),
                        value_required=False,
                    ),
                    required=False,
                ),
                ice.NestedField(
                    31, "u", ice.ListType(35, ice.UUIDType(), element_required=False), required=False
                ),
            ),
            element_required=False,
        ),
        [{"m": [("k", [1, 2])], "u": [_UUID]}],
    ),
]


def _declared() -> pa.Schema:
    return pa.schema([(name, kind) for name, kind, *_ in _COLUMNS])


def _array(kind: pa.DataType, value: Any) -> Any:
    """The value and a null, as a client sends them."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array([value, None], kind.storage_type))
    if kind == _NESTED:
        kind = pa.list_(pa.struct([kind.value_type.field("m"), ("u", pa.list_(pa.binary(16)))]))
        return pa.array([value, []], kind)  # pyiceberg 0.12 gives a null list of structs as an empty one
    return pa.array([value, None], kind)


@pytest.fixture
def topic() -> TopicSchema:
    return TopicSchema.declare(_declared())


@pytest.fixture
def stored(topic: TopicSchema) -> pa.RecordBatch:
    """One row of values and one of nulls."""
    batch = pa.record_batch({name: _array(kind, value) for name, kind, value, *_ in _COLUMNS})
    return topic.conform(batch.schema).to_stored(batch)


@pytest.fixture
def file(stored: pa.RecordBatch, tmp_path: Path) -> Path:
    """A data file with those rows."""
    path = tmp_path / "data.parquet"
    with pq.ParquetWriter(path, stored.schema, compression="zstd", store_decimal_as_integer=True) as writer:
        writer.write_batch(stored)
    return path


@pytest.fixture
def table(topic: TopicSchema, tmp_path: Path) -> Table:
    catalog = SqlCatalog(
        "c", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse"
    )
    catalog.create_namespace("n")
    return catalog.create_table("n.t", topic.iceberg, properties={"format-version": "2"})


def _append(table: Table, file: Path) -> None:
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        for data_file in parquet_files_to_data_files(table.io, table.metadata, iter([str(file)])):
            append.append_data_file(data_file)


def test_columns_have_the_iceberg_types_of_the_table(topic: TopicSchema, table: Table) -> None:
    assert table.schema().as_struct() == topic.iceberg.as_struct()
    for (name, _, _, expected, _), field in zip(_COLUMNS, topic.iceberg.fields, strict=True):
        assert (field.name, field.field_type, field.required) == (name, expected, False)
    docs = {field.name: field.doc for field in topic.iceberg.fields if field.doc}
    assert docs == {
        "time_ns": "time of day in nanoseconds since midnight",
        "ts_ns": "nanoseconds since 1970-01-01T00:00:00, without time zone",
        "took": "duration in milliseconds",
        "interval": "interval: months and days as int32, nanoseconds as int64, little endian",
    }


def test_parquet_has_field_ids_at_every_level_and_logical_types(file: Path) -> None:
    schema = pq.ParquetFile(file).schema
    text = str(schema)
    for line in (
        "field_id=28 nested (List)",
        "field_id=29 element {",
        "field_id=30 m (Map)",
        "field_id=32 key (String)",
        "field_id=33 value (List)",
        "optional int32 field_id=34 element;",
        "fixed_len_byte_array(16) field_id=35 element (UUID)",
        "fixed_len_byte_array(16) field_id=18 uuid (UUID)",
        "optional int32 field_id=9 d32 (Decimal(precision=9, scale=2))",
        "optional int64 field_id=10 d64 (Decimal(precision=18, scale=0))",
        "optional int32 field_id=3 i8;",
        "field_id=22 ts (Timestamp(isAdjustedToUTC=false, timeUnit=microseconds",
        "field_id=23 tstz (Timestamp(isAdjustedToUTC=true, timeUnit=microseconds",
    ):
        assert line in text


def test_an_iceberg_reader_sees_every_column(topic: TopicSchema, file: Path, table: Table) -> None:
    _check_pyarrow_schema_compatible(table.schema(), topic.stored, format_version=2)
    _check_pyarrow_schema_compatible(table.schema(), pq.read_schema(file), format_version=2)
    _append(table, file)
    rows = table.scan().to_arrow().to_pylist()
    nothing: dict[str, Any] = {name: None for name, *_ in _COLUMNS}
    assert rows == [{name: seen for name, *_, seen in _COLUMNS}, {**nothing, "nested": []}]


def test_what_an_iceberg_reader_gives_is_the_declared_form_again(
    topic: TopicSchema, stored: pa.RecordBatch, file: Path, table: Table
) -> None:
    _append(table, file)
    (batch,) = table.scan().to_arrow().combine_chunks().to_batches()
    back = topic.to_declared(batch)
    assert back.schema == _declared()
    assert back.equals(topic.to_declared(stored))


def test_duckdb_reads_the_file(file: Path) -> None:
    found = duckdb.sql(f"SELECT * FROM '{file}'")
    kinds = dict(zip(found.columns, map(str, found.types), strict=True))
    assert kinds["uuid"] == "UUID"
    assert kinds["u64"] == "DECIMAL(20,0)"
    assert kinds["tstz"] == "TIMESTAMP WITH TIME ZONE"
    assert kinds["nested"] == "STRUCT(m MAP(VARCHAR, INTEGER[]), u UUID[])[]"
    row = duckdb.sql(
        f"SELECT u64, uuid, text, date64, nested[1].m['k'], nested[1].u[1] FROM '{file}'"
    ).fetchall()
    assert row == [
        (Decimal(2**64 - 1), _UUID, "täulu", date(2026, 1, 2), [1, 2], _UUID),
        (None, None, None, None, None, None),
    ]
