"""A small S3 server in this process that misbehaves on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

ETAG = '"5d41402abc4b2a76b9719d911017c592"'

Fault = Callable[["Handler"], bool]
"""Answers a request in place of the stub and returns True, or returns False to let the stub answer."""


class Handler(BaseHTTPRequestHandler):
    """GET (with ranges), HEAD, PUT and DELETE of objects, without signatures and conditions."""

    protocol_version = "HTTP/1.1"
    stub: Stub

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str, **headers: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>leaks hunter2</Message></Error>"
        self.answer(status, text.encode(), Content_Type="application/xml", **headers)

    def cut(self) -> None:
        """End the connection without another word."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)

    def handle_expect_100(self) -> bool:
        """A fault answers ahead of the body, as S3 does."""
        return not self.stub.fault(self) and super().handle_expect_100()

    def _any(self) -> None:
        self.stub.requests.append((self.command, self.path))
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.stub.fault(self):
            return
        data = self.stub.objects.get(self.path)
        if self.command == "PUT":
            self.stub.objects[self.path] = self.body
            self.answer(200, ETag=ETAG)
        elif self.command == "DELETE":
            self.answer(204)
        elif data is None:
            self.error(404, "NoSuchKey")
        elif "Range" in self.headers:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, len(data) - int(last))
            end = int(last) + 1 if first and last else len(data)
            self.answer(206, data[start:end], ETag=ETAG, Content_Range=f"bytes {start}-{end - 1}/{len(data)}")
        else:
            self.answer(200, data, ETag=ETAG)

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = _any

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A cut connection is meant."""


class Stub:
    """The server; `fault` may be set at any time and is called ahead of every answer."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.fault: Fault = lambda handler: False
        handler = type("BoundHandler", (Handler,), {"stub": self})
        self._server = _QuietServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
