"""The health check of a container: `python -m boilstream.flight.probe`.

It needs no token: a server that refuses the probe as unauthenticated has answered. The settings
are those of the server, from the same environment.
"""

from __future__ import annotations

import socket
import ssl
import sys
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
from cryptography import x509

from boilstream.errors import BoilStreamError, ConfigurationError, Unavailable
from boilstream.settings import Settings, load

TIMEOUT_SECONDS = 3.0
"""Longest wait for an answer."""

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, not to listen


def probe(settings: Settings, timeout: float = TIMEOUT_SECONDS) -> None:
    """Return if the Flight port of `settings` answers within `timeout` seconds.

    With TLS the server must show the very certificate that the settings name. Raises Unavailable,
    saying what is wrong, and ConfigurationError when the certificate cannot be read.
    """
    host = _EVERY_ADDRESS.get(settings.flight_host, settings.flight_host)
    certificate = settings.tls_files[0]
    try:
        chain = None if certificate is None else certificate.read_bytes()
        name = "" if chain is None else _name_in(chain)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TLS_CERT_PATH: {certificate} is not a readable certificate in PEM; for example "
            "TLS_CERT_PATH=certs/server.crt"
        ) from error
    try:
        if chain is not None and settings.tls_client_ca_path:
            _shake_hands(host, settings.flight_port, chain, name, timeout)
        else:
            _list_actions(host, settings.flight_port, chain, name, timeout)
    except flight.FlightUnauthenticatedError:
        return  # an answer of the server itself
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [""])[0][:300]
        raise Unavailable(f"no answer from {host} port {settings.flight_port}: {reason}") from error


def _list_actions(host: str, port: int, chain: bytes | None, name: str, timeout: float) -> None:
    tls: dict[str, Any] = {"tls_root_certs": chain, "override_hostname": name} if chain else {}
    bracketed = f"[{host}]" if ":" in host else host
    with flight.connect(f"grpc{'+tls' if chain else ''}://{bracketed}:{port}", **tls) as client:
        client.list_actions(flight.FlightCallOptions(timeout=timeout))


def _shake_hands(host: str, port: int, chain: bytes, name: str, timeout: float) -> None:
    """Meet a server that wants a client certificate; the probe has none, so no call can follow."""
    context = ssl.create_default_context(cadata=chain.decode("ascii"))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, port), timeout) as connection,
        context.wrap_socket(connection, server_hostname=name) as channel,
    ):
        if channel.selected_alpn_protocol() != "h2":
            raise Unavailable(f"{host} port {port} does not speak HTTP/2")


def _name_in(chain: bytes) -> str:
    """A host name that the server's certificate is valid for; raises ValueError if it has none."""
    leaf = x509.load_pem_x509_certificates(chain)[0]
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("no subject alternative name") from None
    found = [
        *names.get_values_for_type(x509.DNSName),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    ]
    if not found:
        raise ValueError("no subject alternative name of a host")
    return found[0].replace("*", "wildcard", 1)


def main() -> None:
    """Exit with 0 if the server answers, else with 1 and the reason on standard error."""
    try:
        probe(load())
    except BoilStreamError as error:
        sys.exit(f"boilstream: {error.message}")


if __name__ == "__main__":
    main()
