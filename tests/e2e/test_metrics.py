"""Metrics of a real server, as Prometheus would collect them."""

from __future__ import annotations

import re
import time
import urllib.request

import pyarrow.flight as flight
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.observe.test_metrics import documented
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

pytestmark = pytest.mark.slow


def address(server: ServerProcess) -> str:
    """Where the metrics are, from the log; it may tell so after it listens."""
    deadline = time.monotonic() + 30
    while (match := re.search(r"metrics are served on (http://\S+/metrics)", "".join(server.log))) is None:
        assert time.monotonic() < deadline, "".join(server.log)
        time.sleep(0.01)
    return match[1]


def scrape(url: str) -> dict[str, list[Sample]]:
    """Name as users query it -> samples."""
    with urllib.request.urlopen(url, timeout=30) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: family.samples
        for family in families
    }


def test_a_real_server_shows_what_is_documented(issuer: IssuerProcess, data_dir: dict[str, str]) -> None:
    environment = issuer.environment() | data_dir | {"METRICS_PORT": "0"}
    with ServerProcess(environment) as server:
        url = address(server)
        reader = Client(server.location, issuer.token(groups="Readers"), issuer.ca_cert)
        for _ in range(3):
            reader.topics()
        with pytest.raises(flight.FlightUnauthorizedError):
            reader.action("drop_topic", {"topic": ["s3", "none"]})
        with pytest.raises(flight.FlightUnauthenticatedError):
            Client(server.location, "not.a.token", issuer.ca_cert).topics()
        reader.close()

        shown = scrape(url)
        assert set(shown) == set(documented())

        def value(name: str, **labels: str) -> float:
            found = [sample.value for sample in shown[name] if labels.items() <= sample.labels.items()]
            assert len(found) == 1, shown[name]
            return found[0]

        tokens = {sample.labels["outcome"]: sample.value for sample in shown["boilstream_auth_tokens_total"]}
        assert tokens == {"verified": 1, "cached": 3, "refused": 1, "unavailable": 0}
        assert value("boilstream_auth_denied_calls_total", action="admin") == 1
        assert value("boilstream_auth_keys", provider="okta") == 1
        assert 0 <= value("boilstream_auth_key_age_seconds", provider="okta") < 3600
        assert value("boilstream_auth_key_fetches_total", provider="okta", outcome="ok") == 1
        assert value("process_resident_memory_bytes") > 0
        assert issuer.domain in shown["boilstream_auth_keys"][0].labels["url"]
        assert server.stop() == 0


def test_without_the_setting_nothing_is_served(issuer: IssuerProcess, data_dir: dict[str, str]) -> None:
    with ServerProcess(issuer.environment() | data_dir) as server:
        assert server.stop() == 0
        assert "metrics" not in "".join(server.log)
