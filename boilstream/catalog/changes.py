"""What ALTER TABLE makes of a topic's definition, or why it cannot be done. Pure.

Columns are changed by Iceberg field id, so data files that are there stay readable. Names are
compared ignoring case, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField

from boilstream.catalog import typemap
from boilstream.catalog.constraints import Constraints
from boilstream.catalog.declared import column_name, normalise
from boilstream.catalog.definition import Definition
from boilstream.catalog.meanings import sql_name
from boilstream.catalog.names import fold, topic_name
from boilstream.catalog.typemap import Refused, show, show_type
from boilstream.catalog.types import TopicSchema
from boilstream.catalog.widening import allowed, widens
from boilstream.errors import AlreadyExists, InvalidArgument, NotFound

ColumnsOf = Callable[[str, TopicSchema], Collection[str]]
"""The names of the columns of a schema that the SQL text of a CHECK refers to; raises InvalidArgument."""


@dataclass(frozen=True, slots=True)
class AddColumn:
    """Add a column, nullable, behind the others; old rows have nulls in it."""

    field: pa.Field
    if_not_exists: bool = False
    """Whether a column of that name is no error, whatever its type."""


@dataclass(frozen=True, slots=True)
class DropColumn:
    """Take a column away, with its default."""

    name: str
    if_exists: bool = False
    """Whether a missing column is no error."""


@dataclass(frozen=True, slots=True)
class RenameColumn:
    """Give a column another name."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class RenameTopic:
    """Give the topic another name in the same schema; it keeps its id and its files."""

    table: str


@dataclass(frozen=True, slots=True)
class ChangeType:
    """Give a column a wider type."""

    name: str
    type: pa.DataType


@dataclass(frozen=True, slots=True)
class SetNotNull:
    """Refuse nulls from now on; the caller has made sure that no row has one."""

    name: str


@dataclass(frozen=True, slots=True)
class DropNotNull:
    """Allow nulls."""

    name: str


@dataclass(frozen=True, slots=True)
class SetDefault:
    """Set the value of a column that writers leave out; None: null. The caller has compiled the text."""

    name: str
    sql: str | None


Change = (
    AddColumn | DropColumn | RenameColumn | RenameTopic | ChangeType | SetNotNull | DropNotNull | SetDefault
)


def apply(change: Change, definition: Definition, columns_of: ColumnsOf) -> Definition:
    """The next version of a definition; `definition` itself if it is so already.

    Raises NotFound for a column that is not there, AlreadyExists for a column name that is taken,
    InvalidArgument for what cannot be, each with one sentence.
    """
    match change:
        case AddColumn():
            return _add_column(change, definition)
        case DropColumn():
            return _drop_column(change, definition, columns_of)
        case RenameColumn():
            return _rename_column(change, definition, columns_of)
        case RenameTopic():
            name = topic_name(definition.name.schema, change.table)
            return definition if name == definition.name else definition.changed(name=name)
        case ChangeType():
            return _change_type(change, definition, columns_of)
        case SetNotNull() | DropNotNull():
            return _set_nullable(definition, change.name, isinstance(change, DropNotNull))
        case SetDefault():
            return _set_default(change, definition)


def _add_column(change: AddColumn, definition: Definition) -> Definition:
    before = definition.schema
    try:
        name = column_name(change.field, "", len(before.declared))
    except Refused as problem:
        raise InvalidArgument(str(problem)) from None
    taken = definition.schema.position(name)
    if taken is not None:
        if change.if_not_exists:
            return definition
        raise AlreadyExists(f"topic {definition.name} has a column {_at(definition, taken)} already")
    if not change.field.nullable:
        raise InvalidArgument(
            f"column {show(name)}: it is null in the rows that are there; add it without NOT NULL"
        )
    first_id = 1 + max(definition.last_column_id, before.iceberg.highest_field_id)

    def extended(declared: pa.Schema) -> Schema:
        added = typemap.iceberg_fields([declared.field(len(declared) - 1)], count(first_id))
        return _iceberg(before.iceberg, [*before.iceberg.fields, *added])

    columns = pa.schema([*before.declared, change.field])
    return definition.changed(schema=TopicSchema.make(columns, extended))


def _drop_column(change: DropColumn, definition: Definition, columns_of: ColumnsOf) -> Definition:
    place = definition.schema.position(change.name)
    if place is None:
        if change.if_exists:
            return definition
        raise _missing(definition, change.name)
    if len(definition.schema.declared) == 1:
        raise InvalidArgument(
            f"column {_at(definition, place)} is the only one of topic {definition.name}; drop the topic"
        )
    _refuse_checked(definition, place, columns_of, "dropped")
    fields = list(definition.schema.iceberg.fields)
    dropped = fields.pop(place)
    schema = TopicSchema.make(
        definition.schema.declared.remove(place), lambda _: _iceberg(definition.schema.iceberg, fields)
    )
    return definition.changed(schema=schema, constraints=_with_default(definition, dropped.field_id, None))


