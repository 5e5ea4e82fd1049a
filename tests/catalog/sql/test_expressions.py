"""CHECK and DEFAULT mean what they mean in DuckDB, for rows and types of every kind."""

from __future__ import annotations

import datetime as dt
import uuid
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boilstream.catalog.duckdb_types import published
from boilstream.catalog.sql import expressions
from boilstream.catalog.sql.expressions import Check, Default
from boilstream.catalog.sql.sandbox import SHARED
from boilstream.catalog.sql.syntax import Refused, read
from boilstream.catalog.types import TopicSchema
from boilstream.errors import ConstraintViolated, InvalidArgument
from tests.catalog.arrow_data import LEAVES

pytestmark = pytest.mark.slow  # the evaluator processes are real

COLUMNS = pa.schema(
    [
        ("id", pa.int64()),
        ("Full Name", pa.string()),
        ('say "hi"', pa.string()),
        ("select", pa.int32()),
        ("Õun", pa.int64()),
        ("place", pa.struct([("lat", pa.float64()), ("tags", pa.list_(pa.string()))])),
        ("ts", pa.timestamp("us", "UTC")),
        ("doc", pa.json_()),
        ("key", pa.uuid()),
        ("list", pa.list_(pa.int64())),
        ("price", pa.decimal128(10, 2)),
        ("big", pa.opaque(pa.binary(16), "hugeint", "DuckDB")),
        ("small", pa.float16()),
        ("flag", pa.bool8()),
    ]
)
SCHEMA = TopicSchema.declare(COLUMNS)


def batch(**columns: list[Any]) -> pa.RecordBatch:
    """Rows of the topic in published form, with those columns only."""
    fields = [published(SCHEMA).declared.field(name) for name in columns]
    arrays = [pa.array(values, field.type) for values, field in zip(columns.values(), fields, strict=True)]
    return pa.record_batch(arrays, schema=pa.schema(fields))


def require(sql: str, **columns: list[Any]) -> None:
    Check.compile(sql, SCHEMA).require(batch(**columns))


UTC = dt.UTC
YEAR = dt.datetime(2020, 7, 1, tzinfo=UTC)

