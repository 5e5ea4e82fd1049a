"""ATTACH, schemas and tables: what DuckDB lists, makes and drops."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pyarrow as pa
import pytest

from tests.e2e.airport.conftest import Attach, on_local_store, refusal
from tests.support.airport import AirportClient, AirportError
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

pytestmark = [pytest.mark.slow, on_local_store]

_numbers = itertools.count()

EVENTS = {
    "timestamp": "TIMESTAMPTZ",
    "user_id": "VARCHAR",
    "event_type": "VARCHAR",
    "properties": "JSON",
}


@pytest.fixture
def schema_name() -> str:
    return f"schema_{next(_numbers)}"


def test_the_documented_schema_is_there_from_the_start(duckdb: AirportClient) -> None:
    assert "s3" in duckdb.schemas()
    assert duckdb.take_calls() == ["L"]
    duckdb.use("s3")
    assert duckdb.take_calls() == ["T"]


def test_a_table_is_made_and_listed(duckdb: AirportClient, attach: Attach, table: str) -> None:
    made = duckdb.create_table(table, EVENTS)
    assert duckdb.take_calls() == ["T", "L", "V", "create_table"]
    assert [item.name for item in made.columns] == list(EVENTS)
    assert made.name == table
    assert made.rowid == 4  # behind the columns: in front the client takes each for its neighbour
    other = attach()
    assert ("s3", table) in other.show_all_tables()
    assert other.take_calls() == ["L"]
    assert other.table(table).schema.equals(made.schema, check_metadata=True)
    assert other.table(table).descriptor == made.descriptor
    assert other.read(table).num_rows == 0


def test_the_catalog_name_has_any_letter_case_and_is_echoed_as_written(attach: Attach, table: str) -> None:
    upper = attach(catalog="BoilStream")
    upper.create_table(table, {"a": "INTEGER"})
    upper.insert(table, "VALUES (1)")
    assert upper.query(table, "SELECT a FROM t") == [(1,)]
    upper.attach()
    assert upper.query(table, "SELECT a FROM t") == [(1,)]


def test_another_catalog_name_is_refused(attach: Attach) -> None:
    for name in ("other", "boilstream2", "s3", ""):
        stranger = attach(catalog=name)
        error = refusal(stranger.show_all_tables)
        assert "boilstream" in str(error)
        stranger.attach()
        refusal(stranger.create_table, "x", {"a": "INTEGER"})


def test_an_existing_table_is_not_made_again(duckdb: AirportClient, attach: Attach, table: str) -> None:
    other = attach()
    other.show_all_tables()
    duckdb.create_table(table, {"a": "INTEGER"})
    duckdb.insert(table, "VALUES (1)")
    error = refusal(other.create_table, table, {"b": "VARCHAR"})
    assert table in str(error)
    assert "exists" in str(error)
    refusal(other.create_table, table.upper(), {"b": "VARCHAR"})
    assert duckdb.query(table, "SELECT a FROM t") == [(1,)]


def test_if_not_exists_answers_the_table_that_is_there(
    duckdb: AirportClient, attach: Attach, table: str
) -> None:
    other = attach()
    other.show_all_tables()
    duckdb.create_table(table, {"a": "INTEGER"})
    found = other.create_table(table, {"b": "VARCHAR"}, if_not_exists=True)
    assert [item.name for item in found.columns] == ["a"]
    other.insert(table, "VALUES (7)")
    assert duckdb.query(table, "SELECT a FROM t") == [(7,)]


def test_if_not_exists_makes_a_table_that_is_not_there(duckdb: AirportClient, table: str) -> None:
    made = duckdb.create_table(table, {"b": "VARCHAR"}, if_not_exists=True)
    assert [item.name for item in made.columns] == ["b"]


def test_tables_of_others_show_after_attaching_again(
    duckdb: AirportClient, attach: Attach, table: str
) -> None:
    other = attach()
    other.show_all_tables()
    duckdb.create_table(table, {"a": "INTEGER"})
    with pytest.raises(AirportError, match="does not exist"):
        other.read(table)
    other.attach()
    assert other.read(table).num_rows == 0


def test_a_table_is_dropped(duckdb: AirportClient, attach: Attach, table: str) -> None:
    duckdb.create_table(table, {"a": "INTEGER"})
    duckdb.take_calls()
    duckdb.drop_table(table)
    assert duckdb.take_calls() == ["V", "T", "V", "drop_table"]
    duckdb.drop_table(table, if_exists=True)
    assert duckdb.take_calls() == ["V", "T"]
    assert ("s3", table) not in attach().show_all_tables()
    duckdb.create_table(table, {"other": "VARCHAR"})
    assert duckdb.read(table).column_names == ["other"]


def test_a_table_that_another_client_dropped(duckdb: AirportClient, attach: Attach, table: str) -> None:
    duckdb.create_table(table, {"a": "INTEGER"})
    others = [attach() for _ in range(3)]
    for other in others:
        other.table(table)
    duckdb.drop_table(table)
    assert table in str(refusal(others[0].drop_table, table))
    others[1].drop_table(table, if_exists=True)
    with pytest.raises(AirportError) as caught:
        others[2].read(table)
    assert caught.value.remote
    assert not caught.value.retried
    assert "attach" in str(caught.value).lower()


def test_a_table_that_was_dropped_and_made_again_is_another_one(
    duckdb: AirportClient, attach: Attach, table: str
) -> None:
    duckdb.create_table(table, {"a": "INTEGER", "b": "VARCHAR"})
    stale = attach()
    stale.table(table)
    duckdb.drop_table(table)
    duckdb.create_table(table, {"b": "INTEGER", "a": "VARCHAR"})
    duckdb.insert(table, "VALUES (1, 'x')")
    for call in (lambda: stale.read(table), lambda: stale.insert(table, "VALUES (1, 'x')")):
        with pytest.raises(AirportError) as caught:
            call()
        assert "attach" in str(caught.value).lower()
    assert duckdb.query(table, "SELECT b, a FROM t") == [(1, "x")]


def test_a_schema_is_made_used_and_dropped(duckdb: AirportClient, attach: Attach, schema_name: str) -> None:
    duckdb.create_schema(schema_name)
    assert duckdb.take_calls() == ["V", "T", "create_schema"]
    duckdb.create_table((schema_name, "t1"), {"a": "INTEGER"})
    duckdb.insert((schema_name, "t1"), "VALUES (1)")
    other = attach()
    assert (schema_name, "t1") in other.show_all_tables()
    assert schema_name in other.schemas()
    assert other.query((schema_name.upper(), "T1"), "SELECT a FROM t") == [(1,)]
    error = refusal(duckdb.drop_schema, schema_name)
    assert schema_name in str(error)
    refusal(duckdb.drop_schema, schema_name, if_exists=True)
    duckdb.drop_table((schema_name, "t1"))
    duckdb.take_calls()
    duckdb.drop_schema(schema_name)
    assert duckdb.take_calls() == ["V", "T", "drop_schema"]
    assert schema_name not in attach().schemas()


def test_a_schema_that_is_not_there(duckdb: AirportClient, schema_name: str) -> None:
    assert schema_name in str(refusal(duckdb.drop_schema, schema_name))
    duckdb.drop_schema(schema_name, if_exists=True)


def test_the_schema_s3_stays(duckdb: AirportClient) -> None:
    assert "s3" in str(refusal(duckdb.drop_schema, "s3"))
    assert "s3" in duckdb.schemas()


def test_a_schema_called_main_is_refused(duckdb: AirportClient, attach: Attach) -> None:
    for name in ("main", "MAIN"):
        assert "main" in str(refusal(duckdb.create_schema, name)).lower()
    assert "main" not in attach().schemas()


def test_creating_an_existing_schema_keeps_its_tables_visible(
    duckdb: AirportClient, attach: Attach, schema_name: str
) -> None:
    duckdb.create_schema(schema_name)
    duckdb.create_table((schema_name, "t1"), {"a": "INTEGER"})
    other = attach()
    other.create_schema(schema_name)  # before its catalog is loaded: the answer is what it will know
    assert other.read((schema_name, "t1")).num_rows == 0
    duckdb.create_schema(schema_name)
    duckdb.attach()
    assert duckdb.read((schema_name, "t1")).num_rows == 0


def test_a_table_in_an_unknown_schema_is_refused(duckdb: AirportClient, schema_name: str) -> None:
    body = {
        "catalog_name": "boilstream",
        "schema_name": schema_name,
        "table_name": "t",
        "arrow_schema": pa.schema({"a": pa.int32()}).serialize().to_pybytes(),
        "on_conflict": "error",
        "not_null_constraints": [],
        "unique_constraints": [],
        "check_constraints": [],
        "primary_key_columns": [],
        "unique_columns": [],
        "multi_key_primary_keys": [],
        "extra_constraints": [],
    }
    assert schema_name in str(refusal(duckdb.raw_action, "create_table", body))


def test_types_that_duckdb_cannot_read_are_published_as_those_that_it_can(
    server: ServerProcess, issuer: IssuerProcess, attach: Attach, table: str
) -> None:
    rows = pa.table(
        {
            "half": pa.array([0.5, None], pa.float16()),
            "wide": pa.array([1, 2], pa.decimal256(20, 2)),
            "tags": pa.array(["a", "b"], pa.dictionary(pa.int8(), pa.string())),
        }
    )
    writer = Client(server.location, issuer.token(groups="Admins"), issuer.ca_cert)
    writer.put(["s3", table], rows)
    writer.close()
    other = attach()
    assert other.query(table, "SELECT half, wide::INTEGER, tags FROM t ORDER BY tags") == [
        (0.5, 1, "a"),
        (None, 2, "b"),
    ]


def test_the_version_grows_with_each_change(duckdb: AirportClient, attach: Attach, table: str) -> None:
    other = attach()
    versions = [other.ask_version()]
    changes: list[Callable[[], object]] = [
        partial(duckdb.create_table, table, {"a": "INTEGER"}),
        partial(duckdb.add_column, table, "b", "VARCHAR"),
        partial(duckdb.drop_table, table),
        partial(duckdb.create_schema, f"versioned_{table}"),
        partial(duckdb.drop_schema, f"versioned_{table}"),
    ]
    for change in changes:
        change()
        versions.append(other.ask_version())
    assert None not in versions  # it is never said to be fixed
    assert versions == sorted(set(versions), key=lambda version: version or 0)
    assert other.ask_version() == versions[-1]
