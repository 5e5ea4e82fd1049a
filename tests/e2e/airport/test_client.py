"""The stand-in for the extension itself: it must notice all that the extension would not survive.

The server of these tests answers what it is told to; the statements' own tests use the product.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.support.airport import AirportClient, AirportError, ClientWouldCrash, ProtocolBroken

ROWID = pa.field("rowid", pa.int64(), metadata={"is_rowid": "1"})
PEOPLE = pa.schema([ROWID, pa.field("id", pa.int64(), nullable=False), pa.field("name", pa.string())])
ROWS = pa.record_batch([[0, 1], [10, 20], ["a", None]], schema=PEOPLE)

APP_METADATA: dict[str, Any] = {
    "type": "table",
    "schema": "s3",
    "catalog": "boilstream",
    "name": "people",
    "comment": None,
    "input_schema": None,
    "action_name": None,
    "description": None,
    "extra_data": None,
}


def packed(value: object) -> bytes:
    return msgpack.packb(value)  # type: ignore[no-any-return]  # no types


def zstd(data: bytes) -> bytes:
    return packed([len(data), pa.compress(data, codec="zstd", asbytes=True)])


def info(
    columns: pa.Schema = PEOPLE,
    path: tuple[bytes | str, ...] = ("boilstream", "s3", "people", "v1"),
    **changes: Any,
) -> bytes:
    """A serialized FlightInfo with changes of its app_metadata; the value ... leaves a key out."""
    metadata = {key: value for key, value in (APP_METADATA | changes).items() if value is not ...}
    descriptor = flight.FlightDescriptor.for_path(*path)
    made = flight.FlightInfo(columns, descriptor, [], -1, -1, app_metadata=packed(metadata))
    return made.serialize()  # type: ignore[no-any-return]  # no types


def schemas(*infos: bytes, name: str = "s3", **root: Any) -> bytes:
    contents = {"sha256": "", "url": None, "serialized": zstd(packed(list(infos)))}
    item = {"name": name, "description": "", "tags": {}, "contents": contents, "is_default": True}
    whole = {
        "contents": {"sha256": "", "url": None, "serialized": None},
        "schemas": [item],
        "version_info": {"catalog_version": 1, "is_fixed": False},
    }
    return zstd(packed(whole | root))


def endpoint(uri: str = "arrow-flight-reuse-connection://?") -> bytes:
    return flight.FlightEndpoint(b"T1", [uri]).serialize()  # type: ignore[no-any-return]  # no types


@dataclass
class Script:
    """What the server answers; an exception is raised."""

    actions: dict[str, Any] = field(
        default_factory=lambda: {
            "create_transaction": [packed({"identifier": "tx"})],
            "catalog_version": [packed({"catalog_version": 1, "is_fixed": False})],
            "list_schemas": [schemas(info())],
            "endpoints": [packed([endpoint()])],
            "drop_table": [],
        }
    )
    stream: tuple[pa.Schema, list[Any]] = (PEOPLE, [ROWS])
    replies: list[Any] = field(default_factory=lambda: [packed({"total_changed": 2})])
    """Messages of an exchange: bytes are metadata only."""
    early: Exception | None = None
    late: Exception | None = None


class Scripted(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no stubs
    """Answers by its script."""

    def __init__(self) -> None:
        self.script = Script()
        self.bodies: dict[str, Any] = {}
        super().__init__("grpc://127.0.0.1:0")

    def do_action(self, context: Any, action: flight.Action) -> Iterator[bytes]:
        self.bodies[action.type] = msgpack.unpackb(action.body.to_pybytes(), raw=True)
        answer = self.script.actions.get(action.type, flight.FlightError("unknown action"))
        if isinstance(answer, Exception):
            raise answer
        return iter(answer)

    def do_get(self, context: Any, ticket: flight.Ticket) -> flight.FlightDataStream:
        schema, batches = self.script.stream
        return flight.GeneratorStream(schema, iter(batches))

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        if self.script.early:
            assert (
                reader.schema is not None
            )  # else the client may still be writing: then the error has no type
            raise self.script.early
        writer.begin(PEOPLE)
        received = 0
        for chunk in reader:
            received += chunk.data.num_rows
            for reply in self.script.replies[:-1]:
                writer.write_metadata(reply) if isinstance(reply, bytes) else writer.write_batch(reply)
        if self.script.late:
            raise self.script.late
        for reply in self.script.replies[-1:]:
            writer.write_metadata(reply) if isinstance(reply, bytes) else writer.write_batch(reply)


@pytest.fixture(scope="module")
def scripted() -> Iterator[Scripted]:
    with Scripted() as server:
        yield server


@pytest.fixture
def duckdb(scripted: Scripted) -> Iterator[AirportClient]:
    scripted.script = Script()
    with AirportClient(
        f"grpc://127.0.0.1:{scripted.port}/", attach_token="attached", secret_token="secret"
    ) as client:
        yield client


def test_a_select_makes_the_calls_of_the_extension(duckdb: AirportClient) -> None:
    assert duckdb.query("people", "SELECT id, name FROM t WHERE id > 10") == [(20, None)]
    assert duckdb.brought == 2
    first, *_, get = duckdb.calls
    assert duckdb.take_calls() == ["T", "L", "V", "endpoints", "DoGet"]
    assert duckdb.query("people", "SELECT count(*) FROM t") == [(2,)]
    assert duckdb.take_calls() == ["T", "V", "endpoints", "DoGet"]
    assert first.header("authorization") == ["Bearer attached"]
    assert first.header("airport-action-name") == ["create_transaction"]
    assert get.header("authorization") == ["Bearer secret"]
    assert get.header("airport-transaction-id") == ["tx"]
    assert get.header("airport-flight-path") == ["boilstream/s3/people/v1"]
    assert first.header("airport-trace-id") == []


def test_without_a_secret_data_calls_have_no_token(scripted: Scripted) -> None:
    scripted.script = Script()
    with AirportClient(f"grpc://127.0.0.1:{scripted.port}", attach_token="attached") as client:
        client.query("people", "SELECT id FROM t")
        tokens = {call.name: call.header("authorization") for call in client.calls}
    assert tokens["list_schemas"] == ["Bearer attached"]
    assert tokens["endpoints"] == tokens["DoGet"] == []


def test_scans_ask_for_what_duckdb_would(duckdb: AirportClient, scripted: Scripted) -> None:
    def asked(sql: str) -> tuple[list[int], Any]:
        duckdb.query("people", sql)
        parameters = scripted.bodies["endpoints"][b"parameters"]
        return parameters[b"column_ids"], json.loads(parameters[b"json_filters"])

    assert asked("SELECT count(*) FROM t") == (
        [2**64 - 1],
        {"filters": [], "column_binding_names_by_index": []},
    )
    assert asked("SELECT rowid FROM t")[1]["column_binding_names_by_index"] == ["rowid"]
    columns, document = asked("SELECT name FROM t WHERE id = 10 AND name LIKE 'a%'")
    assert [document["column_binding_names_by_index"][i] for i in range(2)] == [
        ["id", "name"][column] for column in columns
    ]
    assert {item.get("name", item["type"]) for item in document["filters"]} == {"COMPARE_EQUAL", "prefix"}


CRASHES: dict[str, dict[str, Any]] = {
    "no result": {"create_transaction": []},
    "no version": {"catalog_version": []},
    "two results": {"endpoints": [packed([]), packed([])]},
    "a missing key": {"catalog_version": [packed({"catalog_version": 1})]},
    "nil where none may be": {"catalog_version": [packed({"catalog_version": None, "is_fixed": False})]},
    "a bool that is a number": {"catalog_version": [packed({"catalog_version": 1, "is_fixed": 0})]},
    "no endpoint location": {"endpoints": [packed([flight.FlightEndpoint(b"T", []).serialize()])]},
    "a schema main": {"list_schemas": [schemas(name="main")]},
    "a name of the schema that differs": {"list_schemas": [schemas(info(schema="other"))]},
    "another catalog": {"list_schemas": [schemas(info(catalog="Boilstream"))]},
    "app_metadata without comment": {"list_schemas": [schemas(info(comment=...))]},
    "a path that is not ASCII": {"list_schemas": [schemas(info(path=("täulu",)))]},
    "equal names": {"list_schemas": [schemas(info(pa.schema({"a": pa.int64(), "A": pa.int64()})))]},
    "float16": {"list_schemas": [schemas(info(pa.schema({"a": pa.list_(pa.float16())})))]},
    "decimal256": {"list_schemas": [schemas(info(pa.schema({"a": pa.decimal256(40, 2)})))]},
    "a dictionary": {
        "list_schemas": [schemas(info(pa.schema({"a": pa.dictionary(pa.int8(), pa.string())})))]
    },
    "not msgpack": {"create_transaction": [b"\xc1"]},
    "a wrong length": {"list_schemas": [packed([7, pa.compress(b"12345678", codec="zstd", asbytes=True)])]},
    "a traceback": {"create_transaction": ValueError("m")},
}


@pytest.mark.parametrize("case", CRASHES)
def test_answers_that_the_extension_does_not_survive(
    duckdb: AirportClient, scripted: Scripted, case: str
) -> None:
    scripted.script.actions |= CRASHES[case]
    with pytest.raises(ProtocolBroken):
        duckdb.query("people", "SELECT id FROM t")


LARGE = PEOPLE.set(2, pa.field("name", pa.large_string()))

STREAMS: dict[str, tuple[pa.Schema, list[Any]]] = {
    "a requested column is missing": (PEOPLE.remove(2), [ROWS.select(["rowid", "id"])]),
    "another type": (LARGE, [pa.record_batch([[0], [1], pa.array(["a"], pa.large_string())], LARGE)]),
    "metadata that is no progress": (PEOPLE, [(ROWS, b"x")]),
}


@pytest.mark.parametrize("case", STREAMS)
def test_streams_that_the_extension_reads_as_other_types(
    duckdb: AirportClient, scripted: Scripted, case: str
) -> None:
    scripted.script.stream = STREAMS[case]
    with pytest.raises(ProtocolBroken):
        duckdb.read("people")


def test_a_stream_may_be_cut_after_the_last_requested_column(
    duckdb: AirportClient, scripted: Scripted
) -> None:
    scripted.script.stream = PEOPLE.remove(2), [ROWS.select(["rowid", "id"])]
    assert duckdb.query("people", "SELECT sum(id) FROM t") == [(30,)]
    scripted.script.stream = pa.schema([ROWID]), [(ROWS.select(["rowid"]), packed({"progress": 0.5}))]
    assert duckdb.query("people", "SELECT count(*) FROM t") == [(2,)]


def test_an_insert_makes_the_calls_of_the_extension(duckdb: AirportClient, scripted: Scripted) -> None:
    written = duckdb.insert("people", "SELECT range FROM range(5000)", ["id"])
    assert (written.rows, written.sent) == (2, 5000)
    exchange = duckdb.calls[-1]
    assert duckdb.take_calls() == ["T", "L", "V", "DoExchange[insert]"]
    assert exchange.header("airport-operation") == ["insert"]
    assert exchange.header("return-chunks") == ["0"]


def test_not_null_is_checked_before_a_row_is_sent(duckdb: AirportClient) -> None:
    with pytest.raises(AirportError, match=r"NOT NULL constraint failed: people\.id"):
        duckdb.insert("people", "SELECT 'x'", ["name"])
    assert duckdb.insert("people", "SELECT 'x'", ["name"], checked=False).sent == 1


def test_returning_needs_one_batch_for_each(duckdb: AirportClient, scripted: Scripted) -> None:
    scripted.script.replies = [ROWS, packed({"total_changed": 2})]
    assert duckdb.insert("people", "VALUES (1, 'a'), (2, 'b')", returning=True).returned.num_rows == 2  # type: ignore[union-attr]
    for replies in ([ROWS.slice(1)], [packed({})]):
        scripted.script.replies = [*replies, packed({"total_changed": 2})]
        with pytest.raises(ClientWouldCrash):
            duckdb.insert("people", "VALUES (1, 'a'), (2, 'b')", returning=True)
    scripted.script.replies = []
    with pytest.raises(ProtocolBroken, match="reports 0 rows"):
        duckdb.insert("people", "VALUES (1, 'a')")


def typed(kind: str, message: str = "no") -> flight.FlightServerError:
    return flight.FlightServerError("status", extra_info=packed({"exception_type": kind, "message": message}))


def test_errors_reach_the_user_as_the_extension_prints_them(
    duckdb: AirportClient, scripted: Scripted
) -> None:
    scripted.script.early = typed("PermissionException", "needs write")
    with pytest.raises(AirportError, match=r"^Permission Error: needs write$"):
        duckdb.insert("people", "VALUES (1, 'a')")
    scripted.script.early, scripted.script.late = None, typed("ConstraintException")
    with pytest.raises(AirportError, match=r"^Constraint Error: no$"):
        duckdb.insert("people", "VALUES (1, 'a')")
    scripted.script.late = typed("OtherException")
    with pytest.raises(ProtocolBroken):
        duckdb.insert("people", "VALUES (1, 'a')")


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (flight.FlightError("m"), False),
        (flight.FlightServerError("m"), True),
        (flight.FlightUnauthenticatedError("m"), True),
    ],
)
def test_io_errors_of_actions_are_retried(
    duckdb: AirportClient, scripted: Scripted, error: Exception, retried: bool
) -> None:
    scripted.script.actions["catalog_version"] = error
    with pytest.raises(AirportError, match=r"^IO Error: Airport @ grpc://127.0.0.1:\d+/: ") as caught:
        duckdb.query("people", "SELECT id FROM t")
    assert caught.value.retried is retried


def test_a_failed_list_of_schemas_poisons_the_attachment(duckdb: AirportClient, scripted: Scripted) -> None:
    good = scripted.script.actions["list_schemas"]
    scripted.script.actions["list_schemas"] = flight.FlightError("down")
    with pytest.raises(AirportError, match="down"):
        duckdb.read("people")
    scripted.script.actions["list_schemas"] = good
    with pytest.raises(AirportError, match='Schema with name "s3" not found'):
        duckdb.read("people")
    duckdb.attach()
    assert duckdb.read("people").num_rows == 2


def test_update_and_delete_open_the_exchange_first(duckdb: AirportClient) -> None:
    duckdb.show_all_tables()
    duckdb.take_calls()
    assert duckdb.delete("people", "id = 10").sent == 1
    assert duckdb.take_calls() == ["T", "V", "V", "DoExchange[delete]", "endpoints", "DoGet"]
    assert duckdb.update("people", {"name": "'x'"}).sent == 2
    assert duckdb.take_calls() == ["T", "V", "V", "DoExchange[update]", "endpoints", "DoGet"]


def test_one_transaction_for_many_statements(duckdb: AirportClient) -> None:
    with duckdb.transaction():
        duckdb.read("people")
        duckdb.read("people")
    duckdb.read("people")
    assert duckdb.take_calls().count("T") == 2
