"""Fetching from a real HTTPS server, in its good and its bad modes."""

from __future__ import annotations

import contextlib
import functools
import gzip
import itertools
import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from boilstream.auth import fetch as module
from boilstream.auth.fetch import FetchFailed, HttpsFetcher
from boilstream.auth.jwks import KeyCache
from boilstream.errors import ConfigurationError
from tests.support.keyserver import KeyServer, Mode
from tests.support.tokens import FakeClock, jwks

OK = b"HTTP/1.1 200 OK\r\n"
KEYS = json.dumps(jwks()).encode()


def response(body: bytes, *headers: str) -> bytes:
    """A complete answer with status 200."""
    lines = [*headers, f"Content-Length: {len(body)}", "", ""]
    return OK + "\r\n".join(lines).encode() + body


class RawServer:
    """An HTTPS server that answers every request with `answer`, byte for byte; then `more` without end.

    It has a certificate for `name` from a CA of its own; `certificate` goes to trustme. Use it as a
    context manager.
    """

    def __init__(
        self, folder: Path, answer: bytes, *, more: bytes = b"", name: str = "localhost", **certificate: Any
    ) -> None:
        self.answer = answer
        self.more = more
        self.requests: list[bytes] = []
        authority = trustme.CA()
        self.ca_file = folder / "raw-server-ca.crt"
        authority.cert_pem.write_to_path(self.ca_file)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name, **certificate).configure_cert(self._tls)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://localhost:{self._listener.getsockname()[1]}/keys"
        self._thread = threading.Thread(target=self._run)
        self._stopping = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        with contextlib.suppress(OSError), socket.create_connection(self._listener.getsockname()):
            pass
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._stopping:
            connection, _ = self._listener.accept()
            connection.settimeout(30)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with (
                contextlib.suppress(OSError),
                connection,
                self._tls.wrap_socket(connection, server_side=True) as stream,
            ):
                self._answer(stream)

    def _answer(self, stream: ssl.SSLSocket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            piece = stream.recv(65536)
            if not piece:
                return
            request += piece
        self.requests.append(request)
        stream.sendall(self.answer)
        while self.more and not self._stopping:
            stream.sendall(self.more)
        stream.unwrap()


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
@pytest.mark.slow
def test_a_slow_server_is_cut_off(server: KeyServer, mode: Mode) -> None:
    server.mode = mode
    assert failure(server, timeout_seconds=0.3) == "no complete answer within 0.3 s"


@pytest.mark.slow
def test_a_server_that_never_finishes_the_handshake_is_cut_off(server: KeyServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://localhost:{silent.getsockname()[1]}/keys"
        assert failure(server, timeout_seconds=0.3, url=url) == "no complete answer within 0.3 s"


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ("endless", "longer than 1048576 bytes"),
        ("redirect", "HTTP status 302 instead of 200; redirects are not followed"),
        ("error", "HTTP status 500"),
        ("gzip", "compressed"),
    ],
)
def test_bad_answers_are_refused(server: KeyServer, mode: Mode, problem: str) -> None:
    server.mode = mode
    assert problem in failure(server)
    assert len(server.paths) == 1


def test_a_redirect_is_not_followed_to_any_scheme(server: KeyServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:
        port = plain.getsockname()[1]
        targets = (f"http://localhost:{port}/keys", server.url(), "file:///etc/passwd", "//localhost/keys")
        statuses = (b"301 Moved", b"302 Found", b"303 See Other", b"307 Temporary", b"308 Permanent")
        with RawServer(tmp_path, b"") as raw:
            for target, status in itertools.product(targets, statuses):
                raw.requests.clear()
                raw.answer = b"HTTP/1.1 %s\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (
                    status,
                    target.encode(),
                )
                assert "redirects are not followed" in raw_failure(raw)
                assert len(raw.requests) == 1
        plain.setblocking(False)
        with pytest.raises(BlockingIOError):
            plain.accept()
    assert server.paths == []


