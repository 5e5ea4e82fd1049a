"""PollFlightInfo, which pyarrow's client cannot send: a proxy that makes it of GetFlightInfo."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS = 1
_SERVICE = b"/arrow.flight.protocol.FlightService/"
_ASKED, _SENT = (_SERVICE + name for name in (b"GetFlightInfo", b"PollFlightInfo"))


@contextmanager
def polling(location: str) -> Iterator[str]:
    """Where a client of the server at `location` (`grpc://`, without TLS) calls PollFlightInfo by GetFlightInfo.

    For one connection at a time.
    """
    host, _, port = location.removeprefix("grpc://").rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, (host, int(port))), daemon=True)
        thread.start()
        yield f"grpc://127.0.0.1:{listener.getsockname()[1]}"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)


def _serve(listener: socket.socket, target: tuple[str, int]) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # closed
            return
        with client, socket.create_connection(target) as server:
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            with suppress(OSError, EOFError):
                _rename(client, server)
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join(20)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def _rename(client: socket.socket, server: socket.socket) -> None:
    """Pass on the frames of HTTP/2 (RFC 9113, 4.1) with the path of the call, a literal of HPACK, changed."""
    server.sendall(_exactly(client, len(_PREFACE)))
    while True:
        head = _exactly(client, 9)
        payload = _exactly(client, int.from_bytes(head[:3], "big"))
        if head[3] == _HEADERS:
            payload = payload.replace(bytes([len(_ASKED)]) + _ASKED, bytes([len(_SENT)]) + _SENT)
        server.sendall(len(payload).to_bytes(3, "big") + head[3:] + payload)


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
