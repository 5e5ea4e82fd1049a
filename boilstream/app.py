"""The composition root: builds the parts from the settings, starts them, drains them, stops them."""

from __future__ import annotations

import fcntl
import ipaddress
import logging
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

import pyarrow as pa

from boilstream.auth.authorizer import Authorizer, rules_from
from boilstream.auth.manager import build_manager
from boilstream.auth.middleware import AuthMiddlewareFactory
from boilstream.catalog.factory import open_catalog
from boilstream.catalog.topics import TopicCatalog
from boilstream.errors import ConfigurationError
from boilstream.flight.actions import Actions
from boilstream.flight.errors import to_flight_error
from boilstream.flight.server import FlightServer
from boilstream.ingest.engine import IngestEngine
from boilstream.ingest.service import Ingestion
from boilstream.log.index import LogIndex
from boilstream.log.recovery import recover
from boilstream.log.writer import LogWriter
from boilstream.machine import MIB, keep_freed_memory
from boilstream.query.service import Queries
from boilstream.settings import Settings
from boilstream.storage.base import ObjectStore
from boilstream.storage.factory import open_store

log = logging.getLogger("boilstream.app")

RECOVERY_PATIENCE_SECONDS = 60.0
"""How long a start waits for a store that does not answer."""

KEY_PRELOAD_SECONDS = 5.0
"""How long a start waits for providers' keys; later they are fetched when they are needed."""