def raw_failure(server: RawServer, *, timeout_seconds: float = 30) -> str:
    with pytest.raises(FetchFailed) as caught:
        HttpsFetcher(server.ca_file, timeout_seconds=timeout_seconds)(server.url)
    return str(caught.value)


@functools.cache
def bomb() -> bytes:
    return gzip.compress(b" " * 64 * 1024 * 1024)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip"])
def test_a_compressed_bomb_is_refused_before_it_is_opened(tmp_path: Path, encoding: str) -> None:
    assert len(bomb()) < 1024 * 1024
    with RawServer(tmp_path, response(bomb(), f"Content-Encoding: {encoding}")) as server:
        assert raw_failure(server) == "the answer is compressed, which was not asked for"
        assert b"accept-encoding: identity\r\n" in server.requests[0].lower()


def test_a_body_may_have_the_limit_and_no_byte_more(tmp_path: Path) -> None:
    with RawServer(tmp_path, response(b" " * module.MAX_RESPONSE_BYTES)) as server:
        assert len(HttpsFetcher(server.ca_file, timeout_seconds=30)(server.url)) == module.MAX_RESPONSE_BYTES
        server.answer = response(b" " * (module.MAX_RESPONSE_BYTES + 1))
        assert "longer than" in raw_failure(server)


@pytest.mark.parametrize(
    ("answer", "more", "problem"),
    [
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b" " * 4096 + b"\r\n", "longer than"),
        (OK + b"X-Endless: ", b"x" * 65536, "RemoteProtocolError"),
        (OK, b"X-Header: x\r\n" * 1000, "RemoteProtocolError"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"f" * 4096, "RemoteProtocolError"),
    ],
    ids=["chunks", "header", "headers", "chunk size"],
)
def test_nothing_may_be_endless(tmp_path: Path, answer: bytes, more: bytes, problem: str) -> None:
    with RawServer(tmp_path, answer, more=more) as server:
        assert problem in raw_failure(server)


@pytest.mark.slow
def test_endless_interim_answers_are_cut_off(tmp_path: Path) -> None:
    with RawServer(tmp_path, b"", more=b"HTTP/1.1 103 Early Hints\r\n\r\n") as server:
        assert raw_failure(server, timeout_seconds=0.3) == "no complete answer within 0.3 s"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00" * 100,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        OK + b"Content-Length: 100\r\n\r\n{",
        OK + b"Content-Length: -1\r\n\r\n{}",
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        OK + b"Transfer-Encoding: gzip\r\n\r\n{}",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=repr,
)
def test_broken_http_is_a_failure(tmp_path: Path, answer: bytes) -> None:
    with RawServer(tmp_path, answer) as server:
        assert "RemoteProtocolError" in raw_failure(server)


def test_a_certificate_of_an_unknown_authority_is_refused(server: KeyServer, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=r"certificate is refused .*: set AUTH_CA_FILE to the CA bundle"):
        HttpsFetcher()(server.url())
    other = tmp_path / "other-ca.crt"
    trustme.CA().cert_pem.write_to_path(other)
    with pytest.raises(FetchFailed) as caught:
        HttpsFetcher(other)(server.url())
    assert f"not signed by a CA in AUTH_CA_FILE={other}" in str(caught.value)
    assert server.paths == []


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    with RawServer(tmp_path, response(KEYS), name="elsewhere.company.com") as server:
        for host in ("localhost", "127.0.0.1"):
            server.url = server.url.replace("localhost", host)
            failed = raw_failure(server)
            assert "check the host name" in failed
            assert "AUTH_CA_FILE" not in failed
        assert server.requests == []


@pytest.mark.parametrize("validity", ["not_after", "not_before"])
def test_a_certificate_for_another_time_is_refused(tmp_path: Path, validity: str) -> None:
    certificate: dict[str, Any] = {
        validity: datetime.now(UTC) + timedelta(days=1 if validity == "not_before" else -1)
    }
    with RawServer(tmp_path, response(KEYS), **certificate) as server:
        failed = raw_failure(server)
        assert "a clock is wrong" in failed
        assert "AUTH_CA_FILE" not in failed
        assert server.requests == []


