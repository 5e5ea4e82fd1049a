"""The bodies of Airport's ALTER actions as changes of a definition. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import pyarrow as pa

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
from boilstream.catalog.names import fold
from boilstream.errors import InvalidArgument, Unimplemented
from boilstream.flight.airport.codec import Request


def _change_type(request: Request) -> Change:
    field = request.field("column_schema")
    # The client sends the conversion as SQL; only the one that keeps every value is possible without a rewrite.
    if not _is_plain_cast(request.optional_text("expression"), field.name):
        raise Unimplemented(
            "ALTER COLUMN ... TYPE ... USING is not supported: old files are not rewritten; create a new table with "
            "CREATE TABLE ... AS SELECT"
        )
    return ChangeType(field.name, field.type)


def _is_plain_cast(expression: str, column: str) -> bool:
    found = re.fullmatch(r'\s*CAST\(\s*("(?:[^"]|"")*"|[^\s"()]+)\s+AS\s+.+\)\s*', expression, re.S | re.I)
    if found is None:
        return not expression
    name = found[1]
    if name.startswith('"'):
        name = name[1:-1].replace('""', '"')
    return fold(name) == fold(column)


def _drop_column(request: Request) -> Change:
    if request.flag("cascade"):
        raise Unimplemented("DROP COLUMN ... CASCADE is not supported; write it without CASCADE")
    return DropColumn(request.text("removed_column"), if_exists=request.flag("if_column_exists"))


def _nullable(field: pa.Field) -> pa.Field:
    return pa.field(field.name, field.type)


CHANGES: Final[Mapping[str, Callable[[Request], Change]]] = {
    "add_column": lambda request: AddColumn(
        _nullable(request.field("column_schema")), if_not_exists=request.flag("if_column_not_exists")
    ),
    "remove_column": _drop_column,
    "rename_column": lambda request: RenameColumn(request.text("old_name"), request.text("new_name")),
    "rename_table": lambda request: RenameTopic(request.text("new_table_name")),
    "change_column_type": _change_type,
    "set_default": lambda request: SetDefault(
        request.text("column_name"), request.optional_text("expression") or None
    ),
    "set_not_null": lambda request: SetNotNull(request.text("column_name")),
    "drop_not_null": lambda request: DropNotNull(request.text("column_name")),
}
"""What each ALTER action that is served asks for."""

REFUSED: Final[Mapping[str, str]] = {
    "add_field": "adding a field to a STRUCT column is not supported: the client does not send the field's name; "
    "add a column instead",
    "rename_field": "renaming a field of a STRUCT column is not supported; columns can be renamed",
    "remove_field": "removing a field of a STRUCT column is not supported; columns can be dropped",
    "add_constraint": "ALTER TABLE ... ADD constraint is not supported; give CHECK in CREATE TABLE",
    "column_statistics": "column statistics are not served",
    "table_function_flight_info": "table functions are not served",
}
"""What the client may ask for and does not get, and why."""


def declared_schema(request: Request) -> pa.Schema:
    """The columns of a create_table request, NOT NULL included; raises InvalidArgument, and for keys Unimplemented."""
    if (
        request.texts("primary_key_columns")
        or request.texts("unique_columns")
        or request.texts("multi_key_primary_keys")
        or request.texts("extra_constraints")
        or request.numbers("unique_constraints")
    ):
        raise Unimplemented(
            "PRIMARY KEY, UNIQUE and FOREIGN KEY are not supported: nothing would enforce them; leave them out"
        )
    schema = request.schema("arrow_schema")
    required = set(request.numbers("not_null_constraints"))
    if any(position >= len(schema) for position in required):
        raise InvalidArgument("not_null_constraints names a column that is not there")
    return pa.schema(
        [
            pa.field(field.name, field.type, nullable=position not in required)
            for position, field in enumerate(schema)
        ]
    )
