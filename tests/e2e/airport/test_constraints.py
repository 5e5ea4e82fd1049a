"""NOT NULL, CHECK, DEFAULT and keys: the server verifies again, for DuckDB and for others."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.e2e.airport.conftest import Attach, on_local_store, refusal
from tests.support.airport import AirportClient, AirportError
from tests.support.server import Client

pytestmark = [pytest.mark.slow, on_local_store]

PEOPLE = {"id": "INTEGER", "name": "VARCHAR"}


@pytest.fixture
def strict(duckdb: AirportClient, table: str) -> str:
    duckdb.create_table(
        table,
        {"id": "INTEGER", "name": "VARCHAR", "n": "INTEGER"},
        not_null=["id"],
        checks=["n > 0", "n < id"],
    )
    duckdb.set_default(table, "name", "'nobody'")
    return table


def test_constraints_are_published(duckdb: AirportClient, attach: Attach, strict: str) -> None:
    known = attach().table(strict)
    assert not known.schema.field("id").nullable
    assert known.schema.field("n").nullable
    assert len(known.checks) == 2
    with pytest.raises(AirportError, match="CHECK constraint failed") as caught:
        duckdb.insert(strict, "VALUES (1, 'a', -1)")
    assert not caught.value.remote
    with pytest.raises(AirportError, match="NOT NULL constraint failed"):
        duckdb.insert(strict, "VALUES (NULL, 'a', NULL)")
    assert duckdb.insert(strict, "VALUES (9, 'a', NULL), (9, 'b', 8)").rows == 2


@pytest.mark.parametrize(
    "bad", ["(NULL, 'a', 1)", "(5, 'a', 0)", "(5, 'a', 5)"], ids=["not null", "check", "two columns"]
)
@pytest.mark.parametrize("returning", [False, True])
def test_the_server_verifies_what_the_client_did_not(
    duckdb: AirportClient, strict: str, bad: str, returning: bool
) -> None:
    good = "SELECT 9000 + range, 'x', 1 FROM range(5000)"
    with pytest.raises(AirportError) as caught:
        duckdb.insert(strict, f"{good} UNION ALL VALUES {bad}", checked=False, returning=returning)
    assert caught.value.remote
    assert caught.value.kind in ("Constraint", "IO")
    assert duckdb.read(strict).num_rows == 0


def test_a_broken_constraint_is_a_constraint_error(duckdb: AirportClient, strict: str) -> None:
    with pytest.raises(AirportError) as caught:
        duckdb.insert(strict, "VALUES (NULL, 'a', 1)", checked=False)
    assert caught.value.kind == "Constraint"
    assert "id" in str(caught.value)
    with pytest.raises(AirportError) as caught:
        duckdb.insert(strict, "VALUES (5, 'a', -1)", checked=False)
    assert caught.value.kind == "Constraint"
    assert "n > 0" in str(caught.value)


@pytest.mark.parametrize(
    "rows",
    [
        {"id": [None, 1], "n": [None, None]},
        {"name": ["a"]},
        {"id": [5], "n": [0]},
        {"id": [5], "n": [7]},
    ],
    ids=["null", "missing", "check", "two columns"],
)
def test_plain_writers_meet_the_same_constraints(
    duckdb: AirportClient, plain: Client, strict: str, rows: dict[str, list[object]]
) -> None:
    schema = pa.schema(
        [
            (name, kind)
            for name, kind in (("id", pa.int32()), ("name", pa.string()), ("n", pa.int32()))
            if name in rows
        ]
    )
    with pytest.raises(flight.FlightServerError, match="INVALID_ARGUMENT"):
        plain.put(["s3", strict], pa.table(rows, schema))
    assert duckdb.read(strict).num_rows == 0


def test_plain_writers_get_the_defaults(duckdb: AirportClient, plain: Client, strict: str) -> None:
    plain.put(["s3", strict], pa.table({"id": pa.array([1, 2], pa.int32())}))
    plain.put(
        ["s3", strict], pa.table({"id": pa.array([3], pa.int32()), "name": pa.array([None], pa.string())})
    )
    assert duckdb.query(strict, "SELECT id, name, n FROM t ORDER BY id") == [
        (1, "nobody", None),
        (2, "nobody", None),
        (3, None, None),
    ]


@pytest.mark.parametrize("check", ["n >", "nothing > 0", "n > (SELECT 1)", "1; DROP TABLE x", "count(*) > 1"])
def test_checks_that_cannot_be_are_refused(duckdb: AirportClient, table: str, check: str) -> None:
    with pytest.raises(AirportError) as caught:
        duckdb.create_table(table, {"n": "INTEGER"}, checks=[check])
    assert caught.value.remote
    assert not caught.value.retried
    assert ("s3", table) not in duckdb.show_all_tables()


@pytest.mark.parametrize(
    "keys",
    [
        {"primary_key": ["id"]},
        {"primary_key": ["id", "name"]},
        {"unique": ["id"]},
        {"extra": ["UNIQUE(id, name)"]},
    ],
)
def test_keys_are_refused(duckdb: AirportClient, table: str, keys: dict[str, list[str]]) -> None:
    """An append-only table cannot keep them, and none is promised silently."""
    error = refusal(duckdb.create_table, table, PEOPLE, **keys)
    assert "key" in str(error).lower() or "unique" in str(error).lower()
    assert ("s3", table) not in duckdb.show_all_tables()