HOLDS: list[tuple[str, str, Any, Any]] = [
    # condition, column, a value that makes it true, one that makes it false
    ("id > 0", "id", 1, 0),
    ("ID > 0", "id", 1, 0),
    ("id", "id", 7, 0),
    ("id BETWEEN 1 AND 9", "id", 9, 10),
    ("id NOT BETWEEN 1 AND 9", "id", 10, 1),
    ("id IN (1, 2)", "id", 2, 3),
    ("id NOT IN (1, 2)", "id", 3, 1),
    ("id > 1e-3", "id", 1, 0),
    ("id % 2 = 0 AND NOT id = 4 OR id = 1", "id", 2, 4),
    ("id IS DISTINCT FROM 3", "id", None, 3),
    ("CASE WHEN id < 10 THEN id > 5 ELSE id < 20 END", "id", 6, 20),
    ("if(id > 5, true, false)", "id", 6, 5),
    ("coalesce(id, 0) = 0", "id", None, 1),
    ("(id > 5) IS TRUE", "id", 6, None),
    ('TRY_CAST("Full Name" AS INTEGER) IS NOT NULL', "Full Name", "12", "x"),
    ('TRY("Full Name"::INTEGER) IS NOT NULL', "Full Name", "12", "x"),
    ("\"full name\" <> ''", "Full Name", "a", ""),
    ('"full name".length() > 1', "Full Name", "ab", "a"),
    ("\"Full Name\" LIKE 'a%' ESCAPE '\\'", "Full Name", "ab", "b"),
    ("\"Full Name\" SIMILAR TO '[a-c]+'", "Full Name", "abc", "abd"),
    ("\"Full Name\" COLLATE nocase = 'ab'", "Full Name", "AB", "b"),
    ("trim(both 'x' from \"Full Name\") = 'a'", "Full Name", "xax", "xb"),
    ('"say ""hi""" = \'it\'\'s\'', 'say "hi"', "it's", "its"),
    ('"select" = 1', "select", 1, 2),
    ('"Õun" = 1', "Õun", 1, 2),
    ("place.lat > 1", "place", {"lat": 2.0, "tags": []}, {"lat": 1.0, "tags": []}),
    ("place['lat'] > 1", "place", {"lat": 2.0, "tags": []}, {"lat": 1.0, "tags": []}),
    ("PLACE.Tags[1] = 'a'", "place", {"lat": 0.0, "tags": ["a"]}, {"lat": 0.0, "tags": ["b"]}),
    ("place.tags.len() > 0", "place", {"lat": 2.0, "tags": ["a"]}, {"lat": 1.0, "tags": []}),
    ("ts > TIMESTAMPTZ '2020-01-01 00:00:00+00'", "ts", YEAR, dt.datetime(2019, 12, 31, tzinfo=UTC)),
    ("ts < '2021-01-01 02:00:00+02'::TIMESTAMPTZ", "ts", YEAR, dt.datetime(2021, 1, 1, tzinfo=UTC)),
    ("extract(hour FROM ts) = 0", "ts", YEAR, YEAR.replace(hour=1)),
    ("date_part('hour', ts AT TIME ZONE 'Europe/Helsinki') = 3", "ts", YEAR, YEAR.replace(hour=1)),
    ("ts + INTERVAL 1 DAY < TIMESTAMPTZ '2020-07-03'", "ts", YEAR, YEAR.replace(day=2)),
    ("ts < now() - INTERVAL 1 DAY", "ts", YEAR, dt.datetime(2200, 1, 1, tzinfo=UTC)),
    ("ts::DATE < current_date", "ts", YEAR, dt.datetime(2200, 1, 1, tzinfo=UTC)),
    ("(doc->>'$.kind') = 'a'", "doc", '{"kind": "a"}', '{"kind": "b"}'),
    ("(doc->'kind') = '1'", "doc", '{"kind": 1}', '{"kind": 2}'),
    ("json_array_length(doc) > 1", "doc", "[1, 2]", "[1]"),
    ("key > '80000000-0000-0000-0000-000000000000'", "key", uuid.UUID(int=2**128 - 1), uuid.UUID(int=1)),
    ("list_sum(list) > 3", "list", [2, 2], [1]),
    ("len(list_filter(list, lambda x: x < 0)) = 0", "list", [1], [-1]),
    ("list_reduce(list, lambda x, y: x + y) = 3", "list", [1, 2], [1, 1]),
    ("[x * 2 for x in list if x > 1] = [4]", "list", [1, 2], [2, 2]),
    ("list[1:2] = [1, 2]", "list", [1, 2, 3], [2, 1]),
    ("price > 1.50", "price", Decimal("1.51"), Decimal("1.50")),
    ("big > 9223372036854775807", "big", (2**63).to_bytes(16, "little"), (1).to_bytes(16, "little")),
    ("small > 0.5", "small", 1.0, 0.25),
    ("flag", "flag", 1, 0),
    ("0.4 + small", "small", 0.5, 0.0),
    ("id > 0 -- and more", "id", 1, 0),
    ("id /* not null */ > 0", "id", 1, 0),
    ("'{}' || id = '{}1'", "id", 1, 2),
    ('$$a\'b$$ = "Full Name"', "Full Name", "a'b", "ab"),
]


@pytest.mark.parametrize(("sql", "column", "good", "bad"), HOLDS, ids=[case[0] for case in HOLDS])
def test_a_check_holds_as_in_duckdb(sql: str, column: str, good: Any, bad: Any) -> None:
    check = Check.compile(sql, SCHEMA)
    assert check.sql == sql
    assert check.columns == {column}
    check.require(batch(**{column: [good, good]}))
    with pytest.raises(ConstraintViolated, match=r"is false for row 1$") as caught:
        check.require(batch(**{column: [good, bad, bad]}))
    assert f"CHECK ({sql})" in caught.value.message
    assert caught.value.code == "INVALID_ARGUMENT"


def test_null_passes_a_check() -> None:
    require("id > 0", id=[None, 1])
    require("id > 0 AND \"Full Name\" <> ''", id=[None, 1, None], **{"Full Name": ["a", None, None]})


