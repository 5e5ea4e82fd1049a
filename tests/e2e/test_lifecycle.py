"""Start, restart, stop: what a process leaves behind and finds again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

pytestmark = pytest.mark.slow

ROWS = pa.table({"a": pa.array(range(1000), pa.int64())})
PATH = ["s3", "events"]


def connect(server: ServerProcess, issuer: IssuerProcess) -> Client:
    return Client(server.location, issuer.token(groups="Admins"), issuer.ca_cert)


def test_rows_are_there_after_a_restart(issuer: IssuerProcess, data_dir: dict[str, str]) -> None:
    server = ServerProcess(issuer.environment() | data_dir)
    with server:
        connect(server, issuer).put(PATH, ROWS)
        assert server.stop() == 0
    with server:
        client = connect(server, issuer)
        assert client.get(PATH).equals(ROWS)
        client.put(PATH, ROWS)
        assert client.get(PATH).num_rows == 2000


def test_a_dropped_topic_stays_dropped_after_a_restart(
    issuer: IssuerProcess, data_dir: dict[str, str]
) -> None:
    server = ServerProcess(issuer.environment() | data_dir)
    with server:
        client = connect(server, issuer)
        client.put(PATH, ROWS)
        client.action("drop_topic", {"topic": PATH})
        server.stop()
    with server:
        assert connect(server, issuer).topics() == []


def test_an_open_append_may_finish_while_the_server_stops(
    issuer: IssuerProcess, data_dir: dict[str, str]
) -> None:
    server = ServerProcess(issuer.environment() | data_dir)
    with server:
        client = connect(server, issuer)
        client.put(PATH, ROWS)
        writer, reader = client.connection.do_put(
            flight.FlightDescriptor.for_path(*PATH), ROWS.schema, client.options
        )
        wait_for(lambda: "".join(server.log).count("begins") == 2)
        writer.write_table(ROWS)
        server.terminate()
        wait_for(lambda: "stopping" in "".join(server.log))
        with pytest.raises(flight.FlightError):
            connect(server, issuer).put(PATH, ROWS)
        writer.done_writing()
        assert json.loads(reader.read().to_pybytes())["rows"] == 1000
        writer.close()
        client.close()
        assert server.wait() == 0
    with server:
        assert connect(server, issuer).get(PATH).num_rows == 2000


def test_an_append_that_does_not_finish_leaves_nothing_and_the_stop_is_orderly(
    issuer: IssuerProcess, data_dir: dict[str, str]
) -> None:
    server = ServerProcess(issuer.environment() | data_dir | {"SHUTDOWN_GRACE_SECONDS": "0.5"})
    with server:
        client = connect(server, issuer)
        client.put(PATH, ROWS)
        writer, _ = client.connection.do_put(
            flight.FlightDescriptor.for_path(*PATH), ROWS.schema, client.options
        )
        writer.write_table(ROWS)
        wait_for(lambda: "".join(server.log).count("begins") == 2)
        assert server.stop() == 0
        with pytest.raises(flight.FlightError):
            writer.close()
    with server:
        assert connect(server, issuer).get(PATH).num_rows == 1000


def test_a_client_that_vanishes_leaves_nothing(
    issuer: IssuerProcess, data_dir: dict[str, str], tmp_path: Path
) -> None:
    program = """
import os, sys
import pyarrow as pa, pyarrow.flight as flight
location, token, ca = sys.argv[1:]
client = flight.connect(location, tls_root_certs=open(ca, "rb").read())
options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + token.encode())])
rows = pa.table({"a": pa.array(range(1000), pa.int64())})
writer, _ = client.do_put(flight.FlightDescriptor.for_path("s3", "events"), rows.schema, options)
for _ in range(20):
    writer.write_table(rows)
os.kill(os.getpid(), 9)
"""
    server = ServerProcess(issuer.environment() | data_dir | {"S3_FLUSH_INTERVAL_MS": "0"})
    with server:
        client = connect(server, issuer)
        client.put(PATH, ROWS)
        location = server.location.replace("127.0.0.1", "localhost")
        for _ in range(8):
            died = subprocess.run(
                [sys.executable, "-c", program, location, str(client.token), str(issuer.ca_cert)], check=False
            )
            assert died.returncode == -9
        client.put(PATH, ROWS)
        assert client.get(PATH).num_rows == 2000
        server.stop()
    with server:
        assert connect(server, issuer).get(PATH).num_rows == 2000


def wait_for(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def run_command(environment: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "boilstream", *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd)} | environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_check_prints_the_settings_and_serves_nothing(issuer: IssuerProcess, tmp_path: Path) -> None:
    result = run_command(issuer.environment(), "serve", "--check", cwd=tmp_path)
    assert result.returncode == 0
    assert f"OKTA_ORG_DOMAIN={issuer.domain}\n" in result.stdout
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"FLIGHT_PORT": "x"}, "FLIGHT_PORT"),
        ({"FLIGHT_HOST": "0.0.0.0"}, "without AUTH_PROVIDERS only loopback is served"),
        ({"ICEBERG_CATALOG_URI": "nosuchdb://x"}, "ICEBERG_CATALOG_URI"),
        ({"FLIGHT_PORT": "1", "FLIGHT_HOST": "192.0.2.1", "ALLOW_ANONYMOUS": "true"}, "FLIGHT_PORT"),
        ({"TLS_CERT_PATH": "junk.pem", "TLS_KEY_PATH": "junk.pem"}, "TLS_CERT_PATH"),
        ({"DATA_DIR": "junk.pem/data"}, "DATA_DIR"),
    ],
)
def test_a_wrong_start_says_why_in_one_message(
    tmp_path: Path, environment: dict[str, str], says: str
) -> None:
    (tmp_path / "junk.pem").write_text("not a certificate")
    result = run_command(environment, "serve", cwd=tmp_path)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_without_providers_only_loopback_is_served(tmp_path: Path) -> None:
    environment = {"DATA_DIR": str(tmp_path / "data"), "FLIGHT_PORT": "0"}
    server = ServerProcess(environment)
    del server.environment["FLIGHT_HOST"]
    with server:
        assert server.location.startswith("grpc://127.0.0.1:")
        client = Client(server.location, None)
        client.put(PATH, ROWS)
        assert client.action("whoami")["provider"] == "anonymous"
        with pytest.raises(flight.FlightUnauthorizedError):
            client.action("drop_topic", {"topic": PATH})
    assert "calls need no token" in "".join(server.log)


def test_a_second_server_on_the_same_folder_is_refused(
    issuer: IssuerProcess, data_dir: dict[str, str]
) -> None:
    server = ServerProcess(issuer.environment() | data_dir)
    with server:
        folder = Path(data_dir["DATA_DIR"])
        second = run_command(
            issuer.environment() | data_dir | {"FLIGHT_HOST": "127.0.0.1", "FLIGHT_PORT": "0"},
            "serve",
            cwd=folder.parent,
        )
        assert second.returncode == 2
        assert "DATA_DIR: another BoilStream process uses" in second.stderr
        server.kill()
    with server:
        assert connect(server, issuer).topics() == []
