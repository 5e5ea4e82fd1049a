"""`boilstream dev` as a user meets it: what it prints works when it is pasted."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.support.pasted import paste as paste_sql
from tests.support.server import Client, ServerProcess

pytestmark = pytest.mark.slow

ROWS = pa.table({"a": [1, 2, 3]})
LAST_LINE = "Stop with Ctrl+C"


@dataclass(frozen=True, slots=True)
class Printed:
    """What `boilstream dev` wrote to its standard output, taken apart."""

    text: str

    @classmethod
    def wait(cls, server: ServerProcess) -> Printed:
        """The text as soon as it is complete."""
        wait_for(lambda: any(LAST_LINE in line for line in server.output))
        return cls("".join(server.output))

    def value(self, label: str) -> str:
        match = re.search(rf"^  {label} +(\S.*)$", self.text, re.MULTILINE)
        assert match is not None, self.text
        return match[1]

    @property
    def token(self) -> str:
        match = re.search(r"^(ey[\w-]+\.[\w-]+\.[\w-]+)$", self.text, re.MULTILINE)
        assert match is not None, self.text
        return match[1]

    def snippet(self, title: str) -> str:
        """The text between the heading that starts with `title` and the next one."""
        _, found, rest = self.text.partition(f"\n--- {title}")
        assert found, self.text
        return re.split(r"\n--- |\nStop with", rest.partition("---\n")[2])[0].strip()

    def client(self, token: str) -> Client:
        return Client(self.value("Arrow Flight"), token, Path(self.value("CA file")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a user's folder")


def dev_process(folder: Path) -> ServerProcess:
    return ServerProcess({"DATA_DIR": str(folder / "data"), "DEV_ISSUER_PORT": "0"}, command=("dev",))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    with dev_process(folder) as process:
        yield process


@pytest.fixture
def printed(server: ServerProcess) -> Printed:
    return Printed.wait(server)


def paste(snippet: str, folder: Path) -> str:
    """What a shell in another folder prints for the snippet."""
    result = subprocess.run(
        ["bash"],
        input=f"{snippet}\n",
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_it_prints_where_everything_is(server: ServerProcess, printed: Printed, folder: Path) -> None:
    port = server.location.rpartition(":")[2]
    assert printed.value("Arrow Flight") == f"grpc+tls://localhost:{port}"
    assert re.fullmatch(r"https://localhost:[1-9]\d*/oauth2/default", printed.value("Issuer"))
    assert printed.value("Issuer").startswith(printed.value("Token page"))
    assert printed.value("Data folder") == str(folder / "data")
    assert Path(printed.value("CA file")).is_file()
    assert printed.text.count(printed.token) == 4, "by itself, in two Python snippets, in SQL"


def test_the_printed_token_may_read_and_write(printed: Printed) -> None:
    client = printed.client(printed.token)
    assert client.put(["s3", "by_token"], ROWS)["rows"] == 3
    assert client.get(["s3", "by_token"]).equals(ROWS)
    assert client.action("whoami")["groups"] == ["DataEngineers"]
    client.close()


def test_the_snippets_write_read_and_query(printed: Printed, tmp_path: Path) -> None:
    for total in (2, 4):
        written = paste(printed.snippet("Write and read with pyarrow"), tmp_path)
        assert re.search(
            r"^acknowledged: \{'ack_up_to_offset': 0, 'ack_up_to_records': 2, 'rows': 2, 'commit': '.+/\d+'\}$",
            written,
            re.MULTILINE,
        )
        assert f"rows stored: {total}\n" in written
        assert "'user_id': 'user-1', 'event_type': 'login'" in written
    queried = paste(printed.snippet("Query with DuckDB in Python"), tmp_path)
    assert re.search(r"│ login +│ +2 │ +1 │ ", queried), queried
    assert re.search(r"│ page_view +│ +2 │ +1 │ ", queried), queried
    sql = sql_of(printed.snippet("Attach with DuckDB's Airport extension"), printed, tmp_path)
    for total in (3, 6):
        (answer,) = paste_sql(sql, ca=Path(printed.value("CA file")))
        events = {row["event_type"]: row["events"] for row in answer.server.to_pylist()}
        assert events == {"login": 2, "page_view": 2, "sign_up": total}
    client = printed.client(printed.token)
    assert client.get(["s3", "user_events"]).num_rows == 10
    client.close()


def sql_of(snippet: str, printed: Printed, folder: Path) -> str:
    """What the snippet gives to DuckDB, which finds the CA file in its environment."""
    command = folder / "duckdb"
    command.write_text('#!/bin/sh\necho "$GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"\ncat\n')
    command.chmod(0o700)
    ca, _, sql = paste(f"PATH={shlex.quote(str(folder))}:$PATH\n{snippet}", folder).partition("\n")
    assert ca == printed.value("CA file")
    return sql


def test_the_curl_snippet_gets_a_token_that_may_write(printed: Printed, tmp_path: Path) -> None:
    answer = json.loads(paste(printed.snippet("Get a token with client id and secret"), tmp_path))
    assert answer["token_type"] == "Bearer"
    client = printed.client(answer["access_token"])
    assert client.put(["s3", "by_curl"], ROWS)["rows"] == 3
    assert client.get(["s3", "by_curl"]).equals(ROWS)
    who = client.action("whoami")
    assert (who["groups"], sorted(who["scopes"])) == ([], ["read:data", "write:data"])
    with pytest.raises(flight.FlightUnauthorizedError):
        client.action("drop_topic", {"topic": ["s3", "by_curl"]})
    client.close()


def test_the_token_snippet_makes_another_token(printed: Printed, tmp_path: Path) -> None:
    token = paste(printed.snippet("Make another token"), tmp_path).strip()
    assert token != printed.token
    client = printed.client(token)
    client.put(["s3", "by_snippet"], ROWS)
    client.action("drop_topic", {"topic": ["s3", "by_snippet"]})
    client.close()


def mint(server: ServerProcess, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "boilstream", "token", *arguments],
        env=server.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


def test_analysts_read_and_do_not_write(server: ServerProcess, printed: Printed) -> None:
    engineer, analyst = (
        printed.client(printed.token),
        printed.client(mint(server, "--groups", "DataAnalysts")),
    )
    engineer.put(["s3", "reports"], ROWS)
    assert analyst.get(["s3", "reports"]).equals(ROWS)
    assert "s3.reports" in analyst.topics()
    for path in (["s3", "reports"], ["s3", "new_reports"]):
        with pytest.raises(flight.FlightUnauthorizedError, match="WRITE_GROUPS"):
            analyst.put(path, ROWS)
    assert engineer.get(["s3", "reports"]).num_rows == 3
    assert "s3.new_reports" not in engineer.topics()
    for client in (engineer, analyst):
        client.close()


def test_secrets_are_for_their_owner_and_not_in_the_log(
    server: ServerProcess, printed: Printed, folder: Path
) -> None:
    secret = (folder / "data" / "dev" / "client-secret").read_text().strip()
    assert secret in printed.snippet("Get a token")
    client = printed.client(printed.token)
    client.topics()
    client.close()
    log = "".join(server.log)
    assert secret not in log
    assert printed.token.rpartition(".")[2] not in log
    for name in ("client-secret", "signing-key.pem", "server.key"):
        assert stat.S_IMODE((folder / "data" / "dev" / name).stat().st_mode) == 0o600


def test_a_second_start_keeps_keys_tokens_and_rows(tmp_path: Path) -> None:
    server = dev_process(tmp_path)
    with server:
        first = Printed.wait(server)
        client = first.client(first.token)
        client.put(["s3", "kept"], ROWS)
        client.close()
        assert server.stop() == 0
    kept = {path.name: path.read_bytes() for path in (tmp_path / "data" / "dev").iterdir()}
    # A token names its issuer, so that it is good again only on the same port.
    issuer_port = first.value("Issuer").removeprefix("https://localhost:").partition("/")[0]
    server.environment["DEV_ISSUER_PORT"] = issuer_port
    server.output.clear()
    with server:
        second = Printed.wait(server)
        client = second.client(first.token)
        assert client.get(["s3", "kept"]).equals(ROWS)
        client.close()
        assert server.stop() == 0
    for name in ("signing-key.pem", "client-secret", "server.key", "server.crt", "ca.crt"):
        assert (tmp_path / "data" / "dev" / name).read_bytes() == kept[name], name
    assert "Traceback" not in "".join(server.log)


def test_serve_never_starts_an_issuer(printed: Printed, tmp_path: Path) -> None:
    port = free_port()
    environment = {"DATA_DIR": str(tmp_path / "data"), "DEV_ISSUER_PORT": str(port)}
    with ServerProcess(environment) as server:
        client = Client(server.location, None)
        client.put(["s3", "t"], ROWS)
        client.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
        assert server.stop() == 0
    assert server.output == []
    assert "issuer" not in "".join(server.log).lower()
    assert not (tmp_path / "data" / "dev").exists()


def test_a_port_that_is_taken_is_told(printed: Printed, tmp_path: Path) -> None:
    issuer_port = printed.value("Issuer").removeprefix("https://localhost:").partition("/")[0]
    flight_port = printed.value("Arrow Flight").rpartition(":")[2]
    ports = {"DEV_ISSUER_PORT": (issuer_port, "0"), "FLIGHT_PORT": ("0", flight_port)}
    for name, (issuer, flight_) in ports.items():
        result = subprocess.run(
            [sys.executable, "-m", "boilstream", "dev"],
            env={"DATA_DIR": str(tmp_path / "data"), "DEV_ISSUER_PORT": issuer, "FLIGHT_PORT": flight_},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 2, result.stderr
        messages = [line for line in result.stderr.splitlines() if line.startswith("boilstream: ")]
        assert len(messages) == 1
        assert messages[0].startswith(f"boilstream: {name}: ")
        assert "Traceback" not in result.stderr
        assert result.stdout == ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)
