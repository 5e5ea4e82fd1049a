"""The form of a schema that DuckDB's Airport client can read.

It reads all Arrow types that a topic may have but these: half floats, 256-bit decimals, unions
whose type codes are no positions, and arrow.opaque types with the name of one of its own and
another storage, whose bytes it would misread.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from boilstream.catalog.declared import rebuild
from boilstream.catalog.meanings import duckdb_type, is_named_by_duckdb
from boilstream.catalog.types import TopicSchema


def published(schema: TopicSchema) -> TopicSchema:
    """The same topic with a declared form that DuckDB reads; every value fits it.

    Half floats become floats, decimals of 256 bits become decimals of 128 (a topic has none with
    more than 38 digits), members of unions get their positions as type codes, and opaque types that
    DuckDB would misread become their storage type; also nested ones. All else is as declared.
    """
    fields = [field.with_type(_published(field.type)) for field in schema.declared]
    return replace(schema, declared=pa.schema(fields))


def _published(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        storage = _published(kind.storage_type)
        misread = is_named_by_duckdb(kind) and duckdb_type(kind) is None
        return storage if misread or storage != kind.storage_type else kind
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_decimal256(kind):
        return pa.decimal128(kind.precision, kind.scale)
    made = rebuild(kind, _published)
    return pa.sparse_union(list(made)) if pa.types.is_union(made) else made
