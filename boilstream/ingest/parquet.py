"""Arrow to Parquet: how data files are encoded. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROW_GROUP_ROWS, ROW_GROUP_BYTES = 1_048_576, 64 * 1024 * 1024
"""Rows and bytes (of Arrow) in a row group at most: what a reader holds at a time."""

_SMALL_CHUNK_ROWS = 8192
_SAMPLE_ROWS = 4096
_DICTIONARY_PAYS = 0.2


def encode(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.Buffer:
    """One Parquet file (zstd level 1, statistics, page index) with the rows of all batches.

    `schema` is the stored schema, whose fields carry the Iceberg field ids. The GIL is released
    while Arrow encodes.
    """
    table = pa.Table.from_batches(batches, schema)
    if len(batches) > 1 and table.num_rows < len(batches) * _SMALL_CHUNK_ROWS:
        table = table.combine_chunks()
    sink = pa.BufferOutputStream()
    with (
        pq.ParquetWriter(
            sink,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=list(_dictionary_columns(table)),
            write_statistics=True,
            write_page_index=True,
            store_decimal_as_integer=True,  # the Iceberg specification, appendix A: narrow decimals are int32 and int64
            store_schema=False,  # the declared types live in the catalog; other readers need plain Parquet types
        ) as writer
    ):
        fitting = table.num_rows * ROW_GROUP_BYTES // max(1, table.nbytes)
        writer.write_table(table, row_group_size=max(1, min(ROW_GROUP_ROWS, fitting)))
    return sink.getvalue()


def _dictionary_columns(table: pa.Table) -> Iterator[str]:
    """Columns whose sampled values repeat enough for a dictionary to make the file smaller.

    A dictionary that does not pay halves the encoding speed before Parquet falls back from it.
    """
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_nested(field.type) or pa.types.is_boolean(field.type):
            continue
        if isinstance(field.type, pa.BaseExtensionType):
            continue  # UUIDs: distinct by nature
        sample = column.slice(max(0, len(column) // 2 - _SAMPLE_ROWS // 2), _SAMPLE_ROWS)
        if pc.count_distinct(sample).as_py() <= max(1, len(sample) * _DICTIONARY_PAYS):
            yield field.name
