"""A topic in the eyes of its users, beside random changes of its definition."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from boilstream.catalog.changes import (
    AddColumn,
    Change,
    ChangeType,
    DropColumn,
    DropNotNull,
    RenameColumn,
    RenameTopic,
    SetDefault,
    SetNotNull,
)
from boilstream.catalog.definition import Definition
from boilstream.catalog.names import fold
from boilstream.catalog.types import TopicSchema
from boilstream.catalog.widening import widens
from tests.catalog.arrow_data import LEAVES, arrays, types


def words(sql: str, schema: TopicSchema) -> Collection[str]:
    """Columns of a CHECK, which is a list of their names in these tests."""
    return sql.split()


def after_type(kind: pa.DataType) -> pa.DataType:
    return TopicSchema.declare(pa.schema([("a", kind)])).declared.field(0).type


@dataclass
class Column:
    key: int
    name: str
    type: pa.DataType
    nullable: bool


@dataclass
class File:
    """A data file as bytes, and the values that were written by column key."""

    data: pa.Buffer
    values: dict[int, Any]
    rows: int


@dataclass
class Model:
    """What the topic is in the eyes of its users."""

    definition: Definition
    columns: list[Column] = field(init=False)
    keys: count[int] = field(default_factory=lambda: count(100))
    files: list[File] = field(default_factory=list)
    used_ids: dict[int, int] = field(default_factory=dict)
    """Column key by Iceberg field id, for all columns that ever were."""

    def __post_init__(self) -> None:
        declared = self.definition.schema.declared
        self.columns = [Column(next(self.keys), f.name, f.type, f.nullable) for f in declared]
        self.note_ids()

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if fold(c.name) == fold(name)), None)

    def write(self, data: st.DataObject, version: int) -> None:
        """A file of some rows by a writer that knows this version."""
        schema = self.definition.versions[version]
        rows = data.draw(st.integers(1, 3))
        batch = pa.RecordBatch.from_arrays(
            [data.draw(arrays(f.type, rows, f.nullable)) for f in schema.declared], schema=schema.declared
        )
        stored = schema.conform(batch.schema).to_stored(batch)
        values = {
            self.used_ids[column.field_id]: array
            for column, array in zip(schema.iceberg.fields, schema.to_declared(stored).columns, strict=True)
        }
        self.files.append(File(parquet(stored), values, rows))

    def note_ids(self) -> None:
        for column, iceberg in zip(self.columns, self.definition.schema.iceberg.fields, strict=True):
            assert self.used_ids.setdefault(iceberg.field_id, column.key) == column.key

    def check(self) -> None:
        """Every file reads as the model says, under the newest version."""
        schema = self.definition.schema
        shown = [pa.field(c.name, c.type, c.nullable) for c in self.columns]
        assert schema.declared.equals(pa.schema(shown))
        for file in self.files:
            source = pq.ParquetFile(pa.BufferReader(file.data))
            reader = schema.reader(source.schema_arrow)
            (batch,) = [reader.to_declared(b) for b in source.iter_batches(100, columns=reader.names)]
            batch.validate(full=True)
            assert batch.schema.equals(schema.declared)
            for column, found in zip(self.columns, batch.columns, strict=True):
                assert found.equals(expected(file, column)), column


def expected(file: File, column: Column) -> Any:
    written = file.values.get(column.key)
    if written is None:
        return pa.nulls(file.rows, column.type)
    if written.type == column.type:
        return written
    if isinstance(written, pa.ExtensionArray):
        written = written.storage
    if isinstance(column.type, pa.BaseExtensionType):
        storage = column.type.storage_type
        return pa.ExtensionArray.from_storage(column.type, written.cast(storage))
    return written.cast(column.type)


def parquet(stored: pa.RecordBatch) -> pa.Buffer:
    """A data file without the Arrow schema, as ingestion writes it."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, stored.schema, store_schema=False, store_decimal_as_integer=True) as writer:
        writer.write_batch(stored)
    return sink.getvalue()


NAMES = st.sampled_from(["a", "A", "b", "c", "x.y", "täulu / 1", "B"])
KINDS = st.one_of(
    types(2), st.sampled_from([pa.int8(), pa.uint8(), pa.float16(), pa.timestamp("s"), pa.uint64()])
)
TARGETS = [*LEAVES, pa.decimal128(20, 0), pa.decimal128(12, 2), pa.decimal128(38, 18)]


def changes(model: Model) -> st.SearchStrategy[Change]:
    """Changes that mostly can be made now."""
    old = st.sampled_from([column.name for column in model.columns])

    def wider(name: str) -> st.SearchStrategy[Change]:
        kind = required(model, name).type
        targets = [target for target in TARGETS if target != kind and widens(kind, target)]
        return st.builds(ChangeType, st.just(name), st.sampled_from(targets or TARGETS))

    return st.one_of(
        st.builds(lambda name, kind: AddColumn(pa.field(name, kind)), NAMES, KINDS),
        st.builds(DropColumn, old),
        st.builds(RenameColumn, old, NAMES),
        old.flatmap(wider),
        old.flatmap(wider),
        st.builds(SetNotNull, old),
        st.builds(DropNotNull, old),
        st.builds(SetDefault, old, st.sampled_from(["1", None])),
        st.builds(RenameTopic, NAMES),
    )


def follow(model: Model, change: Change) -> None:
    """What the model becomes by a change that was accepted."""
    match change:
        case AddColumn(added):
            made = model.definition.schema.declared.field(added.name)
            model.columns.append(Column(next(model.keys), added.name, made.type, True))
        case DropColumn(name):
            model.columns = [c for c in model.columns if fold(c.name) != fold(name)]
        case RenameColumn(old, new):
            required(model, old).name = new
        case ChangeType(name, kind):
            required(model, name).type = after_type(kind)
        case SetNotNull(name):
            required(model, name).nullable = False
        case DropNotNull(name):
            required(model, name).nullable = True


def required(model: Model, name: str) -> Column:
    column = model.column(name)
    assert column is not None
    return column
