"""Texts of CHECK and DEFAULT that want more than the values of one row."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boilstream.catalog.sql import functions, sandbox
from boilstream.catalog.sql.expressions import Check, Default
from boilstream.catalog.sql.sandbox import SHARED, EvaluationFailed, Sandbox
from boilstream.catalog.sql.syntax import MAX_TEXT_BYTES
from boilstream.catalog.types import TopicSchema
from boilstream.errors import ConstraintViolated, InvalidArgument

pytestmark = pytest.mark.slow  # the evaluator processes are real

SCHEMA = TopicSchema.declare(
    pa.schema(
        [
            ("id", pa.int64()),
            ("name", pa.string()),
            ("list", pa.list_(pa.int64())),
            ("s", pa.struct([("a", pa.int64())])),
        ]
    )
)
COMPILERS: list[Callable[[str], object]] = [
    lambda sql: Check.compile(sql, SCHEMA),
    lambda sql: Default.compile(sql, pa.field("x", pa.string())),
]

ATTACKS = """
read_text('/etc/passwd')
read_blob('/etc/passwd')
read_csv('/etc/passwd')
glob('/*')
list_transform(glob('/*'), lambda x: x)
parquet_scan('/etc/passwd') IS NULL
parquet_metadata('x') IS NULL
getenv('HOME')
getvariable('x')
current_setting('memory_limit')
current_setting('home_directory') = ''
setseed(0.5)
nextval('s')
currval('s')
sleep_ms(100000)
pg_sleep(100000)
write_log('x')
current_query()
current_database()
current_catalog
current_schema
current_user
current_role
session_user
user
version()
txid_current()
pg_get_viewdef(1)
has_table_privilege('t', 'select')
duckdb_settings()
duckdb_secrets()
which_secret('s3://x', 's3')
query('SELECT 1')
query_table('t')
json_serialize_plan('SELECT 1')
json_serialize_sql('SELECT 1')
json_deserialize_sql('{}')
json_execute_serialized_sql('{}')
pragma_version()
force_checkpoint()
in_search_path('x', 'y')
__internal_compress_string_ubigint('x')
icu_sort_key('a', 'de')
create_sort_key(1, 'ASC')
stats(id)
remap_struct({'a': 1}, NULL, NULL, NULL)
(SELECT 1)
((SELECT 1))
(FROM t)
(VALUES (1))
(TABLE t)
(WITH x AS (SELECT 1) SELECT * FROM x)
EXISTS (SELECT 1)
NOT EXISTS (FROM t)
1 IN (SELECT 1)
1 IN (FROM range(3))
1 = ANY (SELECT 1)
1 = ANY ([1, 2])
1 < ALL (SELECT 1)
ARRAY (SELECT 1)
CASE WHEN (SELECT true) THEN 1 ELSE 2 END
coalesce(1, (SELECT 1))
1 BETWEEN (SELECT 0) AND 2
CAST((SELECT 1) AS INTEGER)
{'a': (SELECT 1)}
[1, (SELECT 1)]
MAP {1: (SELECT 1)}
[x FOR x IN (SELECT [1])]
list_transform([1], lambda x: (SELECT x))
list_transform([1], x -> (SELECT 1) + x)
list_filter([1], lambda x: read_text('/etc/passwd') IS NULL)
list_transform([1], lambda x: nextval('s'))
list_reduce([1, 2], lambda x, y: x + (SELECT 1))
list_transform([1], lambda x: count(*))
(SELECT 1) COLLATE nocase
upper((SELECT 'a'))
TRY((SELECT 1))
(SELECT s).a
'x'.read_text()
'/etc/passwd'.read_text()
s.read_text()
unnest([1, 2])
unnest(list)
UNPACK(COLUMNS(*))
generate_subscripts([1], 1)
count(*)
count(1)
sum(1)
max('a')
list('a')
string_agg('a')
first('a' ORDER BY 'b')
count(1) FILTER (true)
any_value('a')
approx_quantile(1, 0.5)
grouping(1)
row_number() OVER ()
sum(1) OVER (ORDER BY 1)
lag('a') OVER ()
upper('a') OVER ()
upper('a') FILTER (true)
upper(DISTINCT 'a')
upper('a' ORDER BY 1)
*
t.*
* EXCLUDE (id)
* REPLACE (1 AS id)
COLUMNS(*)
COLUMNS(*) > 1
COLUMNS('.*')
COLUMNS(c -> c = 'id')
*COLUMNS(*)
struct_pack(*)
?
$1
$name
1 + ?
#1
DEFAULT
1; SELECT 2
1; DROP TABLE t
1; COPY (SELECT 1) TO '/tmp/boilstream-attack'
1;
;
1) FROM t --
1) FROM (SELECT (1
1), (2
1) UNION SELECT (1
1) UNION ALL (SELECT 2
1 UNION SELECT 2
1 EXCEPT SELECT 2
1) WHERE (true
1) LIMIT (1
1) ORDER BY (1
1) AS (x
1) --
1) /*
1 /*
1 */
1) */ + (1
'x' FROM read_text('/etc/passwd')
1 FROM t
1 WHERE true
1 LIMIT 1
1 ORDER BY 1
1 GROUP BY 1
1 HAVING true
1 QUALIFY true
1 USING SAMPLE 1
1 WINDOW w AS ()
1 INTO x
1 AS x
1 x
x: 1
x := 1
1,
1, 2
DISTINCT 1
DISTINCT ON (1) 1
ALL 1
((1)
(1))
'unclosed
"unclosed
$$unclosed
[1
{'a': 1
COPY (SELECT 1) TO '/tmp/boilstream-attack'
ATTACH '/tmp/boilstream-attack'
INSTALL httpfs
LOAD httpfs
PRAGMA version
SET threads = 8
CALL pragma_version()
CREATE TABLE t (a INTEGER)
CREATE MACRO f(x) AS x
EXPORT DATABASE '/tmp/boilstream-attack'
EXPLAIN SELECT 1
DESCRIBE
SHOW TABLES
SELECT 1
FROM t
VALUES (1)
BEGIN
PREPARE p AS SELECT 1
EXECUTE p
memory.main.upper('a')
system.main.upper('a')
pg_catalog.upper('a')
information_schema.upper('a')
temp.upper('a')
main.read_text('/etc/passwd')
'a'::main.x
'a'::x.y.z
'a'::nothing
'a'::ENUM(SELECT 1)
'a'::ENUM((SELECT 'a'))
'a'::"x; DROP"
__boilstream_rows
__boilstream_rows.id
t.id
nothing
rowid
'/etc/passwd'.x
"/etc/passwd"
"s3://bucket/x"
f()
upper
upper(nothing)
upper('a', 'b')
""".strip().split("\n")


@pytest.mark.parametrize("compiles", COMPILERS, ids=["check", "default"])
@pytest.mark.parametrize("sql", ATTACKS)
def test_what_is_no_plain_expression_is_refused(sql: str, compiles: Callable[[str], object]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        compiles(sql)
    assert not isinstance(caught.value, ConstraintViolated)
    assert len(caught.value.message) < 600
    assert caught.value.message.isprintable()
    assert not Path("/tmp/boilstream-attack").exists()


UNREADABLE = [
    "",
    " ",
    "\n",
    "-- nothing",
    "/* nothing */",
    "\0",
    "1\0",
    "'a\0b'",
    "1 = 1\0; SELECT 1",
    "\ud800",
    "'\udcff'",
    "\ufeff",
    "\u2028",
    "\u202e1",
    "\uff11",
    "“a”",
    "\U0010ffff",
    "'" * 4095,
    "x" * (MAX_TEXT_BYTES + 1),
    "'" + "ä" * (MAX_TEXT_BYTES // 2) + "'",
    " " * MAX_TEXT_BYTES + "1",
]


@pytest.mark.parametrize("compiles", COMPILERS, ids=["check", "default"])
@pytest.mark.parametrize("sql", UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_is_no_text_of_sql_is_refused(sql: str, compiles: Callable[[str], object]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        compiles(sql)
    assert len(caught.value.message) < 600
    assert caught.value.message.isprintable()


DEEP = [
    "NOT " * 1000 + "true",
    "@ (" * 700 + "1" + ")" * 700,
    "abs(" * 800 + "1" + ")" * 800,
    "[" * 1500 + "]" * 1500,
    "{'a':" * 600 + "1" + "}" * 600,
    "CASE WHEN true THEN " * 150 + "1" + " END" * 150,
    "1" + "+1" * 2000,
    "1" + "::INT" * 800,
    "'a'" + "||'a'" * 800,
    "list_transform([1], lambda x: " * 120 + "1" + ")" * 120,
    "1::" + "STRUCT(a " * 400 + "INT" + ")" * 400,
    "1::INT" + "[]" * 1900,
    "(" * 2000 + "SELECT 1" + ")" * 2000,
]


@pytest.mark.parametrize("compiles", COMPILERS, ids=["check", "default"])
@pytest.mark.parametrize("sql", DEEP, ids=range(len(DEEP)))
def test_deep_nesting_is_refused(sql: str, compiles: Callable[[str], object]) -> None:
    assert len(sql) <= MAX_TEXT_BYTES
    with pytest.raises(InvalidArgument):
        compiles(sql)
    assert Check.compile("id > 0", SCHEMA).columns == {"id"}


def test_parentheses_alone_are_not_deep() -> None:
    assert Check.compile("(" * 50 + "id" + ")" * 50, SCHEMA).columns == {"id"}
    Check.compile(" AND ".join(["id > 0"] * 300), SCHEMA).require(pa.record_batch({"id": [1]}))


def test_texts_that_only_look_like_statements_are_data() -> None:
    for text in ["'; DROP TABLE t; --'", "$$ (SELECT 1) $$", "e'\\'; SELECT 1'", "'/*' || '*/'", "'--'"]:
        with duckdb.connect() as plain:
            expected = plain.execute(f"SELECT {text}").fetchall()
        found = Default.compile(text, pa.field("x", pa.string())).values(1).to_pylist()
        assert [(value,) for value in found] == expected


_TOKENS = r"""
id name list s a 1 2.5 'x' NULL true ( ) [ ] { } , . : :: := ; + - * / % = <> < > || -> ->> @> ~ ! #
$1 ? AND OR NOT IN IS LIKE BETWEEN CASE WHEN THEN ELSE END CAST AS TRY_CAST SELECT FROM VALUES WITH
UNION WHERE EXISTS ANY ALL ARRAY OVER FILTER DISTINCT COLUMNS EXCLUDE unnest( read_text( upper( sum(
count( lambda x x: for IN if INTERVAL day DATE AT TIME ZONE COLLATE nocase -- /* */ $$ ' " \
getvariable( current_setting( query( DEFAULT INTEGER VARCHAR ENUM( STRUCT(
"""
TOKENS = _TOKENS.split()
NEVER = {
    "SELECT",
    "FROM",
    "VALUES",
    "UNION",
    "EXISTS",
    "OVER",
    ";",
    "?",
    "$1",
    "read_text(",
    "query(",
    "sum(",
    "count(",
}


@given(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=10))
@settings(max_examples=300, deadline=None)
def test_a_soup_of_words_never_passes_with_a_statement_in_it(words: list[str]) -> None:
    sql = " ".join(words)
    hidden = {"--", "/*", "$$", "'", '"'} & set(words)
    try:
        check = Check.compile(sql, SCHEMA)
    except InvalidArgument:
        return
    assert hidden or not NEVER & set(words)
    assert check.columns <= {"id", "name", "list", "s"}


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_no_text_at_all_does_harm(sql: str) -> None:
    for compiles in COMPILERS:
        try:
            compiles(sql)
        except InvalidArgument as problem:
            assert problem.message.isprintable()


ROW = pa.record_batch({"id": [1], "name": ["x"]})

MEMORY = [
    "length(repeat(name, id * 4000000000)) > 1",
    "len(range(id * 4000000000)) > 1",
    "len(generate_series(0, id * 1000000000)) > 1",
    "length(rpad(name, 2000000000, 'x')) > id",
    "len(list_resize([id], 2000000000)) > 1",
    "length(list_reduce(list_transform(range(40), lambda i: name), lambda a, b: a || b || a)) > 1",
    "length(" + "replace(" * 8 + "repeat(name, 100)" + ", 'x', repeat('x', 100))" * 8 + ") > 1",
    "length(" + "hex(" * 60 + "name" + ")" * 60 + ") > 1",
    "length(printf('%2000000000d', id)) > 1",
]


@pytest.mark.parametrize("sql", MEMORY)
def test_memory_is_bounded(sql: str) -> None:
    check = Check.compile(sql, SCHEMA)
    with pytest.raises(ConstraintViolated, match="cannot be evaluated"):
        check.require(ROW)
    assert _resident_bytes() < 1 << 30
    Check.compile("id > 0", SCHEMA).require(ROW)


def _resident_bytes() -> int:
    """Memory of this process, which stands for the server's."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "sql",
    [
        "levenshtein(repeat('ab', 40000 * id), repeat('ba', 40000)) > 0",
        "list_sum(list_transform(range(id * 1000000), lambda i: list_sum(range(10000)))) > 0",
    ],
)
def test_time_is_bounded(sql: str) -> None:
    check = Check.compile(sql, SCHEMA)
    with pytest.raises(ConstraintViolated, match="takes longer than 5 s"):
        check.require(ROW)
    Check.compile("id > 0", SCHEMA).require(ROW)


def test_an_endless_default_is_refused_when_it_is_made() -> None:
    with pytest.raises(InvalidArgument, match="takes longer than 5 s"):
        Default.compile(
            "levenshtein(repeat('ab', 40000), repeat('ba', 40000))::VARCHAR", pa.field("x", pa.string())
        )


STATEMENTS = [
    "SELECT content FROM read_text('/etc/passwd')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM read_csv('/proc/self/environ')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM __boilstream_connection",
    "SELECT * FROM evaluator",
    "COPY (SELECT 1) TO '/tmp/boilstream-attack'",
    "ATTACH '/tmp/boilstream-attack' AS x",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD parquet_x",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET memory_limit = '100GB'",
    "RESET ALL",
    "SET VARIABLE x = (SELECT content FROM read_text('/etc/passwd'))",
    "CREATE SECRET (TYPE s3, KEY_ID 'x', SECRET 'y')",
    "CREATE PERSISTENT SECRET x (TYPE s3)",
    "EXPORT DATABASE '/tmp/boilstream-attack'",
    "SELECT getenv('PYTHONPATH')",
]


@pytest.mark.parametrize("sql", STATEMENTS)
def test_a_statement_that_came_through_would_reach_nothing(sql: str) -> None:
    with pytest.raises(EvaluationFailed):
        SHARED.values(sql)
    assert not Path("/tmp/boilstream-attack").exists()


CONFINED = """
import os, socket
from boilstream.catalog.sql.evaluator import Evaluator, confine
evaluator = Evaluator()
evaluator.warm_up()
confine()
for attempt in (
    lambda: open("/etc/passwd"),
    lambda: socket.socket(),
    lambda: os.pipe(),
    lambda: os.listdir("/"),
    lambda: bytearray(3 << 30),
    lambda: __import__("sqlite3"),
):
    try:
        attempt()
    except (OSError, MemoryError, ImportError) as problem:
        print(type(problem).__name__)
evaluator.values({"sql": "SELECT uuid(), random(), now()"}, b"")
print("still there")
"""


def test_a_process_can_open_nothing() -> None:
    found = subprocess.run(
        [sys.executable, "-P", "-c", CONFINED],
        capture_output=True,
        text=True,
        check=False,
        env=sandbox._ENVIRONMENT,
        timeout=60,
    )
    assert found.stdout.split("\n") == ["OSError"] * 4 + ["MemoryError", "OSError", "still there", ""]


def test_a_process_knows_nothing_of_the_servers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    box = Sandbox(processes=1)
    box.values("SELECT 1")
    process = box._idle[0]._popen
    known = {
        line.split("=")[0] for line in Path(f"/proc/{process.pid}/environ").read_text().split("\0") if line
    }
    assert known <= {"PYTHONPATH", "ARROW_DEFAULT_MEMORY_POOL"}
    inherited = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    assert all(link.startswith("pipe:") or link == "/dev/null" for link in inherited)
    box.close()


_REFUSED = """
combine finalize can_cast_implicitly cast_to_type constant_or_null create_sort_key current_setting
get_type make_type getvariable icu_sort_key in_search_path is_histogram_other_bin
json_deserialize_sql json_serialize_plan json_serialize_sql normalized_interval
parse_duckdb_log_message remap_struct replace_type stats switch timetz_byte_comparable unpivot_list
vector_type version write_log sleep_ms setseed nextval currval current_connection_id current_query
current_query_id current_transaction_id txid_current current_database current_schema current_schemas
current_catalog current_role current_user session_user user col_description generate_subscripts
geomean geometric_mean get_block_size inet_client_addr inet_client_port inet_server_addr
inet_server_port json_group_array json_group_object json_group_structure map_to_pg_oid
obj_description regexp_split_to_table shobj_description wavg weighted_avg format_pg_type format_type
"""
REFUSED = set(_REFUSED.split())
REFUSED_KINDS = ("icu_collate_", "__internal_", "pg_", "has_", "st_", "variant_")


def known_functions(where: str) -> set[str]:
    with duckdb.connect() as plain:
        rows = plain.execute(
            f"SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE {where}"
        ).fetchall()
    return {name for (name,) in rows}


def test_somebody_has_decided_about_every_function_of_this_duckdb() -> None:
    scalar = known_functions("function_type IN ('scalar', 'macro')")
    refused = {name for name in scalar if name in REFUSED or name.startswith(REFUSED_KINDS)}
    assert scalar - refused - functions.ALLOWED == set(), "new functions: allow them or list them here"
    assert functions.ALLOWED - scalar == set(), "allowed functions that are gone"
    assert functions.ALLOWED & refused == set()
    assert REFUSED - scalar == set()


def test_functions_whose_result_changes_are_known_as_such() -> None:
    volatile = known_functions("function_type = 'scalar' AND stability = 'VOLATILE'")
    assert functions.ALLOWED & volatile == functions.PER_ROW | {"error"}
    clock = known_functions("function_type = 'scalar' AND stability = 'CONSISTENT_WITHIN_QUERY'")
    assert functions.ALLOWED & clock <= functions.CLOCK <= functions.ALLOWED
    by_macro = known_functions("function_type = 'macro' AND macro_definition ILIKE '%current_%'")
    assert functions.ALLOWED & by_macro <= functions.CLOCK


def test_functions_that_take_lambdas_are_known_as_such() -> None:
    assert known_functions("list_contains(parameter_types, 'LAMBDA')") == functions.LAMBDAS


def test_no_allowed_name_is_an_aggregate_too() -> None:
    assert functions.ALLOWED & known_functions("function_type IN ('aggregate', 'pragma')") == set()
