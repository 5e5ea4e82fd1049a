"""The one place where errors become Flight errors; `boilstream.flight.airport.errors` is its form for DuckDB.

Nothing else may reach Flight: any other exception would carry its traceback to the client.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pyarrow.flight as flight

from boilstream.errors import BoilStreamError, Internal

log = logging.getLogger("boilstream.flight.errors")

MAX_MESSAGE_BYTES = 1024
"""Longest message: error texts travel as gRPC metadata, which has a hard limit of 8 KiB in all."""

CLASSES: Mapping[str, type[flight.FlightError]] = {
    "UNAUTHENTICATED": flight.FlightUnauthenticatedError,
    "PERMISSION_DENIED": flight.FlightUnauthorizedError,
    "RESOURCE_EXHAUSTED": flight.FlightUnavailableError,
    "UNAVAILABLE": flight.FlightUnavailableError,
    "TIMED_OUT": flight.FlightTimedOutError,
    "INTERNAL": flight.FlightInternalError,
}
"""By the code of the error; the others travel as FlightServerError."""

Translate = Callable[[BoilStreamError], flight.FlightError]


def new_error_id() -> str:
    """An id that ties what a client is told to the log."""
    return secrets.token_hex(6)


def to_flight_error(error: BoilStreamError, error_id: str | None = None) -> flight.FlightError:
    """The Flight error for `error`: its message, and `{"code", "retryable", "error_id"}` as JSON in `extra_info`.

    Details of the error stand there too.
    """
    error_id = error_id or new_error_id()
    extra = {**error.details, "code": error.code, "retryable": error.retryable, "error_id": error_id}
    kind = CLASSES.get(error.code, flight.FlightServerError)
    return kind(told(error, error_id), json.dumps(extra).encode())


def told(error: BoilStreamError, error_id: str, *, with_code: bool = True) -> str:
    """What a client reads of `error`: one line of at most MAX_MESSAGE_BYTES, valid UTF-8; the log gets it too.

    It begins with the code unless the client learns of that in another way. An Internal error names its id.
    """
    message = f"{error.code}: {error.message}" if with_code else error.message
    if isinstance(error, Internal):
        message = f"{message}; the server's log has the details under error id {error_id}"
        log.error("error id %s: %s", error_id, error.message, exc_info=error.__cause__)
    else:
        log.debug("error id %s: %s: %s", error_id, error.code, error.message)
    return _bounded(" ".join(message.splitlines()))


@contextmanager
def flight_errors(call: str, translate: Translate = to_flight_error) -> Iterator[None]:
    """Let only Flight errors out of the block; `call` names the RPC in the log of a defect."""
    try:
        yield
    except flight.FlightError:
        raise
    except BoilStreamError as error:
        raise translate(error) from None
    except Exception as error:  # noqa: BLE001 - the boundary: no other exception may reach Flight
        defect = Internal(f"{call} failed on a defect of the server")
        defect.__cause__ = error
        raise translate(defect) from None


class _Bare(Exception):
    """An error whose traceback cannot be formatted, so that Arrow sends the message alone."""

    @property
    def __cause__(self) -> BaseException | None:  # type: ignore[override]  # read by the traceback module
        raise RuntimeError("this error has no traceback to show")


@contextmanager
def without_traceback() -> Iterator[None]:
    """Around GetSchema: pyarrow sends all its errors as UNKNOWN with their Python traceback.

    Its other calls have a case for Flight errors; there clients get class, code and `extra_info`.
    """
    try:
        yield
    except flight.FlightError as error:
        raise _Bare(str(error)) from None


def _bounded(message: str) -> str:
    encoded = message.encode(errors="replace")
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return encoded.decode()
    return encoded[: MAX_MESSAGE_BYTES - 3].decode(errors="ignore") + "..."
