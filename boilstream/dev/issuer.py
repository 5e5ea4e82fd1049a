"""An identity provider for development that behaves like an Okta custom authorization server."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from boilstream.dev.authorization_server import ISSUER_PATH, TOKEN_PATH, AuthorizationServer
from boilstream.dev.certificates import DevCertificates
from boilstream.dev.tokens import (
    CLIENT_ID,
    IssuerState,
    TokenSigner,
    load_or_create_key,
    load_or_create_secret,
    mint,
    save_state,
)
from boilstream.errors import ConfigurationError, Unavailable

__all__ = ["DevIssuer", "mint"]

_log = logging.getLogger("boilstream.dev.issuer")

_UVICORN_LOGGERS = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class DevIssuer:
    """The issuer as a background thread that serves HTTPS.

    `folder` keeps the signing key and the client's secret, so that tokens stay valid over a
    restart. `host` is the address to listen on, `port` its port (0: a free one), `audience` the
    API that tokens are for. `domain` is the address under which servers and clients reach the
    issuer, with its port (`issuer:50052`); None means `localhost` and the port. The certificate
    must cover it. `clock` gives seconds since the epoch.
    """

    client_id = CLIENT_ID

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 50052,
        audience: str,
        certificates: DevCertificates,
        domain: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.port = port
        """The port; with 0, the real one as soon as `start` has returned."""
        self._folder = folder
        self._host = host
        self._audience = audience
        self._certificates = certificates
        self._domain = domain
        self._clock = clock
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def domain(self) -> str:
        """Host and port as OKTA_ORG_DOMAIN wants them: `localhost:50052`."""
        return self._domain or f"localhost:{self.port}"

    @property
    def issuer(self) -> str:
        """The claim `iss` of its tokens: `https://localhost:50052/oauth2/default`."""
        return f"https://{self.domain}{ISSUER_PATH}"

    @property
    def page(self) -> str:
        """Address of the page that makes tokens."""
        return f"https://{self.domain}/"

    @property
    def token_endpoint(self) -> str:
        """Address that answers the client credentials grant."""
        return f"https://{self.domain}{TOKEN_PATH}"

    @property
    def client_secret(self) -> str:
        """Secret of the client `client_id`, made on first use and kept in the folder."""
        return load_or_create_secret(self._folder)

    def start(self) -> None:
        """Listen, note the addresses in the folder, and serve in a thread.

        When this returns, requests are answered. Raises ConfigurationError when the port is in
        use, the address is not one of this machine, or the folder is damaged or not writable.
        """
        if self._thread is not None:
            raise RuntimeError("the development issuer runs already")
        key, secret = load_or_create_key(self._folder), self.client_secret
        listener = _listen(self._host, self.port)
        try:
            address, self.port = listener.getsockname()[:2]
            state = IssuerState(self.issuer, self._audience)
            server = _Server(
                self._config(AuthorizationServer(TokenSigner(key, state, clock=self._clock), secret))
            )
            save_state(self._folder, state)
        except BaseException:
            listener.close()
            raise
        self._server = server
        self._thread = threading.Thread(
            target=_serve, args=(server, listener), name="dev-issuer", daemon=True
        )
        self._thread.start()
        server.ready.wait()
        if not server.started:
            self.stop()
            raise Unavailable("the development issuer could not start; the log has the details")
        if not ipaddress.ip_address(address).is_loopback:
            _log.warning("Development issuer listens on %s: whoever reaches it can get a token", address)
        _log.info("Development issuer: %s", self.issuer)

    def stop(self) -> None:
        """Stop serving and wait for the thread; no error if it does not run. It can be started again."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join()
        self._server = self._thread = None

    def _config(self, application: AuthorizationServer) -> uvicorn.Config:
        config = uvicorn.Config(
            application.app,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,  # None leaves logging as it is; access_log=False would change a global logger
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,  # seconds
            ssl_certfile=self._certificates.server_cert,
            ssl_keyfile=self._certificates.server_key,
        )
        config.load()
        return config


class _Server(uvicorn.Server):
    """A uvicorn server that tells when it has started, and stops without waiting for its clients.

    In a thread it leaves signals alone.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets=sockets)


def _serve(server: _Server, listener: socket.socket) -> None:
    with listener, _own_logs():
        try:
            server.run(sockets=[listener])
        finally:
            server.ready.set()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigurationError(
            f"DEV_ISSUER_PORT: the development issuer cannot listen on {host} port {port}: {error.strerror}; "
            "stop what uses the port, or choose another; for example DEV_ISSUER_PORT=50062"
        ) from None


@contextlib.contextmanager
def _own_logs() -> Iterator[None]:
    """Move what uvicorn logs in this thread to loggers below `boilstream.dev.issuer`.

    Its loggers are global: a filter by thread leaves those of other servers in the process alone.
    """
    thread = threading.get_ident()

    def divert(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        logger = _log.getChild(record.name)
        if record.levelno >= logging.WARNING and logger.isEnabledFor(record.levelno):
            logger.handle(logging.makeLogRecord(record.__dict__ | {"name": logger.name}))
        return False

    loggers = [logging.getLogger(name) for name in _UVICORN_LOGGERS]
    for logger in loggers:
        logger.addFilter(divert)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(divert)
