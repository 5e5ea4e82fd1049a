"""The schema of a topic: what clients declared, what Iceberg holds, what data files contain.

`TopicSchema.declare` makes it for a new topic, `TopicSchema.load` from what the catalog kept.
`conform` checks a stream once and gives the Conformer that converts its batches; `to_declared`
is the way back. Both ways keep every value exactly.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema, assign_fresh_schema_ids
from pyiceberg.types import NestedField

from boilstream.catalog import typemap
from boilstream.catalog.arrays import retyped
from boilstream.catalog.convert import absent, decoder, encoder, match_children, validated_as
from boilstream.catalog.declared import normalise
from boilstream.catalog.evolution import FileReader
from boilstream.catalog.leaves import (
    MAX_EXPANDED_BYTES,
    ForbiddenNull,
    Step,
    TooLarge,
    Unfit,
    allow_rows,
)
from boilstream.catalog.names import fold
from boilstream.catalog.typemap import Refused, show
from boilstream.errors import ConstraintViolated, InvalidArgument

MAX_DECLARED_BYTES: Final = 1024 * 1024
"""Longest serialized declared schema, in characters of base64."""

_MAX_PROBLEMS = 20
"""Most columns that one message names."""


@dataclass(frozen=True)
class TopicSchema:
    """One schema in its three forms; columns have the same order in all of them."""

    declared: pa.Schema
    """What clients read back. Without metadata; extension types carry their own."""
    iceberg: Schema
    """Format version 2, with the field ids of the table."""
    stored: pa.Schema
    """Schema of the data files: Iceberg-legal types, field ids at every level."""

    @classmethod
    def declare(cls, schema: pa.Schema) -> TopicSchema:
        """The schema of a new topic that a client declares.

        The field ids are those that creating the table will assign. Raises InvalidArgument that
        names the column and what to do.
        """
        return cls.make(
            schema,
            lambda declared: assign_fresh_schema_ids(Schema(*typemap.iceberg_fields(declared, count(1)))),
        )

    @classmethod
    def make(cls, schema: pa.Schema, iceberg_schema: Callable[[pa.Schema], Schema]) -> TopicSchema:
        """A schema from its declared form, which is checked, and what makes the Iceberg schema of that.

        Raises InvalidArgument that names the column and what to do.
        """
        try:
            declared = normalise(schema)
            iceberg = iceberg_schema(declared)
        except Refused as problem:
            raise InvalidArgument(str(problem)) from None
        except ValueError:  # Iceberg finds columns by their dotted path
            raise InvalidArgument(
                "two columns have the same dotted path, such as 'a.b' beside a struct 'a' with a child 'b'; rename one"
            ) from None
        if len(serialize_declared(declared)) > MAX_DECLARED_BYTES:
            raise InvalidArgument(f"the schema takes more than {MAX_DECLARED_BYTES} bytes; use shorter names")
        return cls(declared, iceberg, _stored(iceberg, declared))

    @classmethod
    def load(cls, declared: pa.Schema, iceberg: Schema) -> TopicSchema:
        """The schema of a table whose declared form the catalog kept.

        The table decides. A column that another engine added, renamed or changed reads as the Arrow
        type of its Iceberg type; one that it dropped is gone; one that it made optional is nullable.
        Raises ValueError for an Iceberg type that this server cannot read.
        """
        known = {field.name: field.type for field in declared}
        fields = [
            pa.field(field.name, _declared_type(field, known.get(field.name)), nullable=field.optional)
            for field in iceberg.fields
        ]
        found = pa.schema(fields)
        return cls(found, iceberg, _stored(iceberg, found))

    @cached_property
    def row_width(self) -> int:
        """Bytes of memory that a declared row takes at least, null or not.

        A reader limits the rows of a batch by it: a null in a fixed-size list takes all its slots.
        """
        return sum(typemap.fixed_width(field.type) for field in self.declared)

    def position(self, name: str) -> int | None:
        """Where the column with that name, in any letter case, stands; None if there is none."""
        wanted = fold(name)
        places = (place for place, known in enumerate(self.declared.names) if fold(known) == wanted)
        return next(places, None)

    def conform(
        self, schema: pa.Schema, defaults: Mapping[str, Callable[[int], pa.Array]] = MappingProxyType({})
    ) -> Conformer:
        """What converts batches of a stream with that schema; columns are matched by name.

        A column that the stream leaves out becomes null, or what `defaults` has for its declared
        name: called with a number of rows it gives so many values, of any type that a client could
        send. Raises InvalidArgument that names all columns that cannot be: unknown ones, missing
        ones that are not nullable, and types that cannot become the declared ones.
        """
        problems: list[str] = []

        def report(problem: Refused) -> None:
            problems.append(str(problem))

        if not len(schema):
            raise InvalidArgument("the stream has no columns; send at least one of the topic's")
        columns = []
        step: Step | None
        try:
            optional = pa.schema([f.with_nullable(f.nullable or f.name in defaults) for f in self.declared])
            positions = match_children(optional, schema, "", report)
            for position, field, target in zip(positions, self.declared, self.stored, strict=True):
                if position < 0 and field.name in defaults:
                    step = _default(defaults[field.name], field, target.type)
                    expands = True
                elif position < 0:
                    step = absent(target.type, field.name)
                    expands = True
                else:
                    sent = schema.field(position).type
                    kinds = sent, field.type, target.type
                    step = encoder(*kinds, field.name, report, required=not field.nullable)
                    expands = typemap.expands(sent)
                columns.append(_Column(field.name, position, step, not field.nullable, expands))
        except Refused as problem:
            report(problem)
        if problems:
            raise InvalidArgument(_listed(problems))
        wanted = {
            position: validated_as(schema.field(position).type, field.type)
            for position, field in zip(positions, self.declared, strict=True)
            if position >= 0
        }
        others = {position: kind for position, kind in wanted.items() if kind != schema.field(position).type}
        return Conformer(self.stored, columns, others)

    def to_declared(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch of a data file in the declared form.

        Columns have the order of `stored`. Other Arrow types for the same Iceberg types (a file that
        another engine rewrote) are accepted. Raises InvalidArgument when a value does not fit the
        declared type, which only another engine can have written.
        """
        if not batch.schema.equals(self.stored):
            batch = self._as_stored(batch)
        try:
            arrays = [
                column if step is None else step(column)
                for column, step in zip(batch.columns, self._decoders, strict=True)
            ]
        except Unfit as problem:
            raise InvalidArgument(f"column {problem}") from None
        return pa.RecordBatch.from_arrays(arrays, schema=self.declared)

    def reader(self, file_schema: pa.Schema, columns: Sequence[str] | None = None) -> FileReader:
        """What reads a data file of any version of the topic as this version, by field id.

        `file_schema` is the Arrow schema of the file, whose fields carry the field ids
        (`ParquetFile.schema_arrow`). `columns` are names of this version in the order that batches
        shall have, None for all. Raises InvalidArgument for an unknown name, and for a file whose
        types cannot become those of this version.
        """
        return FileReader(self.declared, self.stored, file_schema, columns)

    @cached_property
    def _decoders(self) -> list[Step | None]:
        pairs = zip(self.stored, self.declared, strict=True)
        return [decoder(stored.type, declared.type, declared.name) for stored, declared in pairs]

    def _as_stored(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return TopicSchema(self.stored, self.iceberg, self.stored).conform(batch.schema).to_stored(batch)


@dataclass(frozen=True, slots=True)
class _Column:
    """How one stored column is made."""

    name: str
    position: int
    """Of the column in the stream that it is made from; negative if the stream leaves it out."""
    step: Step | None
    required: bool
    expands: bool
    """Whether the stored form may be much larger than what was sent."""

    def convert(self, array: Any) -> Any:
        """The stored form of an array; raises Unfit."""
        if self.step is not None:
            array = self.step(array)
        if self.required and array.null_count:
            raise ForbiddenNull(self.name)
        return array


class Conformer:
    """Converts the batches of one stream to the stored form. Get it from `TopicSchema.conform`."""

    def __init__(
        self, stored: pa.Schema, columns: list[_Column], validated_as: Mapping[int, pa.DataType]
    ) -> None:
        """`validated_as`: types by position of columns that are not to be validated as they were sent."""
        self._stored = stored
        self._columns = columns
        self._validated_as = validated_as

    def prepare(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The same bytes as a batch that passes `validate(full=True)` if it can be converted.

        DuckDB sends a HUGEINT as a decimal, even one of more than the 38 digits that a valid decimal has.
        Nothing is copied and no value is looked at. A batch that is damaged is given back as it is.
        """
        if not self._validated_as:
            return batch
        columns = batch.columns
        try:
            batch.validate()  # that all lengths are right: taking arrays apart relies on it
            for position, kind in self._validated_as.items():
                columns[position] = retyped(columns[position], kind)
            return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
        except pa.ArrowInvalid:
            return batch

    def to_stored(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with the schema of the data files.

        The batch has the schema that `conform` saw, or comes from `prepare`, and has passed
        `validate(full=True)`. Columns
        that are equal in both forms are shared, not copied. Raises InvalidArgument naming column,
        row (within the batch, from 0) and what does not fit; ConstraintViolated for a null where none may be.
        """
        arrays = []
        expanded = 0
        for column in self._columns:
            try:
                array = column.convert(batch.column(max(column.position, 0)))
                if column.expands:
                    expanded += array.nbytes
                    if expanded > MAX_EXPANDED_BYTES:
                        raise TooLarge(column.name)
            except Unfit as problem:
                raise _explained(column, batch, problem) from None
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=self._stored)


def serialize_declared(schema: pa.Schema) -> str:
    """A declared schema as text for a table property: base64 of its Arrow IPC message."""
    return base64.b64encode(schema.serialize()).decode()


def parse_declared(text: str) -> pa.Schema:
    """The schema that `serialize_declared` wrote; raises ValueError if the text is no such thing."""
    if len(text) > MAX_DECLARED_BYTES:
        raise ValueError(f"the declared schema has more than {MAX_DECLARED_BYTES} characters")
    try:
        message = base64.b64decode(text, validate=True)
        return normalise(pa.ipc.read_schema(pa.py_buffer(message)))
    except (binascii.Error, pa.ArrowException, OSError, Refused) as error:
        raise ValueError(f"the declared schema is not readable: {error}") from None


def _stored(iceberg: Schema, declared: pa.Schema) -> pa.Schema:
    pairs = zip(iceberg.fields, declared, strict=True)
    return pa.schema([typemap.stored_field(field, kind.type) for field, kind in pairs])


def _declared_type(field: NestedField, declared: pa.DataType | None) -> pa.DataType:
    """The declared type of a table's column: the one that was kept if it still fits, else Iceberg's own."""
    if declared is not None and typemap.fits(declared, field.field_type):
        return declared
    natural = schema_to_pyarrow(field.field_type, include_field_ids=False)
    found = normalise(pa.schema([pa.field(field.name, natural)])).field(0).type
    if not typemap.fits(found, field.field_type):
        raise ValueError(
            f"column {show(field.name)} has the Iceberg type {field.field_type}, which is not supported"
        )
    return found


def _default(make: Callable[[int], pa.Array], declared: pa.Field, stored: pa.DataType) -> Step:
    """The step from any array to as many default values in the stored form."""
    path = declared.name

    def step(array: Any) -> Any:
        allow_rows(len(array), stored, path)
        values = make(len(array))
        problems: list[Refused] = []
        kinds = values.type, declared.type, stored
        encode = encoder(*kinds, path, problems.append, required=not declared.nullable)
        if problems:
            raise Unfit(problems[0].path, f"its default does not fit: {problems[0].reason}")
        return values if encode is None else encode(values)

    return step


def _listed(problems: list[str]) -> str:
    more = len(problems) - _MAX_PROBLEMS
    return "; ".join(problems[:_MAX_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _explained(column: _Column, batch: pa.RecordBatch, problem: Unfit) -> InvalidArgument:
    """What is wrong in which row: the first row whose prefix of the batch cannot be converted."""
    if isinstance(problem, TooLarge):
        return InvalidArgument(f"column {problem}")
    if column.position < 0:
        return _error(problem, f"column {show(problem.path)}, which the stream leaves out")
    array = batch.column(column.position)
    good, bad = 0, len(array)
    while bad - good > 1:
        middle = (good + bad) // 2
        if _unfit(column, array.slice(good, middle - good)) is None:
            good = middle
        else:
            bad = middle
    found = _unfit(column, array.slice(good, 1)) or problem
    return _error(found, f"column {show(found.path)}, row {good}")


def _error(problem: Unfit, where: str) -> InvalidArgument:
    kind = ConstraintViolated if isinstance(problem, ForbiddenNull) else InvalidArgument
    return kind(f"{where}: {problem.reason}")


def _unfit(column: _Column, array: Any) -> Unfit | None:
    try:
        column.convert(array)
    except Unfit as problem:
        return problem
    return None
