from __future__ import annotations

import logging
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import pytest

from boilstream.dev.certificates import DevCertificates, make_certificates
from boilstream.dev.issuer import DevIssuer, mint
from boilstream.errors import ConfigurationError

from .conftest import AUDIENCE


def fetch_keys(issuer: DevIssuer, certificates: DevCertificates) -> jwt.PyJWKSet:
    context = ssl.create_default_context(cafile=str(certificates.ca_cert))
    answer = httpx.get(
        f"https://127.0.0.1:{issuer.port}/oauth2/default/v1/keys", verify=context, trust_env=False
    )
    return jwt.PyJWKSet.from_dict(answer.raise_for_status().json())


def verified(issuer: DevIssuer, certificates: DevCertificates, token: str) -> dict[str, object]:
    key = fetch_keys(issuer, certificates)[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, object] = jwt.decode(
        token, key, algorithms=["RS256"], audience=AUDIENCE, issuer=issuer.issuer
    )
    return claims


@pytest.fixture
def own_issuer(tmp_path: Path, certificates: DevCertificates) -> Iterator[DevIssuer]:
    """An issuer that a test may stop and start; not started."""
    issuer = DevIssuer(tmp_path / "dev", port=0, audience=AUDIENCE, certificates=certificates)
    yield issuer
    issuer.stop()


def test_the_addresses_are_those_of_okta(issuer: DevIssuer) -> None:
    assert issuer.port != 0
    assert issuer.domain == f"localhost:{issuer.port}"
    assert issuer.issuer == f"https://localhost:{issuer.port}/oauth2/default"
    assert issuer.page == f"https://localhost:{issuer.port}/"


@pytest.mark.slow
def test_another_process_mints_tokens_that_the_keys_verify(
    issuer: DevIssuer, issuer_folder: Path, certificates: DevCertificates
) -> None:
    program = (
        "import sys; from pathlib import Path; from boilstream.dev.tokens import mint; "
        "print(mint(Path(sys.argv[1]), groups=['DataEngineers'], scopes=['read:data'], subject='00u1', "
        "lifetime_seconds=60))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(issuer_folder)], capture_output=True, text=True, check=True
    )
    claims = verified(issuer, certificates, result.stdout.strip())
    assert claims["groups"] == ["DataEngineers"]
    assert claims["uid"] == "00u1"
    assert isinstance(claims["exp"], int)
    assert isinstance(claims["iat"], int)
    assert claims["exp"] - claims["iat"] == 60


def test_secrets_are_readable_by_their_owner_only(issuer: DevIssuer, issuer_folder: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in issuer_folder.iterdir()}
    assert modes == {"signing-key.pem": 0o600, "client-secret": 0o600, "issuer.json": 0o644}


@pytest.mark.slow
def test_a_restart_keeps_key_secret_and_tokens(
    own_issuer: DevIssuer, certificates: DevCertificates, tmp_path: Path
) -> None:
    own_issuer.start()
    folder = tmp_path / "dev"
    token, secret, port = mint(folder), own_issuer.client_secret, own_issuer.port
    own_issuer.stop()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    again = DevIssuer(folder, port=port, audience=AUDIENCE, certificates=certificates)
    again.start()
    try:
        assert verified(again, certificates, token)["aud"] == AUDIENCE
        assert again.client_secret == secret
    finally:
        again.stop()


@pytest.mark.slow
def test_the_same_object_starts_again(
    own_issuer: DevIssuer, certificates: DevCertificates, tmp_path: Path
) -> None:
    own_issuer.start()
    port = own_issuer.port
    own_issuer.stop()
    own_issuer.stop()
    own_issuer.start()
    assert own_issuer.port == port
    assert verified(own_issuer, certificates, mint(tmp_path / "dev"))


