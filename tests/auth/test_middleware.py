"""The gate in front of every Flight call, over a real socket."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from boilstream.auth.capability import Capabilities
from boilstream.auth.errors import InvalidToken, KeysUnavailable
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.identity import Identity
from boilstream.auth.manager import AuthManager
from boilstream.auth.middleware import (
    AIRPORT_HEADER,
    ANONYMOUS,
    MIDDLEWARE_KEY,
    AuthMiddleware,
    AuthMiddlewareFactory,
    Headers,
    bearer_token,
    identity_of,
)
from boilstream.errors import BoilStreamError, Internal, Unauthenticated
from tests.support.tokens import NOW, FakeClock, FakeFetch, golden, token

HOW_TO = "send the header authorization: Bearer <token>"
SCHEMA = pa.schema([("subject", pa.string())])
DESCRIPTOR = flight.FlightDescriptor.for_path("s3", "t")

NONE: frozenset[str] = frozenset()


def to_flight_error(error: BoilStreamError) -> Exception:
    kinds = {
        "UNAUTHENTICATED": flight.FlightUnauthenticatedError,
        "UNAVAILABLE": flight.FlightUnavailableError,
    }
    translated: Exception = kinds.get(error.code, flight.FlightInternalError)(error.message)
    return translated


class Server(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Answers every kind of call with the subject of the caller; counts the calls that got through.

    DoGet, DoExchange and the action `endpoints` are those that need no more than a transaction id.
    """

    def __init__(
        self, manager: AuthManager | None, *, gate: bool = True, clock: FakeClock | None = None
    ) -> None:
        self.capabilities = Capabilities(bytes(32), expiry=ExpiryRule(0, clock or FakeClock()))
        factory = AuthMiddlewareFactory(manager, self._refuse, self.capabilities)
        super().__init__("grpc://127.0.0.1:0", middleware={MIDDLEWARE_KEY: factory} if gate else {})
        self.handled = 0
        self.calls = 0
        self.refused: list[tuple[str, bool]] = []

    def _refuse(self, error: BoilStreamError, call: str, headers: Headers) -> Exception:
        self.refused.append((call, AIRPORT_HEADER in headers))
        return to_flight_error(error)

    def _subject(self, context: Any, *, data: bool = False) -> str:
        self.handled += 1
        try:
            subject = identity_of(context, transaction_suffices=data).subject
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
        return flight.RecordBatchStream(pa.table({"subject": [self._subject(context, data=True)]}))

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        writer.write(self._subject(context).encode())

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        writer.begin(SCHEMA)
        writer.write_table(pa.table({"subject": [self._subject(context, data=True)]}))

    def do_action(self, context: Any, action: Any) -> Iterator[bytes]:
        yield self._subject(context, data=action.type == "endpoints").encode()

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


