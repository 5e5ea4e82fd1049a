from __future__ import annotations

import http.server
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from cryptography import x509

from boilstream.dev.certificates import DevCertificates, make_certificates
from boilstream.errors import ConfigurationError

DAY = 86_400
NOW = datetime(2030, 1, 1, tzinfo=UTC).timestamp()


def contents(files: DevCertificates) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in (files.ca_cert, files.server_cert, files.server_key))


def server_certificate(files: DevCertificates) -> x509.Certificate:
    return x509.load_pem_x509_certificates(files.server_cert.read_bytes())[0]


def test_names_validity_and_modes(tmp_path: Path) -> None:
    files = make_certificates(tmp_path, hosts=("Issuer", "10.0.0.7", "::1"), days=9, clock=lambda: NOW)
    server, authority = x509.load_pem_x509_certificates(files.server_cert.read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["issuer"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("10.0.0.7"), ip_address("::1")]
    assert server.not_valid_after_utc.timestamp() == NOW + 9 * DAY
    assert server.not_valid_before_utc.timestamp() < NOW
    assert authority == x509.load_pem_x509_certificate(files.ca_cert.read_bytes())
    server.verify_directly_issued_by(authority)
    assert stat.S_IMODE(files.server_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.ca_cert.stat().st_mode) == 0o644


def test_the_key_of_the_authority_is_not_kept(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.crt", "server.crt", "server.key"]
    keys = [path for path in tmp_path.iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert keys == [files.server_key]


def test_valid_files_are_reused(tmp_path: Path) -> None:
    first = contents(make_certificates(tmp_path, days=30, clock=lambda: NOW))
    fewer_hosts = make_certificates(tmp_path, hosts=["127.0.0.1"], days=30, clock=lambda: NOW + 29 * DAY)
    assert contents(fewer_hosts) == first


@pytest.mark.parametrize("seconds", [29 * DAY + 1, 31 * DAY, -2 * 3600])
def test_files_that_end_within_a_day_or_are_not_valid_yet_are_replaced(tmp_path: Path, seconds: int) -> None:
    first = contents(make_certificates(tmp_path, clock=lambda: NOW))
    second = contents(make_certificates(tmp_path, clock=lambda: NOW + seconds))
    assert not set(first) & set(second)


def test_a_new_host_makes_new_files(tmp_path: Path) -> None:
    make_certificates(tmp_path, clock=lambda: NOW)
    files = make_certificates(tmp_path, hosts=("localhost", "boilstream"), clock=lambda: NOW)
    names = server_certificate(files).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "boilstream"]


def swap_key(files: DevCertificates, other: DevCertificates) -> None:
    files.server_key.write_bytes(other.server_key.read_bytes())


def swap_authority(files: DevCertificates, other: DevCertificates) -> None:
    files.ca_cert.write_bytes(other.ca_cert.read_bytes())


def truncate_server(files: DevCertificates, other: DevCertificates) -> None:
    files.server_cert.write_bytes(files.server_cert.read_bytes()[:100])


def empty_server(files: DevCertificates, other: DevCertificates) -> None:
    files.server_cert.write_bytes(b"")


def lose_key(files: DevCertificates, other: DevCertificates) -> None:
    files.server_key.unlink()


@pytest.mark.parametrize("damage", [swap_key, swap_authority, truncate_server, empty_server, lose_key])
def test_files_that_do_not_belong_together_are_replaced(
    tmp_path: Path, damage: Callable[[DevCertificates, DevCertificates], None]
) -> None:
    files, other = make_certificates(tmp_path / "a"), make_certificates(tmp_path / "b")
    damage(files, other)
    damaged = server_certificate(other).serial_number
    renewed = make_certificates(tmp_path / "a")
    assert contents(renewed) == contents(make_certificates(tmp_path / "a"))
    assert server_certificate(renewed).serial_number != damaged
    context = ssl.create_default_context(cafile=str(renewed.ca_cert))
    context.load_cert_chain(renewed.server_cert, renewed.server_key)


@pytest.mark.parametrize("host", ["", "two words", "a..b", "-a", "täulu", "localhost:50051", "a/b"])
def test_a_host_that_no_certificate_can_name_is_told(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError, match="neither a DNS name nor an IP address"):
        make_certificates(tmp_path, hosts=["localhost", host])
    assert list(tmp_path.iterdir()) == []


def test_no_host_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least one host"):
        make_certificates(tmp_path, hosts=[])


def test_openssl_accepts_the_chain_strictly(certificates: DevCertificates) -> None:
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost"]
    command += ["-CAfile", str(certificates.ca_cert), str(certificates.server_cert)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


class EchoServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no type stubs
    def do_action(self, context: object, action: object) -> list[bytes]:
        return [b"over TLS"]


@pytest.fixture
def flight_port(certificates: DevCertificates) -> Iterator[int]:
    pair = (certificates.server_cert.read_bytes(), certificates.server_key.read_bytes())
    with EchoServer("grpc+tls://127.0.0.1:0", tls_certificates=[pair]) as server:
        yield server.port


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_flight_works_over_tls(certificates: DevCertificates, flight_port: int, host: str) -> None:
    roots = certificates.ca_cert.read_bytes()
    with flight.connect(f"grpc+tls://{host}:{flight_port}", tls_root_certs=roots) as client:
        (result,) = client.do_action("hello")
    assert result.body.to_pybytes() == b"over TLS"


def test_flight_refuses_another_authority(
    certificates: DevCertificates, flight_port: int, tmp_path: Path
) -> None:
    roots = make_certificates(tmp_path).ca_cert.read_bytes()
    with (
        flight.connect(f"grpc+tls://localhost:{flight_port}", tls_root_certs=roots) as client,
        pytest.raises(pa.ArrowException),
    ):
        list(client.do_action("hello"))


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def https_port(certificates: DevCertificates) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_https_works_with_strict_verification(
    certificates: DevCertificates, https_port: int, host: str
) -> None:
    context = ssl.create_default_context(cafile=str(certificates.ca_cert))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    answer = httpx.get(f"https://{host}:{https_port}/", verify=context, trust_env=False)
    assert answer.text == "hello"


def test_curl_works_with_the_authority(certificates: DevCertificates, https_port: int) -> None:
    url = f"https://localhost:{https_port}/"
    command = ["curl", "--silent", "--show-error", "--noproxy", "*"]
    command += ["--cacert", str(certificates.ca_cert), url]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("hello", "")


def test_the_default_clock_is_now(certificates: DevCertificates) -> None:
    remaining = server_certificate(certificates).not_valid_after_utc.timestamp() - time.time()
    assert 29 * DAY < remaining <= 30 * DAY
