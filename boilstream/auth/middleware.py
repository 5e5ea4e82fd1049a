"""The Flight middleware that lets no call through without a valid bearer token.

DuckDB's Airport client, known by AIRPORT_HEADER, sends some calls without the token that it has. It sends a
transaction id with them, which this server gave it on a call with the token; that id is their credential
(see `boilstream.auth.capability`). A call that has both is authenticated by the token alone, and its id must belong to
the same principal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pyarrow import flight

from boilstream.auth.capability import Capabilities, TransactionRefused
from boilstream.auth.errors import defect
from boilstream.auth.identity import Identity
from boilstream.auth.manager import AuthManager
from boilstream.errors import BoilStreamError, Internal, Unauthenticated

MIDDLEWARE_KEY: Final = "auth"
"""Name under which the server registers the factory and `identity_of` finds the caller."""

ANONYMOUS: Final = Identity(provider="anonymous", subject="anonymous")
"""Every caller of a server without providers."""

AIRPORT_HEADER: Final = "airport-user-agent"
"""Is on every call of an Airport client, and on no other. Header names on the wire are lower case (RFC 9113, 8.2.1)."""

TRANSACTION_HEADER: Final = "airport-transaction-id"
CLIENT_SESSION_HEADER: Final = "airport-client-session-id"
CATALOG_HEADER: Final = "airport-catalog"

_HOW_TO = "send the header authorization: Bearer <token>"
_HOW_TO_IN_DUCKDB = (
    "in DuckDB: CREATE SECRET (TYPE airport, auth_token '<token>', SCOPE '<location of ATTACH>')"
)

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

_WITH_TRANSACTION: Final = frozenset(
    {flight.FlightMethod.DO_GET, flight.FlightMethod.DO_EXCHANGE, flight.FlightMethod.DO_ACTION}
)
"""Calls that a transaction id may open; which actions, and whether this one, their handlers say."""

_NAMES: Final = {
    flight.FlightMethod.DO_PUT: "DoPut",
    flight.FlightMethod.DO_EXCHANGE: "DoExchange",
    flight.FlightMethod.GET_SCHEMA: "GetSchema",
    flight.FlightMethod.HANDSHAKE: "Handshake",
}
"""The other calls, as the log names them."""

Headers = Mapping[str, Sequence[str | bytes]]
Refuse = Callable[[BoilStreamError, str, Headers], Exception]

_LOGGER = logging.getLogger("boilstream.auth.middleware")


class AuthMiddleware(flight.ServerMiddleware):  # type: ignore[misc]  # pyarrow has no types
    """Holds the caller of one call, or why the call has none."""

    def __init__(
        self, caller: Identity | BoilStreamError, *, method: Any = None, by_transaction: bool = False
    ) -> None:
        """`method` is the `flight.FlightMethod`; `by_transaction`: a transaction id is all that the call brought."""
        super().__init__()
        self.caller = caller
        self.is_action = method == flight.FlightMethod.DO_ACTION
        self.by_transaction = by_transaction


class AuthMiddlewareFactory(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no types
    """Authenticates every call before its handler runs.

    Without a `manager` every caller is ANONYMOUS, and transaction ids are not looked at. Streams from clients
    without a valid token are refused here, before a byte of theirs is read: `refuse(error, call, headers)` makes the
    exception that goes over the wire; no other exception leaves this class, because Flight would send its traceback
    to the client. Calls of _SINGLE_REQUEST have been read by now; there `identity_of` raises the refusal, because only
    a handler can tell the network address, and whether the call needs a token (the action `session` does not).
    """

    def __init__(self, manager: AuthManager | None, refuse: Refuse, capabilities: Capabilities) -> None:
        super().__init__()
        self._manager = manager
        self._refuse = refuse
        self._capabilities = capabilities

    def start_call(self, info: Any, headers: Headers) -> AuthMiddleware:
        """Called by Flight for each call, on the thread that will run it."""
        if self._manager is None:
            return AuthMiddleware(ANONYMOUS, method=info.method)
        brings_transaction = TRANSACTION_HEADER in headers and AIRPORT_HEADER in headers
        capabilities = self._capabilities if brings_transaction else None
        by_transaction = (
            capabilities is not None
            and info.method in _WITH_TRANSACTION
            and not _values(headers, "authorization")
        )
        caller = _authenticate(self._manager, headers, capabilities, by_transaction=by_transaction)
        if isinstance(caller, BoilStreamError) and info.method not in _SINGLE_REQUEST:
            raise self._refuse(caller, _NAMES.get(info.method, "unknown call"), headers) from None
        return AuthMiddleware(caller, method=info.method, by_transaction=by_transaction)


def _authenticate(
    manager: AuthManager, headers: Headers, capabilities: Capabilities | None, *, by_transaction: bool
) -> Identity | BoilStreamError:
    """The caller, or why there is none; with `capabilities` by a transaction id, or by a token and an id."""
    try:
        if capabilities is None:
            return manager.authenticate(bearer_token(headers))
        if by_transaction:
            return capabilities.redeem(_single(headers, TRANSACTION_HEADER) or "", **_attachment(headers))
        identity = manager.authenticate(bearer_token(headers))
        capabilities.check(_single(headers, TRANSACTION_HEADER) or "", identity, **_attachment(headers))
    except TransactionRefused as error:
        _LOGGER.warning("Refused a transaction id: %s", error.message)
        return error
    except BoilStreamError as error:
        return error
    except Exception as error:  # noqa: BLE001 - see AuthMiddlewareFactory
        return defect(error)
    return identity


def bearer_token(headers: Headers) -> str:
    """The one bearer token of a call (RFC 6750, 2.1); header name and scheme in any letter case.

    Raises Unauthenticated, saying how to send it.
    """
    values = _values(headers, "authorization")
    if not values:
        where = f"; {_HOW_TO_IN_DUCKDB}" if AIRPORT_HEADER in headers else ""
        raise Unauthenticated(f"no bearer token: {_HOW_TO}{where}")
    if len(values) > 1:
        raise Unauthenticated(f"{len(values)} authorization headers: {_HOW_TO}, once")
    scheme, _, token = values[0].strip(" ").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated(f"the authorization header has another scheme than Bearer: {_HOW_TO}")
    token = token.strip(" ")
    if not token:
        raise Unauthenticated(f"the bearer token is empty: {_HOW_TO}")
    return token


def _attachment(headers: Headers) -> dict[str, str | None]:
    """What the call says of where it belongs, by the names of `Capabilities.redeem`."""
    return {
        "catalog": _single(headers, CATALOG_HEADER),
        "client_session": _single(headers, CLIENT_SESSION_HEADER),
    }


def _single(headers: Headers, name: str) -> str | None:
    """The value of a header, None without it; raises TransactionRefused when there are several."""
    values = _values(headers, name)
    if len(values) > 1:
        raise TransactionRefused(f"{len(values)} headers {name}: send one")
    return values[0] if values else None


def _values(headers: Headers, name: str) -> list[str]:
    """All values of a header, whose name is given in lower case and may be sent in any."""
    values = [value for sent, listed in headers.items() if sent.lower() == name for value in listed]
    return [value.decode("latin-1") if isinstance(value, bytes) else value for value in values]


def identity_of(context: Any, *, transaction_suffices: bool = False) -> Identity:
    """The caller of the call that `context` (`flight.ServerCallContext`) belongs to.

    A caller that is known by a transaction id alone counts if `transaction_suffices`: for what Airport's client sends
    without its token, and nothing else. Raises why the call has none: Unauthenticated, KeysUnavailable, or Internal,
    also when the server was built without the middleware, for then nobody was checked.
    """
    middleware = context.get_middleware(MIDDLEWARE_KEY)
    if not isinstance(middleware, AuthMiddleware):
        raise Internal("this call was not authenticated")
    if middleware.by_transaction and not transaction_suffices:
        raise Unauthenticated(
            f"no bearer token: a transaction id does not open this call; {_HOW_TO}; {_HOW_TO_IN_DUCKDB}"
        )
    if isinstance(middleware.caller, BoilStreamError):
        raise middleware.caller
    return middleware.caller
