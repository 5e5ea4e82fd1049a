"""Metrics for Prometheus, and the small HTTP server that shows them."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from socketserver import BaseRequestHandler, TCPServer
from typing import Any, Final
from urllib.parse import urlsplit

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, MetricsHandler
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

import boilstream
from boilstream.errors import ConfigurationError

METRICS_PATH: Final = "/metrics"

_FETCH_BUCKETS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds; a fetch that is cut off takes 5 s and a little, so it counts above the last."""

_ACTIONS: Final = ("read", "write", "admin")

MAX_CLIENTS: Final = 16
"""Connections that are served at once; more are closed, so that idle ones cannot use up the threads."""

_CLIENT_SECONDS: Final = 10.0

_LOGGER = logging.getLogger("boilstream.observe.metrics")


@dataclass(frozen=True, slots=True)
class KeySetState:
    """A cached key set at one moment: number of keys, and seconds since they were fetched (None: never)."""

    keys: int
    age_seconds: float | None


class KeyMetrics:
    """The metrics of one key set; `Metrics.for_keys` makes them, the key cache feeds them."""

    def __init__(self, ok: Counter, failed: Counter, seconds: Histogram) -> None:
        self._ok = ok
        self._failed = failed
        self._seconds = seconds
        self._state: Callable[[], KeySetState] | None = None

    def watch(self, state: Callable[[], KeySetState]) -> None:
        """Read number and age of the keys from `state` at every scrape; it must not block."""
        self._state = state

    def fetched(self, *, ok: bool, seconds: float) -> None:
        """Count a fetch that has ended."""
        (self._ok if ok else self._failed).inc()
        self._seconds.observe(seconds)

    def state(self) -> KeySetState:
        """The key set now."""
        return KeySetState(0, None) if self._state is None else self._state()


class Metrics:
    """All metrics of one server, in a registry of their own; docs/metrics.md explains each.

    Labels come from the settings or are fixed words; none ever comes from a token or a request, so no
    caller can make new time series.
    """

    def __init__(self) -> None:
        # The library's series of creation times would double the output; its only switch is global.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        build = prometheus_client.Info("boilstream_build", "Version of this server.", registry=self.registry)
        build.info({"version": boilstream.__version__})
        self._key_sets = _KeySets()
        self.registry.register(self._key_sets)

        self.key_fetches = Counter(
            "boilstream_auth_key_fetches_total",
            "Fetches of signing keys from identity providers.",
            ("provider", "outcome"),
            registry=self.registry,
        )
        self.key_fetch_seconds = Histogram(
            "boilstream_auth_key_fetch_seconds",
            "Duration of fetches of signing keys, failed ones included.",
            ("provider",),
            buckets=_FETCH_BUCKETS,
            registry=self.registry,
        )
        tokens = Counter(
            "boilstream_auth_tokens_total",
            "Tokens presented by callers.",
            ("outcome",),
            registry=self.registry,
        )
        self.tokens_verified = tokens.labels("verified")
        """Accepted, with a signature check."""
        self.tokens_cached = tokens.labels("cached")
        """Accepted, as verified before."""
        self.tokens_refused = tokens.labels("refused")
        """Not valid."""
        self.tokens_unavailable = tokens.labels("unavailable")
        """Not checked, because the provider's keys cannot be had."""
        denied = Counter(
            "boilstream_auth_denied_calls_total",
            "Calls with a valid token that lacks the permission.",
            ("action",),
            registry=self.registry,
        )
        self._denied = {action: denied.labels(action) for action in _ACTIONS}

    def denied(self, action: str) -> None:
        """Count a call that lacks the permission to read, write or admin."""
        self._denied[action].inc()

    def for_keys(self, provider: str, url: str) -> KeyMetrics:
        """The metrics of the key set that `provider` (its name in AUTH_PROVIDERS) publishes at `url`."""
        made = KeyMetrics(
            self.key_fetches.labels(provider, "ok"),
            self.key_fetches.labels(provider, "failed"),
            self.key_fetch_seconds.labels(provider),
        )
        self._key_sets.add(provider, url, made)
        return made


class _KeySets(Collector):
    """Number and age of the keys of every provider, read when Prometheus asks.

    Without keys the age is absent and the number is 0: an age of NaN would spoil every max() and sum()
    over providers and satisfies no comparison, so an alert on it would stay silent in the worst case.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sets: dict[tuple[str, str], KeyMetrics] = {}

    def add(self, provider: str, url: str, key_set: KeyMetrics) -> None:
        with self._lock:
            self._sets[provider, url] = key_set

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The families without samples; the registry asks once, for their names."""
        yield from self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Both families, with a sample per key set."""
        keys, age = self._families()
        with self._lock:
            sets = list(self._sets.items())
        for labels, key_set in sets:
            state = key_set.state()
            keys.add_metric(labels, state.keys)
            if state.age_seconds is not None:
                age.add_metric(labels, state.age_seconds)
        yield from (keys, age)

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        labels = ("provider", "url")
        return (
            GaugeMetricFamily("boilstream_auth_keys", "Signing keys at hand.", labels=labels),
            GaugeMetricFamily(
                "boilstream_auth_key_age_seconds",
                "Time since the signing keys were fetched; absent without keys.",
                labels=labels,
            ),
        )


class MetricsServer:
    """Serves GET /metrics over plain HTTP, without a token, on threads of its own.

    It listens when the constructor returns; with `port` 0 on a free port. Raises ConfigurationError,
    which names METRICS_PORT, when it cannot.
    """

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        handler = _Handler.factory(metrics.registry)
        try:
            self._server = (_ServerV6 if ":" in host else _Server)((host, port), handler)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                f"METRICS_PORT: cannot listen on {host} port {port} ({error}); the port may be in use; for "
                "example METRICS_PORT=9090"
            ) from None
        self.port: int = self._server.server_address[1]
        """The port; the real one if 0 was asked for."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening; an answer under way may still be finished."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(MetricsHandler):
    """The library's answer, on one path only and within limits of time."""

    timeout = _CLIENT_SECONDS  # for each read from a client

    def do_GET(self) -> None:
        if urlsplit(self.path).path != METRICS_PATH:
            self.send_error(404)
            return
        super().do_GET()

    def version_string(self) -> str:
        return "boilstream"


class _Server(ThreadingHTTPServer):
    """The standard server, bounded, with no name lookup at the start and no tracebacks on standard error."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseRequestHandler]) -> None:
        self._slots = threading.BoundedSemaphore(MAX_CLIENTS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()  # there is no thread for it
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's signature
        """Clients that break off are no event; anything else is a defect, which the log should name."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            _LOGGER.error("Cannot answer a scrape: defect: %s", type(error).__name__)


class _ServerV6(_Server):
    address_family = socket.AF_INET6