def test_other_columns_of_a_batch_and_their_order_do_not_matter() -> None:
    check = Check.compile('id < "select"', SCHEMA)
    check.require(batch(select=[2], key=[uuid.uuid4()], id=[1]))
    with pytest.raises(ConstraintViolated):
        check.require(batch(select=[1], key=[uuid.uuid4()], id=[2]))


def test_a_slice_of_a_batch_counts_rows_from_its_own_start() -> None:
    rows = batch(id=[0, 1, 1, 0])
    check = Check.compile("id > 0", SCHEMA)
    check.require(rows.slice(1, 2))
    with pytest.raises(ConstraintViolated, match=r"row 2$"):
        check.require(rows.slice(1))


def test_no_rows_are_never_wrong() -> None:
    require("id > 0", id=[])
    require("false", id=[])


def test_a_check_without_columns_is_asked_for_every_row() -> None:
    require("1 < 2", id=[1])
    with pytest.raises(ConstraintViolated, match=r"row 0$"):
        require("1 > 2", id=[1])
    assert Check.compile("1 < 2", SCHEMA).columns == frozenset()


def test_a_large_batch_is_evaluated_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "MAX_SLICE_BYTES", 1000)
    values = list(range(1, 2001))
    require("id > 0", id=values)
    values[1777] = 0
    with pytest.raises(ConstraintViolated, match=r"row 1777$"):
        require("id > 0", id=values)
    with pytest.raises(
        ConstraintViolated, match="cannot be evaluated for row 1777: Invalid Input Error: zero"
    ):
        require("CASE WHEN id = 0 THEN error('zero') ELSE true END", id=values)


@pytest.mark.parametrize(
    ("sql", "columns", "row", "reason"),
    [
        (
            '"Full Name"::INTEGER > 0',
            {"Full Name": ["1", "2", "many", "x"]},
            2,
            "Could not convert string 'many'",
        ),
        ('"select" + 2147483647::INTEGER <> id', {"select": [0, 1], "id": [0, 0]}, 1, "Overflow"),
        (
            "strptime(\"Full Name\", '%Y') IS NOT NULL",
            {"Full Name": ["2020", "x"]},
            1,
            "Could not parse string",
        ),
        ("error('no: ' || id)", {"id": [5]}, 0, "no: 5"),
        ("id + 3000000000", {"id": [5]}, 0, "out of range"),  # a CHECK is an INTEGER in DuckDB
    ],
)
def test_a_check_that_fails_for_a_row_says_why(
    sql: str, columns: dict[str, list[Any]], row: int, reason: str
) -> None:
    with pytest.raises(ConstraintViolated) as caught:
        require(sql, **columns)
    assert f"cannot be evaluated for row {row}: " in caught.value.message
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


def test_messages_are_bounded_and_printable() -> None:
    sql = '"Full Name" <> \'' + "ab\n\x1b" * 500 + "' AND id > 0"
    with pytest.raises(ConstraintViolated) as caught:
        require(sql, id=[0], **{"Full Name": ["x"]})
    assert len(caught.value.message) < 400
    assert caught.value.message.isprintable()
    with pytest.raises(ConstraintViolated) as caught:
        require('"Full Name"::INTEGER > 0', **{"Full Name": ["x\n\x1b\u202e" * 500]})
    assert len(caught.value.message) < 700
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("kind", LEAVES, ids=str)
@pytest.mark.parametrize("shape", ["plain", "list", "struct"])
def test_columns_of_every_type_can_be_checked(kind: pa.DataType, shape: str) -> None:
    nested = {"plain": kind, "list": pa.list_(kind), "struct": pa.struct([("a b", kind)])}[shape]
    schema = TopicSchema.declare(pa.schema([("value", nested)]))
    check = Check.compile("value IS NOT NULL", schema)
    nulls = pa.nulls(2, published(schema).declared.field(0).type)
    with pytest.raises(ConstraintViolated, match=r"row 0$"):
        check.require(pa.record_batch([nulls], names=["value"]))


