"""The way into every handler: who calls, from where, and what becomes of refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from boilstream.auth.audit import Auditor
from boilstream.auth.identity import Caller
from boilstream.auth.middleware import AIRPORT_HEADER, AuthMiddleware, Headers, identity_of
from boilstream.auth.middleware import MIDDLEWARE_KEY as AUTH_KEY
from boilstream.errors import BoilStreamError
from boilstream.flight.airport.errors import to_airport_error
from boilstream.flight.call import MIDDLEWARE_KEY as CALL_KEY
from boilstream.flight.call import CallMiddleware
from boilstream.flight.errors import flight_errors, new_error_id, to_flight_error

Dialect = Callable[[BoilStreamError, str], flight.FlightError]
"""Makes the Flight error of an error and its id."""


class Gate:
    """Lets callers with a valid token into a handler, and only Flight errors out of it.

    Errors take the form that the client of the call understands: `to_airport_error` for DuckDB's, for the others
    `to_flight_error`.
    """

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    @contextmanager
    def enter(self, context: Any, call: str, *, transaction_suffices: bool = False) -> Iterator[Caller]:
        """Around a handler: the caller of `call`, whose `context` is a `flight.ServerCallContext`.

        A call without a valid token ends here; with `transaction_suffices` a valid transaction id will do. Refusals,
        the handler's own included, are audited.
        """
        peer, dialect = peer_of(context), _dialect_of(context)
        with self._translated(dialect, peer, call):
            caller = Caller(identity_of(context, transaction_suffices=transaction_suffices), peer, call)
            with self._translated(dialect, peer, call, caller):
                yield caller

    @contextmanager
    def open(self, context: Any, call: str) -> Iterator[str | None]:
        """Around a handler for callers without a valid token header: their network address."""
        peer = peer_of(context)
        with self._translated(_dialect_of(context), peer, call):
            yield peer

    def guard(
        self, context: Any, caller: Caller, batches: Iterator[pa.RecordBatch]
    ) -> Iterator[pa.RecordBatch]:
        """The batches that Flight takes after the handler of `caller` has returned.

        `context` is that of the call; it is not touched once this has returned.
        """
        return self._guarded(_dialect_of(context), caller, batches)

    def refuse(self, error: BoilStreamError, call: str, headers: Headers) -> flight.FlightError:
        """The answer to a stream that the middleware refuses; there nobody knows the network address."""
        dialect = _dialect(is_airport=AIRPORT_HEADER in headers, is_action=False)
        return self._answer(dialect, call, None, None, error)

    def _guarded(
        self, dialect: Dialect, caller: Caller, batches: Iterator[pa.RecordBatch]
    ) -> Iterator[pa.RecordBatch]:
        with self._translated(dialect, caller.peer, caller.call, caller):
            yield from batches

    @contextmanager
    def _translated(
        self, dialect: Dialect, peer: str | None, call: str, caller: Caller | None = None
    ) -> Iterator[None]:
        with flight_errors(call, partial(self._answer, dialect, call, peer, caller)):
            yield

    def _answer(
        self, dialect: Dialect, call: str, peer: str | None, caller: Caller | None, error: BoilStreamError
    ) -> flight.FlightError:
        error_id = new_error_id()
        self._auditor.refused(error, call=call, error_id=error_id, peer=peer, caller=caller)
        return dialect(error, error_id)


def _dialect_of(context: Any) -> Dialect:
    """What the client of a call understands."""
    call, auth = context.get_middleware(CALL_KEY), context.get_middleware(AUTH_KEY)
    return _dialect(
        is_airport=isinstance(call, CallMiddleware) and call.header(AIRPORT_HEADER) is not None,
        is_action=isinstance(auth, AuthMiddleware) and auth.is_action,
    )


def _dialect(*, is_airport: bool, is_action: bool) -> Dialect:
    return partial(to_airport_error, typed=not is_action) if is_airport else to_flight_error


def peer_of(context: Any) -> str | None:
    """Network address of the client, such as `ipv4:192.0.2.7:41234`; None if the transport does not say."""
    peer = context.peer()
    return (peer.decode("ascii", "replace") if isinstance(peer, bytes) else str(peer)) or None
