"""The gate without a socket: what comes in, what goes out, and what is audited."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from boilstream.auth.audit import Auditor
from boilstream.auth.authorizer import Action, Authorizer
from boilstream.auth.errors import InvalidToken, KeysUnavailable, TokenExpired
from boilstream.auth.identity import Caller, Identity
from boilstream.auth.middleware import MIDDLEWARE_KEY, AuthMiddleware
from boilstream.auth.rules import Rules
from boilstream.errors import BoilStreamError, NotFound, Unauthenticated
from boilstream.flight.gate import Gate, peer_of
from boilstream.observe.audit import AuditLog
from boilstream.observe.metrics import Metrics

IDENTITY = Identity("okta", "00u1")
PEER = "ipv4:192.0.2.7:41234"
NOBODY = Authorizer(Rules(write_groups=frozenset({"Writers"})))


class Context:
    """What Flight gives to a handler."""

    def __init__(self, caller: Identity | BoilStreamError | None, peer: str | bytes = PEER) -> None:
        self._middleware = None if caller is None else AuthMiddleware(caller)
        self._peer = peer

    def get_middleware(self, key: str) -> AuthMiddleware | None:
        return self._middleware if key == MIDDLEWARE_KEY else None

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
    error = guarded.gate.refuse(InvalidToken("Expired: x"), "DoPut")
    assert isinstance(error, flight.FlightUnauthenticatedError)
    line = guarded.line()
    assert (line["call"], line["peer"], line["reason"]) == ("DoPut", None, "Expired: x")
    assert line["error_id"] == extra(error)["error_id"]


BATCHES = [pa.record_batch({"n": [number]}) for number in range(3)]


def test_guarded_batches_are_the_batches(guarded: Guarded) -> None:
    assert list(guarded.gate.guard(Caller(IDENTITY, PEER, "DoGet"), iter(BATCHES))) == BATCHES


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

    taken = guarded.gate.guard(Caller(IDENTITY, PEER, "DoGet"), failing())
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

    taken = guarded.gate.guard(Caller(IDENTITY, PEER, "DoGet"), watched())
    next(taken)
    taken.close()  # type: ignore[attr-defined]  # it is a generator
    assert closed == [True]
    assert guarded.lines() == []


@pytest.mark.parametrize(
    ("peer", "text"), [(b"ipv6:[::1]:7", "ipv6:[::1]:7"), ("x", "x"), ("", None), (b"\xff", "\ufffd")]
)
def test_the_address_is_text_or_not_known(peer: str | bytes, text: str | None) -> None:
    assert peer_of(Context(IDENTITY, peer)) == text