def _rename_column(change: RenameColumn, definition: Definition, columns_of: ColumnsOf) -> Definition:
    place = _require(definition, change.old)
    declared = definition.schema.declared.field(place)
    if declared.name == change.new:
        return definition
    if definition.schema.position(change.new) not in (None, place):
        raise AlreadyExists(f"topic {definition.name} has a column {show(change.new)} already")
    _refuse_checked(definition, place, columns_of, "renamed")
    return _replaced(definition, place, declared.with_name(change.new), name=change.new)


def _change_type(change: ChangeType, definition: Definition, columns_of: ColumnsOf) -> Definition:
    place = _require(definition, change.name)
    before = definition.schema.declared.field(place)
    try:
        wanted = normalise(pa.schema([pa.field(before.name, change.type)])).field(0).type
    except Refused as problem:
        raise InvalidArgument(str(problem)) from None
    if wanted == before.type:
        return definition
    if not widens(before.type, wanted):
        raise InvalidArgument(
            f"column {show(before.name)}: {_type_name(before.type)} cannot become {_type_name(wanted)}, because the "
            f"rows that are there are not rewritten; it can become {allowed(before.type)}"
        )
    changed: dict[str, Any] = {}
    if not typemap.has_children(wanted):  # a list of another kind is the same in Iceberg
        changed["field_type"] = typemap.leaf(wanted).iceberg
    after = _replaced(definition, place, before.with_type(wanted), **changed)
    for sql in definition.constraints.checks:
        columns_of(sql, after.schema)  # refuses a condition that has no meaning for the new type
    return after


def _type_name(kind: pa.DataType) -> str:
    """DuckDB's own types have the names that its users know."""
    return sql_name(kind) or show_type(kind)


def _set_default(change: SetDefault, definition: Definition) -> Definition:
    number = definition.schema.iceberg.fields[_require(definition, change.name)].field_id
    if definition.constraints.defaults.get(number) == change.sql:
        return definition
    return definition.changed(constraints=_with_default(definition, number, change.sql))


def _set_nullable(definition: Definition, name: str, nullable: bool) -> Definition:
    place = _require(definition, name)
    before = definition.schema.declared.field(place)
    if before.nullable == nullable:
        return definition
    return _replaced(definition, place, before.with_nullable(nullable), required=not nullable)


def _with_default(definition: Definition, number: int, sql: str | None) -> Constraints:
    """The constraints with another default for the column with that field id."""
    defaults = {known: text for known, text in definition.constraints.defaults.items() if known != number}
    if sql is not None:
        defaults[number] = sql
    return replace(definition.constraints, defaults=defaults)


def _replaced(definition: Definition, place: int, declared: pa.Field, **iceberg: Any) -> Definition:
    """The next version, with another declared column at `place` and other attributes of its Iceberg field."""
    before = definition.schema
    fields = list(before.iceberg.fields)
    fields[place] = fields[place].model_copy(update=iceberg)
    schema = TopicSchema.make(
        before.declared.set(place, declared), lambda _: _iceberg(before.iceberg, fields)
    )
    return definition.changed(schema=schema)


def _iceberg(before: Schema, fields: list[NestedField]) -> Schema:
    """The fields as a schema; an identifier field that is gone or may be null now identifies no more."""
    after = Schema(*fields)
    kept = [
        number
        for number in before.identifier_field_ids
        if after.find_column_name(number) is not None and after.find_field(number).required
    ]
    return Schema(*fields, identifier_field_ids=kept)


def _require(definition: Definition, name: str) -> int:
    place = definition.schema.position(name)
    if place is None:
        raise _missing(definition, name)
    return place


def _missing(definition: Definition, name: str) -> NotFound:
    return NotFound(f"topic {definition.name} has no column {show(name)}")


def _at(definition: Definition, place: int) -> str:
    return show(definition.schema.declared.field(place).name)


def _refuse_checked(definition: Definition, place: int, columns_of: ColumnsOf, done: str) -> None:
    """Raise InvalidArgument if a CHECK names the column."""
    name = fold(definition.schema.declared.field(place).name)
    for sql in definition.constraints.checks:
        if name in map(fold, columns_of(sql, definition.schema)):
            shown = sql if len(sql) <= 200 else f"{sql[:197]}..."
            raise InvalidArgument(
                f"column {_at(definition, place)} cannot be {done}, because CHECK ({shown}) of the topic names it"
            )
