"""The calls of the extension: which headers and which token each of them carries (1.3, 2.3)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import pyarrow.flight as flight

from tests.support.airport.errors import CALL_ERRORS, ClientWouldCrash, ProtocolBroken, remote_error

USER_AGENT = "airport/20250723"

TWICE = {
    "add_column",
    "remove_column",
    "rename_column",
    "rename_table",
    "change_column_type",
    "set_default",
    "set_not_null",
    "drop_not_null",
    "add_field",
    "rename_field",
    "remove_field",
    "add_constraint",
}
"""Actions that name themselves in two headers."""

DRAINED = {"drop_table", "drop_schema"}
"""Actions whose results nobody looks at."""

_SECONDS = 60
"""Deadline of a call, so that a test ends; the extension has none."""


@dataclass(frozen=True)
class Call:
    """One call that was made."""

    name: str
    """The action, or `DoGet`, `DoExchange[insert]`, `ListFlights`."""
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key == name]


@dataclass(frozen=True)
class Scan:
    """What the data calls of one statement and table share."""

    descriptor: flight.FlightDescriptor
    transaction: str | None
    trace: str = field(default_factory=lambda: str(uuid.uuid4()))

    def headers(self) -> list[tuple[str, str]]:
        headers = [("airport-trace-id", self.trace)]
        if self.descriptor.path:
            path = b"/".join(self.descriptor.path).decode("latin-1")
            headers.append(("airport-flight-path", path))
        if self.transaction:
            headers.append(("airport-transaction-id", self.transaction))
        return headers


class Calls:
    """The calls of one attachment; keeps a record of them."""

    def __init__(
        self,
        location: str,
        *,
        ca: Path | None,
        catalog: str,
        attach_token: str | None,
        secret_token: str | None,
        session: str,
    ) -> None:
        self.location = location
        self.catalog = catalog
        self.record: list[Call] = []
        self._session = session
        self._attach_token = attach_token or secret_token
        self._secret_token = secret_token
        options = {"tls_root_certs": ca.read_bytes()} if ca else {}
        self.connection = flight.FlightClient(location, **options)

    def action(self, name: str, body: Mapping[str, Any], *, scan: Scan | None = None) -> bytes:
        """The body of the single result; empty for actions whose result nobody looks at.

        With a `scan` it is a data call: the token of ATTACH is not sent then.
        """
        packed = msgpack.packb(_as_text(body), unicode_errors="surrogateescape")
        return self.raw_action(name, packed, scan=scan)

    def raw_action(self, name: str, packed: bytes, *, scan: Scan | None = None) -> bytes:
        """The same with a body of exactly these bytes."""
        extra = [("airport-action-name", name)] * (2 if name in TWICE else 1)
        options = self._options(name, extra, scan)
        action = flight.Action(name, packed)
        where = self.where(scan.descriptor if scan else None)
        try:
            results = [result.body.to_pybytes() for result in self.connection.do_action(action, options)]
        except CALL_ERRORS as error:
            raise remote_error(
                error, where=where, context=name, action=True, drained=name in DRAINED
            ) from error
        if name in DRAINED:
            return b""
        if not results:
            raise ClientWouldCrash(f"{name} was answered without a result")
        if len(results) > 1:
            raise ProtocolBroken(f"{name} was answered with {len(results)} results")
        return bytes(results[0])

    def list_flights(self, schema_name: str) -> list[bytes]:
        """The FlightInfos of a schema whose contents are not inline (3.4)."""
        extra = [
            ("airport-list-flights-filter-catalog", self.catalog),
            ("airport-list-flights-filter-schema", schema_name),
        ]
        options = self._options("ListFlights", extra, None)
        try:
            return [info.serialize() for info in self.connection.list_flights(b"", options)]
        except CALL_ERRORS as error:
            raise remote_error(error, where=self.where(None), context="ListFlights") from error

    def get(self, ticket: flight.Ticket, scan: Scan) -> flight.FlightStreamReader:
        """Open a DoGet stream; errors are pyarrow's."""
        return self.connection.do_get(ticket, self._options("DoGet", [], scan))

    def exchange(
        self, operation: str, scan: Scan, *, returning: bool
    ) -> tuple[flight.FlightStreamWriter, flight.FlightStreamReader]:
        """Open a DoExchange stream; errors are pyarrow's."""
        extra = [("airport-operation", operation), ("return-chunks", "1" if returning else "0")]
        options = self._options(f"DoExchange[{operation}]", extra, scan)
        return self.connection.do_exchange(scan.descriptor, options)  # type: ignore[no-any-return]  # no types

    def where(self, descriptor: flight.FlightDescriptor | None) -> str:
        """The place that error texts name."""
        path = b"/".join(descriptor.path or []).decode("latin-1") if descriptor else ""
        slash = "" if self.location.endswith("/") or not path else "/"
        return f"{self.location}{slash}{path}"

    def close(self) -> None:
        self.connection.close()

    def _options(
        self, name: str, extra: list[tuple[str, str]], scan: Scan | None
    ) -> flight.FlightCallOptions:
        headers = [
            ("airport-user-agent", USER_AGENT),
            ("authority", self.location),
            ("airport-client-session-id", self._session),
        ]
        if self.catalog:
            headers.append(("airport-catalog", self.catalog))
        token = self._attach_token if scan is None else self._secret_token
        if token is not None:
            headers.append(("authorization", f"Bearer {token}"))
        headers += extra
        if scan is not None:
            headers += scan.headers()
        for key, value in headers:
            if not value.isascii() or not value.isprintable():
                raise ClientWouldCrash(f"{key}: {value!r}: Illegal header value")
        self.record.append(Call(name, tuple(headers)))
        encoded = [(key.encode(), value.encode()) for key, value in headers]
        return flight.FlightCallOptions(headers=encoded, timeout=_SECONDS)


def _as_text(value: Any) -> Any:
    """The value with bytes turned into msgpack *str*, as the C++ client packs them (1.4)."""
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if isinstance(value, Mapping):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return value