def _do_action(client: Any, options: Any, name: str) -> str:
    return bytes(next(iter(client.do_action(flight.Action(name, b""), options))).body).decode()


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
    "DoAction": lambda client, options: _do_action(client, options, "whoami"),
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
    headers = [
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
    headers = {"authorization": ["Bearer secret-token"]}

    def remember(translated: BoilStreamError, call: str, sent: Headers) -> Exception:
        passed.append((translated, call))
        assert sent is headers
        return to_flight_error(translated)

    factory = AuthMiddlewareFactory(StubManager(error), remember, Capabilities(bytes(32)))  # type: ignore[arg-type]  # as much of it as is used
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


# Calls of Airport's client: some come without the token that it has, but with a transaction id.

PROCESS = "3f0a7c8e-5d0f-4a0e-9a57-0d6d3f1b2c4d"
SUBJECT = golden().user["sub"]
CALLER = Identity("okta", SUBJECT, expires_at=NOW + 600.0)
BY_TRANSACTION: dict[str, Callable[[Any, Any], str]] = {
    "DoGet": CALLS["DoGet"],
    "DoExchange": CALLS["DoExchange"],
    "endpoints": lambda client, options: _do_action(client, options, "endpoints"),
}
NOT_BY_TRANSACTION = sorted(CALLS.keys() - BY_TRANSACTION.keys())
ALL_CALLS = CALLS | BY_TRANSACTION


def transaction(server: Server, caller: Identity = CALLER, process: str = PROCESS) -> str:
    text = server.capabilities.issue(
        caller, catalog="boilstream", client_session=process, groups=NONE, scopes=NONE
    )
    assert text is not None
    return text


def airport(**headers: str | None) -> list[tuple[bytes, bytes]]:
    """Headers as the client sends them; None leaves one out."""
    sent = {
        "airport_user_agent": "airport/20250723",
        "authority": "grpc://localhost:50051",
        "airport_client_session_id": PROCESS,
        "airport_catalog": "boilstream",
    } | headers
    return [
        (name.replace("_", "-").encode(), value.encode()) for name, value in sent.items() if value is not None
    ]


def airport_call(server: Server, kind: str, *more: tuple[bytes, bytes], **headers: str | None) -> str:
    options = flight.FlightCallOptions(headers=[*airport(**headers), *more], timeout=30)
    with flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        return ALL_CALLS[kind](client, options)


@pytest.mark.parametrize("kind", BY_TRANSACTION)
@pytest.mark.parametrize("catalog", ["boilstream", "BoilStream", None])
def test_a_transaction_id_stands_for_the_token_where_the_client_sends_none(
    server: Server, kind: str, catalog: str | None
) -> None:
    text = transaction(server)
    assert airport_call(server, kind, airport_transaction_id=text, airport_catalog=catalog) == SUBJECT
    assert server.calls == 1


@pytest.mark.parametrize("kind", NOT_BY_TRANSACTION)
def test_other_calls_need_a_token_whatever_the_transaction(server: Server, kind: str) -> None:
    with pytest.raises(REFUSED, match=r"no bearer token: .*CREATE SECRET .*Unauthenticated"):
        airport_call(server, kind, airport_transaction_id=transaction(server))
    assert server.calls == 0
    if kind in ("DoPut", "GetSchema"):
        assert server.handled == 0


@pytest.mark.parametrize("kind", BY_TRANSACTION)
def test_only_calls_of_airports_client_are_opened_so(server: Server, kind: str) -> None:
    with pytest.raises(flight.FlightUnauthenticatedError, match="no bearer token") as caught:
        airport_call(server, kind, airport_transaction_id=transaction(server), airport_user_agent=None)
    assert "CREATE SECRET" not in str(caught.value)
    assert server.calls == 0


@pytest.mark.parametrize("kind", ALL_CALLS)
def test_airports_calls_without_token_and_transaction_are_told_what_to_do(server: Server, kind: str) -> None:
    with pytest.raises(REFUSED, match=f"{HOW_TO}; in DuckDB: CREATE SECRET"):
        airport_call(server, kind)
    assert server.calls == 0


REFUSALS: dict[str, tuple[dict[str, str | None], str]] = {
    "altered": ({"airport_transaction_id": "eyJ9.AAAA"}, "altered, or was made by another server"),
    "empty": ({"airport_transaction_id": ""}, "altered, or was made by another server"),
    "other process": ({"airport_client_session_id": "other"}, "another client process"),
    "no process": ({"airport_client_session_id": None}, "another client process"),
    "other catalog": ({"airport_catalog": "other"}, "another catalog"),
}


@pytest.mark.parametrize("kind", BY_TRANSACTION)
@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("with_token", [False, True])
def test_a_transaction_id_that_does_not_fit_is_refused_also_beside_a_token(
    server: Server, good: bytes, kind: str, case: str, with_token: bool, caplog: pytest.LogCaptureFixture
) -> None:
    changes, reason = REFUSALS[case]
    authorization = f"Bearer {good.decode()}" if with_token else None
    headers = {"airport_transaction_id": transaction(server), "authorization": authorization}
    with pytest.raises(flight.FlightUnauthenticatedError, match=reason) as caught:
        airport_call(server, kind, **(headers | changes))
    assert "Traceback" not in str(caught.value)
    assert server.calls == 0
    assert server.refused == ([("DoExchange", True)] if kind == "DoExchange" else [])
    assert any(
        record.name == "boilstream.auth.middleware" and reason in record.getMessage()
        for record in caplog.records
    )
    assert transaction(server)[:20] not in caplog.text


@pytest.mark.parametrize("name", ["airport-transaction-id", "airport-client-session-id", "airport-catalog"])
@pytest.mark.parametrize("with_token", [False, True])
def test_headers_that_decide_come_once(server: Server, good: bytes, name: str, with_token: bool) -> None:
    text = transaction(server)
    authorization = f"Bearer {good.decode()}" if with_token else None
    values = {
        "airport-transaction-id": text,
        "airport-client-session-id": PROCESS,
        "airport-catalog": "boilstream",
    }
    with pytest.raises(flight.FlightUnauthenticatedError, match=f"2 headers {name}: send one"):
        airport_call(
            server,
            "DoGet",
            (name.encode(), values[name].encode()),
            airport_transaction_id=text,
            authorization=authorization,
        )
    assert server.calls == 0


def test_an_expired_transaction_says_what_to_do(manager: AuthManager, clock: FakeClock, good: bytes) -> None:
    with Server(manager, clock=clock) as server:
        text = transaction(server)
        clock.advance(600)
        for kind in BY_TRANSACTION:
            with pytest.raises(
                flight.FlightUnauthenticatedError, match="has expired: end it, or DETACH and ATTACH again"
            ):
                airport_call(server, kind, airport_transaction_id=text)
        authorization = f"Bearer {good.decode()}"
        assert (
            airport_call(server, "DoGet", airport_transaction_id=text, authorization=authorization) == SUBJECT
        )


@pytest.mark.parametrize("kind", ALL_CALLS)
def test_beside_a_token_the_token_decides(server: Server, good: bytes, kind: str) -> None:
    text = transaction(server)
    authorization = f"Bearer {good.decode()}"
    assert airport_call(server, kind, airport_transaction_id=text, authorization=authorization) == SUBJECT


@pytest.mark.parametrize("authorization", ["Bearer x", "Basic eDp5", "", "Bearer"])
def test_a_bad_token_is_not_mended_by_a_transaction(server: Server, authorization: str) -> None:
    for kind in BY_TRANSACTION:
        with pytest.raises(flight.FlightUnauthenticatedError, match=r"token|scheme"):
            airport_call(
                server, kind, airport_transaction_id=transaction(server), authorization=authorization
            )
    assert server.calls == 0


def test_a_transaction_of_another_user_is_refused_beside_a_token(server: Server, good: bytes) -> None:
    other = transaction(server, Identity("okta", "mallory", expires_at=NOW + 600.0))
    assert airport_call(server, "DoGet", airport_transaction_id=other) == "mallory"
    with pytest.raises(flight.FlightUnauthenticatedError, match="another user"):
        airport_call(server, "DoGet", airport_transaction_id=other, authorization=f"Bearer {good.decode()}")
    assert server.calls == 1


def test_a_token_in_the_place_of_a_transaction_id_opens_nothing(server: Server, good: bytes) -> None:
    with pytest.raises(flight.FlightUnauthenticatedError, match="altered"):
        airport_call(server, "DoGet", airport_transaction_id=good.decode())
    with pytest.raises(flight.FlightUnauthenticatedError, match="invalid token"):
        airport_call(server, "DoGet", authorization=f"Bearer {transaction(server)}")
    assert server.calls == 0


def test_without_providers_transaction_ids_do_not_matter() -> None:
    with Server(None) as server:
        for kind in ALL_CALLS:
            assert airport_call(server, kind, airport_transaction_id=transaction(server)) == "anonymous"
            assert airport_call(server, kind, airport_transaction_id="made up") == "anonymous"


def test_bytes_that_are_no_text_are_no_transaction_id(server: Server) -> None:
    factory = AuthMiddlewareFactory(
        StubManager(KeyError("unused")),  # type: ignore[arg-type]  # as much of it as is used
        lambda error, _call, _headers: to_flight_error(error),
        server.capabilities,
    )
    headers: dict[str, list[str | bytes]] = {
        "airport-user-agent": ["airport/20250723"],
        "airport-client-session-id": [PROCESS],
        "airport-transaction-id": [b"\xff\xfe"],
    }
    passed = factory.start_call(Info(flight.FlightMethod.DO_GET), headers)
    with pytest.raises(Unauthenticated, match="altered"):
        identity_of(Context(passed), transaction_suffices=True)


def test_a_defect_beside_a_transaction_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Capabilities):
        def redeem(self, text: str, *, catalog: str | None, client_session: str | None) -> Identity:
            raise KeyError(text)

    factory = AuthMiddlewareFactory(
        StubManager(KeyError("unused")),  # type: ignore[arg-type]  # as much of it as is used
        lambda error, _call, _headers: to_flight_error(error),
        Broken(bytes(32)),
    )
    headers = {"airport-user-agent": ["a"], "airport-transaction-id": ["secret-id"]}
    passed = factory.start_call(Info(flight.FlightMethod.DO_GET), headers)
    with pytest.raises(Internal) as caught:
        identity_of(Context(passed), transaction_suffices=True)
    assert "secret-id" not in caught.value.message
    assert "secret-id" not in caplog.text


@pytest.mark.parametrize("method", [flight.FlightMethod.DO_ACTION, flight.FlightMethod.DO_GET])
@pytest.mark.parametrize("has_manager", [False, True])
def test_a_handler_can_tell_whether_its_call_is_an_action(method: Any, has_manager: bool) -> None:
    factory = AuthMiddlewareFactory(
        StubManager(InvalidToken("x")) if has_manager else None,  # type: ignore[arg-type]  # as much as is used
        lambda error, _call, _headers: to_flight_error(error),
        Capabilities(bytes(32)),
    )
    assert factory.start_call(Info(method), {}).is_action == (method == flight.FlightMethod.DO_ACTION)
