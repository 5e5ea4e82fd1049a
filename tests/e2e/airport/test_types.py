"""Every type of DuckDB, from DuckDB to the store and back into another DuckDB."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal

import duckdb as duckdb_library
import pyarrow as pa
import pytest

from tests.e2e.airport.conftest import Attach, on_local_store
from tests.support.airport import AirportClient, Engine
from tests.support.server import Client, ServerProcess

pytestmark = pytest.mark.slow

VALUES: dict[str, list[str]] = {
    "BOOLEAN": ["true", "false"],
    "TINYINT": ["-128", "127"],
    "SMALLINT": ["-32768", "32767"],
    "INTEGER": ["-2147483648", "2147483647"],
    "BIGINT": ["-9223372036854775808", "9223372036854775807"],
    "UTINYINT": ["0", "255"],
    "USMALLINT": ["0", "65535"],
    "UINTEGER": ["0", "4294967295"],
    "UBIGINT": ["0", "18446744073709551615"],
    "HUGEINT": ["-5", "99999999999999999999999999999999999999"],
    "UHUGEINT": ["0", "99999999999999999999999999999999999999"],
    "FLOAT": ["1.5", "'nan'", "'-inf'"],
    "DOUBLE": ["-0.0", "1e308", "'nan'", "'inf'"],
    "DECIMAL(4,1)": ["-999.9", "0.1"],
    "DECIMAL(9,3)": ["123456.789"],
    "DECIMAL(18,6)": ["-123456789012.345678"],
    "DECIMAL(38,10)": ["9999999999999999999999999999.9999999999"],
    "VARCHAR": ["''", "'ä \U0001f600'", "repeat('x', 5000)"],
    "JSON": ["""'{"a": [1, null]}'""", "'null'"],
    "UUID": ["'6ba7b810-9dad-11d1-80b4-00c04fd430c8'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    "BLOB": ["''", r"'\x00\xFF'", r"'abc'"],
    "BIT": ["'1'", "'0101010101'"],
    "BIGNUM": ["0", "-123456789012345678901234567890123456789012345678901234567890"],
    "DATE": ["'0001-01-01'", "'1969-12-31'", "'9999-12-31'"],
    "TIME": ["'00:00:00'", "'23:59:59.999999'"],
    "TIME_NS": ["'00:00:00'", "'23:59:59.999999999'"],
    "TIMETZ": ["'00:00:00+15'", "'23:59:59.999999-15:59'"],
    "TIMESTAMP": ["'0001-01-01'", "'2024-02-29 12:34:56.789012'"],
    "TIMESTAMP_S": ["'2024-02-29 12:34:56'", "'1900-01-01'"],
    "TIMESTAMP_MS": ["'2024-02-29 12:34:56.789'"],
    "TIMESTAMP_NS": ["'2024-02-29 12:34:56.789012345'", "'1700-01-01'"],
    "TIMESTAMPTZ": ["'2024-02-29 12:34:56.789012+02'", "'1900-01-01'"],
    "INTERVAL": ["'1 month 2 days 3.000001 seconds'", "'-5 years'"],
    "INTEGER[]": ["[]", "[1, NULL, 3]"],
    "INTEGER[][]": ["[[1], NULL, []]"],
    "INTEGER[3]": ["[1, NULL, 3]"],
    "UUID[]": ["['6ba7b810-9dad-11d1-80b4-00c04fd430c8', NULL]"],
    "STRUCT(a INTEGER, b VARCHAR)": ["{'a': 1, 'b': NULL}", "{'a': NULL, 'b': 'x'}"],
    "STRUCT(u UUID, j JSON, t TIMETZ, h HUGEINT)": [
        "{'u': '6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'j': '1', 't': '12:00:00+02', 'h': 7}"
    ],
    "STRUCT(a STRUCT(b INTEGER[], c MAP(VARCHAR, DATE)))[]": [
        "[{'a': {'b': [1, NULL], 'c': MAP {'k': DATE '2024-01-02'}}}, NULL, {'a': NULL}]"
    ],
    "MAP(VARCHAR, INTEGER)": ["MAP {}", "MAP {'a': 1, 'b': NULL}"],
    "MAP(INTEGER, STRUCT(x UBIGINT))": ["MAP {1: {'x': 18446744073709551615}}"],
    "ENUM('sad', 'ok')": ["'sad'", "'ok'"],
    "UNION(num INTEGER, str VARCHAR)": [
        "union_value(num := 1)",
        "union_value(str := 'x')",
    ],
    "UNION(a INTEGER[], b STRUCT(x DATE))[]": ["[union_value(a := [1, 2]), NULL]"],
}
"""SQL type -> literals; every type gets a NULL as well."""

LOSSY = {
    "HUGEINT": "DECIMAL(38,0)",
    "UHUGEINT": "DECIMAL(38,0)",
    "JSON": "VARCHAR",
    "UUID": "VARCHAR",
    "BIT": "BLOB",
    "TIMETZ": "TIME",
    "UUID[]": "VARCHAR[]",
    "STRUCT(u UUID, j JSON, t TIMETZ, h HUGEINT)": "STRUCT(u VARCHAR, j VARCHAR, t TIME, h DECIMAL(38,0))",
    "ENUM('sad', 'ok')": "VARCHAR",
}
"""What a table that a client without arrow_lossless_conversion makes has instead (10.1)."""


def values_of(kind: str) -> str:
    """A query of (k, v): every value of the type, and a null."""
    literals = [*VALUES[kind], "NULL"]
    return " UNION ALL ".join(f"SELECT {k} AS k, ({value})::{kind} AS v" for k, value in enumerate(literals))


SHOWN = "SELECT k, v::VARCHAR FROM t ORDER BY k"


def expected(kind: str, published: str) -> list[tuple[object, ...]]:
    """What DuckDB itself shows of the values in the published type."""
    sql = f"SELECT k, v::{published}::VARCHAR AS v FROM ({values_of(kind)}) ORDER BY k"
    with duckdb_library.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql).fetchall()


@on_local_store
@pytest.mark.parametrize("lossless", [True, False], ids=["lossless", "lossy"])
@pytest.mark.parametrize("kind", VALUES)
def test_a_type_comes_back(attach: Attach, table: str, kind: str, lossless: bool) -> None:
    client = attach(lossless=lossless)
    client.create_table(table, {"k": "INTEGER", "v": kind})
    client.insert(table, values_of(kind))
    published = kind if lossless and not kind.startswith("ENUM") else LOSSY.get(kind, kind)
    found = client.query(table, "SELECT DISTINCT typeof(v) FROM t")
    assert found == [(canonical(published),)]
    fresh = attach(lossless=not lossless)
    for reader in (client, fresh):
        assert reader.query(table, SHOWN) == expected(kind, published)


def canonical(kind: str) -> str:
    """A type as DuckDB writes it."""
    with duckdb_library.connect() as connection:
        row = connection.execute(f"SELECT typeof(CAST(NULL AS {kind}))").fetchone()
    assert row is not None
    return str(row[0])


@on_local_store
@pytest.mark.parametrize("kind", VALUES)
def test_a_lossy_client_writes_to_a_lossless_table(attach: Attach, table: str, kind: str) -> None:
    """What the client cannot say any more (offsets of TIMETZ) is lost, nothing else is."""
    maker, writer = attach(lossless=True), attach(lossless=False)
    maker.create_table(table, {"k": "INTEGER", "v": kind})
    writer.insert(table, values_of(kind))
    found = maker.query(table, SHOWN)
    if "TIMETZ" in kind:
        shown = maker.query(table, "SELECT count(v) FROM t")
        assert shown == [(len(VALUES[kind]),)]
        return
    published = LOSSY[kind] if kind.startswith("ENUM") else kind
    assert found == expected(kind, published)


@on_local_store
@pytest.mark.parametrize("lossless", [True, False], ids=["lossless", "lossy"])
def test_filters_on_every_type(attach: Attach, table: str, lossless: bool) -> None:
    """Each value is found by itself and by order, whatever the server makes of the filter."""
    client = attach(lossless=lossless)
    kinds = [
        kind for kind in VALUES if "MAP" not in kind and "UNION" not in kind and not kind.startswith("ENUM")
    ]
    columns = {f"c{number}": kind for number, kind in enumerate(kinds)}
    client.create_table(table, {"k": "INTEGER"} | columns)
    most = max(len(VALUES[kind]) for kind in kinds)
    rows = [", ".join(f"({(VALUES[kind] * most)[row]})::{kind}" for kind in kinds) for row in range(most)]
    client.insert(table, " UNION ALL ".join(f"SELECT {number}, {row}" for number, row in enumerate(rows)))
    everything = client.read(table)
    for column, kind in columns.items():
        for literal in VALUES[kind]:
            for condition in (f"{column} = {literal}", f"{column} < {literal}", f"{column} IN ({literal})"):
                sql = f"SELECT k FROM t WHERE {condition} ORDER BY k"
                try:
                    wanted = client.engine.arrow(sql, t=everything)["k"].to_pylist()
                except duckdb_library.Error:
                    continue  # a comparison that SQL does not have for this type
                assert client.query(table, sql) == [(k,) for k in wanted], f"{kind}: {condition}"


def test_time_zones_of_clients_do_not_matter(attach: Attach, table: str) -> None:
    helsinki, new_york = attach(time_zone="Europe/Helsinki"), attach(time_zone="America/New_York")
    helsinki.create_table(table, {"seen": "TIMESTAMPTZ", "local": "TIMESTAMP"})
    new_york.insert(table, "VALUES (TIMESTAMPTZ '2024-07-01 12:00:00', TIMESTAMP '2024-07-01 12:00:00')")
    sql = "SELECT epoch(seen), epoch(local) FROM t WHERE seen = TIMESTAMPTZ '2024-07-01 16:00:00+00'"
    assert helsinki.query(table, sql) == [(1719849600.0, 1719835200.0)]
    assert new_york.query(table, sql) == [(1719849600.0, 1719835200.0)]


VARIANTS: dict[str, tuple[pa.DataType, pa.DataType]] = {
    "large text": (pa.string(), pa.large_string()),
    "text view": (pa.string(), pa.string_view()),
    "dictionary": (pa.string(), pa.dictionary(pa.int32(), pa.string())),
    "large binary": (pa.binary(), pa.large_binary()),
    "binary view": (pa.binary(), pa.binary_view()),
    "large list": (pa.list_(pa.int32()), pa.large_list(pa.int32())),
    "list view": (pa.list_(pa.int32()), pa.list_view(pa.int32())),
    "zone": (pa.timestamp("us", "UTC"), pa.timestamp("us", "Asia/Tokyo")),
}


@on_local_store
@pytest.mark.parametrize("variant", VARIANTS)
def test_batches_are_normalised_to_the_types_of_the_table(attach: Attach, table: str, variant: str) -> None:
    declared, sent = VARIANTS[variant]
    client = attach()
    client.create_table(table, pa.schema([("v", declared)]))
    samples: dict[pa.DataType, list[object]] = {
        pa.string(): ["a", None, "b"],
        pa.binary(): [b"a", None, b""],
        pa.list_(pa.int32()): [[1, None], None, []],
        pa.timestamp("us", "UTC"): [0, None, 10**15],
    }
    array = pa.array(samples[declared], declared)
    batch = pa.record_batch([pa.array(samples[declared], sent)], ["v"])
    client.insert_raw(table, batch.schema, iter([batch]))
    found = client.read(table)["v"].combine_chunks()
    assert found.type == client.table(table).schema.field("v").type
    assert found.to_pylist() == array.to_pylist()


def test_columns_are_matched_by_name(attach: Attach, table: str) -> None:
    client = attach()
    client.create_table(table, {"a": "INTEGER", "b": "VARCHAR"})
    batch = pa.record_batch({"b": ["x"], "a": pa.array([1], pa.int32())})
    client.insert_raw(table, batch.schema, iter([batch]))
    assert client.query(table, "SELECT a, b FROM t") == [(1, "x")]


def test_types_of_plain_arrow_writers_are_readable(plain: Client, attach: Attach, table: str) -> None:
    rows = pa.table(
        {
            "large": pa.array(["a"], pa.large_string()),
            "view": pa.array(["b"], pa.string_view()),
            "fixed": pa.array([b"abc"], pa.binary(3)),
            "large_list": pa.array([[1]], pa.large_list(pa.int64())),
            "list_view": pa.array([[1]], pa.list_view(pa.int64())),
            "date64": pa.array([86_400_000], pa.date64()),
            "time32": pa.array([1], pa.time32("s")),
            "duration": pa.array([1], pa.duration("s")),
            "tz": pa.array([1], pa.timestamp("ms", "Europe/Helsinki")),
            "small": pa.array([1], pa.decimal32(5, 2)),
            "wide": pa.array([1], pa.decimal256(30, 2)),
            "half": pa.array([1.5], pa.float16()),
            "halves": pa.array([[1.5, None]], pa.list_(pa.float16())),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        }
    )
    plain.put(["s3", table], rows)
    duckdb = attach()
    sql = (
        'SELECT "large", view, fixed, large_list, list_view, date64::VARCHAR, time32::VARCHAR, duration::VARCHAR, '
        "epoch_ms(tz), small::DOUBLE, wide::DOUBLE, half, halves, map FROM t"
    )
    found = duckdb.query(table, sql)
    assert found == [
        (
            "a",
            "b",
            b"abc",
            [1],
            [1],
            "1970-01-02",
            "00:00:01",
            "00:00:01",
            1,
            1.0,
            1.0,
            1.5,
            [1.5, None],
            {"k": 1},
        )
    ]
    plain.close()


@on_local_store
@pytest.mark.parametrize(
    ("declared", "value", "literal"),
    [
        (pa.large_string(), "a", "'a'"),
        (pa.binary(3), b"abc", "'abc'"),
        (pa.large_list(pa.int64()), [1, None], "[1, NULL]"),
        (pa.date64(), date(2024, 1, 2), "DATE '2024-01-02'"),
        (pa.time32("s"), time(1, 2, 3), "TIME '01:02:03'"),
        (pa.time64("ns"), time(1, 2, 3), "'01:02:03'::TIME_NS"),
        (pa.duration("s"), timedelta(seconds=90), "INTERVAL 90 SECONDS"),
        (pa.duration("us"), timedelta(days=2, microseconds=1), "INTERVAL '2 days 0.000001 seconds'"),
        (pa.timestamp("s"), datetime(2024, 1, 2), "TIMESTAMP '2024-01-02'"),
        (pa.decimal256(30, 2), Decimal("1.25"), "1.25"),
        (pa.decimal32(5, 2), Decimal("1.25"), "1.25"),
        (pa.float16(), 1.5, "1.5"),
        (pa.list_(pa.float16()), [1.5, None], "[1.5, NULL]"),
        (pa.struct([("a", pa.float16()), ("b", pa.decimal256(9, 1))]), {"a": 0.5, "b": Decimal("0.1")},
         "{'a': 0.5, 'b': 0.1}"),
    ],
)  # fmt: skip
def test_duckdb_writes_to_tables_of_plain_arrow_writers(
    plain: Client, attach: Attach, table: str, declared: pa.DataType, value: object, literal: str
) -> None:
    """What DuckDB reads as another type of its own, it sends as that type."""
    plain.put(["s3", table], pa.table({"v": pa.array([value], declared)}))
    attach().insert(table, f"VALUES ({literal}), (NULL)")
    found = plain.get(["s3", table])
    assert found.schema.field("v").type == declared
    assert found["v"].to_pylist().count(value) == 2
    assert found["v"].null_count == 1


def same(engine: Engine, left: pa.Table, right: pa.Table) -> bool:
    """Whether DuckDB shows the same rows in both."""
    columns = ", ".join(f"{name}::VARCHAR AS {name}" for name in right.column_names)
    sql = f"SELECT {columns} FROM given"
    return bool(engine.arrow(sql, given=left).equals(engine.arrow(sql, given=right)))


def test_types_after_a_restart(own_server: ServerProcess, start: Callable[..., AirportClient]) -> None:
    kinds = {f"c{number}": kind for number, kind in enumerate(VALUES)}
    client = start(own_server, lossless=True)
    client.create_table("everything", kinds)
    row = ", ".join(f"({VALUES[kind][0]})::{kind}" for kind in kinds.values())
    client.insert("everything", f"SELECT {row}")
    before = client.read("everything")
    own_server.stop()
    own_server.start()
    again = start(own_server, lossless=True)
    assert again.table("everything").schema.equals(client.table("everything").schema, check_metadata=True)
    assert same(again.engine, again.read("everything"), before)
