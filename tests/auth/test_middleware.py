"""The gate in front of every Flight call, over a real socket."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from boilstream.auth.errors import InvalidToken, KeysUnavailable
from boilstream.auth.identity import Identity
from boilstream.auth.manager import AuthManager
from boilstream.auth.middleware import (
    ANONYMOUS,
    MIDDLEWARE_KEY,
    AuthMiddleware,
    AuthMiddlewareFactory,
    bearer_token,
    identity_of,
)
from boilstream.errors import BoilStreamError, Internal, Unauthenticated
from tests.support.tokens import FakeFetch, golden, token

HOW_TO = "send the header authorization: Bearer <token>"
SCHEMA = pa.schema([("subject", pa.string())])
DESCRIPTOR = flight.FlightDescriptor.for_path("s3", "t")

Headers = list[tuple[bytes, bytes]]


def to_flight_error(error: BoilStreamError) -> Exception:
    kinds = {
        "UNAUTHENTICATED": flight.FlightUnauthenticatedError,
        "UNAVAILABLE": flight.FlightUnavailableError,
    }
    translated: Exception = kinds.get(error.code, flight.FlightInternalError)(error.message)
    return translated


class Server(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Answers every kind of call with the subject of the caller; counts the calls that got through."""

    def __init__(self, manager: AuthManager | None, *, gate: bool = True) -> None:
        factory = AuthMiddlewareFactory(manager, lambda error, call: to_flight_error(error))
        super().__init__("grpc://127.0.0.1:0", middleware={MIDDLEWARE_KEY: factory} if gate else {})
        self.handled = 0
        self.calls = 0

    def _subject(self, context: Any) -> str:
        self.handled += 1
        try:
            subject = identity_of(context).subject
        except BoilStreamError as error:
            raise to_flight_error(error) from None
        self.calls += 1
        return subject

    def _info(self, context: Any) -> Any:
        return flight.FlightInfo(
            SCHEMA.with_metadata({"subject": self._subject(context)}), DESCRIPTOR, [], -1, -1
        )

    def list_flights(self, context: Any, criteria: bytes) -> Iterator[Any]:
        yield self._info(context)

    def get_flight_info(self, context: Any, descriptor: Any) -> Any:
        return self._info(context)

    def get_schema(self, context: Any, descriptor: Any) -> Any:
        return flight.SchemaResult(SCHEMA.with_metadata({"subject": self._subject(context)}))

    def do_get(self, context: Any, ticket: Any) -> Any:
        return flight.RecordBatchStream(pa.table({"subject": [self._subject(context)]}))

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        writer.write(self._subject(context).encode())

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        writer.begin(SCHEMA)
        writer.write_table(pa.table({"subject": [self._subject(context)]}))

    def do_action(self, context: Any, action: Any) -> Iterator[bytes]:
        yield self._subject(context).encode()

    def list_actions(self, context: Any) -> list[Any]:
        return [(self._subject(context), "")]


def _do_put(client: Any, options: Any) -> str:
    writer, results = client.do_put(DESCRIPTOR, SCHEMA, options)
    with writer:
        writer.done_writing()
        return bytes(results.read()).decode()


def _do_exchange(client: Any, options: Any) -> str:
    writer, reader = client.do_exchange(DESCRIPTOR, options)
    with writer:
        writer.done_writing()
        return str(reader.read_all()["subject"][0])


def _schema_subject(schema: Any) -> str:
    return bytes(schema.metadata[b"subject"]).decode()


REFUSED = (flight.FlightUnauthenticatedError, OSError)
"""What pyarrow's client raises for UNAUTHENTICATED: `get_schema` turns every status into an OSError."""

CALLS: dict[str, Callable[[Any, Any], str]] = {
    "ListFlights": lambda client, options: _schema_subject(
        next(iter(client.list_flights(b"", options))).schema
    ),
    "GetFlightInfo": lambda client, options: _schema_subject(
        client.get_flight_info(DESCRIPTOR, options).schema
    ),
    "GetSchema": lambda client, options: _schema_subject(client.get_schema(DESCRIPTOR, options).schema),
    "DoGet": lambda client, options: str(client.do_get(flight.Ticket(b""), options).read_all()["subject"][0]),
    "DoPut": _do_put,
    "DoExchange": _do_exchange,
    "DoAction": lambda client, options: (
        next(iter(client.do_action(flight.Action("whoami", b""), options))).body.to_pybytes().decode()
    ),
    "ListActions": lambda client, options: str(client.list_actions(options)[0].type),
}


