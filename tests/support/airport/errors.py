"""What a DuckDB user sees of a failure, and what the extension would not survive.

Section numbers are those of the wire reference of the Airport protocol.
"""

from __future__ import annotations

from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.flight as flight

MAX_TEXT_BYTES = 2048
"""Longest error text that surely passes gRPC (1.1)."""

_TYPED = {
    "ConstraintException": "Constraint",
    "PermissionException": "Permission",
    "InvalidInputException": "Invalid Input",
}
"""`exception_type` of `extra_info` -> the word that DuckDB puts in front (2.1)."""

_DEBUG = " gRPC client debug context:"


class ProtocolBroken(AssertionError):
    """The server sent what the extension answers with a misleading error, or with wrong results."""


class ClientWouldCrash(ProtocolBroken):
    """The server sent what makes the extension crash, hang or read memory of another type."""


class AirportError(Exception):
    """The error of one statement, as DuckDB prints it."""

    def __init__(self, kind: str, message: str, *, remote: bool, retried: bool = False) -> None:
        """`kind` is the word before "Error", such as Permission; `remote`: the server sent it.

        `retried`: the extension would have repeated the action for 3 seconds before it gave up.
        """
        super().__init__(f"{kind} Error: {message}")
        self.kind = kind
        self.message = message
        self.remote = remote
        self.retried = retried


def remote_error(
    error: Exception,
    *,
    where: str,
    context: str,
    action: bool = False,
    drained: bool = False,
    typed: bool = True,
) -> AirportError:
    """How the failure of a call reaches the user (2.1).

    `where` is location and descriptor path. `typed` is false for calls whose `extra_info` is not
    looked at; `drained` for actions whose result nobody waits for, which are never retried.
    """
    extra = bytes(getattr(error, "extra_info", None) or b"")
    text = str(error).partition(_DEBUG)[0].removesuffix(".")
    if "Traceback" in text or "Python exception" in text or '.py"' in text:
        raise ProtocolBroken(f"{context}: the server shows its inside: {text}") from error
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise ProtocolBroken(f"{context}: an error text of {len(text.encode())} bytes") from error
    if extra and typed and not action:
        return _typed_error(extra, context)
    # Arrow's code for the base class FlightError is UnknownError; its children are IOErrors.
    is_io_error = isinstance(error, (flight.FlightError, OSError)) and not text.startswith("Flight error: ")
    return AirportError(
        "IO",
        f"Airport @ {where}: {context} {text}",
        remote=True,
        retried=action and not drained and is_io_error,
    )


def _typed_error(extra: bytes, context: str) -> AirportError:
    try:
        details: Any = msgpack.unpackb(extra)
        kind, message = details["exception_type"], details["message"]
    except (ValueError, TypeError, KeyError, msgpack.UnpackException):
        raise ProtocolBroken(f"{context}: Failed to parse msgpack encoded error details: {extra!r}") from None
    if kind not in _TYPED:
        raise ProtocolBroken(f"{context}: Not implemented Error: Unknown exception type {kind}")
    return AirportError(_TYPED[kind], str(message), remote=True)


CALL_ERRORS = (flight.FlightError, pa.ArrowException, OSError)
"""What pyarrow raises when a call fails."""


def catalog_error(message: str) -> AirportError:
    """A failure that the client finds by itself in its copy of the catalog."""
    return AirportError("Catalog", message, remote=False)
