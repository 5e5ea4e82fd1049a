"""The server's own certificate and the CA of its clients, as the settings name them."""

from __future__ import annotations

import ssl
from pathlib import Path

from boilstream.errors import ConfigurationError
from boilstream.settings import Settings


def read_certificates(settings: Settings) -> tuple[list[tuple[bytes, bytes]] | None, bytes | None]:
    """Certificate pairs and client CA in PEM, checked; gRPC itself would accept anything and then not serve.

    (None, None) means to serve without TLS. Raises ConfigurationError.
    """
    cert, key = settings.tls_files
    if cert is None or key is None:
        return None, None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
        pair = [(cert.read_bytes(), key.read_bytes())]
    except PermissionError as error:
        raise ConfigurationError(
            f"TLS_CERT_PATH and TLS_KEY_PATH: this process may not read {error.filename or key}; "
            "give its user the right, for example chown 10001 certs/server.key for the container"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TLS_CERT_PATH and TLS_KEY_PATH: {cert} and {key} are not a certificate and its unencrypted key in PEM "
            f"({error}); for example TLS_CERT_PATH=certs/server.crt TLS_KEY_PATH=certs/server.key"
        ) from error
    return pair, _client_ca(settings.tls_client_ca_path)


def _client_ca(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TLS_CLIENT_CA_PATH: {path} has no CA certificate in PEM ({error}); for example "
            "TLS_CLIENT_CA_PATH=certs/client-ca.crt"
        ) from error
