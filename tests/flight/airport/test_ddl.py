"""The bodies of ALTER and CREATE TABLE as changes of a definition."""

from __future__ import annotations

from typing import Any

import msgpack
import pyarrow as pa
import pytest

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
from boilstream.errors import InvalidArgument, Unimplemented
from boilstream.flight.airport.codec import Request
from boilstream.flight.airport.ddl import CHANGES, declared_schema


def request(**members: Any) -> Request:
    return Request.parse("alter", msgpack.packb(members, use_bin_type=False))


def packed(*fields: pa.Field) -> bytes:
    data: bytes = pa.schema(fields).serialize().to_pybytes()
    return data


A = pa.field("a", pa.int64())


@pytest.mark.parametrize(
    ("action", "members", "change"),
    [
        ("add_column", {"column_schema": packed(A), "if_column_not_exists": True}, AddColumn(A, True)),
        ("remove_column", {"removed_column": "a", "if_column_exists": True}, DropColumn("a", True)),
        ("rename_column", {"old_name": "a", "new_name": "ä b"}, RenameColumn("a", "ä b")),
        ("rename_table", {"new_table_name": "t2"}, RenameTopic("t2")),
        (
            "change_column_type",
            {"column_schema": packed(A), "expression": "CAST(a AS BIGINT)"},
            ChangeType("a", pa.int64()),
        ),
        ("set_default", {"column_name": "a", "expression": "40 + 2"}, SetDefault("a", "40 + 2")),
        ("set_default", {"column_name": "a", "expression": None}, SetDefault("a", None)),
        ("set_not_null", {"column_name": "a"}, SetNotNull("a")),
        ("drop_not_null", {"column_name": "a"}, DropNotNull("a")),
    ],
)
def test_alter_actions(action: str, members: dict[str, Any], change: Change) -> None:
    assert CHANGES[action](request(**members)) == change


@pytest.mark.parametrize(
    ("column", "expression"),
    [
        ("a", "CAST(a AS BIGINT)"),
        ("a", 'CAST("a" AS BIGINT)'),
        ("A", "cast(a as DECIMAL(18,3))"),
        ('say "hi"', 'CAST("say ""hi""" AS STRUCT(x INTEGER))'),
        ("a", ""),
    ],
)
def test_a_plain_cast_changes_the_type(column: str, expression: str) -> None:
    body = request(column_schema=packed(pa.field(column, pa.int64())), expression=expression)
    assert CHANGES["change_column_type"](body) == ChangeType(column, pa.int64())


@pytest.mark.parametrize(
    "expression", ["(a + 1)", "CAST(b AS BIGINT)", "CAST((a + 1) AS BIGINT)", "TRY_CAST(a AS BIGINT)", "a"]
)
def test_another_conversion_is_refused(expression: str) -> None:
    body = request(column_schema=packed(A), expression=expression)
    with pytest.raises(Unimplemented, match="USING"):
        CHANGES["change_column_type"](body)


def test_cascade_is_refused() -> None:
    with pytest.raises(Unimplemented, match="CASCADE"):
        CHANGES["remove_column"](request(removed_column="a", cascade=True))


def test_not_null_comes_by_position() -> None:
    schema = packed(A, pa.field("b", pa.uuid()), pa.field("c", pa.string()))
    found = declared_schema(request(arrow_schema=schema, not_null_constraints=[0, 2]))
    assert [field.nullable for field in found] == [False, True, False]
    assert found.field("b").type == pa.uuid()


def test_a_position_without_a_column_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="not_null_constraints"):
        declared_schema(request(arrow_schema=packed(A), not_null_constraints=[1]))


@pytest.mark.parametrize(
    "keys",
    [
        {"primary_key_columns": ["a"]},
        {"unique_columns": ["a"]},
        {"multi_key_primary_keys": ["a", "b"]},
        {"extra_constraints": ["UNIQUE(a, b)"]},
        {"unique_constraints": [0]},
    ],
)
def test_keys_are_refused_because_nothing_would_enforce_them(keys: dict[str, Any]) -> None:
    with pytest.raises(Unimplemented, match="PRIMARY KEY"):
        declared_schema(request(arrow_schema=packed(A), **keys))
