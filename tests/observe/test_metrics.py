"""Metrics: what is counted, what is shown, and who may ask for it."""

from __future__ import annotations

import contextlib
import http.client
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import boilstream
from boilstream.auth.authorizer import Action
from boilstream.errors import ConfigurationError
from boilstream.observe.metrics import MAX_CLIENTS, KeySetState, Metrics, MetricsServer

URL = "https://company.okta.com/oauth2/default/v1/keys"
DOCUMENT = Path(boilstream.__file__).parent.parent / "docs" / "metrics.md"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(metrics: Metrics) -> Iterator[MetricsServer]:
    with contextlib.closing(MetricsServer(metrics, "127.0.0.1", 0)) as running:
        yield running


def ask(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()


@pytest.fixture
def threads_end() -> Callable[[], None]:
    """Waits for the threads of all connections of this test; other tests' servers have some of their own."""
    before = set(threading.enumerate())

    def wait() -> None:
        for thread in set(threading.enumerate()) - before:
            if "process_request_thread" in thread.name:
                thread.join(30)
                assert not thread.is_alive()

    return wait


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"boilstream_{name}", labels)


def test_the_version_is_told(metrics: Metrics) -> None:
    assert value(metrics, "build_info", version=boilstream.__version__) == 1


def test_every_outcome_of_a_token_is_there_from_the_start(metrics: Metrics) -> None:
    metrics.tokens_verified.inc()
    metrics.tokens_cached.inc(2)
    metrics.tokens_refused.inc(3)
    metrics.tokens_unavailable.inc(4)
    outcomes = ("verified", "cached", "refused", "unavailable")
    assert [value(metrics, "auth_tokens_total", outcome=outcome) for outcome in outcomes] == [1, 2, 3, 4]
    assert [value(Metrics(), "auth_tokens_total", outcome=outcome) for outcome in outcomes] == [0] * 4


def test_every_action_can_be_denied(metrics: Metrics) -> None:
    for action in Action:
        assert value(metrics, "auth_denied_calls_total", action=action.value) == 0
        metrics.denied(action.value)
        assert value(metrics, "auth_denied_calls_total", action=action.value) == 1


def test_a_word_that_is_no_action_makes_no_series(metrics: Metrics) -> None:
    with pytest.raises(KeyError):
        metrics.denied("from a token")
    assert "from a token" not in metrics_text(metrics)


def metrics_text(metrics: Metrics) -> str:
    with contextlib.closing(MetricsServer(metrics, "127.0.0.1", 0)) as server:
        status, text = ask(server.port)
    assert status == 200
    return text


def test_fetches_are_counted_by_provider_and_outcome(metrics: Metrics) -> None:
    okta, auth0 = metrics.for_keys("okta", URL), metrics.for_keys("auth0", URL)
    okta.fetched(ok=True, seconds=0.2)
    okta.fetched(ok=False, seconds=5.01)
    auth0.fetched(ok=False, seconds=1)
    for provider, outcome, count in (("okta", "ok", 1), ("okta", "failed", 1), ("auth0", "ok", 0)):
        assert value(metrics, "auth_key_fetches_total", provider=provider, outcome=outcome) == count
    assert value(metrics, "auth_key_fetch_seconds_count", provider="okta") == 2
    assert value(metrics, "auth_key_fetch_seconds_bucket", provider="okta", le="5.0") == 1, (
        "5.01 s was cut off"
    )


def test_keys_are_read_when_asked_and_have_no_age_before_the_first(metrics: Metrics) -> None:
    state = KeySetState(0, None)
    metrics.for_keys("okta", URL).watch(lambda: state)
    labels = {"provider": "okta", "url": URL}
    assert value(metrics, "auth_keys", **labels) == 0
    assert value(metrics, "auth_key_age_seconds", **labels) is None
    state = KeySetState(2, 12.5)
    assert value(metrics, "auth_keys", **labels) == 2
    assert value(metrics, "auth_key_age_seconds", **labels) == 12.5


def test_key_sets_of_one_provider_are_told_apart(metrics: Metrics) -> None:
    metrics.for_keys("azure-ad", URL).watch(lambda: KeySetState(1, 1.0))
    metrics.for_keys("azure-ad", URL + "2").watch(lambda: KeySetState(2, 2.0))
    assert value(metrics, "auth_keys", provider="azure-ad", url=URL) == 1
    assert value(metrics, "auth_keys", provider="azure-ad", url=URL + "2") == 2


def test_two_servers_in_one_process_share_nothing(metrics: Metrics) -> None:
    metrics.tokens_refused.inc()
    assert value(Metrics(), "auth_tokens_total", outcome="refused") == 0


