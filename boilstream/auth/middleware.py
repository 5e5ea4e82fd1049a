"""The Flight middleware that lets no call through without a valid bearer token."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pyarrow import flight

from boilstream.auth.identity import Identity
from boilstream.auth.manager import AuthManager
from boilstream.errors import BoilStreamError, Internal, Unauthenticated

MIDDLEWARE_KEY: Final = "auth"
"""Name under which the server registers the factory and `identity_of` finds the caller."""

ANONYMOUS: Final = Identity(provider="anonymous", subject="anonymous")
"""Every caller of a server without providers."""

_HOW_TO = "send the header authorization: Bearer <token>"

_LOGGER = logging.getLogger("boilstream.auth.middleware")

Headers = Mapping[str, Sequence[str | bytes]]


class AuthMiddleware(flight.ServerMiddleware):  # type: ignore[misc]  # pyarrow has no types
    """Holds the caller of one call."""

    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self.identity = identity


class AuthMiddlewareFactory(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    """Authenticates every call before its handler runs.

    Without a `manager` every caller is ANONYMOUS. `to_flight_error` translates an error of ours into
    the exception that goes over the wire; no other exception leaves this class, because Flight would
    send its traceback to the client.
    """

    def __init__(
        self, manager: AuthManager | None, to_flight_error: Callable[[BoilStreamError], Exception]
    ) -> None:
        super().__init__()
        self._manager = manager
        self._to_flight_error = to_flight_error

    def start_call(self, info: Any, headers: Headers) -> AuthMiddleware:  # noqa: ARG002 - pyarrow's signature
        """Called by Flight for each call, on the thread that will run it."""
        if self._manager is None:
            return AuthMiddleware(ANONYMOUS)
        try:
            return AuthMiddleware(self._manager.authenticate(bearer_token(headers)))
        except BoilStreamError as error:
            raise self._to_flight_error(error) from None
        except Exception as error:  # noqa: BLE001 - see the class docstring
            # Not the message: that of a library could quote the token.
            frames = [
                f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
            ]
            _LOGGER.error(
                "Authentication failed by a defect: %s at %s", type(error).__name__, " < ".join(frames[::-1])
            )
            raise self._to_flight_error(Internal("authentication failed by a defect of the server")) from None


def bearer_token(headers: Headers) -> str:
    """The one bearer token of a call (RFC 6750, 2.1); header name and scheme in any letter case.

    Raises Unauthenticated, saying how to send it.
    """
    values = [value for name, sent in headers.items() if name.lower() == "authorization" for value in sent]
    if not values:
        raise Unauthenticated(f"no bearer token: {_HOW_TO}")
    if len(values) > 1:
        raise Unauthenticated(f"{len(values)} authorization headers: {_HOW_TO}, once")
    value = values[0].decode("latin-1") if isinstance(values[0], bytes) else values[0]
    scheme, _, token = value.strip(" ").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated(f"the authorization header has another scheme than Bearer: {_HOW_TO}")
    token = token.strip(" ")
    if not token:
        raise Unauthenticated(f"the bearer token is empty: {_HOW_TO}")
    return token


def identity_of(context: Any) -> Identity:
    """The caller of the call that `context` (`flight.ServerCallContext`) belongs to.

    Raises Internal when the server was built without the middleware: then nobody was checked.
    """
    middleware = context.get_middleware(MIDDLEWARE_KEY)
    if not isinstance(middleware, AuthMiddleware):
        raise Internal("this call was not authenticated")
    return middleware.identity
