"""What DuckDB itself sends, stored and read back by DuckDB."""

from __future__ import annotations

import io
import re
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from boilstream.catalog.duckdb_types import published
from boilstream.catalog.types import TopicSchema
from tests.catalog.arrow_data import LEAVES, fields

pytestmark = pytest.mark.slow  # a matrix of all types, clients and nestings

_relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck))

_LEAVES: dict[str, list[str]] = {
    # type in SQL: values in SQL
    "BOOLEAN": ["true", "false"],
    "TINYINT": ["-128", "127"],
    "SMALLINT": ["-32768", "32767"],
    "INTEGER": ["-2147483648", "2147483647"],
    "BIGINT": ["-9223372036854775808", "9223372036854775807"],
    "UTINYINT": ["0", "255"],
    "USMALLINT": ["0", "65535"],
    "UINTEGER": ["0", "4294967295"],
    "UBIGINT": ["0", "18446744073709551615"],
    "HUGEINT": ["-99999999999999999999999999999999999999", "99999999999999999999999999999999999999"],
    "UHUGEINT": ["0", "99999999999999999999999999999999999999"],
    "FLOAT": ["'nan'", "-1.5"],
    "DOUBLE": ["'-infinity'", "0.1"],
    "DECIMAL(4,1)": ["-999.9", "0.1"],
    "DECIMAL(9,4)": ["-99999.9999", "0.1"],
    "DECIMAL(18,18)": ["-0.999999999999999999", "0.5"],
    "DECIMAL(38,10)": ["-9999999999999999999999999999.9999999999", "0.5"],
    "VARCHAR": ["''", "'täulu, longer than what a view holds inline'"],
    "JSON": ["""'{"a": [1, null]}'""", "'[\"longer than what a view holds inline\"]'"],
    "UUID": ["'5b8cbd2e-9b1e-4c86-a0b5-0d3a1f2b6c7d'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    "BLOB": ["''", r"'\xFF\x00 longer than what a view holds inline'"],
    "BIT": ["'1'", "'0101010101010101010101'"],
    "BIGNUM": ["'0'", "'-123456789012345678901234567890123456789012345678901234567890'"],
    "DATE": ["'-infinity'", "'2026-01-02'"],
    "TIME": ["'00:00:00'", "'23:59:59.999999'"],
    "TIME_NS": ["'00:00:00'", "'23:59:59.999999999'"],
    "TIMETZ": ["'00:00:00+00'", "'23:59:59.999999+00'"],
    "TIMESTAMP": ["'infinity'", "'290000-12-22 (BC) 00:00:00'"],
    "TIMESTAMP_S": ["'-infinity'", "'2026-01-02 03:04:05'"],
    "TIMESTAMP_MS": ["'infinity'", "'2026-01-02 03:04:05.678'"],
    "TIMESTAMP_NS": ["'infinity'", "'2026-01-02 03:04:05.123456789'"],
    "TIMESTAMPTZ": ["'-infinity'", "'2026-01-02 03:04:05.678901+02'"],
    "INTERVAL": ["'-1 month 2 days -3.5 seconds'", "'1000 years'"],
    "ENUM('a', 'täulu')": ["'a'", "'täulu'"],
}
"""All of them survive `arrow_lossless_conversion = false`; only their types do not."""

_FULL_RANGE = {
    "HUGEINT": ["-170141183460469231731687303715884105728", "170141183460469231731687303715884105727"],
    "UHUGEINT": ["0", "340282366920938463463374607431768211455"],
    "TIMETZ": ["'00:00:00+15:59:59'", "'24:00:00-15:59:59'"],
}
"""What only a lossless client can send."""

_VARIANTS = {
    "plain": (),
    "large": ("arrow_large_buffer_size = true",),
    "views": ("produce_arrow_string_view = true", "arrow_output_version = '1.4'"),
    "newest": (
        "produce_arrow_string_view = true",
        "arrow_output_version = '1.5'",
        "arrow_output_list_view = true",
        "arrow_large_buffer_size = true",
        "TimeZone = 'America/Port-au-Prince'",
    ),
}

_UNION = "UNION(one $T, tag $T[])"
_NESTED = f"""
    SELECT [v, NULL, w] AS list, [[v], NULL, []] AS lists,
        array_value(v, NULL, w) AS array, [array_value(v, w), NULL] AS arrays,
        {{'x': v, 'list': [w]}} AS struct, [{{'x': NULL, 'y': w}}, NULL] AS structs,
        MAP {{'k': v, 'n': NULL}} AS map, MAP {{'k': [{{'x': MAP {{1: w}}}}]}} AS maps,
        union_value(one := v)::{_UNION} AS u,
        {{'u': union_value(tag := [v, w])::{_UNION}}} AS in_struct,
        [union_value(one := v)::{_UNION}, NULL, union_value(tag := [w])] AS in_list,
        array_value(NULL, union_value(tag := [w])::{_UNION}) AS in_array,
        union_value(u := union_value(one := v)::{_UNION})::UNION(n INT, u {_UNION}) AS in_union
    FROM (SELECT CAST($V AS $T) AS v, CAST($W AS $T) AS w)
"""


def _session(variant: str) -> duckdb.DuckDBPyConnection:
    session = duckdb.connect()
    for setting in _VARIANTS[variant]:
        session.execute(f"SET {setting}")
    return session


def _leaves(session: duckdb.DuckDBPyConnection, values: dict[str, list[str]]) -> None:
    """Make the table `sent` with a column of each type."""
    columns = ", ".join(f"c{index} {kind}" for index, kind in enumerate(values))
    session.execute(f"CREATE TABLE sent ({columns}, n INTEGER NOT NULL)")
    for row in range(2):
        texts = [of_type[row] for of_type in values.values()]
        session.execute(f"INSERT INTO sent VALUES ({', '.join(texts)}, {row})")
        session.execute("INSERT INTO sent (n) VALUES (0)")


def _nested(session: duckdb.DuckDBPyConnection, kind: str, values: list[str]) -> None:
    """Make the table `sent` with every way to nest values of a type."""
    for verb, (first, second) in (("CREATE TABLE sent AS", values), ("INSERT INTO sent", values[::-1])):
        rows = _NESTED.replace("$T", kind).replace("$V", first).replace("$W", second)
        session.execute(f"{verb} {rows}")
        session.execute("INSERT INTO sent (list) VALUES (NULL)")


def _export(session: duckdb.DuckDBPyConnection, *, lossless: bool) -> pa.Table:
    """The rows of `sent` as a client with that setting sends them."""
    session.execute(f"SET arrow_lossless_conversion = {lossless}")
    table = session.execute("FROM sent").to_arrow_table()
    table.validate(full=True)
    return table


def _store(topic: TopicSchema, sent: pa.Table) -> pa.Table:
    """What a reader gets of rows that a client sent: through Parquet, in the published form."""
    (batch,) = sent.combine_chunks().to_batches()
    stored = topic.conform(batch.schema).to_stored(batch)
    stored.validate(full=True)
    file = io.BytesIO()
    pq.write_table(pa.table(stored), file, store_schema=False, store_decimal_as_integer=True)
    (read,) = pq.read_table(io.BytesIO(file.getvalue())).combine_chunks().to_batches()
    back = published(topic).to_declared(read)
    back.validate(full=True)
    assert back.schema == published(topic).declared
    return pa.table(back)


def _types(session: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    found = session.execute(f"SELECT column_name, column_type FROM (DESCRIBE {relation})").fetchall()
    return {name: re.sub(r"ENUM\([^)]*\)", "VARCHAR", kind) for name, kind in found}


def _require_equal(session: duckdb.DuckDBPyConnection, expected: str, back: pa.Table) -> None:
    """Compare the rows of a relation with others as DuckDB does, in the types of the relation."""
    session.register("back", back)
    differences = []
    for name, kind in _types(session, expected).items():
        left, right = f'e."{name}"::{kind}', f'b."{name}"::{kind}'
        differences += session.execute(
            f"SELECT '{name}', {left}::VARCHAR, {right}::VARCHAR "
            f"FROM {expected} e POSITIONAL JOIN back b WHERE {left} IS DISTINCT FROM {right}"
        ).fetchall()
    assert differences == []
    count = f"SELECT count(*) FROM {expected}"
    assert session.execute(count).fetchall() == [(len(back),)]


def _require_transparent(session: duckdb.DuckDBPyConnection) -> None:
    """What clients of both kinds send to topics that clients of both kinds declared comes back."""
    lossless, lossy = _export(session, lossless=True), _export(session, lossless=False)
    session.register("lossy", lossy)
    to_lossless, to_lossy = TopicSchema.declare(lossless.schema), TopicSchema.declare(lossy.schema)
    back = _store(to_lossless, lossless)
    _require_equal(session, "sent", back)
    assert _types(session, "back") == _types(session, "sent")
    _require_equal(session, "sent", _store(to_lossless, lossy))
    assert _types(session, "back") == _types(session, "sent")
    expected = "sent" if to_lossy == to_lossless else "lossy"
    for sent in (lossy, lossless):
        _require_equal(session, expected, _store(to_lossy, sent))
        assert _types(session, "back") == _types(session, expected)


@pytest.mark.parametrize("variant", _VARIANTS)
def test_every_type_comes_back(variant: str) -> None:
    session = _session(variant)
    _leaves(session, _LEAVES)
    _require_transparent(session)


def test_every_value_comes_back_from_a_lossless_client() -> None:
    session = _session("plain")
    _leaves(session, _FULL_RANGE)
    lossless = _export(session, lossless=True)
    _require_equal(session, "sent", _store(TopicSchema.declare(lossless.schema), lossless))
    assert _types(session, "back") == _types(session, "sent")


@pytest.mark.parametrize("variant", ["plain", "newest"])
@pytest.mark.parametrize("kind", _LEAVES)
def test_every_nested_type_comes_back(kind: str, variant: str) -> None:
    session = _session(variant)
    _nested(session, kind, _LEAVES[kind])
    _require_transparent(session)


@pytest.mark.parametrize("kind", _FULL_RANGE)
def test_every_nested_value_comes_back_from_a_lossless_client(kind: str) -> None:
    session = _session("plain")
    _nested(session, kind, _FULL_RANGE[kind])
    lossless = _export(session, lossless=True)
    _require_equal(session, "sent", _store(TopicSchema.declare(lossless.schema), lossless))
    assert _types(session, "back") == _types(session, "sent")


def test_uuids_become_their_text() -> None:
    session = _session("plain")
    _leaves(session, {"UUID": _LEAVES["UUID"]})
    text = TopicSchema.declare(pa.schema([("c0", pa.string_view()), ("n", pa.int32())]))
    back = _store(text, _export(session, lossless=True)).column("c0")
    assert back.to_pylist() == [_LEAVES["UUID"][0][1:-1], None, _LEAVES["UUID"][1][1:-1], None]


@settings(parent=_relaxed, max_examples=60)
@given(fields())
def test_duckdb_reads_every_published_type(columns: list[pa.Field]) -> None:
    topic = TopicSchema.declare(pa.schema([column.with_nullable(True) for column in columns]))
    nothing = pa.record_batch({columns[0].name: pa.nulls(2)})
    batch = published(topic).to_declared(topic.conform(nothing.schema).to_stored(nothing))
    session = duckdb.connect()
    session.register("back", pa.table(batch))
    (names,) = ([name for name, *_ in session.execute("DESCRIBE back").fetchall()],)
    nulls = " AND ".join(f'"{name}" IS NULL' for name in names)
    assert session.execute(f"SELECT count(*) FROM back WHERE {nulls}").fetchall() == [(2,)]


_OPAQUE = [
    pa.opaque(storage, name, vendor)
    for storage in (pa.binary(), pa.large_binary(), pa.binary(8), pa.binary(16), pa.int64(), pa.float16())
    for name in ("hugeint", "uhugeint", "time_tz", "bit", "bignum", "other")
    for vendor in ("DuckDB", "Somebody")
]


@pytest.mark.parametrize("kind", LEAVES + _OPAQUE, ids=str)
def test_published_types_are_the_declared_ones_but_where_duckdb_cannot_read_them(kind: pa.DataType) -> None:
    topic = published(TopicSchema.declare(pa.schema([("a", kind)])))
    found = topic.declared.field("a").type
    if found != kind and not isinstance(kind, pa.OpaqueType):
        assert {kind: found}.items() <= {
            pa.float16(): pa.float32(),
            pa.decimal256(38, 10): pa.decimal128(38, 10),
        }.items()
    (row,) = duckdb.from_arrow(pa.table({"a": pa.nulls(1, found)})).types
    storages = {
        "bit": {pa.binary(), pa.large_binary()},
        "hugeint": {pa.binary(16)},
        "time_tz": {pa.binary(8)},
    }
    storages |= {"uhugeint": storages["hugeint"], "bignum": storages["bit"]}
    if isinstance(kind, pa.OpaqueType):
        own = kind.vendor_name == "DuckDB" and kind.storage_type in storages.get(kind.type_name, set())
        names = {"time_tz": "TIME WITH TIME ZONE"}
        plain = {pa.int64(): "BIGINT", pa.float16(): "FLOAT", pa.string(): "VARCHAR"}
        assert str(row) == (
            names.get(kind.type_name, kind.type_name.upper()) if own else plain.get(kind.storage_type, "BLOB")
        )


def test_published_types_are_changed_at_every_level() -> None:
    half, wide = pa.float16(), pa.decimal256(20, 2)
    kind = pa.struct(
        [
            pa.field("l", pa.list_(pa.field("element", half, nullable=False))),
            pa.field("m", pa.map_(wide, pa.list_(half, 1)), nullable=False),
            pa.field("u", pa.sparse_union([pa.field("v", pa.large_list_view(wide))], [9])),
        ]
    )
    topic = TopicSchema.declare(pa.schema([pa.field("a", kind, nullable=False)]))
    small, narrow = pa.float32(), pa.decimal128(20, 2)
    expected = pa.struct(
        [
            pa.field("l", pa.list_(pa.field("element", small, nullable=False))),
            pa.field("m", pa.map_(narrow, pa.list_(small, 1)), nullable=False),
            pa.field("u", pa.sparse_union([pa.field("v", pa.large_list_view(narrow))])),
        ]
    )
    form = published(topic)
    assert form.declared == pa.schema([pa.field("a", expected, nullable=False)])
    assert (form.iceberg, form.stored) == (topic.iceberg, topic.stored)
    value = {"l": [1.5], "m": [(Decimal("1.25"), [2.5])], "u": None}
    sent = pa.array([{**value, "m": [(Decimal("1.25"), [None])]}], pa.struct(list(kind)[:2]))
    batch = pa.record_batch([sent], names=["a"])
    back = form.to_declared(topic.conform(batch.schema).to_stored(batch))
    assert back.to_pylist() == [{"a": {**value, "m": [(Decimal("1.25"), [None])]}}]
