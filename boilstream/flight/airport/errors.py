"""Errors as DuckDB's Airport client shows them best.

The client puts the text of an error behind a prefix of its own, `IO Error: Airport @ <location>: ...`. In answers that
are streams it knows three kinds by `extra_info`, and shows those as `<kind> Error: <text>` and nothing else; any other
`extra_info` would hide the text. In actions it ignores `extra_info`, and waits 3 seconds before it shows an error that
Arrow counts as one of I/O, which are all Flight errors but the base class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow.flight as flight

from boilstream.errors import BoilStreamError, ConstraintViolated
from boilstream.flight.airport.codec import pack
from boilstream.flight.errors import CLASSES, told

_PERMISSION: Final = "PermissionException"
_CONSTRAINT: Final = "ConstraintException"
_INVALID_INPUT: Final = "InvalidInputException"

_KINDS: Final[Mapping[str, str]] = {
    "UNAUTHENTICATED": _PERMISSION,
    "PERMISSION_DENIED": _PERMISSION,
    "NOT_FOUND": _INVALID_INPUT,
    "ALREADY_EXISTS": _INVALID_INPUT,
    "INVALID_ARGUMENT": _INVALID_INPUT,
    "UNIMPLEMENTED": _INVALID_INPUT,
}
"""By the code of the error. The others are the server's trouble, not the statement's: IO Error says that best."""


def to_airport_error(error: BoilStreamError, error_id: str, *, typed: bool) -> flight.FlightError:
    """The Flight error for `error`; `typed` for every call but an action.

    The text begins with the code unless the kind says it. It holds no traceback, as those of `to_flight_error`.
    """
    if not typed:
        return flight.FlightError(told(error, error_id))
    kind = _CONSTRAINT if isinstance(error, ConstraintViolated) else _KINDS.get(error.code)
    if kind is None:
        return CLASSES.get(error.code, flight.FlightServerError)(told(error, error_id))
    text = told(error, error_id, with_code=False)
    return flight.FlightServerError(text, pack({"exception_type": kind, "message": text}))
