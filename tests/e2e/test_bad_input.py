"""Bad input gets a clear error, changes nothing, and never ends the process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.support.server import Client, ServerProcess, details

pytestmark = pytest.mark.slow

ROWS = pa.table({"a": pa.array([1, 2], pa.int64()), "s": ["x", "y"]})


def refused(call: Callable[[], Any], *says: str, code: str = "INVALID_ARGUMENT") -> None:
    with pytest.raises(flight.FlightServerError) as caught:
        call()
    message = str(caught.value)
    assert details(caught.value)["code"] == code
    assert "Traceback" not in message
    assert 'File "' not in message
    for text in says:
        assert text in message


@pytest.fixture(autouse=True)
def _nothing_changes(client: Client, server: ServerProcess, topic: list[str]) -> Any:
    """Around every test here: the topic's rows and the list of topics stay, the process lives."""
    client.put(topic, ROWS)
    before, pid = client.topics(), server.pid
    yield
    assert client.get(topic).equals(ROWS)
    assert client.topics() == before
    assert server.pid == pid


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (["s3", ""], "is empty"),
        (["..", "x"], "dots alone"),
        (["s3", "."], "dots alone"),
        (["s3", "a\x07b"], "control character"),
        (["s3", "n" * 300], "300 characters"),
        (["a", "b", "c", "d"], "this path has 4"),
    ],
)
def test_bad_topic_names(client: Client, path: list[str], says: str) -> None:
    refused(lambda: client.put(path, ROWS), says)
    refused(lambda: client.info(path), says)


def test_a_command_descriptor(client: Client) -> None:
    descriptor = flight.FlightDescriptor.for_command(b"select 1")
    refused(lambda: client.connection.get_flight_info(descriptor, client.options), "descriptor path")


def test_unknown_columns_are_named(client: Client, topic: list[str]) -> None:
    refused(lambda: client.put(topic, pa.table({"a": [1], "zz": [1], "yy": [2]})), "zz", "yy")


def test_columns_of_another_kind_are_named(client: Client, topic: list[str]) -> None:
    refused(lambda: client.put(topic, pa.table({"a": [[1]], "s": ["x"]})), "'a'")


def test_zero_batches(client: Client, topic: list[str]) -> None:
    refused(lambda: client.put(topic, ROWS.schema.empty_table()), "no rows")
    refused(lambda: client.put(["s3", "never_made"], ROWS.schema.empty_table()), "no rows")


def test_zero_rows(client: Client) -> None:
    empty = pa.RecordBatch.from_pylist([], schema=ROWS.schema)
    refused(lambda: client.put(["s3", "never_made"], [empty, empty]), "no rows")


def test_zero_columns(client: Client) -> None:
    batch = pa.RecordBatch.from_struct_array(pa.array([{}, {}], pa.struct([])))
    refused(lambda: client.put(["s3", "never_made"], [batch]), "column")


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.nulls(2), "'c'"),
        (pa.array([1, 2], pa.decimal256(60, 2)), "'c'"),
        (
            pa.UnionArray.from_dense(
                pa.array([0, 0], pa.int8()), pa.array([0, 1], pa.int32()), [pa.array([1, 2])]
            ),
            "'c'",
        ),
    ],
)
def test_column_types_that_cannot_be_stored(client: Client, column: pa.Array, says: str) -> None:
    refused(lambda: client.put(["s3", "never_made"], pa.table({"c": column})), says)


def corrupt_strings() -> pa.Array:
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little", signed=True) for n in (0, 2**30, 5)))
    return pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"abcde")])


def corrupt_dictionary() -> pa.Array:
    indices = pa.array([0, 99], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(["x"]), safe=False)


def not_utf8() -> pa.Array:
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 2)))
    return pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"\xff\xfe")])


@pytest.mark.parametrize(
    "column", [corrupt_strings(), corrupt_dictionary(), not_utf8()], ids=["offsets", "index", "utf8"]
)
def test_corrupt_columns_are_named_and_do_no_harm(client: Client, topic: list[str], column: pa.Array) -> None:
    for path in (topic, ["s3", "never_made"]):
        batch = pa.RecordBatch.from_arrays([column], ["s"])
        refused(partial(client.put, path, [batch]), "batch 1", "'s'", "damaged")


def test_a_good_batch_before_a_bad_one_is_not_kept(client: Client, topic: list[str]) -> None:
    good = pa.RecordBatch.from_arrays([pa.array(["ok"])], ["s"])
    bad = pa.RecordBatch.from_arrays([corrupt_strings()], ["s"])
    refused(lambda: client.put(topic, [good, bad]), "batch 2")


def test_a_value_that_does_not_fit_names_its_column(client: Client, topic: list[str]) -> None:
    huge = pa.table({"a": pa.array([2**63], pa.uint64())})
    refused(lambda: client.put(topic, huge), "'a'")


def test_a_numbered_stream_is_refused_while_it_is_not_served(client: Client, topic: list[str]) -> None:
    client.headers = [(b"boilstream-stream-id", b"x")]
    try:
        refused(lambda: client.put(topic, ROWS), "boilstream-stream-id", code="UNIMPLEMENTED")
    finally:
        client.headers = []


@pytest.mark.parametrize(
    "ticket",
    [
        b"{",
        b"{}",
        b'{"topic": 1}',
        b'{"topic": ["s3", "x"], "files": 3}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
        b'{"a":' * 9999,
    ],
)
def test_bad_tickets(client: Client, ticket: bytes) -> None:
    refused(lambda: client.read(ticket))


def test_a_ticket_cannot_reach_files_of_others(client: Client, topic: list[str]) -> None:
    body = b'{"topic": ["s3", "%s"], "files": ["../../../catalog.sqlite"]}' % topic[1].encode()
    refused(lambda: client.read(body), "has no file", code="NOT_FOUND")


def test_unknown_topics_and_actions(client: Client) -> None:
    refused(lambda: client.get(["s3", "nobody_made_this"]), "does not exist", code="NOT_FOUND")
    refused(lambda: client.action("no_such_action"), "no_such_action", "health", code="UNIMPLEMENTED")


@pytest.mark.parametrize("name", ["create_topic", "drop_topic"])
@pytest.mark.parametrize(
    "body", [None, 1, [], {}, {"topic": 1}, {"topic": ["s3", "t"], "schema": "AAAA"}, {"topic": []}]
)
def test_bad_action_bodies(client: Client, name: str, body: object) -> None:
    if name == "drop_topic" and isinstance(body, dict) and "schema" in body:
        refused(lambda: client.action(name, body), code="NOT_FOUND")
    else:
        refused(lambda: client.action(name, body))


def test_list_flights_takes_no_criteria(client: Client) -> None:
    refused(lambda: list(client.connection.list_flights(b"x", client.options)), "criteria")


def test_do_exchange_is_not_served(client: Client, topic: list[str]) -> None:
    def call() -> None:
        descriptor = flight.FlightDescriptor.for_path(*topic)
        writer, reader = client.connection.do_exchange(descriptor, client.options)
        with writer:
            writer.begin(ROWS.schema)
            writer.done_writing()
            reader.read_all()

    refused(call, code="UNIMPLEMENTED")


def test_a_long_message_is_cut(client: Client, topic: list[str]) -> None:
    columns = {f"unknown_{number}": [1] for number in range(1000)}
    refused(lambda: client.put(topic, pa.table(columns)), "unknown_0")
