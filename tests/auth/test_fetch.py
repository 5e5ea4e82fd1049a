"""Fetching from a real HTTPS server, in its good and its bad modes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from boilstream.auth.fetch import FetchFailed, HttpsFetcher
from boilstream.errors import ConfigurationError
from tests.support.keyserver import KeyServer, Mode
from tests.support.tokens import jwks


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeyServer]:
    with KeyServer(jwks(), tmp_path) as running:
        yield running


def failure(server: KeyServer, *, timeout_seconds: float = 30, url: str | None = None) -> str:
    fetcher = HttpsFetcher(server.ca_file, timeout_seconds=timeout_seconds)
    with pytest.raises(FetchFailed) as caught:
        fetcher(url or server.url())
    return str(caught.value)


def test_it_gets_the_body(server: KeyServer) -> None:
    fetcher = HttpsFetcher(server.ca_file)
    assert json.loads(fetcher(server.url())) == jwks()
    assert json.loads(fetcher(server.url())) == jwks()
    assert server.paths == ["/oauth2/default/v1/keys"] * 2


@pytest.mark.parametrize("mode", ["slow_body", "slow_head", "hang"])
def test_a_slow_server_is_cut_off(server: KeyServer, mode: Mode) -> None:
    server.mode = mode
    assert failure(server, timeout_seconds=0.3) == "no complete answer within 0.3 s"


def test_a_server_that_never_finishes_the_handshake_is_cut_off(server: KeyServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://localhost:{silent.getsockname()[1]}/keys"
        assert failure(server, timeout_seconds=0.3, url=url) == "no complete answer within 0.3 s"


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ("endless", "longer than 1048576 bytes"),
        ("redirect", "HTTP status 302"),
        ("error", "HTTP status 500"),
        ("gzip", "compressed"),
    ],
)
def test_bad_answers_are_refused(server: KeyServer, mode: Mode, problem: str) -> None:
    server.mode = mode
    assert problem in failure(server)
    assert len(server.paths) == 1


def test_a_certificate_of_an_unknown_authority_is_refused(server: KeyServer) -> None:
    with pytest.raises(FetchFailed, match="CERTIFICATE_VERIFY_FAILED"):
        HttpsFetcher()(server.url())
    assert server.paths == []


def test_a_certificate_for_another_host_is_refused(server: KeyServer) -> None:
    url = server.url().replace("localhost", "127.0.0.2")
    assert "Error" in failure(server, url=url)


def test_a_server_that_is_not_there_is_a_failure(server: KeyServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert "ConnectError" in failure(server, url=f"https://localhost:{port}/keys")
    assert failure(server, url="https://:x/keys")


def test_a_proxy_of_the_environment_is_not_used(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert json.loads(HttpsFetcher(server.ca_file)(server.url())) == jwks()


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_bad_ca_file_stops_the_start(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match="AUTH_CA_FILE"):
        HttpsFetcher(path)
