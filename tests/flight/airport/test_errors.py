"""Errors in the form that DuckDB's extension shows best."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream import errors
from boilstream.auth.errors import CLIENT_MESSAGE, InvalidToken, TokenExpired
from boilstream.flight.airport.errors import to_airport_error
from boilstream.flight.errors import MAX_MESSAGE_BYTES

TREE = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, errors.BoilStreamError)
]
KINDS = {
    errors.Unauthenticated: "PermissionException",
    errors.PermissionDenied: "PermissionException",
    errors.ConstraintViolated: "ConstraintException",
    errors.InvalidArgument: "InvalidInputException",
    errors.NotFound: "InvalidInputException",
    errors.AlreadyExists: "InvalidInputException",
    errors.Unimplemented: "InvalidInputException",
}
PLAIN = {
    errors.ResourceExhausted: flight.FlightUnavailableError,
    errors.Unavailable: flight.FlightUnavailableError,
    errors.TimedOut: flight.FlightTimedOutError,
    errors.Internal: flight.FlightInternalError,
    errors.BoilStreamError: flight.FlightInternalError,
    errors.ConfigurationError: flight.FlightServerError,
}


def details(error: flight.FlightError) -> dict[str, Any]:
    value: dict[str, Any] = msgpack.unpackb(error.extra_info)
    return value


def test_every_error_of_the_tree_has_its_form() -> None:
    assert set(TREE) == KINDS.keys() | PLAIN.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_statement_did_is_typed_and_has_our_words_alone(kind: type[errors.BoilStreamError]) -> None:
    error = to_airport_error(kind("what, where, what to do"), "id", typed=True)
    assert type(error) is flight.FlightServerError
    assert str(error) == "what, where, what to do"
    assert details(error) == {"exception_type": KINDS[kind], "message": "what, where, what to do"}


@pytest.mark.parametrize("kind", PLAIN)
def test_the_servers_trouble_is_told_without_a_type(kind: type[errors.BoilStreamError]) -> None:
    """Any other `extra_info` would hide the text."""
    error = to_airport_error(kind("what, where, what to do"), "id", typed=True)
    assert type(error) is PLAIN[kind]
    assert str(error).startswith(f"{kind.code}: what, where, what to do")
    assert not error.extra_info


@pytest.mark.parametrize("kind", TREE)
def test_in_actions_all_are_of_the_base_class_and_begin_with_the_code(
    kind: type[errors.BoilStreamError],
) -> None:
    error = to_airport_error(kind("what, where, what to do"), "id", typed=False)
    assert type(error) is flight.FlightError
    assert str(error).startswith(f"{kind.code}: what, where, what to do")
    assert not isinstance(error, (pa.ArrowException, OSError))


@pytest.mark.parametrize("typed", [True, False])
def test_an_internal_error_names_the_id_under_which_the_log_has_it(
    typed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    defect = errors.Internal("DoGet failed on a defect of the server")
    defect.__cause__ = KeyError("secret")
    with caplog.at_level(logging.ERROR):
        error = to_airport_error(defect, "c0ffee", typed=typed)
    assert str(error).endswith("; the server's log has the details under error id c0ffee")
    assert "secret" not in str(error)
    assert "c0ffee" in caplog.text
    assert "secret" in caplog.text


def test_a_bad_token_gets_the_one_line_for_clients() -> None:
    for typed in (True, False):
        error = to_airport_error(InvalidToken("Expired: the reason", "a fix"), "id", typed=typed)
        assert str(error).endswith(CLIENT_MESSAGE)
        assert "reason" not in str(error).replace(CLIENT_MESSAGE, "")
    assert details(to_airport_error(TokenExpired(ack_up_to_offset=-1), "id", typed=True)).keys() == {
        "exception_type",
        "message",
    }


@given(
    message=st.text(st.characters(exclude_categories=()), max_size=2000)
    | st.integers(1, 3000).map(lambda count: "ä" * count),
    typed=st.booleans(),
    kind=st.sampled_from(TREE),
)
def test_any_text_becomes_one_short_line_of_utf_8(
    message: str, typed: bool, kind: type[errors.BoilStreamError]
) -> None:
    error = to_airport_error(kind(message), "c0ffee", typed=typed)
    assert len(str(error).encode()) <= MAX_MESSAGE_BYTES
    assert len(str(error).splitlines()) <= 1
    if error.extra_info:
        assert details(error)["message"] == str(error)


class Server(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Fails each call in the dialect."""

    def __init__(self, error: errors.BoilStreamError) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._error = error

    def do_action(self, _context: Any, _action: Any) -> Any:
        raise to_airport_error(self._error, "id", typed=False)

    def do_exchange(self, _context: Any, _descriptor: Any, _reader: Any, _writer: Any) -> None:
        raise to_airport_error(self._error, "id", typed=True)

    def do_get(self, _context: Any, _ticket: Any) -> Any:
        schema = pa.schema([("n", pa.int64())])

        def rows() -> Iterator[pa.RecordBatch]:
            yield pa.record_batch([pa.array([1])], schema=schema)
            raise to_airport_error(self._error, "id", typed=True)

        return flight.GeneratorStream(schema, rows())


def _get(client: Any) -> None:
    client.do_get(flight.Ticket(b"")).read_all()


def _exchange(client: Any) -> None:
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_path("t"))
    with writer:
        writer.done_writing()
        reader.read_all()


@pytest.mark.parametrize("call", [_get, _exchange])
def test_a_typed_error_arrives_whole(call: Any) -> None:
    """Also the longest text: on the wire each of its bytes takes three, and extra_info comes on top."""
    for text in ("täulu / 1 is gone", "ä" * 5000):
        with (
            Server(errors.NotFound(text)) as server,
            flight.connect(f"grpc://127.0.0.1:{server.port}") as client,
            pytest.raises(flight.FlightServerError) as caught,
        ):
            call(client)
        told = details(caught.value)
        assert told["exception_type"] == "InvalidInputException"
        assert told["message"][:17] == text[:17]
        assert "Traceback" not in str(caught.value)


def test_an_error_of_an_action_arrives_as_one_that_is_not_retried() -> None:
    with (
        Server(errors.NotFound("no such topic")) as server,
        flight.connect(f"grpc://127.0.0.1:{server.port}") as client,
        pytest.raises(pa.ArrowException) as caught,
    ):
        list(client.do_action(flight.Action("list_schemas", b"")))
    assert str(caught.value) == "Flight error: NOT_FOUND: no such topic"
