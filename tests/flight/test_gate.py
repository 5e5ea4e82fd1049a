"""The gate without a socket: what comes in, what goes out, and what is audited."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.flight as flight
import pytest

from boilstream.auth.audit import Auditor
from boilstream.auth.authorizer import Action, Authorizer
from boilstream.auth.errors import InvalidToken, KeysUnavailable, TokenExpired
from boilstream.auth.identity import Caller, Identity
from boilstream.auth.middleware import MIDDLEWARE_KEY, AuthMiddleware
from boilstream.auth.rules import Rules
from boilstream.errors import BoilStreamError, InvalidArgument, NotFound, Unauthenticated, Unavailable
from boilstream.flight.call import MIDDLEWARE_KEY as CALL_KEY
from boilstream.flight.call import CallMiddleware
from boilstream.flight.gate import Gate, peer_of
from boilstream.observe.audit import AuditLog
from boilstream.observe.metrics import Metrics

IDENTITY = Identity("okta", "00u1")
PEER = "ipv4:192.0.2.7:41234"
NOBODY = Authorizer(Rules(write_groups=frozenset({"Writers"})))


DUCKDB: Mapping[str, Sequence[str | bytes]] = {"airport-user-agent": ["airport/20250723"]}


class Context:
    """What Flight gives to a handler."""

    def __init__(
        self,
        caller: Identity | BoilStreamError | None,
        peer: str | bytes = PEER,
        *,
        method: Any = None,
        headers: Mapping[str, Sequence[str | bytes]] | None = None,
        by_transaction: bool = False,
    ) -> None:
        self._middleware: dict[str, object] = {}
        if caller is not None:
            self._middleware[MIDDLEWARE_KEY] = AuthMiddleware(
                caller, method=method, by_transaction=by_transaction
            )
        if headers is not None:
            self._middleware[CALL_KEY] = CallMiddleware(headers)
        self._peer = peer
        self.returned = False

    def get_middleware(self, key: str) -> object:
        assert not self.returned, "the context was touched after its call"
        return self._middleware.get(key)

    def peer(self) -> str | bytes:
        return self._peer


class Guarded:
    """A gate and its audit log."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "audit.log"
        self.log = AuditLog.open(str(self._path))
        self.gate = Gate(Auditor(self.log, Metrics()))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def line(self) -> dict[str, Any]:
        (line,) = self.lines()
        return line


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    guarded = Guarded(tmp_path)
    yield guarded
    guarded.log.close()


def extra(error: flight.FlightError) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(error.extra_info)
    return value


def test_a_caller_comes_in_with_address_and_call(guarded: Guarded) -> None:
    with guarded.gate.enter(Context(IDENTITY), "DoGet") as caller:
        assert caller == Caller(IDENTITY, PEER, "DoGet")
    assert guarded.lines() == []


@pytest.mark.parametrize("error", [Unauthenticated("no bearer token"), InvalidToken("Expired: x", "y")])
def test_nobody_comes_in_without_a_valid_token(guarded: Guarded, error: BoilStreamError) -> None:
    with (
        pytest.raises(flight.FlightUnauthenticatedError, match=r"^UNAUTHENTICATED: ") as caught,
        guarded.gate.enter(Context(error), "DoGet"),
    ):
        pytest.fail("the handler ran")
    assert caught.value.__cause__ is None
    line = guarded.line()
    assert line["error_id"] == extra(caught.value)["error_id"]
    assert (line["decision"], line["call"], line["peer"]) == ("unauthenticated", "DoGet", PEER)
    assert line["provider"] is line["subject"] is None
    assert line["reason"] == (error.explanation if isinstance(error, InvalidToken) else error.message)


def test_a_server_without_the_middleware_lets_nobody_in(guarded: Guarded) -> None:
    with (
        pytest.raises(flight.FlightInternalError, match="not authenticated"),
        guarded.gate.enter(Context(None), "DoGet"),
    ):
        pytest.fail("the handler ran")


def test_a_provider_that_is_down_is_told_as_such_and_is_noted(guarded: Guarded) -> None:
    with (
        pytest.raises(flight.FlightUnavailableError) as caught,
        guarded.gate.enter(Context(KeysUnavailable("try again")), "DoGet"),
    ):
        pytest.fail("the handler ran")
    assert extra(caught.value)["retryable"] is True
    assert guarded.line()["reason"] == "try again"


def test_a_denial_of_the_handler_is_audited_once_with_its_caller(guarded: Guarded) -> None:
    with (
        pytest.raises(flight.FlightUnauthorizedError, match=r"^PERMISSION_DENIED: needs write") as caught,
        guarded.gate.enter(Context(IDENTITY), "DoPut") as caller,
    ):
        NOBODY.require(caller.identity, Action.WRITE, None)
    line = guarded.line()
    assert line["error_id"] == extra(caught.value)["error_id"]
    assert (line["decision"], line["action"], line["subject"]) == ("denied", "write", "00u1")


