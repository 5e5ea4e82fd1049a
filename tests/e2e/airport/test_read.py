"""SELECT: projection, filters, counts, parallel reads, and tables that change meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.e2e.airport.conftest import Attach, refusal
from tests.support.airport import ROWID, AirportClient, AirportError, Plan
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

pytestmark = pytest.mark.slow

FILES, ROWS = 4, 1000

CONTENT = """
SELECT {file} * 1000 + range::INTEGER AS id, 'name ' || range AS name, CASE WHEN range % 10 = 0 THEN NULL ELSE
range / 4 END::DOUBLE AS score, DATE '2024-01-01' + ({file} * 100 + range // 10)::INTEGER AS day,
(range % 100)::DECIMAL(9,2) / 4 AS price, TIMESTAMPTZ '2024-01-01 00:00:00+00' + INTERVAL ({file}) HOUR AS seen,
range % 2 = 0 AS even, [range, NULL] AS list, {{'a': range, 'b': 'x'}} AS st FROM range(1000)
"""

COLUMNS = {
    "id": "INTEGER",
    "name": "VARCHAR",
    "score": "DOUBLE",
    "day": "DATE",
    "price": "DECIMAL(9,2)",
    "seen": "TIMESTAMPTZ",
    "even": "BOOLEAN",
    "list": "BIGINT[]",
    "st": "STRUCT(a BIGINT, b VARCHAR)",
}


@pytest.fixture(scope="module")
def reading(server: ServerProcess, issuer: IssuerProcess) -> Iterator[AirportClient]:
    """A DuckDB process that has made the table `reading`: four files of a thousand rows."""
    token = issuer.token(groups="Admins")
    location = server.location.replace("127.0.0.1", "localhost")
    with AirportClient(location, ca=issuer.ca_cert, attach_token=token, secret_token=token) as client:
        client.create_table("reading", COLUMNS)
        for file in range(FILES):
            client.insert("reading", CONTENT.format(file=file))
        yield client
        client.drop_table("reading")


def test_the_calls_of_a_select(reading: AirportClient) -> None:
    reading.take_calls()
    reading.query("reading", "SELECT id FROM t")
    calls = reading.take_calls()
    assert calls[:3] == ["T", "V", "endpoints"]
    assert set(calls[3:]) == {"DoGet"}


def test_projection(reading: AirportClient) -> None:
    opened = reading.open_scan("reading", "SELECT name, id FROM t")
    found = opened.read()
    assert found.num_rows == FILES * ROWS
    assert set(found.column_names) == {"name", "id"}


def test_columns_that_nobody_asked_for_are_not_sent(reading: AirportClient) -> None:
    """Rows of the wide columns would take more than a count of one needs (6.4)."""
    opened = reading.open_scan("reading", "SELECT id FROM t")
    reader = reading.connection.do_get(opened.endpoints[0].ticket, options_of(reading))
    batch = next(iter(reader)).data
    asked = batch.column(batch.schema.get_field_index("id"))
    assert batch.nbytes < 4 * asked.nbytes + 1000 * batch.num_columns


def options_of(client: AirportClient) -> Any:
    """The headers of the last data call, to make another one with."""
    headers = [(key.encode(), value.encode()) for key, value in client.calls[-1].headers]
    return flight.FlightCallOptions(headers=headers, timeout=60)


PREDICATES = [
    "id = 1500",
    "id < 10 OR id >= 3995",
    "id BETWEEN 990 AND 1010",
    "id IN (1, 1001, 5000)",
    "id NOT IN (1, 1001)",
    "name = 'name 7'",
    "name LIKE 'name 99%'",
    "name LIKE '%9'",
    "contains(name, '77')",
    "length(name) = 6",
    "score IS NULL",
    "score IS NOT NULL AND score < 3",
    "score > 240.1",
    "NOT (score > 3)",
    "NOT (score IS NULL OR id > 100)",
    "score IS DISTINCT FROM 1.5",
    "day = DATE '2024-02-01'",
    "day > DATE '2025-03-01' AND even",
    "NOT even AND id < 20",
    "price = 1.25",
    "price > 24.5 AND price <= 24.75",
    "seen = TIMESTAMPTZ '2024-01-01 02:00:00+00' AND id % 500 = 0",
    "seen < TIMESTAMPTZ '2024-01-01 03:00:00+02'",
    "st.a = 7",
    "list[1] = 9 OR st.b = 'y'",
    "CASE WHEN id < 10 THEN true ELSE false END",
    "id::VARCHAR = '42'",
    "id + 1 = 100",
    "id = 1 AND id = 2",
    "rowid >= 0 AND id < 3",
    "id > 5000",
    "(id = 1 OR name = 'name 2') AND (even OR score < 0.5)",
]


@pytest.mark.parametrize("predicate", PREDICATES)
def test_filters_never_lose_a_row(reading: AirportClient, predicate: str) -> None:
    """The same as DuckDB says of all rows; what the server leaves out, no filter of the client needs."""
    everything = reading.read("reading")
    expected = reading.engine.arrow(
        f"SELECT id FROM t WHERE {predicate.replace('rowid', '0')} ORDER BY id", t=everything
    )
    assert reading.query("reading", f"SELECT id FROM t WHERE {predicate} ORDER BY id") == [
        (value,) for value in expected["id"].to_pylist()
    ]


@pytest.mark.parametrize(
    "predicate",
    [
        "id = 1500",
        "id BETWEEN 990 AND 1010",
        "name = 'name 7'",
        "day = DATE '2024-02-01'",
        "id > 5000",
        "id IN (1, 1001)",
    ],
)
def test_filters_are_applied_by_the_server(reading: AirportClient, predicate: str) -> None:
    found = reading.query("reading", f"SELECT id FROM t WHERE {predicate}")
    assert reading.brought == len(found)


def test_files_that_cannot_match_are_not_read(reading: AirportClient) -> None:
    opened = reading.open_scan("reading", "SELECT name FROM t WHERE id = 99999")
    assert opened.endpoints == [] or opened.read().num_rows == 0
    everything = reading.open_scan("reading", "SELECT name FROM t")
    one = reading.open_scan("reading", "SELECT name FROM t WHERE id = 1500")
    assert len(one.endpoints) <= len(everything.endpoints)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "not json",
        '{"filters": 1, "column_binding_names_by_index": []}',
        '{"filters": [{"expression_class": "NEW", "type": "NEW"}], "column_binding_names_by_index": ["id"]}',
        '{"filters": [[[[]]]], "column_binding_names_by_index": ["no such column"]}',
        '{"filters": [' + "[" * 20_000 + "]" * 20_000 + '], "column_binding_names_by_index": []}',
        json.dumps(
            {
                "filters": [
                    {
                        "expression_class": "BOUND_COMPARISON",
                        "type": "COMPARE_EQUAL",
                        "left": {
                            "expression_class": "BOUND_COLUMN_REF",
                            "return_type": {"id": "INTEGER", "type_info": None},
                            "binding": {"table_index": 0, "column_index": 9},
                        },
                        "right": {
                            "expression_class": "BOUND_CONSTANT",
                            "value": {"type": {"id": "HUGEINT"}, "is_null": False, "value": {"upper": 1}},
                        },
                    }
                ],
                "column_binding_names_by_index": ["id"],
            }
        ),
    ],
    ids=["empty", "no keys", "no json", "no list", "unknown node", "lists", "deep", "no such column"],
)
def test_filters_that_the_server_does_not_understand_are_true_or_refused(
    reading: AirportClient, text: str
) -> None:
    reading.begin_statement()
    table = reading.table("reading")
    try:
        found = reading.open(table, Plan([0], text)).read()
    except AirportError as error:
        assert not error.retried
        assert "error id" not in str(error)
    else:
        assert found.num_rows == FILES * ROWS


@pytest.mark.parametrize("column_ids", [[99], [2**63], [2**64 - 2], [0] * 5000])
def test_columns_that_are_not_there(reading: AirportClient, column_ids: list[int]) -> None:
    reading.begin_statement()
    body = {
        "descriptor": reading.table("reading").descriptor.serialize(),
        "parameters": {
            "json_filters": "",
            "column_ids": column_ids,
            "table_function_parameters": "",
            "table_function_input_schema": "",
            "at_unit": "",
            "at_value": "",
        },
    }
    scan = reading.scan_of(reading.table("reading"))
    try:
        reading.raw_action("endpoints", body, scan=scan)
    except AirportError as error:
        assert not error.retried
        assert "error id" not in str(error)
    else:
        assert set(column_ids) == {0}


def test_count(reading: AirportClient) -> None:
    assert reading.query("reading", "SELECT count(*) FROM t") == [(FILES * ROWS,)]
    assert reading.query("reading", "SELECT count(*) FROM t WHERE id < 1500") == [(1500,)]
    assert reading.query("reading", "SELECT count(score), count(*) FROM t") == [(3600, 4000)]
    opened = reading.open_scan("reading", "SELECT count(*) FROM t")
    assert opened.plan == Plan([ROWID], '{"filters": [], "column_binding_names_by_index": []}')
    assert opened.read().num_rows == FILES * ROWS


def test_row_ids_tell_rows_apart_and_stay(reading: AirportClient) -> None:
    first = reading.query("reading", "SELECT rowid, id FROM t ORDER BY id")
    assert len({rowid for rowid, _ in first}) == FILES * ROWS
    assert reading.query("reading", "SELECT rowid, id FROM t ORDER BY id") == first
    filtered = reading.query("reading", "SELECT rowid, id FROM t WHERE id BETWEEN 1990 AND 2010 ORDER BY id")
    assert filtered == first[1990:2011]
    wanted = first[1234]
    assert reading.query("reading", f"SELECT id FROM t WHERE rowid = {wanted[0]}") == [(wanted[1],)]


def test_row_ids_stay_while_rows_are_added(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, {"a": "INTEGER"})
    duckdb.insert(table, "FROM range(10)")
    before = dict(duckdb.query(table, "SELECT a, rowid FROM t"))
    duckdb.insert(table, "SELECT range + 10 FROM range(10)")
    after = dict(duckdb.query(table, "SELECT a, rowid FROM t"))
    assert {a: after[a] for a in before} == before
    assert len(set(after.values())) == 20


def test_a_column_that_is_called_rowid(
    server: ServerProcess, issuer: IssuerProcess, attach: Attach, table: str
) -> None:
    plain = Client(server.location, issuer.token(groups="Admins"), issuer.ca_cert)
    plain.put(["s3", table], pa.table({"a": [1, 2], "RowId": ["x", "y"]}))
    plain.close()
    duckdb = attach()
    assert duckdb.table(table).schema.names == ["a", "RowId", "_rowid"]
    assert duckdb.query(table, 'SELECT a, "RowId" FROM t ORDER BY a') == [(1, "x"), (2, "y")]
    assert duckdb.query(table, "SELECT count(*) FROM t") == [(2,)]
    duckdb.insert(table, "VALUES (3, 'z')")
    assert duckdb.query(table, "SELECT count(*) FROM t") == [(3,)]


def test_an_endpoint_may_be_read_twice(reading: AirportClient) -> None:
    opened = reading.open_scan("reading", "SELECT id FROM t")
    assert opened.read().num_rows == opened.read().num_rows == FILES * ROWS


def test_a_limit_cancels_the_read(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, {"a": "BIGINT", "s": "VARCHAR"})
    duckdb.insert(table, "SELECT range, repeat('x', 100) FROM range(200000)")
    for _ in range(20):
        assert duckdb.query(table, "SELECT a FROM t LIMIT 1", limit=1)
    opened = duckdb.open_scan(table)
    stream = opened.batches(opened.endpoints[0])
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # a generator
    assert duckdb.query(table, "SELECT count(*) FROM t") == [(200_000,)]


def test_a_read_finishes_on_its_snapshot(duckdb: AirportClient, attach: Attach, table: str) -> None:
    duckdb.create_table(table, {"a": "INTEGER"})
    duckdb.insert(table, "FROM range(5000)")
    other = attach()
    opened = other.open_scan(table)
    duckdb.insert(table, "FROM range(5000)")
    assert opened.read().num_rows == 5000
    assert other.read(table).num_rows == 10_000


@pytest.mark.parametrize(
    "change", ["drop", "drop column", "rename", "rename column", "add column", "make again"]
)
def test_a_change_during_a_read_does_not_disturb_it(
    duckdb: AirportClient, attach: Attach, table: str, change: str
) -> None:
    duckdb.create_table(table, {"a": "INTEGER", "b": "VARCHAR"})
    for _ in range(3):
        duckdb.insert(table, "SELECT range, 'x' FROM range(1000)")
    other = attach()
    opened = other.open_scan(table)
    first, *rest = opened.endpoints
    stream = opened.batches(first)
    rows = [next(stream)]

    def make_again() -> None:
        duckdb.drop_table(table)
        duckdb.create_table(table, {"b": "DATE"})

    changes: dict[str, Callable[[], object]] = {
        "drop": partial(duckdb.drop_table, table),
        "drop column": partial(duckdb.remove_column, table, "b"),
        "rename": partial(duckdb.rename_table, table, f"{table}_new"),
        "rename column": partial(duckdb.rename_column, table, "b", "c"),
        "add column": partial(duckdb.add_column, table, "c", "INTEGER"),
        "make again": make_again,
    }
    changes[change]()
    rows += stream
    for endpoint in rest:  # calls that begin after the change
        rows += opened.batches(endpoint)
    found = pa.Table.from_batches(rows)
    assert found.num_rows == 3000
    assert found["a"].null_count == 0
    assert set(found["b"].to_pylist()) <= {"x", None}


def test_time_travel_is_refused(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, {"a": "INTEGER"})
    for unit, value in (("VERSION", "1"), ("TIMESTAMP", "2024-01-02 03:04:05+00"), ("VERSION", "abc")):
        error = refusal(duckdb.select_at, table, unit, value)
        assert "not" in str(error)
    assert duckdb.read(table).num_rows == 0


def test_endpoints_of_another_time_are_refused_too(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, {"a": "INTEGER"})
    known = duckdb.table(table)
    refusal(duckdb.open, known, Plan([0], ""), at=("VERSION", "1"))


def test_a_table_of_many_rows_is_read_in_parallel(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, {"a": "BIGINT", "s": "VARCHAR"})
    for part in range(2):
        duckdb.insert(
            table,
            f"SELECT {part} * 500_000 + range, md5((range % 1000)::VARCHAR || range) FROM range(500_000)",
        )
    found = duckdb.query(table, "SELECT count(*), sum(a), count(DISTINCT s) FROM t")
    assert found == [(1_000_000, 499_999_500_000, 500_000)]
    assert duckdb.take_calls().count("DoGet") > 1
    assert duckdb.query(table, "SELECT count(*) FROM t") == [(1_000_000,)]
    opened = duckdb.open_scan(table, "SELECT a FROM t")
    backwards = [batch for endpoint in reversed(opened.endpoints) for batch in opened.batches(endpoint)]
    assert sum(batch.num_rows for batch in backwards) == 1_000_000
    one = duckdb.open_scan(table, "SELECT s FROM t WHERE a = 700_000")
    assert len(one.endpoints) < len(opened.endpoints)