def call(server: Server, kind: str, *headers: tuple[bytes, bytes]) -> str:
    options = flight.FlightCallOptions(headers=list(headers), timeout=30)
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        return CALLS[kind](client, options)


@pytest.fixture
def server(manager: AuthManager) -> Iterator[Server]:
    with Server(manager) as running:
        yield running


@pytest.fixture
def good() -> bytes:
    return token(golden().user).encode()


@pytest.mark.parametrize("kind", CALLS)
def test_no_call_without_a_token(server: Server, kind: str) -> None:
    with pytest.raises(REFUSED, match=f"{HOW_TO}.*Unauthenticated") as caught:
        call(server, kind)
    assert "Traceback" not in str(caught.value)
    assert server.calls == 0


@pytest.mark.parametrize("kind", CALLS)
def test_no_call_with_a_bad_token(server: Server, kind: str, good: bytes) -> None:
    with pytest.raises(REFUSED, match=r"invalid token.*Unauthenticated") as caught:
        call(server, kind, (b"authorization", b"Bearer " + good[:-8]))
    assert "Traceback" not in str(caught.value)
    assert "Signature" not in str(caught.value)
    assert good[-50:-10].decode() not in str(caught.value)
    assert server.calls == 0


@pytest.mark.parametrize("kind", ["DoPut", "DoExchange", "GetSchema"])
def test_streams_and_schemas_without_a_valid_token_reach_no_handler(server: Server, kind: str) -> None:
    for headers in ([], [(b"authorization", b"Bearer x")]):
        with pytest.raises(REFUSED):
            call(server, kind, *headers)
    assert server.handled == 0


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_every_call_knows_its_caller(server: Server, kind: str, scheme: bytes, good: bytes) -> None:
    assert call(server, kind, (b"authorization", scheme + b" " + good)) == golden().user["sub"]
    assert server.calls == 1


def test_grpc_clients_cannot_send_upper_case_header_names(server: Server, good: bytes) -> None:
    """HTTP/2 knows lower case only (RFC 9113, 8.2.1); gRPC refuses the rest before it sends anything."""
    with pytest.raises(flight.FlightInternalError, match="Invalid metadata"):
        call(server, "DoAction", (b"Authorization", b"Bearer " + good))
    assert server.calls == 0


def test_two_tokens_are_refused(server: Server, good: bytes) -> None:
    header = (b"authorization", b"Bearer " + good)
    with pytest.raises(flight.FlightUnauthenticatedError, match="2 authorization headers"):
        call(server, "DoGet", header, header)
    assert server.calls == 0


def test_other_headers_do_not_matter(server: Server, good: bytes) -> None:
    headers: Headers = [
        (b"x-authorization", b"Bearer x"),
        (b"data-bin", b"\xff\x00"),
        (b"authorization", b"Bearer " + good),
    ]
    assert call(server, "DoGet", *headers) == golden().user["sub"]


def test_without_providers_everyone_is_anonymous() -> None:
    with Server(None) as server:
        assert call(server, "DoGet") == "anonymous"
        assert call(server, "DoGet", (b"authorization", b"Basic eDp5")) == "anonymous"


def test_a_server_without_the_middleware_serves_nobody(manager: AuthManager) -> None:
    with (
        Server(manager, gate=False) as server,
        pytest.raises(flight.FlightInternalError, match="not authenticated"),
    ):
        call(server, "DoAction")


