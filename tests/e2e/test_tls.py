"""TLS: who is refused before any token is looked at, and that the server survives it."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight
import pytest
import trustme

from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

pytestmark = pytest.mark.slow

ROWS = pa.table({"a": [1, 2, 3]})
PATH = ["s3", "events"]


@pytest.fixture(scope="module")
def client_ca() -> trustme.CA:
    """The CA whose certificates the server takes from clients; not the one of its own certificate."""
    return trustme.CA(organization_name="Clients")


@pytest.fixture(scope="module")
def server(
    client_ca: trustme.CA, issuer: IssuerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("tls")
    client_ca.cert_pem.write_to_path(folder / "clients.crt")
    environment = {"DATA_DIR": str(folder / "data"), "TLS_CLIENT_CA_PATH": str(folder / "clients.crt")}
    with ServerProcess(issuer.environment() | environment) as process:
        yield process


@pytest.fixture(autouse=True)
def _the_server_lives(server: ServerProcess, client_ca: trustme.CA, issuer: IssuerProcess) -> Iterator[None]:
    """Around every test here: the same process serves who has all that is needed."""
    pid = server.pid
    yield
    assert server.pid == pid
    connection = connect(server, issuer, client_ca.issue_cert("etl@client.example"))
    assert health(connection, issuer.token(groups="Readers"))["status"] == "ok"
    connection.close()


def connect(
    server: ServerProcess, issuer: IssuerProcess, certificate: trustme.LeafCert | None
) -> flight.FlightClient:
    pair = {}
    if certificate is not None:
        pair = {
            "cert_chain": b"".join(pem.bytes() for pem in certificate.cert_chain_pems),
            "private_key": certificate.private_key_pem.bytes(),
        }
    location = server.location.replace("127.0.0.1", "localhost")
    return flight.connect(location, tls_root_certs=issuer.ca_cert.read_bytes(), **pair)


def health(connection: flight.FlightClient, token: str | None) -> dict[str, str]:
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    options = flight.FlightCallOptions(headers=headers, timeout=20)
    (result,) = connection.do_action(flight.Action("health", b""), options)
    found: dict[str, str] = json.loads(result.body.to_pybytes())
    return found


def test_a_client_with_a_certificate_and_a_token_is_served(
    server: ServerProcess, issuer: IssuerProcess, client_ca: trustme.CA
) -> None:
    client = Client(server.location, issuer.token(groups="Writers"), issuer.ca_cert)
    client.connection.close()
    client.connection = connect(server, issuer, client_ca.issue_cert("etl@client.example"))
    assert client.put(PATH, ROWS)["rows"] == 3
    assert client.get(PATH).num_rows >= 3
    client.close()


def test_a_certificate_does_not_replace_the_token(
    server: ServerProcess, issuer: IssuerProcess, client_ca: trustme.CA
) -> None:
    connection = connect(server, issuer, client_ca.issue_cert("etl@client.example"))
    for token in (None, "garbage", issuer.token(groups="Readers", age=7200)):
        with pytest.raises(flight.FlightUnauthenticatedError, match="UNAUTHENTICATED"):
            health(connection, token)
    connection.close()


@pytest.mark.parametrize("whose", ["none", "stranger", "server's CA"])
def test_without_a_certificate_of_the_client_ca_nobody_is_served(
    server: ServerProcess, issuer: IssuerProcess, whose: str
) -> None:
    certificate = None
    if whose == "stranger":
        certificate = trustme.CA(organization_name="Clients").issue_cert("etl@client.example")
    connection = connect(server, issuer, certificate)
    if whose == "server's CA":
        connection.close()
        connection = flight.connect(
            server.location.replace("127.0.0.1", "localhost"),
            tls_root_certs=issuer.ca_cert.read_bytes(),
            cert_chain=(issuer.folder / "server.crt").read_bytes(),
            private_key=(issuer.folder / "server.key").read_bytes(),
        )
    with pytest.raises(flight.FlightUnavailableError):
        health(connection, issuer.token(groups="Admins"))
    connection.close()


def test_a_client_that_does_not_trust_the_server_sends_no_token(
    server: ServerProcess, issuer: IssuerProcess, client_ca: trustme.CA
) -> None:
    location = server.location.replace("127.0.0.1", "localhost")
    connection = flight.connect(location, tls_root_certs=client_ca.cert_pem.bytes())
    with pytest.raises(flight.FlightUnavailableError):
        health(connection, issuer.token(groups="Admins"))
    connection.close()


def test_a_client_without_tls_fails_and_the_server_lives(
    server: ServerProcess, issuer: IssuerProcess
) -> None:
    connection = flight.connect(server.location.replace("grpc+tls://", "grpc://"))
    with pytest.raises(flight.FlightError) as caught:
        health(connection, issuer.token(groups="Admins"))
    assert isinstance(caught.value, flight.FlightUnavailableError | flight.FlightTimedOutError)
    connection.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /flight/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 9,
        b"\x16\x03\x01\xff\xff" + b"\xff" * 4096,
        bytes(range(256)) * 64,
    ],
    ids=["nothing", "http", "h2", "tls", "noise"],
)
def test_bytes_that_are_no_tls_do_no_harm(server: ServerProcess, sent: bytes) -> None:
    port = int(server.location.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        with contextlib.suppress(ConnectionError):  # the server may hang up before it has read all
            raw.sendall(sent)
        with contextlib.suppress(OSError):  # ENOTCONN, if it has hung up already
            raw.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while answer := raw.recv(65_536):
                assert b"Traceback" not in answer


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
def test_old_tls_is_refused(
    server: ServerProcess, issuer: IssuerProcess, client_ca: trustme.CA, version: str
) -> None:
    context = ssl.create_default_context(cafile=str(issuer.ca_cert))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    client_ca.issue_cert("etl@client.example").configure_cert(context)
    port = int(server.location.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        if version in {"TLSv1", "TLSv1_1"}:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                context.wrap_socket(raw, server_hostname="localhost")
            return
        with context.wrap_socket(raw, server_hostname="localhost") as secure:
            assert secure.selected_alpn_protocol() == "h2"
            assert secure.recv(1), "the server's HTTP/2 settings"


@pytest.mark.parametrize("content", ["", "not a certificate"])
def test_a_client_ca_that_is_none_stops_the_start(
    issuer: IssuerProcess, tmp_path: Path, content: str
) -> None:
    (tmp_path / "clients.crt").write_text(content)
    environment = {"DATA_DIR": str(tmp_path / "data"), "TLS_CLIENT_CA_PATH": str(tmp_path / "clients.crt")}
    ended = subprocess.run(
        [sys.executable, "-m", "boilstream", "serve"],
        env=issuer.environment() | environment | {"FLIGHT_HOST": "127.0.0.1", "FLIGHT_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "TLS_CLIENT_CA_PATH" in ended.stderr
    assert "Traceback" not in ended.stderr