@pytest.mark.parametrize(
    ("names", "sql", "fits"),
    [
        (["A", "b"], "a > 0", True),
        (["É"], "é > 0", False),  # DuckDB ignores the case of ASCII letters only
        (["current_date"], "current_date > 5", True),
        (["rowid", "x"], "rowid > 0", True),
        (["x"], "rowid > 0", False),
    ],
)
def test_names_are_compared_as_duckdb_does(names: list[str], sql: str, fits: bool) -> None:
    schema = TopicSchema.declare(pa.schema([(name, pa.int64()) for name in names]))
    if fits:
        assert Check.compile(sql, schema).columns == {names[0]}
    else:
        with pytest.raises(InvalidArgument):
            Check.compile(sql, schema)


def test_a_name_of_two_columns_is_refused() -> None:
    with pytest.raises(Refused, match="name of 2 columns"):  # only another engine can have made them
        read("A > 0", ["a", "A"], SHARED)
    assert read("b > 0", ["a", "A", "b"], SHARED).columns == {"b"}


def test_a_lambda_parameter_hides_a_column() -> None:
    check = Check.compile("len(list_filter(list, lambda id: id < 0)) = 0", SCHEMA)
    assert check.columns == {"list"}
    check = Check.compile("len(list_filter(list, lambda x: x < id)) = 0", SCHEMA)
    assert check.columns == {"list", "id"}
    check = Check.compile(
        "len(list_transform(list, lambda x: list_filter(list, lambda y: x < y))) > id", SCHEMA
    )
    assert check.columns == {"list", "id"}


ATOMS = st.one_of(
    st.sampled_from(
        ["a", "b", "s", "NULL", "true", "1.5", "2e0", "'7'", "a + b", "a - 1", "-b", "length(s)"]
    ),
    st.integers(-3, 3).map(str),
)
CONDITIONS = st.recursive(
    st.one_of(
        st.tuples(ATOMS, st.sampled_from(["=", "<>", "<", ">=", "IS DISTINCT FROM"]), ATOMS).map(" ".join),
        ATOMS.map("({}) IS NULL".format),
        ATOMS.map("a IN (1, {}, b)".format),
        st.tuples(ATOMS, ATOMS).map(lambda pair: f"a BETWEEN {pair[0]} AND {pair[1]}"),
        st.sampled_from(["s LIKE '%a%'", "s ~ '[ab]*'", "upper(s) = s", "nullif(a, b) > 0", "a", "0.5"]),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map("NOT ({})".format),
        inner.map("({}) IS TRUE".format),
        st.tuples(inner, inner).map(lambda pair: f"CASE WHEN {pair[0]} THEN {pair[1]} ELSE a > 0 END"),
    ),
    max_leaves=4,
)
ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-3, 3)),
        st.one_of(st.none(), st.integers(-3, 3)),
        st.one_of(st.none(), st.sampled_from(["", "a", "B", "ab", "7"])),
    ),
    min_size=1,
    max_size=6,
)
SMALL = TopicSchema.declare(pa.schema([("a", pa.int64()), ("b", pa.int32()), ("s", pa.string())]))


@given(CONDITIONS, ROWS)
@settings(max_examples=150, deadline=None)
def test_a_check_agrees_with_a_table_of_duckdb(sql: str, rows: list[tuple[Any, ...]]) -> None:
    with duckdb.connect() as table:
        try:
            table.execute(f"CREATE TABLE t (a BIGINT, b INTEGER, s VARCHAR, CHECK ({sql}))")
        except duckdb.Error:
            with pytest.raises(InvalidArgument):
                Check.compile(sql, SMALL)
            return
        first = len(rows)
        for row, values in enumerate(rows):
            try:
                table.execute("INSERT INTO t VALUES (?, ?, ?)", values)
            except duckdb.Error:
                first = row
                break
    check = Check.compile(sql, SMALL)
    columns = zip(zip(*rows, strict=True), SMALL.declared, strict=True)
    arrays = [pa.array(values, field.type) for values, field in columns]
    found = pa.record_batch(arrays, schema=SMALL.declared)
    check.require(found.slice(0, first))
    if first < len(rows):
        with pytest.raises(ConstraintViolated):
            check.require(found.slice(0, first + 1))


