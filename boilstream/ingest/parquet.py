"""Arrow to Parquet: how data files are encoded. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from boilstream.ingest.statistics import statistics
from boilstream.log.statistics import ColumnStatistics

ROW_GROUP_ROWS, ROW_GROUP_BYTES = 262_144, 32 * 1024 * 1024
"""Rows and bytes (of Arrow) in a row group at most: what a reader holds at a time, and the least that
one of several readers of a large file takes."""

PAGE_ROWS = 65_536
"""Rows of a column in a page at most; a page ends after 1 MiB as well."""

_ZSTD, _ZSTD_LEVEL = "zstd", 1
_SMALL_CHUNK_ROWS = 8192
_SAMPLE_ROWS = 4096
_DICTIONARY_SAMPLE_ROWS = 32_768
_DICTIONARY_PAYS = 0.2
_COMPRESSION_PAYS = 0.9


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """The bytes of a Parquet file and what is known of its rows."""

    data: pa.Buffer
    statistics: Mapping[int, ColumnStatistics]
    """By field id of the top-level columns."""


def encode(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> EncodedFile:
    """One Parquet file (zstd level 1 where it pays, statistics, page index) with the rows of all batches.

    `schema` is the stored schema, whose fields carry the Iceberg field ids. Values are encoded plain or by
    dictionary only: Iceberg readers for Spark before Iceberg 1.10 know no others. The GIL is released while
    Arrow encodes.
    """
    table = pa.Table.from_batches(batches, schema)
    if len(batches) > 1 and table.num_rows < len(batches) * _SMALL_CHUNK_ROWS:
        table = table.combine_chunks()
    plain = set(_incompressible_columns(table))
    footers: list[Any] = []
    sink = pa.BufferOutputStream()
    with (
        pq.ParquetWriter(
            sink,
            schema,
            **_compression(schema, plain),
            use_dictionary=list(_dictionary_columns(table)),
            write_statistics=True,
            write_page_index=True,
            max_rows_per_page=PAGE_ROWS,
            store_decimal_as_integer=True,  # the Iceberg specification, appendix A: narrow decimals are int32 and int64
            store_schema=False,  # the declared types live in the catalog; other readers need plain Parquet types
            metadata_collector=footers,
        ) as writer
    ):
        fitting = table.num_rows * ROW_GROUP_BYTES // max(1, table.nbytes)
        writer.write_table(table, row_group_size=max(1, min(ROW_GROUP_ROWS, fitting)))
    return EncodedFile(sink.getvalue(), statistics(table, footers[0]))


def _dictionary_columns(table: pa.Table) -> Iterator[str]:
    """Columns whose sampled values repeat enough for a dictionary to make the file smaller.

    A dictionary that does not pay halves the encoding speed before Parquet falls back from it.
    """
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_nested(field.type) or pa.types.is_boolean(field.type):
            continue
        if isinstance(field.type, pa.BaseExtensionType):
            continue  # UUIDs: distinct by nature
        sample = _sample(column, _DICTIONARY_SAMPLE_ROWS)
        if pc.count_distinct(sample).as_py() <= max(1, len(sample) * _DICTIONARY_PAYS):
            yield field.name


def _incompressible_columns(table: pa.Table) -> Iterator[str]:
    """Columns of fixed width whose sampled values compression hardly makes smaller, such as measured floats.

    Decompressing them takes several times as long as decoding them.
    """
    if table.num_rows < _SAMPLE_ROWS:
        return
    codec = pa.Codec(_ZSTD, _ZSTD_LEVEL)
    for field, column in zip(table.schema, table.columns, strict=True):
        if not (pa.types.is_primitive(field.type) or pa.types.is_fixed_size_binary(field.type)):
            continue
        if pa.types.is_decimal(field.type) or pa.types.is_boolean(field.type):
            continue  # stored in another width than in Arrow
        values = pa.record_batch(
            [_sample(column, _SAMPLE_ROWS).combine_chunks().drop_null()], names=[""]
        ).serialize()
        if len(codec.compress(values)) > len(values) * _COMPRESSION_PAYS:
            yield field.name


def _sample(column: pa.ChunkedArray, rows: int) -> pa.ChunkedArray:
    return column.slice(max(0, len(column) // 2 - rows // 2), rows)


def _compression(schema: pa.Schema, plain: set[str]) -> dict[str, Any]:
    """Arguments of the writer: no compression for the columns `plain`, zstd for all others."""
    if not plain:
        return {"compression": _ZSTD, "compression_level": _ZSTD_LEVEL}
    packed = [path for path in _leaf_paths(schema) if path not in plain]
    return {
        "compression": dict.fromkeys(packed, _ZSTD),
        "compression_level": dict.fromkeys(packed, _ZSTD_LEVEL),
    }


@lru_cache(maxsize=64)
def _leaf_paths(schema: pa.Schema) -> tuple[str, ...]:
    """Dotted paths of the Parquet columns of a schema: what writing an empty file makes of it."""
    footers: list[Any] = []
    pq.ParquetWriter(pa.BufferOutputStream(), schema, metadata_collector=footers).close()
    columns = footers[0].schema
    return tuple(columns.column(number).path for number in range(len(columns)))
