"""What an RPC handler knows of its call beside its arguments."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import pyarrow.flight as flight

MIDDLEWARE_KEY = "call"


class CallMiddleware(flight.ServerMiddleware):  # type: ignore[misc]  # pyarrow has no stubs
    """The headers of one call."""

    def __init__(self, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        self._headers = {name.lower(): values for name, values in headers.items()}

    def header(self, name: str) -> str | None:
        """First value of the header, whose name is given in lower case; None if it is absent."""
        values = self._headers.get(name)
        if not values:
            return None
        return values[0] if isinstance(values[0], str) else values[0].decode(errors="replace")


class CallMiddlewareFactory(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no stubs
    """Keeps the headers of every call for its handler."""

    def start_call(self, _info: object, headers: Mapping[str, Sequence[str | bytes]]) -> CallMiddleware:
        """Called by Flight at the start of every RPC."""
        return CallMiddleware(headers)


def header(context: flight.ServerCallContext, name: str) -> str | None:
    """A header of the call, by its lower-case name."""
    middleware: CallMiddleware = context.get_middleware(MIDDLEWARE_KEY)
    return middleware.header(name)


class Connection:
    """Tells other threads whether the client of a running call has gone.

    The context of a call may not be touched once its handler has returned; after that this says
    that the client has gone, because it will get no more answer. Use it as a context manager
    around the handler.
    """

    def __init__(self, context: flight.ServerCallContext) -> None:
        self._context: flight.ServerCallContext | None = context
        self._lock = threading.Lock()

    def has_gone(self) -> bool:
        """Whether the connection is lost, the call is cancelled, or the handler has returned."""
        with self._lock:
            return self._context is None or bool(self._context.is_cancelled())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._context = None
