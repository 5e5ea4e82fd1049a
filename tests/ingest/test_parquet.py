"""How data files are encoded."""

from __future__ import annotations

import decimal
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boilstream.catalog.types import TopicSchema
from boilstream.ingest.parquet import ROW_GROUP_ROWS, EncodedFile, encode

ROWS = 20_000
FIELDS = [
    ("counter", pa.int64()),
    ("measure", pa.float64()),
    ("sparse", pa.float64()),
    ("kind", pa.string()),
    ("id", pa.binary(16)),
    ("price", pa.decimal128(9, 2)),
    ("list", pa.list_(pa.float64())),
    ("map", pa.map_(pa.string(), pa.struct([("a.b", pa.int32())]))),
    ("flag", pa.bool_()),
]


def table() -> tuple[TopicSchema, pa.RecordBatch]:
    """Columns that compress well and badly, nested ones between them."""
    chance = random.Random(1)
    schema = TopicSchema.declare(pa.schema(FIELDS))
    noise = [chance.random() for _ in range(ROWS)]
    columns: list[Any] = [
        list(range(ROWS)),
        noise,
        [value if value < 0.3 else None for value in noise],
        [chance.choice(["view", "click"]) for _ in noise],
        [chance.randbytes(16) for _ in noise],
        [decimal.Decimal(chance.randrange(10_000_000)).scaleb(-2) for _ in noise],
        [[value] for value in noise],
        [[("k", {"a.b": number})] for number in range(ROWS)],
        [value < 0.5 for value in noise],
    ]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, schema.stored, strict=True)]
    return schema, pa.RecordBatch.from_arrays(arrays, schema=schema.stored)


def opened(file: EncodedFile) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(file.data))


def test_values_come_back_and_fields_carry_their_ids() -> None:
    schema, batch = table()
    file = opened(encode([batch.slice(0, 1), batch.slice(1)], schema.stored))
    assert file.read().equals(pa.Table.from_batches([batch]).cast(file.schema_arrow))
    assert [int(field.metadata[b"PARQUET:field_id"]) for field in file.schema_arrow] == [
        field.field_id for field in schema.iceberg.fields
    ]


def test_columns_that_compression_hardly_makes_smaller_are_left_as_they_are() -> None:
    schema, batch = table()
    row_group = opened(encode([batch], schema.stored)).metadata.row_group(0)
    chunks = [row_group.column(number) for number in range(row_group.num_columns)]
    assert {chunk.path_in_schema: chunk.compression for chunk in chunks} == {
        "counter": "ZSTD",
        "measure": "UNCOMPRESSED",
        "sparse": "UNCOMPRESSED",
        "kind": "ZSTD",
        "id": "UNCOMPRESSED",
        "price": "ZSTD",
        "list.list.element": "ZSTD",
        "map.key_value.key": "ZSTD",
        "map.key_value.value.a.b": "ZSTD",
        "flag": "ZSTD",
    }


def test_encodings_are_those_that_all_iceberg_readers_know() -> None:
    schema, batch = table()
    row_group = opened(encode([batch], schema.stored)).metadata.row_group(0)
    used = {e for n in range(row_group.num_columns) for e in row_group.column(n).encodings}
    assert used == {"PLAIN", "RLE", "RLE_DICTIONARY"}
    assert "RLE_DICTIONARY" in row_group.column(3).encodings
    assert "RLE_DICTIONARY" not in row_group.column(0).encodings


def test_a_small_file_is_compressed_without_looking() -> None:
    schema, batch = table()
    row_group = opened(encode([batch.slice(0, 10)], schema.stored)).metadata.row_group(0)
    assert {row_group.column(n).compression for n in range(row_group.num_columns)} == {"ZSTD"}


@pytest.mark.slow
@pytest.mark.parametrize(("width", "groups"), [(1, 4), (64, 16)])
def test_a_large_file_has_row_groups_for_several_readers(width: int, groups: int) -> None:
    """By rows if they are narrow; a row group of wide ones has 32 MiB at most."""
    schema = TopicSchema.declare(pa.schema([(f"c{n}", pa.int64()) for n in range(width)]))
    rows = ROW_GROUP_ROWS
    batch = pa.RecordBatch.from_arrays([pa.arange(0, rows)] * width, schema=schema.stored)
    metadata = opened(encode([batch] * 4, schema.stored)).metadata
    assert metadata.num_row_groups == groups
    assert metadata.num_rows == 4 * rows