def test_other_errors_of_the_handler_are_translated_and_not_audited(guarded: Guarded) -> None:
    with (
        pytest.raises(flight.FlightServerError, match=r"^NOT_FOUND: "),
        guarded.gate.enter(Context(IDENTITY), "DoGet"),
    ):
        raise NotFound("no such topic")
    with (
        pytest.raises(flight.FlightInternalError) as caught,
        guarded.gate.enter(Context(IDENTITY), "DoGet"),
    ):
        raise KeyError("secret")
    assert "secret" not in str(caught.value)
    assert guarded.lines() == []


def test_flight_errors_of_the_handler_pass_unchanged(guarded: Guarded) -> None:
    original = flight.FlightCancelledError("gone")
    with pytest.raises(flight.FlightCancelledError) as caught, guarded.gate.enter(Context(IDENTITY), "DoGet"):
        raise original
    assert caught.value is original


def test_the_open_way_knows_no_caller_and_audits_refusals(guarded: Guarded) -> None:
    with guarded.gate.open(Context(Unauthenticated("no bearer token")), "action session") as peer:
        assert peer == PEER
    assert guarded.lines() == []
    with (
        pytest.raises(flight.FlightUnauthenticatedError) as caught,
        guarded.gate.open(Context(IDENTITY), "action session"),
    ):
        raise InvalidToken("Expired: x")
    line = guarded.line()
    assert (line["call"], line["peer"], line["provider"]) == ("action session", PEER, None)
    assert line["error_id"] == extra(caught.value)["error_id"]


def test_the_middleware_refuses_with_the_same_answer_and_no_address(guarded: Guarded) -> None:
    error = guarded.gate.refuse(InvalidToken("Expired: x"), "DoPut", {"authorization": ["Bearer x"]})
    assert isinstance(error, flight.FlightUnauthenticatedError)
    line = guarded.line()
    assert (line["call"], line["peer"], line["reason"]) == ("DoPut", None, "Expired: x")
    assert line["error_id"] == extra(error)["error_id"]


BATCHES = [pa.record_batch({"n": [number]}) for number in range(3)]


def test_guarded_batches_are_the_batches(guarded: Guarded) -> None:
    context = Context(IDENTITY)
    taken = guarded.gate.guard(context, Caller(IDENTITY, PEER, "DoGet"), iter(BATCHES))
    context.returned = True
    assert list(taken) == BATCHES


@pytest.mark.parametrize(
    ("error", "kind", "audited"),
    [
        (TokenExpired(), flight.FlightUnauthenticatedError, 1),
        (NotFound("dropped"), flight.FlightServerError, 0),
        (pa.ArrowInvalid("secret"), flight.FlightInternalError, 0),
    ],
)
def test_what_happens_while_batches_are_taken_is_translated_too(
    guarded: Guarded, error: Exception, kind: type[Exception], audited: int
) -> None:
    def failing() -> Iterator[pa.RecordBatch]:
        yield BATCHES[0]
        raise error

    taken = guarded.gate.guard(Context(IDENTITY), Caller(IDENTITY, PEER, "DoGet"), failing())
    assert next(taken) is BATCHES[0]
    with pytest.raises(kind) as caught:
        next(taken)
    assert "secret" not in str(caught.value)
    lines = guarded.lines()
    assert len(lines) == audited
    for line in lines:
        assert (line["subject"], line["peer"], line["call"]) == ("00u1", PEER, "DoGet")
        assert line["error_id"] == extra(caught.value)["error_id"]


def test_batches_that_nobody_takes_any_more_are_given_up_without_an_error(guarded: Guarded) -> None:
    closed = []

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from BATCHES
        finally:
            closed.append(True)

    taken = guarded.gate.guard(Context(IDENTITY), Caller(IDENTITY, PEER, "DoGet"), watched())
    next(taken)
    taken.close()  # type: ignore[attr-defined]  # it is a generator
    assert closed == [True]
    assert guarded.lines() == []


@pytest.mark.parametrize(
    ("peer", "text"), [(b"ipv6:[::1]:7", "ipv6:[::1]:7"), ("x", "x"), ("", None), (b"\xff", "\ufffd")]
)
def test_the_address_is_text_or_not_known(peer: str | bytes, text: str | None) -> None:
    assert peer_of(Context(IDENTITY, peer)) == text


# A caller by transaction id.


def test_a_transaction_opens_what_says_so_and_nothing_else(guarded: Guarded) -> None:
    context = Context(IDENTITY, by_transaction=True, headers=DUCKDB)
    with guarded.gate.enter(context, "DoGet", transaction_suffices=True) as caller:
        assert caller == Caller(IDENTITY, PEER, "DoGet")
    with (
        pytest.raises(flight.FlightError, match=r"no bearer token: .* CREATE SECRET"),
        guarded.gate.enter(context, "action drop_table"),
    ):
        pytest.fail("the handler ran")
    assert guarded.line()["decision"] == "unauthenticated"


