"""CHECK and DEFAULT: SQL expressions of DuckDB's dialect that the server evaluates for all writers.

The texts come from clients that may define tables, and are trusted with nothing: `syntax` lets scalar
expressions pass, `sandbox` evaluates them apart from the server. They mean what they mean in DuckDB with
the time zone UTC. In particular, a CHECK is converted to INTEGER and fails where that is zero; NULL passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from boilstream.catalog.duckdb_types import published
from boilstream.catalog.leaves import MAX_EXPANDED_BYTES
from boilstream.catalog.sql.evaluation import ROWS
from boilstream.catalog.sql.sandbox import SHARED, EvaluationFailed, one_line
from boilstream.catalog.sql.syntax import Refused, read
from boilstream.catalog.typemap import show_type
from boilstream.catalog.types import TopicSchema
from boilstream.errors import ConstraintViolated, InvalidArgument

MAX_SLICE_BYTES: Final = 32 * 1024 * 1024
"""Most bytes of columns that one evaluation gets; a larger batch takes several."""

MAX_VALUE_BYTES: Final = 4096
"""Most bytes that one value of a DEFAULT takes when it is made; a writer pays for it in every row."""

_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Check:
    """A condition that no row may make false. Get it from `Check.compile`; any thread may use it."""

    sql: str
    """The text as its author wrote it."""
    columns: frozenset[str]
    """Names of the columns that it refers to, as they are declared."""
    _run: str = field(repr=False)
    _owner: str | None = field(repr=False, compare=False)

    @classmethod
    def compile(cls, sql: str, schema: TopicSchema, owner: str | None = None) -> Check:
        """The condition of a text over the published columns of a topic.

        The conditions of one owner together leave a process to those of others; without one, the text is alone.

        Raises InvalidArgument with one sentence for a text that is no scalar expression, uses what is
        not allowed, names unknown columns or does not fit their types.
        """
        columns = published(schema).declared
        try:
            expression = read(sql, columns.names, SHARED)
            run = f"SELECT CAST(({expression.sql}) AS INTEGER) FROM {ROWS}"  # noqa: S608  was checked
            check = cls(sql, expression.columns, run, owner)
            SHARED.first_zero(run, _stream(_needed(columns, expression.columns)), owner)
        except (Refused, EvaluationFailed) as problem:
            raise InvalidArgument(f"CHECK ({_shown(sql)}): {problem}") from None
        return check

    def require(self, batch: pa.RecordBatch) -> None:
        """Raise ConstraintViolated if a row makes the condition false or it fails for one.

        The batch is in published form and holds at least `columns`. The message names the condition and
        the first such row of the batch, from 0. Cheap per row, about two milliseconds per call.
        """
        schema = _needed(batch.schema, self.columns)
        arrays = [
            batch.column(name) if name in self.columns else pa.nulls(len(batch)) for name in schema.names
        ]
        needed = pa.record_batch(arrays, schema=schema)
        step = max(1, len(needed) * MAX_SLICE_BYTES // max(needed.nbytes, 1))
        for start in range(0, len(needed), step):
            try:
                row = SHARED.first_zero(self._run, _stream(schema, needed.slice(start, step)), self._owner)
            except EvaluationFailed as problem:
                where = "" if problem.row is None else f" for row {start + problem.row}"
                message = f"CHECK ({_shown(self.sql)}) cannot be evaluated{where}: {problem.reason}"
                raise ConstraintViolated(message) from None
            if row >= 0:
                raise ConstraintViolated(f"CHECK ({_shown(self.sql)}) is false for row {start + row}")


@dataclass(frozen=True, slots=True)
class Default:
    """What a column holds where a writer leaves it out. Get it from `Default.compile`; any thread may use it."""

    sql: str
    """The text as its author wrote it."""
    _schema: TopicSchema = field(repr=False)
    _run: str = field(repr=False)
    _constant: Any = field(repr=False)
    """The value as an array of one row, or None if it is not always the same."""

    @classmethod
    def compile(cls, sql: str, field: pa.Field) -> Default:
        """The default of a text for a column of the published type.

        Raises InvalidArgument with one sentence for a text that is no scalar expression, uses columns or
        what else is not allowed, or whose value does not fit the type.
        """
        column = TopicSchema.declare(pa.schema([pa.field("value", field.type)]))
        try:
            expression = read(sql, (), SHARED)
            kind = SHARED.type_name(_stream(column.declared))
            run = f"SELECT CAST(({expression.sql}) AS {kind}) AS value"
            default = cls(sql, column, run, None)
            value = default._evaluate(1)
        except (Refused, EvaluationFailed, InvalidArgument) as problem:
            raise InvalidArgument(f"DEFAULT {_shown(sql)}: {problem}") from None
        if value.nbytes > MAX_VALUE_BYTES:
            raise InvalidArgument(f"DEFAULT {_shown(sql)}: its value takes more than {MAX_VALUE_BYTES} bytes")
        return default if expression.per_row or expression.clock else cls(sql, column, run, value)

    def values(self, rows: int) -> pa.Array:
        """So many values, of exactly the type of the field.

        Raises InvalidArgument if they take more than MAX_EXPANDED_BYTES, or if an expression that gives
        other values each time fails now.
        """
        try:
            if self._constant is None:
                return self._evaluate(rows)
            if rows * self._constant.nbytes > MAX_EXPANDED_BYTES:
                raise EvaluationFailed(f"{rows} values are too many at once; send batches with fewer rows")
            return pa.repeat(self._constant[0], rows) if rows else self._constant.slice(0, 0)
        except (EvaluationFailed, InvalidArgument) as problem:
            raise InvalidArgument(f"DEFAULT {_shown(self.sql)}: {problem}") from None

    def _evaluate(self, rows: int) -> pa.Array:
        found = pa.ipc.open_stream(SHARED.values(f"{self._run} FROM range({int(rows)})")).read_all()
        found.validate(full=True)
        kind = self._schema.declared.field(0).type
        try:
            conformer = self._schema.conform(found.schema)
        except InvalidArgument:
            raise Refused(f"no value that DuckDB gives can become {show_type(kind)}") from None
        parts = [self._schema.to_declared(conformer.to_stored(part)).column(0) for part in found.to_batches()]
        return pa.concat_arrays(parts) if parts else pa.nulls(0, kind)


def _needed(schema: pa.Schema, columns: frozenset[str]) -> pa.Schema:
    """The fields of those columns, or one of nulls: rows without columns cannot travel."""
    return pa.schema([schema.field(name) for name in sorted(columns)] or [pa.field(ROWS, pa.null())])


def _stream(schema: pa.Schema, *batches: pa.RecordBatch) -> memoryview:
    """The batches as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return memoryview(sink.getvalue())


def _shown(sql: str) -> str:
    return one_line(sql, _SHOWN)