def test_stop_ends_the_thread_while_a_client_stays_connected(
    own_issuer: DevIssuer, certificates: DevCertificates, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(threading.enumerate())
    own_issuer.start()
    context = ssl.create_default_context(cafile=str(certificates.ca_cert))
    with httpx.Client(verify=context, trust_env=False) as client:
        assert client.get(own_issuer.page).status_code == 200
        own_issuer.stop()
    assert "dev-issuer" not in {thread.name for thread in set(threading.enumerate()) - before}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_port_in_use_is_told_and_leaves_the_folder_of_its_owner_alone(
    issuer: DevIssuer, issuer_folder: Path, certificates: DevCertificates
) -> None:
    state = (issuer_folder / "issuer.json").read_bytes()
    second = DevIssuer(issuer_folder, port=issuer.port, audience="api://other", certificates=certificates)
    with pytest.raises(ConfigurationError, match=r"DEV_ISSUER_PORT: .* in use.*DEV_ISSUER_PORT=\d+"):
        second.start()
    assert (issuer_folder / "issuer.json").read_bytes() == state


def test_an_address_of_another_machine_is_told(tmp_path: Path, certificates: DevCertificates) -> None:
    issuer = DevIssuer(tmp_path, host="192.0.2.1", port=0, audience=AUDIENCE, certificates=certificates)
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        issuer.start()


def test_a_domain_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    certificates = make_certificates(tmp_path / "certs", hosts=("issuer", "127.0.0.1"))
    issuer = DevIssuer(
        tmp_path / "dev",
        host="0.0.0.0",
        port=0,
        audience=AUDIENCE,
        certificates=certificates,
        domain="issuer:50052",
    )
    issuer.start()
    try:
        assert issuer.issuer == "https://issuer:50052/oauth2/default"
        assert verified(issuer, certificates, mint(tmp_path / "dev"))["iss"] == issuer.issuer
        assert "listens on 0.0.0.0: whoever reaches it can get a token" in caplog.text
    finally:
        issuer.stop()


def test_loopback_is_the_default(issuer: DevIssuer) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", issuer.port), timeout=5)


def test_signals_and_logging_stay_as_they_were(own_issuer: DevIssuer) -> None:
    def state() -> tuple[object, ...]:
        names = ("", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
        loggers = [logging.getLogger(name) for name in names]
        return (
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            [
                (log.level, log.propagate, log.disabled, list(log.handlers), list(log.filters))
                for log in loggers
            ],
        )

    before = state()
    own_issuer.start()
    assert state()[0] == before[0]
    own_issuer.stop()
    assert state() == before


def test_warnings_of_the_server_have_a_logger_of_ours(
    own_issuer: DevIssuer, certificates: DevCertificates, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context(cafile=str(certificates.ca_cert))
    own_issuer.start()
    with caplog.at_level(logging.DEBUG):
        with (
            socket.create_connection(("127.0.0.1", own_issuer.port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"this is not HTTP\r\n\r\n")
            assert tls.recv(1000).startswith(b"HTTP/1.1 400")
        logging.getLogger("uvicorn.error").warning("of another server in the process")
        own_issuer.stop()
    records = [(record.name, record.getMessage()) for record in caplog.records if "uvicorn" in record.name]
    assert records == [
        ("boilstream.dev.issuer.uvicorn.error", "Invalid HTTP request received."),
        ("uvicorn.error", "of another server in the process"),
    ]


def test_no_token_and_no_secret_reaches_the_log(
    own_issuer: DevIssuer, certificates: DevCertificates, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context(cafile=str(certificates.ca_cert))
    with caplog.at_level(logging.DEBUG, logger="boilstream"):
        own_issuer.start()
        secret = own_issuer.client_secret
        form = {"grant_type": "client_credentials", "scope": "read:data", "client_secret": secret}
        answer = httpx.post(
            own_issuer.token_endpoint,
            data=form | {"client_id": own_issuer.client_id},
            verify=context,
            trust_env=False,
        )
        own_issuer.stop()
    assert own_issuer.issuer in caplog.text
    assert secret not in caplog.text
    assert answer.json()["access_token"] not in caplog.text


def test_starting_twice_is_a_defect(issuer: DevIssuer) -> None:
    with pytest.raises(RuntimeError, match="runs already"):
        issuer.start()
