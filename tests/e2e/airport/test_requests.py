"""Requests of all kinds: odd names, and bodies that no statement makes."""

from __future__ import annotations

from functools import partial

import msgpack
import pyarrow as pa
import pytest

from tests.e2e.airport.conftest import Attach, on_local_store, refusal
from tests.support.airport import AirportClient, AirportError

pytestmark = [pytest.mark.slow, on_local_store]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("Täulu / {} %2e", "Späße"),
        ('it\'s "quoted" {}', 'a "b" c'),
        ("日本 {}", "列"),
        ("a.b.{}", "x.y z"),
        ("{}" + "n" * 240, "c" * 255),
        ("{} ; DROP", "select"),
    ],
)
def test_names_of_all_kinds(
    duckdb: AirportClient, attach: Attach, table: str, name: str, column: str
) -> None:
    name = name.format(table)
    duckdb.create_table(name, {column: "INTEGER", "plain": "VARCHAR"}, not_null=[column])
    duckdb.insert(name, "VALUES (1, 'x')")
    other = attach()
    assert ("s3", name) in other.show_all_tables()
    assert other.read(name).to_pydict() == {column: [1], "plain": ["x"]}
    quoted = '"' + column.replace('"', '""') + '"'
    assert other.query(name, f"SELECT count(*) FROM t WHERE {quoted} = 1") == [(1,)]
    other.drop_table(name)


@pytest.mark.parametrize("schema_name", ["Schéma ä", 'sch"ema', "日本"])
def test_schema_names_of_all_kinds(
    duckdb: AirportClient, attach: Attach, schema_name: str, table: str
) -> None:
    duckdb.create_schema(schema_name)
    duckdb.create_table((schema_name, table), {"a": "INTEGER"})
    other = attach()
    assert other.schemas()[schema_name].name == schema_name
    assert other.read((schema_name, table)).num_rows == 0


@pytest.mark.parametrize("bad", ["x" * 10_240, "ä" * 5_000, "", ".", "..", "a\nb", "a\x00b"])
def test_names_that_cannot_be(duckdb: AirportClient, bad: str) -> None:
    for call in (partial(duckdb.create_table, bad, {"a": "INTEGER"}), partial(duckdb.create_schema, bad)):
        assert len(str(refusal(call))) < 1500
    assert bad not in duckdb.schemas()


@pytest.mark.parametrize("bad", ["x" * 10_240, "ä" * 128, "", "a\nb", "a\x00b"])
def test_column_names_that_cannot_be(duckdb: AirportClient, table: str, bad: str) -> None:
    error = refusal(duckdb.create_table, table, pa.schema([pa.field(bad, pa.int32())]))
    assert len(str(error)) < 1500
    assert ("s3", table) not in duckdb.show_all_tables()


@pytest.mark.parametrize(
    "columns",
    [
        pa.schema([("a", pa.int32()), ("A", pa.string())]),
        pa.schema([]),
        pa.schema([("a", pa.null())]),
        pa.schema([("a", pa.struct([]))]),
        pa.schema([("a", pa.dense_union([pa.field("x", pa.int32())]))]),
    ],
    ids=["equal names", "no columns", "null", "empty struct", "dense union"],
)
def test_columns_that_cannot_be_are_refused_and_poison_nothing(
    duckdb: AirportClient, attach: Attach, table: str, columns: pa.Schema
) -> None:
    refusal(duckdb.create_table, table, columns)
    assert ("s3", table) not in attach().show_all_tables()


ACTIONS = (
    "create_transaction",
    "catalog_version",
    "list_schemas",
    "endpoints",
    "flight_info",
    "create_schema",
    "drop_schema",
    "create_table",
    "drop_table",
    "add_column",
    "remove_column",
    "rename_column",
    "rename_table",
    "change_column_type",
    "set_default",
    "set_not_null",
    "drop_not_null",
    "add_field",
    "rename_field",
    "remove_field",
    "add_constraint",
)

BODIES: dict[str, bytes] = {
    "empty": b"",
    "text": b"boilstream",
    "nil": b"\xc0",
    "cut": msgpack.packb({"catalog_name": "boilstream", "schema": "s3"})[:-3],
    "trailing": msgpack.packb({"catalog_name": "boilstream"}) + b"\x00",
    "array": msgpack.packb(["boilstream"]),
    "zstd bomb": msgpack.packb([1 << 31, pa.compress(bytes(1 << 24), codec="zstd", asbytes=True)]),
    "long length": msgpack.packb([0xFFFFFFFF, b"\x28\xb5\x2f\xfd"]),
    "no keys": b"\x80",
    "other types": msgpack.packb({"catalog_name": 7, "catalog": [], "descriptor": {}, "schema": 1}),
    "deep": b"\x91" * 5_000 + b"\xc0",
    "announced": b"\xdf\xff\xff\xff\xff",
    "not text": b"\x81\xacccatalog_name"[:1] + b"\xaccatalog_name\xa2\xff\xfe",
    "a descriptor that is none": msgpack.packb({"descriptor": b"\xff\xff", "catalog_name": "boilstream"}),
}


@pytest.mark.parametrize("body", BODIES)
def test_bodies_that_are_no_request(duckdb: AirportClient, body: str) -> None:
    for action in ACTIONS:
        try:
            duckdb.raw_action(action, BODIES[body])
        except AirportError as error:
            assert not error.retried, f"{action}: {error}"
            assert "error id" not in str(error), f"{action}: a defect: {error}"
        else:
            assert action in ("create_transaction", "catalog_version", "list_schemas"), action
    assert "s3" in duckdb.schemas()


@pytest.mark.parametrize(
    "action", ["no_such_action", "column_statistics", "table_function_flight_info", "commit", ""]
)
def test_unknown_actions(duckdb: AirportClient, action: str) -> None:
    refusal(duckdb.raw_action, action, {"catalog_name": "boilstream"})