def test_what_a_caller_by_transaction_does_is_audited_as_with_a_token(guarded: Guarded) -> None:
    for by_transaction in (True, False):
        context = Context(IDENTITY, by_transaction=by_transaction, headers=DUCKDB)
        with (
            pytest.raises(flight.FlightError, match="needs write"),
            guarded.gate.enter(context, "DoExchange", transaction_suffices=True) as caller,
        ):
            NOBODY.require(caller.identity, Action.WRITE, None)
    lines = [{**line, "error_id": None, "time": None} for line in guarded.lines()]
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert (lines[0]["provider"], lines[0]["subject"], lines[0]["decision"]) == ("okta", "00u1", "denied")


# The dialect of DuckDB.

DO_ACTION = flight.FlightMethod.DO_ACTION
DO_GET = flight.FlightMethod.DO_GET


def typed(error: flight.FlightError) -> tuple[str, str]:
    """Kind and message of an error as the extension shows them; it shows nothing of other ones."""
    assert type(error) is flight.FlightServerError
    details = msgpack.unpackb(error.extra_info)
    assert details.keys() == {"exception_type", "message"}
    assert str(error) == details["message"]
    return details["exception_type"], details["message"]


def raised(guarded: Guarded, context: Context, error: Exception) -> flight.FlightError:
    """What becomes of an error of a handler."""
    with pytest.raises(flight.FlightError) as caught, guarded.gate.enter(context, "a call"):
        raise error
    assert caught.value.__suppress_context__
    made: flight.FlightError = caught.value
    return made


def test_in_actions_of_duckdb_every_error_is_of_the_base_class(guarded: Guarded) -> None:
    """All other classes make the extension wait for 3 seconds."""
    context = Context(IDENTITY, method=DO_ACTION, headers=DUCKDB)
    for error in (
        NotFound("x"),
        Unavailable("x"),
        InvalidToken("x"),
        KeyError("secret"),
        pa.ArrowInvalid("x"),
    ):
        made = raised(guarded, context, error)
        assert type(made) is flight.FlightError
        assert "secret" not in str(made)
    assert str(raised(guarded, context, NotFound("no such topic"))) == "NOT_FOUND: no such topic"


def test_in_other_calls_of_duckdb_errors_have_its_types(guarded: Guarded) -> None:
    context = Context(IDENTITY, method=DO_GET, headers=DUCKDB)
    assert typed(raised(guarded, context, NotFound("no such topic"))) == (
        "InvalidInputException",
        "no such topic",
    )
    defect = raised(guarded, context, KeyError("secret"))
    assert isinstance(defect, flight.FlightInternalError)
    assert "secret" not in str(defect)
    assert not defect.extra_info


def test_a_caller_without_a_token_is_told_in_the_same_way(guarded: Guarded) -> None:
    error = Unauthenticated("no bearer token")
    for context, kind in (
        (Context(error, method=DO_ACTION, headers=DUCKDB), flight.FlightError),
        (Context(error, method=DO_GET, headers=DUCKDB), flight.FlightServerError),
        (Context(error, method=DO_GET, headers={}), flight.FlightUnauthenticatedError),
        (Context(error, method=DO_ACTION), flight.FlightUnauthenticatedError),
    ):
        with pytest.raises(flight.FlightError) as caught, guarded.gate.enter(context, "a call"):
            pytest.fail("the handler ran")
        assert type(caught.value) is kind
    assert len(guarded.lines()) == 4


def test_the_open_way_has_the_dialect_too(guarded: Guarded) -> None:
    context = Context(Unauthenticated("x"), method=DO_ACTION, headers=DUCKDB)
    with pytest.raises(flight.FlightError) as caught, guarded.gate.open(context, "action session"):
        raise InvalidArgument("x")
    assert type(caught.value) is flight.FlightError


def test_the_middleware_refuses_in_the_dialect_too(guarded: Guarded) -> None:
    error = guarded.gate.refuse(Unauthenticated("no bearer token"), "DoExchange", DUCKDB)
    assert typed(error) == ("PermissionException", "no bearer token")
    assert guarded.line()["call"] == "DoExchange"


def test_what_happens_while_batches_are_taken_has_the_dialect_and_leaves_the_context_alone(
    guarded: Guarded,
) -> None:
    def failing(error: Exception) -> Iterator[pa.RecordBatch]:
        yield BATCHES[0]
        raise error

    for error, kind in (
        (TokenExpired(), flight.FlightServerError),
        (KeyError("s"), flight.FlightInternalError),
    ):
        context = Context(IDENTITY, method=DO_GET, headers=DUCKDB)
        taken = guarded.gate.guard(context, Caller(IDENTITY, PEER, "DoGet"), failing(error))
        context.returned = True
        assert next(taken) is BATCHES[0]
        with pytest.raises(flight.FlightError) as caught:
            next(taken)
        assert type(caught.value) is kind
        if isinstance(error, TokenExpired):
            assert typed(caught.value)[0] == "PermissionException"
    assert guarded.line()["subject"] == "00u1"
