"""The health check against real Flight servers, and against what is none."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.flight as flight
import pytest
import trustme

from boilstream.dev.certificates import DevCertificates, make_certificates
from boilstream.errors import ConfigurationError, Unavailable
from boilstream.flight.probe import main, probe
from boilstream.settings import Settings, load


class Refusing(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # pyarrow has no stubs
    """Answers every call with one error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def start_call(self, info: Any, headers: Any) -> None:
        raise self._error


class Server(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no stubs
    def list_actions(self, context: flight.ServerCallContext) -> list[tuple[str, str]]:
        return [("health", "says how the server is")]


Serve = Callable[..., int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server and returns its port."""
    with ExitStack() as servers:

        def start(
            error: Exception | None = None, certificates: DevCertificates | None = None, **options: Any
        ) -> int:
            if certificates is not None:
                options["tls_certificates"] = [
                    (certificates.server_cert.read_bytes(), certificates.server_key.read_bytes())
                ]
            scheme = "grpc+tls" if certificates else "grpc"
            middleware = {"auth": Refusing(error)} if error else {}
            server = servers.enter_context(
                Server(f"{scheme}://127.0.0.1:0", middleware=middleware, **options)
            )
            port: int = server.port
            return port

        yield start


@pytest.fixture
def silent() -> Iterator[int]:
    """Port of somebody who accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> DevCertificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def settings(port: int, certificates: DevCertificates | None = None, **others: object) -> Settings:
    if certificates is not None:
        others |= {"tls_cert_path": certificates.server_cert, "tls_key_path": certificates.server_key}
    return load(flight_port=port, **others)


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost"])
def test_a_server_without_authentication_is_healthy(serve: Serve, host: str) -> None:
    probe(settings(serve(), flight_host=host))


def test_a_server_that_asks_for_a_token_is_healthy(serve: Serve) -> None:
    probe(settings(serve(flight.FlightUnauthenticatedError("no bearer token"))))


@pytest.mark.parametrize("error", [flight.FlightUnavailableError("drained"), flight.FlightInternalError("x")])
def test_a_server_that_fails_otherwise_is_not(serve: Serve, error: Exception) -> None:
    with pytest.raises(Unavailable, match="no answer"):
        probe(settings(serve(error)))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unavailable, match=f"port {port}"):
        probe(settings(port))


@pytest.mark.slow
def test_somebody_listens_and_says_nothing(silent: int) -> None:
    with pytest.raises(Unavailable):
        probe(settings(silent), timeout=0.3)


@pytest.mark.parametrize("host", ["localhost", "boilstream.company.com", "*.company.com", "192.0.2.7"])
def test_tls_for_any_name(serve: Serve, tmp_path: Path, host: str) -> None:
    pair = trustme.CA().issue_cert(host)
    made = DevCertificates(tmp_path / "ca.crt", tmp_path / "server.crt", tmp_path / "server.key")
    pair.cert_chain_pems[0].write_to_path(made.server_cert)
    pair.private_key_pem.write_to_path(made.server_key)
    probe(settings(serve(flight.FlightUnauthenticatedError("no bearer token"), made), made))


def test_the_authority_need_not_be_in_the_file(
    serve: Serve, certificates: DevCertificates, tmp_path: Path
) -> None:
    leaf = tmp_path / "leaf.crt"
    end = "-----END CERTIFICATE-----\n"
    leaf.write_text(certificates.server_cert.read_text().split(end)[0] + end)
    alone = DevCertificates(certificates.ca_cert, leaf, certificates.server_key)
    probe(settings(serve(certificates=alone), alone))


def test_a_server_with_another_certificate_is_somebody_else(
    serve: Serve, certificates: DevCertificates, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path)
    with pytest.raises(Unavailable):
        probe(settings(serve(certificates=other), certificates))


def test_a_server_without_tls_where_tls_is_set(serve: Serve, certificates: DevCertificates) -> None:
    with pytest.raises(Unavailable):
        probe(settings(serve(), certificates), timeout=1)


def test_a_server_that_wants_client_certificates_is_healthy(
    serve: Serve, certificates: DevCertificates
) -> None:
    port = serve(
        certificates=certificates, verify_client=True, root_certificates=certificates.ca_cert.read_bytes()
    )
    probe(settings(port, certificates, tls_client_ca_path=certificates.ca_cert))


@pytest.mark.slow
def test_client_certificates_and_somebody_who_says_nothing(
    silent: int, certificates: DevCertificates
) -> None:
    with pytest.raises(Unavailable):
        probe(settings(silent, certificates, tls_client_ca_path=certificates.ca_cert), timeout=0.3)


@pytest.mark.parametrize("text", ["", "not PEM"])
def test_a_certificate_that_is_none(certificates: DevCertificates, tmp_path: Path, text: str) -> None:
    broken = tmp_path / "server.crt"
    broken.write_text(text)
    with pytest.raises(ConfigurationError, match="TLS_CERT_PATH"):
        probe(settings(1, DevCertificates(certificates.ca_cert, broken, certificates.server_key)))


def test_the_command_says_nothing_when_all_is_well(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLIGHT_PORT", str(serve()))
    main()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("port", ["1", "no number"])
def test_the_command_explains_what_is_wrong_in_one_message(
    monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    monkeypatch.setenv("FLIGHT_PORT", port)
    with pytest.raises(SystemExit, match="boilstream: "):
        main()
