"""A real HTTPS key server with the faults that real ones have."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from pathlib import Path
from typing import Any, Literal, Self

import trustme

Mode = Literal["normal", "slow_body", "slow_head", "endless", "redirect", "error", "gzip", "hang"]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that break off are part of the tests."""


class KeyServer:
    """Serves `jwks` on every path that ends in `/keys`; use it as a context manager.

    `mode` and `jwks` may be changed at any time. `ca_file` is the CA to trust; `paths` lists the requests.
    """

    def __init__(self, jwks: dict[str, Any], folder: Path, mode: Mode = "normal") -> None:
        self.jwks = jwks
        self.mode: Mode = mode
        self.paths: list[str] = []
        authority = trustme.CA()
        self.ca_file = folder / "key-server-ca.crt"
        authority.cert_pem.write_to_path(self.ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        self._stop = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        # The handshake is left to the thread of the connection, so that no client holds up the others.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.domain = f"localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path: str = "/oauth2/default/v1/keys") -> str:
        """Address of `path` on this server."""
        return f"https://{self.domain}{path}"

    def _drip(self, stream: Any, piece: bytes) -> None:
        while not self._stop.wait(0.02):
            stream.write(piece)
            stream.flush()

    def _handler(outer) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(http.server.BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.paths.append(self.path)
                mode = outer.mode
                body = json.dumps(outer.jwks).encode()
                if mode == "hang":
                    outer._stop.wait()
                    return
                if mode == "slow_head":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
                    outer._drip(self.wfile, b"x")
                    return
                if mode == "redirect" and self.path.endswith("/keys"):
                    self.send_response(302)
                    self.send_header("Location", outer.url("/elsewhere"))
                    body = b""
                elif mode == "error":
                    self.send_response(500)
                else:
                    self.send_response(200)
                if mode == "gzip":
                    self.send_header("Content-Encoding", "gzip")
                if mode not in ("endless", "slow_body"):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if mode == "slow_body":
                    outer._drip(self.wfile, b" ")
                while mode == "endless" and not outer._stop.is_set():
                    self.wfile.write(b" " * 65536)
                self.wfile.write(body)

        return Handler
