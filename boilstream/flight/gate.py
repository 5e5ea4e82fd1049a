"""The way into every handler: who calls, from where, and what becomes of refusals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from boilstream.auth.audit import Auditor
from boilstream.auth.identity import Caller
from boilstream.auth.middleware import identity_of
from boilstream.errors import BoilStreamError
from boilstream.flight.errors import flight_errors, new_error_id, to_flight_error


class Gate:
    """Lets callers with a valid token into a handler, and only Flight errors out of it."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    @contextmanager
    def enter(self, context: Any, call: str) -> Iterator[Caller]:
        """Around a handler: the caller of `call`, whose `context` is a `flight.ServerCallContext`.

        A call without a valid token ends here. Refusals, the handler's own included, are audited.
        """
        peer = peer_of(context)
        with self._translated(peer, call):
            caller = Caller(identity_of(context), peer, call)
            with self._translated(peer, call, caller):
                yield caller

    @contextmanager
    def open(self, context: Any, call: str) -> Iterator[str | None]:
        """Around a handler for callers without a valid token header: their network address."""
        peer = peer_of(context)
        with self._translated(peer, call):
            yield peer

    def guard(self, caller: Caller, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches that Flight takes after the handler of `caller` has returned."""
        with self._translated(caller.peer, caller.call, caller):
            yield from batches

    def refuse(self, error: BoilStreamError, call: str) -> flight.FlightError:
        """The answer to a call that the middleware refuses; there nobody knows the network address."""
        return self._answer(error, call, None, None)

    @contextmanager
    def _translated(self, peer: str | None, call: str, caller: Caller | None = None) -> Iterator[None]:
        with flight_errors(call, lambda error: self._answer(error, call, peer, caller)):
            yield

    def _answer(
        self, error: BoilStreamError, call: str, peer: str | None, caller: Caller | None
    ) -> flight.FlightError:
        error_id = new_error_id()
        self._auditor.refused(error, call=call, error_id=error_id, peer=peer, caller=caller)
        return to_flight_error(error, error_id)


def peer_of(context: Any) -> str | None:
    """Network address of the client, such as `ipv4:192.0.2.7:41234`; None if the transport does not say."""
    peer = context.peer()
    return (peer.decode("ascii", "replace") if isinstance(peer, bytes) else str(peer)) or None
