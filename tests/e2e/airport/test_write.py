"""INSERT: what becomes durable, what is refused, and what a client that dies leaves behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from tests.e2e.airport.conftest import Attach, location_of
from tests.support.airport import AirportClient, AirportError
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

pytestmark = pytest.mark.slow

PEOPLE = {"id": "INTEGER", "name": "VARCHAR"}


@pytest.mark.parametrize("secret", [True, False], ids=["a secret", "the token of ATTACH alone"])
def test_rows_come_back(attach: Attach, table: str, secret: bool) -> None:
    duckdb = attach(secret=secret)
    duckdb.create_table(table, PEOPLE)
    duckdb.take_calls()
    written = duckdb.insert(table, "SELECT range, 'name ' || range FROM range(5000)")
    assert written.rows == written.sent == 5000
    exchange = duckdb.calls[-1]
    assert bool(exchange.header("authorization")) == secret
    assert len(exchange.header("airport-transaction-id")) == 1
    assert duckdb.take_calls() == ["T", "V", "DoExchange[insert]"]
    found = duckdb.query(table, "SELECT count(*), count(DISTINCT name), sum(id) FROM t")
    assert found == [(5000, 5000, sum(range(5000)))]
    assert bool(duckdb.calls[-1].header("authorization")) == secret
    assert attach(secret=secret).query(table, "SELECT name FROM t WHERE id = 4321") == [("name 4321",)]


def test_rows_are_visible_to_other_clients_when_the_statement_ends(
    duckdb: AirportClient, plain: Client, table: str
) -> None:
    duckdb.create_table(table, PEOPLE)
    duckdb.insert(table, "VALUES (1, 'a'), (2, NULL)")
    assert plain.get(["s3", table]).to_pydict() == {"id": [1, 2], "name": ["a", None]}


def test_duckdb_sees_what_others_write(duckdb: AirportClient, plain: Client, table: str) -> None:
    plain.put(["s3", table], pa.table({"a": [1, 2], "b": ["x", None]}))
    assert duckdb.query(table, "SELECT a, b FROM t ORDER BY a") == [(1, "x"), (2, None)]


def test_an_insert_of_no_rows(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, PEOPLE)
    assert duckdb.insert(table, "SELECT 1, 'x' WHERE false").rows == 0
    assert duckdb.read(table).num_rows == 0
    assert duckdb.insert(table, "SELECT 1, 'x' WHERE false", returning=True).rows == 0


def test_returning_echoes_the_rows_as_the_table_has_them(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, PEOPLE | {"seen": "TIMESTAMPTZ"})
    duckdb.set_default(table, "name", "'nobody'")
    written = duckdb.insert(table, "SELECT range FROM range(5000)", ["id"], returning=True)
    assert duckdb.calls[-1].header("return-chunks") == ["1"]
    assert written.rows == 5000
    assert written.returned is not None
    assert written.returned["id"].to_pylist() == list(range(5000))
    assert set(written.returned["name"].to_pylist()) == {"nobody"}
    assert duckdb.query(table, "SELECT count(*) FROM t WHERE name = 'nobody' AND seen IS NULL") == [(5000,)]


def test_columns_that_are_left_out_get_their_default_or_null(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, {"a": "INTEGER", "b": "VARCHAR", "c": "TIMESTAMPTZ", "d": "UUID"})
    duckdb.set_default(table, "b", "'x' || 'y'")
    duckdb.set_default(table, "c", "TIMESTAMPTZ '2024-01-02 03:04:05+00'")
    duckdb.insert(table, "VALUES (1)", ["a"])
    assert duckdb.query(table, "SELECT a, b, c = '2024-01-02 03:04:05+00', d FROM t") == [
        (1, "xy", True, None)
    ]


def test_insert_select_from_the_same_and_another_table(duckdb: AirportClient, table: str) -> None:
    other = f"{table}_source"
    duckdb.create_table(table, PEOPLE)
    duckdb.create_table(other, PEOPLE)
    duckdb.insert(other, "SELECT range, 'x' FROM range(3000)")
    duckdb.take_calls()
    assert duckdb.insert_select(table, other).rows == 3000
    assert duckdb.take_calls()[3:5] == ["DoExchange[insert]", "endpoints"]
    assert duckdb.insert_select(table, table, "SELECT id + 3000, name FROM t").rows == 3000
    assert duckdb.query(table, "SELECT count(*), max(id) FROM t") == [(6000, 5999)]


def test_create_table_as(duckdb: AirportClient, attach: Attach, table: str) -> None:
    sql = "SELECT range::INTEGER AS id, 'x' AS name, [range] AS list, {'a': range} AS st FROM range(5000)"
    assert duckdb.create_table_as(table, sql).rows == 5000
    assert duckdb.take_calls() == ["T", "L", "V", "create_table", "DoExchange[insert]"]
    assert attach().query(table, "SELECT sum(id), sum(list[1]), sum(st.a) FROM t") == [(12497500,) * 3]
    with pytest.raises(AirportError, match="exists"):
        attach().create_table_as(table, "SELECT 1 AS id")


def test_create_table_as_if_not_exists_appends_where_the_client_does_not_know(
    duckdb: AirportClient, attach: Attach, table: str
) -> None:
    other = attach()
    other.show_all_tables()
    duckdb.create_table_as(table, "SELECT 1 AS id")
    assert other.create_table_as(table, "SELECT 2 AS id", if_not_exists=True).rows == 1
    assert duckdb.create_table_as(table, "SELECT 3 AS id", if_not_exists=True).rows == 0
    assert duckdb.query(table, "SELECT id FROM t ORDER BY id") == [(1,), (2,)]


def test_a_writer_without_permission_is_told_so_as_a_permission_error(
    duckdb: AirportClient, attach: Attach, table: str
) -> None:
    duckdb.create_table(table, PEOPLE)
    reader = attach("Readers")
    with pytest.raises(AirportError) as caught:
        reader.insert(table, "VALUES (1, 'a')")
    assert caught.value.kind == "Permission"
    assert f"s3.{table}" in str(caught.value)
    assert "WRITE_GROUPS" in str(caught.value)
    assert duckdb.read(table).num_rows == 0


# UPDATE, DELETE, TRUNCATE


def test_update_and_delete_are_refused_in_a_sentence(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, PEOPLE)
    duckdb.insert(table, "VALUES (1, 'a'), (2, 'b')")
    calls: list[Callable[[], object]] = [
        partial(duckdb.update, table, {"name": "'x'"}, "id = 1"),
        partial(duckdb.update, table, {"name": "'x'"}, returning=True),
        partial(duckdb.delete, table, "id = 1"),
        partial(duckdb.delete, table),
        partial(duckdb.delete, table, returning=True),
    ]
    for call in calls:
        with pytest.raises(AirportError) as caught:
            call()
        assert caught.value.remote
        assert caught.value.kind in ("Permission", "Invalid Input")
        assert "\n" not in str(caught.value)
    assert duckdb.query(table, "SELECT id, name FROM t ORDER BY id") == [(1, "a"), (2, "b")]


def test_delete_returning_is_refused_before_a_row_is_sent(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, PEOPLE)
    duckdb.insert(table, "VALUES (1, 'a')")
    duckdb.take_calls()
    with pytest.raises(AirportError):
        duckdb.delete(table, returning=True)
    assert "DoGet" not in duckdb.take_calls()


# Failures in the middle


def test_a_statement_that_fails_in_the_client_is_a_shorter_one(duckdb: AirportClient, table: str) -> None:
    """The protocol cannot tell (7.5); whole batches are there or none, and the statement reports its error."""
    duckdb.create_table(table, PEOPLE)
    sql = "SELECT CASE WHEN range = 4500 THEN error('stop') ELSE range END::INTEGER, 'x' FROM range(10000)"
    with pytest.raises(Exception, match="stop"):
        duckdb.insert(table, sql)
    assert duckdb.read(table).num_rows in (0, 2048, 4096)


def test_rows_appear_all_together(duckdb: AirportClient, attach: Attach, table: str) -> None:
    duckdb.create_table(table, PEOPLE)
    reader = attach()
    seen = [reader.query(table, "SELECT count(*) FROM t")]

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(20):
            yield pa.record_batch({"id": pa.array([number] * 2048, pa.int32()), "name": ["x"] * 2048})
            seen.append(reader.query(table, "SELECT count(*) FROM t"))

    schema = pa.schema([("id", pa.int32()), ("name", pa.string())])
    assert duckdb.insert_raw(table, schema, batches()).rows == 20 * 2048
    assert set(map(tuple, seen)) == {((0,),)}
    assert reader.query(table, "SELECT count(*) FROM t") == [(20 * 2048,)]


def test_a_batch_that_the_server_refuses_ends_the_statement(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, PEOPLE)
    schema = pa.schema([("id", pa.int32()), ("other", pa.string())])
    rows = pa.record_batch([pa.array([1], pa.int32()), pa.array(["x"])], schema=schema)
    for returning in (False, True):
        with pytest.raises(AirportError) as caught:
            duckdb.insert_raw(table, schema, iter([rows]), returning=returning)
        assert caught.value.kind == "Invalid Input"
        assert "other" in str(caught.value)
    assert duckdb.read(table).num_rows == 0


def test_a_batch_that_is_no_arrow_data_is_refused(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, PEOPLE)
    offsets = pa.array([0, 1_000_000, 1], pa.int32()).buffers()[1]
    broken = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"x"))
    rows = pa.record_batch([pa.array([1, 2], pa.int32()), broken], ["id", "name"])
    with pytest.raises(AirportError):
        duckdb.insert_raw(table, rows.schema, iter([rows]))
    assert duckdb.insert(table, "VALUES (1, 'a')").rows == 1
    assert duckdb.read(table).num_rows == 1


KILLED = """
import os, signal, sys
from functools import partial
from pathlib import Path
import pyarrow as pa
from tests.support.airport import AirportClient

