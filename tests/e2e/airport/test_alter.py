"""ALTER TABLE: what old rows, new rows and clients with an old copy of the catalog see."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from tests.e2e.airport.conftest import Attach, on_local_store, refusal
from tests.support.airport import AirportClient, AirportError
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

pytestmark = [pytest.mark.slow, on_local_store]


@pytest.fixture
def people(duckdb: AirportClient, table: str) -> str:
    """A table with two rows."""
    duckdb.create_table(table, {"id": "INTEGER", "name": "VARCHAR", "score": "FLOAT"}, not_null=["id"])
    duckdb.insert(table, "VALUES (1, 'one', 1.5), (2, NULL, 2.5)")
    duckdb.take_calls()
    return table


def rows(client: AirportClient, table: str, columns: str = "*") -> list[tuple[object, ...]]:
    return client.query(table, f"SELECT {columns} FROM t ORDER BY ALL")


def test_add_column(duckdb: AirportClient, attach: Attach, people: str) -> None:
    changed = duckdb.add_column(people, "city", "VARCHAR")
    assert duckdb.take_calls() == ["T", "V", "add_column"]
    assert changed is not None
    assert [item.name for item in changed.columns] == ["id", "name", "score", "city"]
    duckdb.insert(people, "VALUES (3, 'three', 3.5, 'Turku')")
    expected = [(1, "one", 1.5, None), (2, None, 2.5, None), (3, "three", 3.5, "Turku")]
    assert rows(duckdb, people) == rows(attach(), people) == expected
    assert rows(duckdb, people, "count(city)") == [(1,)]
    assert duckdb.query(people, "SELECT id FROM t WHERE city IS NULL ORDER BY id") == [(1,), (2,)]


@pytest.mark.parametrize(
    "kind", ["STRUCT(a INTEGER, b VARCHAR[])", "MAP(VARCHAR, INTEGER)", "JSON", "DECIMAL(9,3)"]
)
def test_add_column_of_any_type(duckdb: AirportClient, people: str, kind: str) -> None:
    duckdb.add_column(people, "extra", kind)
    assert rows(duckdb, people, "id, extra") == [(1, None), (2, None)]


def test_add_a_column_that_is_there(duckdb: AirportClient, people: str) -> None:
    assert "name" in str(refusal(duckdb.add_column, people, "name", "INTEGER"))
    assert "name" in str(refusal(duckdb.add_column, people, "NAME", "INTEGER"))
    changed = duckdb.add_column(people, "name", "INTEGER", if_not_exists=True)
    assert changed is not None
    assert changed.schema.field("name").type == pa.string()


def test_drop_column(duckdb: AirportClient, attach: Attach, people: str) -> None:
    duckdb.remove_column(people, "name")
    assert duckdb.take_calls() == ["T", "V", "remove_column"]
    duckdb.insert(people, "VALUES (3, 3.5)")
    assert rows(duckdb, people) == rows(attach(), people) == [(1, 1.5), (2, 2.5), (3, 3.5)]


def test_a_column_dropped_and_added_again_has_none_of_the_old_values(
    duckdb: AirportClient, people: str
) -> None:
    duckdb.remove_column(people, "name")
    duckdb.add_column(people, "name", "VARCHAR")
    assert rows(duckdb, people, "id, name") == [(1, None), (2, None)]


def test_drop_a_column_that_is_not_there(duckdb: AirportClient, people: str) -> None:
    assert "nothing" in str(refusal(duckdb.remove_column, people, "nothing"))
    duckdb.remove_column(people, "nothing", if_exists=True)
    assert len(rows(duckdb, people)) == 2


def test_the_last_column_stays(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, {"a": "INTEGER"})
    refusal(duckdb.remove_column, table, "a")


def test_rename_column(duckdb: AirportClient, attach: Attach, people: str) -> None:
    duckdb.rename_column(people, "name", "full name")
    duckdb.insert(people, "VALUES (3, 'three', 3.5)")
    expected = [(1, "one"), (2, None), (3, "three")]
    assert rows(duckdb, people, 'id, "full name"') == rows(attach(), people, 'id, "full name"') == expected
    assert duckdb.query(people, """SELECT id FROM t WHERE "full name" = 'one'""") == [(1,)]
    duckdb.rename_column(people, "full name", "FULL NAME")
    assert duckdb.read(people).column_names == ["id", "FULL NAME", "score"]


def test_two_columns_swap_their_names(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, {"a": "INTEGER", "b": "INTEGER"})
    duckdb.insert(table, "VALUES (1, 2)")
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        duckdb.rename_column(table, old, new)
    assert rows(duckdb, table, "a, b") == [(2, 1)]


def test_rename_a_column_to_one_that_is_there(duckdb: AirportClient, people: str) -> None:
    assert "score" in str(refusal(duckdb.rename_column, people, "name", "score"))
    assert "nothing" in str(refusal(duckdb.rename_column, people, "nothing", "x"))
    assert rows(duckdb, people, "name") == [("one",), (None,)]


def test_rename_table(duckdb: AirportClient, attach: Attach, people: str) -> None:
    stale = attach()
    stale.table(people)
    changed = duckdb.rename_table(people, f"{people} new")
    assert changed is not None
    assert changed.name == f"{people} new"
    assert len(rows(duckdb, f"{people} new")) == 2
    listed = attach().show_all_tables()
    assert ("s3", f"{people} new") in listed
    assert ("s3", people) not in listed
    assert len(rows(stale, people)) == 2  # the topic is found by its id
    with pytest.raises(AirportError, match=r"(?i)attach"):
        stale.insert(people, "VALUES (3, 'three', 3.5)")
    assert len(rows(duckdb, f"{people} new")) == 2


def test_rename_a_table_to_one_that_is_there(duckdb: AirportClient, people: str) -> None:
    duckdb.create_table(f"{people}_b", {"a": "INTEGER"})
    assert "exists" in str(refusal(duckdb.rename_table, people, f"{people}_b"))
    assert len(rows(duckdb, people)) == 2


@pytest.mark.parametrize(
    ("kind", "value", "wider"),
    [
        ("INTEGER", "2147483647", "BIGINT"),
        ("SMALLINT", "-5", "INTEGER"),
        ("TINYINT", "7", "BIGINT"),
        ("FLOAT", "1.5", "DOUBLE"),
        ("DECIMAL(5,2)", "123.45", "DECIMAL(18,2)"),
    ],
)
def test_widen_a_type(
    duckdb: AirportClient, attach: Attach, table: str, kind: str, value: str, wider: str
) -> None:
    duckdb.create_table(table, {"k": "INTEGER", "v": kind})
    duckdb.insert(table, f"VALUES (1, {value}), (2, NULL)")
    before = rows(duckdb, table, "k, v")
    duckdb.change_type(table, "v", wider)
    assert rows(duckdb, table, "k, v") == rows(attach(), table, "k, v") == before
    duckdb.insert(table, f"VALUES (3, {value})")
    assert duckdb.query(table, f"SELECT k, typeof(v) FROM t WHERE v = {value} ORDER BY k") == [
        (1, wider),
        (3, wider),
    ]


@pytest.mark.parametrize(
    ("column", "kind", "using"),
    [
        ("id", "SMALLINT", None),
        ("id", "VARCHAR", None),
        ("name", "INTEGER", None),
        ("id", "DOUBLE", None),
        ("id", "BIGINT", '("id" + 1)'),
        ("score", "DECIMAL(9,3)", None),
    ],
)
def test_other_changes_of_a_type_are_refused(
    duckdb: AirportClient, people: str, column: str, kind: str, using: str | None
) -> None:
    error = refusal(duckdb.change_type, people, column, kind, using=using)
    assert (column if using is None else "USING") in str(error)
    assert rows(duckdb, people) == [(1, "one", 1.5), (2, None, 2.5)]


def test_set_default(duckdb: AirportClient, attach: Attach, people: str) -> None:
    changed = duckdb.set_default(people, "name", "'nobody'")
    assert duckdb.take_calls() == ["T", "V", "set_default"]
    assert changed is not None
    default = changed.metadata("name", b"default")
    assert default is not None
    assert "nobody" in default
    duckdb.insert(people, "VALUES (3)", ["id"])
    attach().insert(people, "VALUES (4)", ["id"])
    assert rows(duckdb, people, "id, name")[2:] == [(3, "nobody"), (4, "nobody")]


@pytest.mark.parametrize(
    "expression",
    ["now()", "1 + 1", "(SELECT 1)", "no_such_function()", "other", "1;2", "id", "'x' || upper('y')"],
)
def test_defaults_are_published_as_given_or_refused(
    duckdb: AirportClient, people: str, expression: str
) -> None:
    try:
        duckdb.set_default(people, "name", expression)
    except AirportError as error:
        assert error.remote
        assert not error.retried
        assert expression not in ("now()", "1 + 1", "'x' || upper('y')")
    else:
        assert expression in ("now()", "1 + 1", "'x' || upper('y')")
        duckdb.insert(people, "VALUES (3)", ["id"])
        assert duckdb.query(people, "SELECT name IS NULL FROM t WHERE id = 3") == [(False,)]


def test_set_and_drop_not_null(duckdb: AirportClient, people: str) -> None:
    changed = duckdb.drop_not_null(people, "id")
    assert changed is not None
    assert changed.schema.field("id").nullable
    duckdb.insert(people, "VALUES (NULL, 'x', 0)")
    assert "id" in str(refusal(duckdb.set_not_null, people, "id"))
    assert rows(duckdb, people, "count(*), count(id)") == [(3, 2)]


def test_set_not_null_where_no_null_is(duckdb: AirportClient, people: str) -> None:
    changed = duckdb.set_not_null(people, "score")
    assert changed is not None
    assert not changed.schema.field("score").nullable
    with pytest.raises(AirportError, match="score"):
        duckdb.insert(people, "VALUES (3, 'x', NULL)", checked=False)


def test_changes_that_cannot_be_are_refused(duckdb: AirportClient, table: str) -> None:
    duckdb.create_table(table, {"id": "INTEGER", "st": "STRUCT(a INTEGER, b VARCHAR)"})
    for call, arguments in (
        (duckdb.add_field, (["st"], "INTEGER")),
        (duckdb.rename_field, (["st", "a"], "c")),
        (duckdb.remove_field, (["st", "a"],)),
        (duckdb.add_constraint, ("CHECK (id > 0)",)),
        (duckdb.add_constraint, ("PRIMARY KEY (id)",)),
    ):
        refusal(call, table, *arguments)
    assert duckdb.read(table).num_rows == 0


def test_the_row_id_is_no_column_to_alter(duckdb: AirportClient, people: str) -> None:
    for call, arguments in (
        (duckdb.remove_column, ("rowid",)),
        (duckdb.rename_column, ("rowid", "x")),
        (duckdb.set_default, ("rowid", "1")),
        (duckdb.set_not_null, ("rowid",)),
        (duckdb.change_type, ("rowid", "INTEGER")),
    ):
        refusal(call, people, *arguments)


def test_two_clients_that_alter_one_table_at_once(attach: Attach, people: str) -> None:
    clients = [attach() for _ in range(4)]
    for client in clients:
        client.table(people)
    barrier = threading.Barrier(len(clients))

    def work(number: int) -> str:
        barrier.wait()
        try:
            clients[number].add_column(people, f"extra_{number % 2}", "INTEGER")
        except AirportError as error:
            assert not error.retried
            return str(error)
        return "done"

    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(work, range(len(clients))))
    assert answers.count("done") == 2, answers
    assert all("already" in answer for answer in answers if answer != "done"), answers
    fresh = attach()
    assert sorted(fresh.read(people).column_names) == ["extra_0", "extra_1", "id", "name", "score"]
    assert fresh.read(people).num_rows == 2


def test_an_old_copy_of_the_catalog_still_reads_its_own_columns(
    duckdb: AirportClient, attach: Attach, people: str
) -> None:
    stale = attach()
    stale.table(people)
    duckdb.remove_column(people, "name")
    duckdb.add_column(people, "city", "VARCHAR")
    duckdb.rename_column(people, "score", "points")
    duckdb.change_type(people, "id", "BIGINT")
    duckdb.insert(people, "VALUES (3, 3.5, 'Turku')")
    # New columns are not known here; the dropped one is null in new rows, and may be in old ones.
    assert rows(stale, people, "id, score") == [(1, 1.5), (2, 2.5), (3, 3.5)]
    assert stale.query(people, "SELECT name FROM t WHERE id > 1 ORDER BY id") == [(None,), (None,)]
    stale.attach()
    assert rows(stale, people) == [(1, 1.5, None), (2, 2.5, None), (3, 3.5, "Turku")]


def test_an_old_copy_of_the_catalog_does_not_write(
    duckdb: AirportClient, attach: Attach, people: str
) -> None:
    stale = attach()
    stale.table(people)
    duckdb.rename_column(people, "name", "old")
    duckdb.rename_column(people, "score", "name")
    duckdb.add_column(people, "score", "FLOAT")
    with pytest.raises(AirportError, match=r"(?i)attach") as caught:
        stale.insert(people, "VALUES (3, 'three', 3.5)")
    assert caught.value.kind == "Invalid Input"
    assert rows(duckdb, people, "count(*)") == [(2,)]
    stale.attach()
    stale.insert(people, "VALUES (3, 'three', 3.5, 4.5)")
    assert duckdb.query(people, "SELECT old, name, score FROM t WHERE id = 3") == [("three", 3.5, 4.5)]


def test_a_very_old_copy_is_told_to_attach_again(duckdb: AirportClient, attach: Attach, people: str) -> None:
    stale = attach()
    stale.table(people)
    for number in range(12):
        duckdb.rename_column(
            people, "name" if number % 2 == 0 else "label", "label" if number % 2 == 0 else "name"
        )
    for call in (stale.read, lambda name: stale.insert(name, "VALUES (3, 'three', 3.5)")):
        with pytest.raises(AirportError, match=r"(?i)attach") as caught:
            call(people)
        assert not caught.value.retried
    stale.attach()
    assert len(rows(stale, people)) == 2


def test_alter_by_a_stale_client_acts_on_the_table_of_today(
    duckdb: AirportClient, attach: Attach, people: str
) -> None:
    stale = attach()
    stale.table(people)
    duckdb.add_column(people, "city", "VARCHAR")
    changed = stale.add_column(people, "zip", "VARCHAR")
    assert changed is not None
    assert {item.name for item in changed.columns} == {"id", "name", "score", "city", "zip"}
    assert stale.read(people).num_rows == 2


def test_plain_arrow_clients_see_the_changes(
    duckdb: AirportClient, server: ServerProcess, issuer: IssuerProcess, people: str
) -> None:
    plain = Client(server.location, issuer.token(groups="Admins"), issuer.ca_cert)
    duckdb.rename_column(people, "name", "label")
    duckdb.add_column(people, "city", "VARCHAR")
    duckdb.change_type(people, "score", "DOUBLE")
    plain.put(["s3", people], pa.table({"id": pa.array([3], pa.int32()), "city": ["Turku"]}))
    found = plain.get(["s3", people]).sort_by("id").to_pylist()
    plain.close()
    assert found == [
        {"id": 1, "label": "one", "score": 1.5, "city": None},
        {"id": 2, "label": None, "score": 2.5, "city": None},
        {"id": 3, "label": None, "score": None, "city": "Turku"},
    ]
    assert len(rows(duckdb, people)) == 3
