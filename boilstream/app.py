"""The composition root: builds the parts from the settings, starts them, drains them, stops them."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import IO, NoReturn

import pyarrow as pa

from boilstream.addresses import is_loopback, listen_host
from boilstream.auth.audit import Auditor
from boilstream.auth.authorizer import Authorizer
from boilstream.auth.capability import build_capabilities
from boilstream.auth.exchange import SessionExchange
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.manager import build_manager
from boilstream.auth.rules import load_rules
from boilstream.catalog.factory import open_catalog
from boilstream.catalog.topics import TopicCatalog
from boilstream.certificates import read_certificates
from boilstream.errors import ConfigurationError
from boilstream.flight.actions import Actions
from boilstream.flight.airport.actions import AirportActions
from boilstream.flight.airport.reads import Reads
from boilstream.flight.gate import Gate
from boilstream.flight.server import FlightServer
from boilstream.ingest.engine import IngestEngine
from boilstream.ingest.service import Ingestion
from boilstream.log.index import LogIndex
from boilstream.log.recovery import recover
from boilstream.log.writer import LogWriter
from boilstream.machine import MIB, keep_freed_memory
from boilstream.observe.audit import AuditLog
from boilstream.observe.metrics import METRICS_PATH, Metrics, MetricsServer
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
        with ExitStack() as cleanup, ExitStack() as undo:
            self._settings = settings
            certificates, client_ca = read_certificates(settings)
            host = listen_host(settings)
            metrics = Metrics()
            manager = build_manager(settings, metrics)
            if manager is not None and certificates is None and not is_loopback(host):
                log.warning(
                    "no certificate: bearer tokens travel in clear text; set TLS_CERT_PATH and TLS_KEY_PATH"
                )
            if manager is not None:
                cleanup.callback(manager.close)
            self._authorizer = Authorizer(load_rules(settings))
            self._audit = AuditLog.open(settings.audit_log)
            cleanup.callback(self._audit.close)
            auditor = Auditor(self._audit, metrics)
            expiry = ExpiryRule(settings.auth_leeway_seconds)
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
            undo.callback(self._engine.close, 1)
            ingestion = Ingestion(
                catalog,
                self._engine,
                log_writer,
                index,
                store,
                self._authorizer,
                expiry=expiry,
                auditor=auditor,
                auto_create=settings.auto_create_topics,
                ack_timeout=settings.ack_timeout_seconds,
            )
            if manager is not None:
                manager.preload(KEY_PRELOAD_SECONDS)
                manager.start_refreshing()
            if settings.metrics_port is not None:
                metrics_server = MetricsServer(metrics, host, settings.metrics_port)
                cleanup.callback(metrics_server.close)
                log.info(
                    "metrics are served on http://%s:%d%s",
                    _bracketed(host),
                    metrics_server.port,
                    METRICS_PATH,
                )
            scheme = "grpc+tls" if certificates else "grpc"
            queries = Queries(catalog, index, store, self._authorizer, expiry)
            capabilities = build_capabilities(settings, manager)
            reads = Reads(queries, capabilities)
            try:
                self._flight = FlightServer(
                    f"{scheme}://{_bracketed(host)}:{settings.flight_port}",
                    manager=manager,
                    gate=Gate(auditor),
                    ingestion=ingestion,
                    queries=queries,
                    actions=Actions(
                        ingestion,
                        SessionExchange(manager, self._authorizer, auditor),
                        node=log_writer.writer,
                    ),
                    airport=AirportActions(
                        catalog, ingestion, queries, reads, self._authorizer, capabilities
                    ),
                    reads=reads,
                    capabilities=capabilities,
                    certificates=certificates,
                    client_ca=client_ca,
                )
            except (OSError, pa.ArrowException) as error:
                raise ConfigurationError(
                    f"FLIGHT_PORT: cannot listen on {host} port {settings.flight_port}; the port may be in use, or "
                    "FLIGHT_HOST is not an address of this machine; for example FLIGHT_PORT=50051"
                ) from error
            self.port: int = self._flight.port
            """The port of Arrow Flight; the real one if FLIGHT_PORT is 0."""
            self.location = f"{scheme}://{_bracketed(host)}:{self.port}"
            """Where Arrow Flight listens."""
            self._cleanup = cleanup.pop_all()
            undo.pop_all()
        log.info("Arrow Flight listens on %s", self.location)

    def reload(self) -> None:
        """Read the rules file again and open the audit log anew (SIGHUP).

        A rules file that is wrong changes nothing; the log says what is wrong with it.
        """
        self._audit.reopen()
        try:
            self._authorizer.replace(load_rules(self._settings))
        except ConfigurationError as error:
            log.error("the rules are not changed: %s", error.message)
        else:
            log.info("the rules were read again")

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

    SIGHUP reloads what `App.reload` says. Called by the main thread; `on_start` is called once the server
    answers. Raises what `App` raises.
    """
    keep_freed_memory()
    received: SimpleQueue[int] = SimpleQueue()
    stopping = False

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if number != signal.SIGHUP:
            if stopping:
                os._exit(1)  # asked twice: the operator does not want to wait
            stopping = True
        received.put(number)

    for watched in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(watched, note)
    app = App(settings)
    on_start(app)
    while (number := received.get()) == signal.SIGHUP:
        app.reload()
    log.info("received %s", signal.Signals(number).name)
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
    read_certificates(settings)
    listen_host(settings)
    load_rules(settings)
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


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