STRANGE = pa.struct(
    [('a "b" INTEGER); DROP', pa.int32()), ("c, d", pa.list_(pa.string())), ("select", pa.bool_())]
)

VALUES: list[tuple[str, pa.DataType, Any]] = [
    ("NULL", pa.int8(), None),
    ("1", pa.int8(), 1),
    ("'12'", pa.int64(), 12),
    ("1.5", pa.int64(), 2),
    ("1e-3", pa.float64(), 0.001),
    ("0.1", pa.float32(), pa.scalar(0.1, pa.float32()).as_py()),
    ("'{}' || '{rows}'", pa.string(), "{}{rows}"),
    ("'it''s'", pa.string_view(), "it's"),
    ("chr(228)", pa.large_string(), "ä"),
    ("'\\x00\\xFF'::BLOB", pa.binary(), b"\x00\xff"),
    ("'1.5'", pa.decimal128(10, 2), Decimal("1.50")),
    ("DATE '2020-02-29'", pa.date32(), dt.date(2020, 2, 29)),
    ("'2020-02-29'", pa.date64(), dt.date(2020, 2, 29)),
    ("'12:30:00'", pa.time64("us"), dt.time(12, 30)),
    ("'2020-01-01 00:00:00+02'", pa.timestamp("us", "UTC"), dt.datetime(2019, 12, 31, 22, tzinfo=UTC)),
    ("'2020-01-01'", pa.timestamp("ms"), dt.datetime(2020, 1, 1)),
    ("to_days(2)", pa.month_day_nano_interval(), pa.MonthDayNano([0, 2, 0])),
    ("'00000000-0000-0000-0000-000000000001'", pa.uuid(), uuid.UUID(int=1)),
    ("true", pa.bool8(), True),
    ("'{\"a\": 1}'", pa.json_(), '{"a": 1}'),
    ("-1", pa.opaque(pa.binary(16), "hugeint", "DuckDB"), b"\xff" * 16),
    ("[1, NULL]", pa.list_(pa.int16()), [1, None]),
    ("[]", pa.list_(pa.string_view()), []),
    ("['{}', NULL]", pa.large_list(pa.json_()), ["{}", None]),
    ("{'u': '00000000-0000-0000-0000-000000000001'}", pa.struct([("u", pa.uuid())]), {"u": uuid.UUID(int=1)}),
    ("union_value(b := 'x')", pa.sparse_union([pa.field("a", pa.int32()), pa.field("b", pa.string())]), "x"),
    ("[1, 2]", pa.list_(pa.int8(), 2), [1, 2]),
    (
        "{'x': 1, 'y': ['a']}",
        pa.struct([("x", pa.int8()), ("y", pa.list_(pa.string()))]),
        {"x": 1, "y": ["a"]},
    ),
    ("MAP {'k': [1]}", pa.map_(pa.string(), pa.list_(pa.int32())), [("k", [1])]),
    ("row(1, ['x'], true)", STRANGE, {'a "b" INTEGER); DROP': 1, "c, d": ["x"], "select": True}),
    ("list_transform([1, 2], lambda x: x + 1)", pa.list_(pa.int64()), [2, 3]),
    ("length('{}')", pa.int64(), 2),
]


@pytest.mark.parametrize(("sql", "kind", "value"), VALUES, ids=[case[0] for case in VALUES])
def test_a_default_gives_its_value_in_the_published_type(sql: str, kind: pa.DataType, value: Any) -> None:
    default = Default.compile(sql, pa.field("x", kind))
    assert default.sql == sql
    found = default.values(3)
    found.validate(full=True)
    assert found.type == kind
    assert found.to_pylist() == [value] * 3
    assert default.values(0).type == kind
    assert len(default.values(0)) == 0


@pytest.mark.parametrize("kind", LEAVES, ids=str)
def test_null_is_a_default_of_every_type_that_duckdb_writes(kind: pa.DataType) -> None:
    kind = published(TopicSchema.declare(pa.schema([("x", kind)]))).declared.field(0).type
    found = Default.compile("NULL", pa.field("x", kind)).values(2)
    assert found.type == kind
    assert found.null_count == 2