def test_an_answer_tells_its_date_and_duration(tmp_path: Path) -> None:
    with RawServer(tmp_path, response(b"{}", "Date: Fri, 15 Jan 2027 08:00:00 GMT")) as server:
        answer = HttpsFetcher(server.ca_file, timeout_seconds=30).get(server.url)
        assert (answer.body, answer.date) == (b"{}", datetime(2027, 1, 15, 8, tzinfo=UTC).timestamp())
        assert 0 < answer.seconds < 30


@pytest.mark.parametrize("headers", [(), ("Date: yesterday",), ("Date: ",)])
def test_a_date_that_is_absent_or_malformed_is_none(tmp_path: Path, headers: tuple[str, ...]) -> None:
    with RawServer(tmp_path, response(b"{}", *headers)) as server:
        answer = HttpsFetcher(server.ca_file, timeout_seconds=30).get(server.url)
        assert (answer.body, answer.date) == (b"{}", None)


@given(
    st.text()
    | st.builds(
        "{}, {} {} {} {}:{}:{} {}".format,
        st.sampled_from(["Tue", "", "X"]),
        st.integers(-1, 40),
        st.sampled_from(["Nov", "Foo", ""]),
        st.integers(-1, 10**6),
        st.integers(-1, 99),
        st.integers(-1, 99),
        st.integers(-1, 99),
        st.sampled_from(["GMT", "-0000", "+9999", "+999999999999999999", "", "EST"]),
    )
)
@example("Tue, 15 Nov 1994 08:12:31 -0000")
def test_no_date_of_a_server_is_a_defect(text: str) -> None:
    date = module._date(text, text)
    assert date is None or isinstance(date, float)


@pytest.mark.parametrize(
    ("age", "kept"), [("3600", 3600), ("0", 0), ("-5", 0), ("x", 0), ("1e9", 0), ("9" * 99, 0)]
)
def test_the_time_in_a_cache_counts(age: str, kept: int) -> None:
    assert module._date("Tue, 15 Nov 1994 08:12:31 GMT", age) == 784887151 + kept


def test_a_date_without_a_zone_is_in_utc() -> None:
    assert module._date("Tue, 15 Nov 1994 08:12:31 -0000", "") == 784887151
    assert module._date("Tue, 15 Nov 1994 09:12:31 +0100", "") == 784887151


@pytest.mark.parametrize(
    "answer",
    [
        response(b""),
        response(b"<!DOCTYPE html><html><body>Sign in</body></html>", "Content-Type: text/html"),
        response(gzip.compress(KEYS)),
        response(gzip.compress(KEYS), "Content-Encoding: gzip"),
        response(KEYS[:-1]),
        response(b"{}"),
        response(b"[" * 500_000),
        b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n" % len(KEYS) + KEYS,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"",
    ],
    ids=["empty", "html", "hidden gzip", "gzip", "cut", "no keys", "deep", "status", "no content", "nothing"],
)
def test_bad_answers_do_not_spoil_the_keys_at_hand(
    tmp_path: Path, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    with RawServer(tmp_path, response(KEYS)) as server:
        cache = KeyCache(
            server.url,
            fetch=HttpsFetcher(server.ca_file, timeout_seconds=30),
            display_name="Okta",
            logger_name="boilstream.auth.okta",
            clock=clock,
        )
        good = cache.jwks_for("kid-1")
        server.answer = answer
        clock.advance(3600)
        with caplog.at_level(logging.WARNING):
            assert cache.jwks_for("kid-1") is good
        assert len(server.requests) == 2
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"Cannot fetch JWKS from Okta: {server.url}: ")
    assert "defect" not in caplog.text


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