class StubManager:
    """Stands for a manager that fails in the given way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def authenticate(self, token: str) -> Identity:
        raise self.error


class Info:
    """What Flight tells a middleware of a call."""

    def __init__(self, method: Any) -> None:
        self.method = method


class Context:
    """What a handler gets, with the middleware that the call passed."""

    def __init__(self, middleware: AuthMiddleware) -> None:
        self._middleware = middleware

    def get_middleware(self, key: str) -> AuthMiddleware | None:
        return self._middleware if key == MIDDLEWARE_KEY else None


def start(error: Exception) -> BoilStreamError:
    """The error that every kind of call with a token meets when its authentication raises `error`."""
    passed: list[tuple[BoilStreamError, str]] = []

    def remember(translated: BoilStreamError, call: str) -> Exception:
        passed.append((translated, call))
        return to_flight_error(translated)

    factory = AuthMiddlewareFactory(StubManager(error), remember)  # type: ignore[arg-type]  # as much of it as is used
    headers = {"authorization": ["Bearer secret-token"]}
    with pytest.raises(flight.FlightError) as caught:
        factory.start_call(Info(flight.FlightMethod.DO_PUT), headers)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    with pytest.raises(flight.FlightError):
        factory.start_call(Info("a method of the future"), headers)
    assert [call for _, call in passed] == ["DoPut", "unknown call"]
    late = Context(factory.start_call(Info(flight.FlightMethod.DO_GET), headers))
    with pytest.raises(BoilStreamError) as told:
        identity_of(late)
    assert type(told.value) is type(passed[0][0])
    return passed[0][0]


def test_errors_of_ours_are_passed_on() -> None:
    for error in (InvalidToken("x"), KeysUnavailable("y")):
        assert start(error) is error


def test_a_defect_is_an_internal_error_without_details(caplog: pytest.LogCaptureFixture) -> None:
    error = start(KeyError("secret-token"))
    assert isinstance(error, Internal)
    assert "secret-token" not in error.message
    record, *_ = caplog.records
    assert (record.name, record.levelno) == ("boilstream.auth.errors", logging.ERROR)
    assert "KeyError at" in record.getMessage()
    assert "test_middleware.py" in record.getMessage()
    assert "secret-token" not in caplog.text


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": ["Bearer abc"]},
        {"Authorization": ["bearer abc"]},
        {"AUTHORIZATION": [b"BEARER abc"]},
        {"authorization": ["  Bearer   abc  "], "x": ["y"]},
    ],
)
def test_ways_to_send_a_token(headers: dict[str, list[str | bytes]]) -> None:
    assert bearer_token(headers) == "abc"


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({}, "no bearer token"),
        ({"authorization": []}, "no bearer token"),
        ({"authorisation": ["Bearer abc"]}, "no bearer token"),
        ({"authorization": ["Bearer abc", "Bearer abc"]}, "2 authorization headers"),
        ({"authorization": ["Bearer a"], "Authorization": ["Bearer b"]}, "2 authorization headers"),
        ({"authorization": ["Basic abc"]}, "another scheme"),
        ({"authorization": ["abc"]}, "another scheme"),
        ({"authorization": ["Bearerabc"]}, "another scheme"),
        ({"authorization": ["Bearer\tabc"]}, "another scheme"),
        ({"authorization": [""]}, "another scheme"),
        ({"authorization": ["Bearer"]}, "empty"),
        ({"authorization": ["Bearer   "]}, "empty"),
    ],
)
def test_ways_that_are_refused(headers: dict[str, list[str | bytes]], problem: str) -> None:
    with pytest.raises(Unauthenticated, match=problem) as caught:
        bearer_token(headers)
    assert HOW_TO in caught.value.message


def test_bytes_that_are_no_text_reach_the_manager_as_an_invalid_token(manager: AuthManager) -> None:
    with pytest.raises(InvalidToken):
        manager.authenticate(bearer_token({"authorization": [b"Bearer \xff\xfe"]}))


def test_the_anonymous_caller_has_no_end_and_no_rights() -> None:
    assert ANONYMOUS.principal == "anonymous:anonymous"
    assert ANONYMOUS.expires_at == float("inf")
    assert not ANONYMOUS.groups
    assert not ANONYMOUS.scopes


def test_a_key_server_that_is_down_is_retryable(manager: AuthManager, fetch: FakeFetch, good: bytes) -> None:
    fetch.body = json.dumps({}).encode()
    with Server(manager) as server, pytest.raises(flight.FlightUnavailableError, match="try again"):
        call(server, "DoGet", (b"authorization", b"Bearer " + good))