class App:
    """One running server. Everything is started when the constructor returns."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError or StoreUnavailable; what had started is stopped again."""
        with ExitStack() as cleanup:
            self._settings = settings
            certificates, client_ca = _tls(settings)
            host = _listen_host(settings)
            manager = build_manager(settings)
            if manager is not None and certificates is None and not _is_loopback(host):
                log.warning(
                    "no certificate: bearer tokens travel in clear text; set TLS_CERT_PATH and TLS_KEY_PATH"
                )
            if manager is not None:
                cleanup.callback(manager.close)
            cleanup.callback(_own(settings.data_dir).close)
            store = open_store(settings)
            cleanup.callback(store.close)
            store.check()
            catalog = open_catalog(
                settings.iceberg_catalog_uri, settings.data_dir, store, patience=settings.ack_timeout_seconds
            )
            index = LogIndex()
            _restore(store, catalog, index)
            log_writer = LogWriter(store, index)
            self._engine = IngestEngine(
                store,
                catalog,
                log_writer,
                index,
                flush_interval=settings.s3_flush_interval_ms / 1000,
                max_file_bytes=min(settings.max_file_mb, settings.memory_limit_mb // 4) * MIB,
                memory_limit=settings.memory_limit_mb * MIB,
                ack_timeout=settings.ack_timeout_seconds,
            )
            authorizer = Authorizer(rules_from(settings))
            ingestion = Ingestion(
                catalog,
                self._engine,
                log_writer,
                authorizer,
                auto_create=settings.auto_create_topics,
                ack_timeout=settings.ack_timeout_seconds,
            )
            if manager is not None:
                manager.preload(KEY_PRELOAD_SECONDS)
            scheme = "grpc+tls" if certificates else "grpc"
            try:
                self._flight = FlightServer(
                    f"{scheme}://{_bracketed(host)}:{settings.flight_port}",
                    auth=AuthMiddlewareFactory(manager, to_flight_error),
                    ingestion=ingestion,
                    queries=Queries(catalog, index, store, authorizer),
                    actions=Actions(ingestion, node=log_writer.writer),
                    certificates=certificates,
                    client_ca=client_ca,
                )
            except (OSError, pa.ArrowException) as error:
                self._engine.close(1)
                raise ConfigurationError(
                    f"FLIGHT_PORT: cannot listen on {host} port {settings.flight_port}; the port may be in use, or "
                    "FLIGHT_HOST is not an address of this machine; for example FLIGHT_PORT=50051"
                ) from error
            self.port: int = self._flight.port
            """The port of Arrow Flight; the real one if FLIGHT_PORT is 0."""
            self.location = f"{scheme}://{_bracketed(host)}:{self.port}"
            """Where Arrow Flight listens."""
            self._cleanup = cleanup.pop_all()
        log.info("Arrow Flight listens on %s", self.location)

    def stop(self) -> bool:
        """Drain and stop: no new calls, open appends may finish within SHUTDOWN_GRACE_SECONDS.

        Everything acknowledged is durable at any time; this only spares clients a retry. Returns
        whether all calls have ended. A call that has not waits for its client; no way exists to
        end it from here but to end the process.
        """
        grace = self._settings.shutdown_grace_seconds
        deadline = time.monotonic() + grace
        log.info("stopping: open calls have %g seconds", grace)
        closing = threading.Thread(target=self._flight.shutdown, name="flight-shutdown", daemon=True)
        closing.start()
        self._engine.close(grace)
        closing.join(max(0.5, deadline - time.monotonic()))
        if not closing.is_alive():
            self._cleanup.close()
        log.info("stopped")
        return not closing.is_alive()


def run(settings: Settings, *, on_start: Callable[[App], None] = lambda _: None) -> NoReturn:
    """Serve until SIGTERM or SIGINT, stop in order, and end the process with exit code 0.

    Called by the main thread; `on_start` is called once the server answers. Raises what `App` raises.
    """
    keep_freed_memory()
    stop = threading.Event()

    def ask_to_stop(number: int, _frame: FrameType | None) -> None:
        log.info("received %s", signal.Signals(number).name)
        if stop.is_set():
            os._exit(1)  # asked twice: the operator does not want to wait
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    app = App(settings)
    on_start(app)
    stop.wait()
    if not app.stop():
        log.warning("calls whose clients neither go on nor go away are cut off")
    # Everything is durable and closed. Threads of Flight may still wait for clients, and Arrow's
    # threads can abort the interpreter's own exit; neither may turn this into a failure.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def check(settings: Settings) -> None:
    """Find what is wrong with the settings and the files that they name, without starting anything.

    Raises ConfigurationError.
    """
    _tls(settings)
    _listen_host(settings)
    manager = build_manager(settings)
    if manager is not None:
        manager.close()


def _own(data_dir: Path) -> IO[bytes]:
    """Lock the data folder for this process: a second one would not see the first one's rows.

    The lock ends with the process, however that ends.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("ab")
    except OSError as error:
        raise ConfigurationError(
            f"DATA_DIR: {data_dir} cannot be used ({error.strerror}); for example DATA_DIR=/var/lib/boilstream/data"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ConfigurationError(
            f"DATA_DIR: another BoilStream process uses {data_dir}; stop it, or set another folder"
        ) from None
    return lock


def _restore(store: ObjectStore, catalog: TopicCatalog, index: LogIndex) -> None:
    recover(store, index, deadline=time.monotonic() + RECOVERY_PATIENCE_SECONDS)
    catalog.load()
    for topic in catalog.list():
        if index.is_dropped(topic.id):
            catalog.drop(topic)  # the process ended between the two steps of a drop
    known = {topic.id for topic in catalog.list()}
    for lost in sorted(index.topics() - known):
        log.error("the commit log has rows of topic %s, which the Iceberg catalog does not define", lost)


def _tls(settings: Settings) -> tuple[list[tuple[bytes, bytes]] | None, bytes | None]:
    """Certificate pairs and client CA in PEM, checked; gRPC itself would accept anything and then not serve."""
    cert, key = settings.tls_files
    if cert is None or key is None:
        return None, None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
        pair = [(cert.read_bytes(), key.read_bytes())]
    except PermissionError as error:
        raise ConfigurationError(
            f"TLS_CERT_PATH and TLS_KEY_PATH: this process may not read {error.filename or key}; "
            "give its user the right, for example chown 10001 certs/server.key for the container"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TLS_CERT_PATH and TLS_KEY_PATH: {cert} and {key} are not a certificate and its unencrypted key in PEM "
            f"({error}); for example TLS_CERT_PATH=certs/server.crt TLS_KEY_PATH=certs/server.key"
        ) from error
    return pair, _client_ca(settings.tls_client_ca_path)


def _client_ca(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"TLS_CLIENT_CA_PATH: {path} has no CA certificate in PEM ({error}); for example "
            "TLS_CLIENT_CA_PATH=certs/client-ca.crt"
        ) from error


def _listen_host(settings: Settings) -> str:
    """FLIGHT_HOST, or loopback when nobody would be asked for a token."""
    host = settings.flight_host
    if settings.auth_providers or _is_loopback(host):
        return host
    if settings.allow_anonymous:
        log.warning("ALLOW_ANONYMOUS=true and no AUTH_PROVIDERS: everybody who reaches %s may call", host)
        return host
    if "flight_host" in settings.model_fields_set:
        raise ConfigurationError(
            f"FLIGHT_HOST: without AUTH_PROVIDERS only loopback is served, not {host}; set AUTH_PROVIDERS=okta, or "
            "FLIGHT_HOST=127.0.0.1, or ALLOW_ANONYMOUS=true"
        )
    log.warning("no AUTH_PROVIDERS: calls need no token, so only loopback is served")
    return "127.0.0.1"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