def documented() -> dict[str, tuple[str, set[str]]]:
    """Name -> type and labels, from the tables of docs/metrics.md."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE)
    names = [name for name, _, _ in rows]
    assert len(names) == len(set(names)) > 0
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_what_is_shown_is_documented_with_type_and_labels(metrics: Metrics) -> None:
    fed = metrics.for_keys("okta", URL)
    fed.watch(lambda: KeySetState(1, 1.0))
    fed.fetched(ok=True, seconds=1)
    shown = {}
    for family in text_string_to_metric_families(metrics_text(metrics)):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown[name] = (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
    assert shown == documented()


def test_it_is_served_on_one_path(metrics: Metrics, server: MetricsServer) -> None:
    metrics.tokens_refused.inc()
    status, text = ask(server.port)
    assert status == 200
    assert 'boilstream_auth_tokens_total{outcome="refused"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert ask(server.port, "/metrics?name[]=boilstream_auth_keys")[0] == 200
    for path in ("/", "/metrics/", "/favicon.ico", "/metrics/../etc/passwd"):
        assert ask(server.port, path)[0] == 404
    for method in ("POST", "PUT", "DELETE", "HEAD"):
        assert ask(server.port, method=method)[0] == 501


def test_one_metric_alone_may_be_asked_for(metrics: Metrics, server: MetricsServer) -> None:
    metrics.for_keys("okta", URL).watch(lambda: KeySetState(1, 1.0))
    _, text = ask(server.port, "/metrics?name[]=boilstream_auth_keys")
    families = list(text_string_to_metric_families(text))
    assert [(family.name, len(family.samples)) for family in families] == [("boilstream_auth_keys", 1)]


def test_a_client_that_says_nothing_does_not_hold_up_others(server: MetricsServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)):
        assert ask(server.port)[0] == 200


@pytest.mark.slow  # waits for a timeout of the server
def test_idle_connections_do_not_use_up_threads(
    server: MetricsServer, threads_end: Callable[[], None]
) -> None:
    with contextlib.ExitStack() as idle:
        for _ in range(MAX_CLIENTS):
            idle.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as one_more:
            assert one_more.recv(1) == b""
    threads_end()
    # more often than there are places: none is lost
    assert [ask(server.port)[0] for _ in range(2 * MAX_CLIENTS)] == [200] * 2 * MAX_CLIENTS


def test_clients_that_break_off_leave_no_traceback(
    server: MetricsServer,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    threads_end: Callable[[], None],
) -> None:
    for request in (b"", b"GET /metrics HTTP/1.1\r\n", b"\x00\xff\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    assert ask(server.port)[0] == 200
    threads_end()
    assert capfd.readouterr().err == ""
    assert caplog.messages == []


def test_a_defect_is_logged_without_its_details(
    metrics: Metrics,
    server: MetricsServer,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    threads_end: Callable[[], None],
) -> None:
    def broken() -> KeySetState:
        raise ValueError("details")

    metrics.for_keys("okta", URL).watch(broken)
    with caplog.at_level(logging.ERROR), pytest.raises(http.client.RemoteDisconnected):
        ask(server.port)
    threads_end()
    assert caplog.messages == ["Cannot answer a scrape: defect: ValueError"]
    assert capfd.readouterr().err == ""


def test_after_close_nobody_listens(metrics: Metrics) -> None:
    server = MetricsServer(metrics, "127.0.0.1", 0)
    server.close()
    with pytest.raises(ConnectionRefusedError):
        ask(server.port)
    again = MetricsServer(metrics, "127.0.0.1", server.port)
    assert ask(again.port)[0] == 200
    again.close()


def test_it_listens_on_ipv6_and_on_names(metrics: Metrics) -> None:
    for host in ("::1", "localhost"):
        with contextlib.closing(MetricsServer(metrics, host, 0)) as server:
            connection = http.client.HTTPConnection(host, server.port, timeout=30)
            with contextlib.closing(connection):
                connection.request("GET", "/metrics")
                assert connection.getresponse().status == 200


def test_a_port_that_is_taken_stops_the_start(metrics: Metrics, server: MetricsServer) -> None:
    with pytest.raises(
        ConfigurationError, match=f"METRICS_PORT: cannot listen on 127.0.0.1 port {server.port}"
    ):
        MetricsServer(metrics, "127.0.0.1", server.port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_another_machine_stops_the_start(metrics: Metrics, host: str) -> None:
    with pytest.raises(ConfigurationError, match="METRICS_PORT"):
        MetricsServer(metrics, host, 0)
