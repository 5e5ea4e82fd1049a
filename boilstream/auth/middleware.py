"""The Flight middleware that lets no call through without a valid bearer token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pyarrow import flight

from boilstream.auth.errors import defect
from boilstream.auth.identity import Identity
from boilstream.auth.manager import AuthManager
from boilstream.errors import BoilStreamError, Internal, Unauthenticated

MIDDLEWARE_KEY: Final = "auth"
"""Name under which the server registers the factory and `identity_of` finds the caller."""

ANONYMOUS: Final = Identity(provider="anonymous", subject="anonymous")
"""Every caller of a server without providers."""

_HOW_TO = "send the header authorization: Bearer <token>"

_SINGLE_REQUEST: Final = frozenset(
    {
        flight.FlightMethod.LIST_FLIGHTS,
        flight.FlightMethod.GET_FLIGHT_INFO,
        flight.FlightMethod.DO_GET,
        flight.FlightMethod.DO_ACTION,
        flight.FlightMethod.LIST_ACTIONS,
    }
)
"""Calls whose request is one message. GetSchema is one too, but its handlers cannot answer with a code of ours."""

_NAMES: Final = {
    flight.FlightMethod.DO_PUT: "DoPut",
    flight.FlightMethod.DO_EXCHANGE: "DoExchange",
    flight.FlightMethod.GET_SCHEMA: "GetSchema",
    flight.FlightMethod.HANDSHAKE: "Handshake",
}
"""The other calls, as the log names them."""

Headers = Mapping[str, Sequence[str | bytes]]


class AuthMiddleware(flight.ServerMiddleware):  # type: ignore[misc]  # pyarrow has no types
    """Holds the caller of one call, or why the call has none."""

    def __init__(self, caller: Identity | BoilStreamError) -> None:
        super().__init__()
        self.caller = caller


class AuthMiddlewareFactory(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    """Authenticates every call before its handler runs.

    Without a `manager` every caller is ANONYMOUS. Streams from clients without a valid token are refused
    here, before a byte of theirs is read: `refuse(error, call)` makes the exception that goes over the
    wire; no other exception leaves this class, because Flight would send its traceback to the client.
    Calls of _SINGLE_REQUEST have been read by now; there `identity_of` raises the refusal, because only a
    handler can tell the network address, and whether the call needs a token (the action `session` does not).
    """

    def __init__(
        self, manager: AuthManager | None, refuse: Callable[[BoilStreamError, str], Exception]
    ) -> None:
        super().__init__()
        self._manager = manager
        self._refuse = refuse

    def start_call(self, info: Any, headers: Headers) -> AuthMiddleware:
        """Called by Flight for each call, on the thread that will run it."""
        caller = self._authenticate(headers)
        if isinstance(caller, BoilStreamError) and info.method not in _SINGLE_REQUEST:
            raise self._refuse(caller, _NAMES.get(info.method, "unknown call")) from None
        return AuthMiddleware(caller)

    def _authenticate(self, headers: Headers) -> Identity | BoilStreamError:
        if self._manager is None:
            return ANONYMOUS
        try:
            return self._manager.authenticate(bearer_token(headers))
        except BoilStreamError as error:
            return error
        except Exception as error:  # noqa: BLE001 - see the class docstring
            return defect(error)


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

    Raises why the call has none: Unauthenticated, KeysUnavailable, or Internal, also when the server was
    built without the middleware, for then nobody was checked.
    """
    middleware = context.get_middleware(MIDDLEWARE_KEY)
    if not isinstance(middleware, AuthMiddleware):
        raise Internal("this call was not authenticated")
    if isinstance(middleware.caller, BoilStreamError):
        raise middleware.caller
    return middleware.caller