@pytest.mark.parametrize(
    "sql", ["uuid()", "gen_random_uuid()", "uuidv7()", "md5(random()::VARCHAR)", "'a' || uuid()"]
)
def test_a_default_of_chance_differs_for_each_row(sql: str) -> None:
    default = Default.compile(sql, pa.field("x", pa.string()))
    found = default.values(3000).to_pylist() + default.values(3000).to_pylist()
    assert len(set(found)) == 6000


@pytest.mark.parametrize(
    "sql",
    [
        "now()",
        "current_timestamp",
        "get_current_timestamp()",
        "current_localtimestamp()",
        "ago(INTERVAL 1 SECOND)",
    ],
)
def test_a_default_of_the_clock_is_that_of_the_statement(sql: str) -> None:
    default = Default.compile(sql, pa.field("x", pa.timestamp("us", "UTC")))
    before = dt.datetime.now(UTC)
    found = default.values(3000).to_pylist()
    assert len(set(found)) == 1
    assert abs(found[0] - before) < dt.timedelta(minutes=2)
    assert default.values(1).to_pylist()[0] > found[0]


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("300", pa.int8()),
        ("'many'", pa.int64()),
        ("other", pa.int64()),
        ("x", pa.int64()),
        ("list_sum([other])", pa.int64()),
        ("[1]", pa.int64()),
        ("1, 2", pa.struct([("a", pa.int64()), ("b", pa.int64())])),
        ("repeat('x', 100000)", pa.string()),
        ("repeat('x', 10000000000)", pa.string()),
        ("", pa.int64()),
    ],
)
def test_a_default_that_gives_no_value_of_its_type_is_refused(sql: str, kind: pa.DataType) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Default.compile(sql, pa.field("x", kind))
    assert caught.value.message.startswith(f"DEFAULT {sql}: ")
    assert "\n" not in caught.value.message


def test_a_default_cannot_fill_the_memory() -> None:
    default = Default.compile("repeat('x', 4000)", pa.field("x", pa.string()))
    assert set(default.values(2048).to_pylist()) == {"x" * 4000}
    with pytest.raises(InvalidArgument, match="send batches with fewer rows"):
        default.values(100_000)
    default = Default.compile("repeat('x', 4000) || random()", pa.field("x", pa.string()))
    with pytest.raises(InvalidArgument, match="too much memory"):
        default.values(100_000)


def test_a_default_that_fails_later_says_so() -> None:
    sql = (
        "CASE WHEN now() > '2000-01-01'::TIMESTAMPTZ + INTERVAL 1 DAY AND random() >= 0 THEN '1' ELSE 'x' END"
    )
    assert Default.compile(sql, pa.field("x", pa.int64())).values(2).to_pylist() == [1, 1]
    sql = "CASE WHEN random() < 0.001 THEN error('unlucky') ELSE 1 END"
    default = next(_compiled(sql))
    with pytest.raises(InvalidArgument, match="unlucky"):
        default.values(200_000)


def _compiled(sql: str) -> Any:
    """The default as soon as compiling it, which evaluates one row, has luck."""
    for _ in range(50):
        try:
            yield Default.compile(sql, pa.field("x", pa.int64()))
        except InvalidArgument:
            continue


def test_many_threads_evaluate_at_once() -> None:
    checks = [Check.compile(f"id <> {number}", SCHEMA) for number in range(8)]
    rows = batch(id=list(range(8)))
    unique = Default.compile("uuid()", pa.field("x", pa.uuid()))

    def run(number: int) -> tuple[str, list[Any]]:
        with pytest.raises(ConstraintViolated) as caught:
            checks[number % 8].require(rows)
        return caught.value.message, unique.values(10).to_pylist()

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(run, range(64)))
    assert [message for message, _ in found] == [
        f"CHECK (id <> {number % 8}) is false for row {number % 8}" for number in range(64)
    ]
    assert len({value for _, values in found for value in values}) == 640