location, ca, token, table = sys.argv[1:]
client = AirportClient(location, ca=Path(ca), attach_token=token, secret_token=token)
def batches():
    for number in range(5):
        yield pa.record_batch({"id": pa.array([number] * 2048, pa.int32()), "name": ["x"] * 2048})
    print("sent", flush=True)
    sys.stdin.read()
client.insert_raw(table, pa.schema([("id", pa.int32()), ("name", pa.string())]), batches())
"""


def test_a_client_that_is_killed_leaves_nothing(
    own_server: ServerProcess, issuer: IssuerProcess, start: Callable[..., AirportClient]
) -> None:
    duckdb = start(own_server)
    duckdb.create_table("people", PEOPLE)
    command = [location_of(own_server), str(issuer.ca_cert), issuer.token(groups="Admins"), "people"]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "sent\n"
    process.kill()
    process.communicate()
    own_server.stop()  # waits for open calls, so nothing comes later
    own_server.start()
    assert start(own_server).query("people", "SELECT count(*) FROM t") == [(0,)]


def test_rows_of_a_killed_server_are_there_if_the_statement_ended(
    own_server: ServerProcess, start: Callable[..., AirportClient]
) -> None:
    duckdb = start(own_server)
    duckdb.create_table("people", PEOPLE, not_null=["id"], checks=["id > 0"])
    duckdb.set_default("people", "name", "'nobody'")
    duckdb.create_schema("other")
    duckdb.create_table(("other", "t"), {"a": "UUID"})
    duckdb.insert("people", "SELECT range + 1 FROM range(3000)", ["id"])
    descriptor = duckdb.table("people").descriptor
    own_server.kill()
    own_server.start()
    fresh = start(own_server)
    assert fresh.show_all_tables() == [("other", "t"), ("s3", "people")]
    assert fresh.query("people", "SELECT count(*), sum(id), min(name) FROM t") == [(3000, 4501500, "nobody")]
    assert fresh.table("people").descriptor == descriptor
    assert len(fresh.table("people").checks) == 1
    with pytest.raises(AirportError, match="id > 0"):
        fresh.insert("people", "VALUES (0, 'x')", checked=False)
    fresh.insert("people", "VALUES (5000)", ["id"])
    assert fresh.query("people", "SELECT name FROM t WHERE id = 5000") == [("nobody",)]


def test_many_clients_insert_at_once(attach: Attach, duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, PEOPLE)
    clients = [attach() for _ in range(6)]
    errors: list[Exception] = []

    def work(number: int) -> None:
        try:
            for _ in range(3):
                clients[number].insert(table, f"SELECT {number}, 'x' FROM range(2500)")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = duckdb.query(table, "SELECT id, count(*) FROM t GROUP BY id ORDER BY id")
    assert found == [(number, 7500) for number in range(6)]
