from __future__ import annotations

import ast
import dataclasses
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.flight as flight
import pytest

from boilstream.dev.certificates import DevCertificates
from boilstream.dev.issuer import DevIssuer, mint
from boilstream.dev.snippets import DevSession, make_snippets, render

SESSION = DevSession(
    python=Path("/opt/boil stream/bin/python"),
    data_dir=Path("/home/o'neil/data"),
    flight_location="grpc+tls://localhost:50051",
    issuer="https://localhost:50052/oauth2/default",
    page="https://localhost:50052/",
    token_endpoint="https://localhost:50052/oauth2/default/v1/token",
    ca_cert=Path("/home/o'neil/data/dev/ca.crt"),
    client_id="0oadevclient",
    client_secret="s3cret-_value",
    token="header.payload.signature",
)


def program_of(snippet: str) -> str:
    first, _, rest = snippet.partition("\n")
    assert first == "'/opt/boil stream/bin/python' - <<'PY'"
    assert rest.endswith("\nPY")
    return rest.removesuffix("PY")


@pytest.mark.parametrize("name", ["pyarrow", "duckdb"])
def test_python_snippets_are_complete_programs(name: str) -> None:
    program = program_of(getattr(make_snippets(SESSION), name))
    strings = {node.value for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Constant)}
    assert {str(SESSION.ca_cert), SESSION.flight_location, SESSION.token, "s3", "user_events"} <= strings
    assert "\nPY\n" not in program
    assert "\t" not in program
    assert "!" not in program  # interactive shells expand it


def test_the_airport_snippet_starts_duckdb_with_sql_that_parses() -> None:
    first, _, rest = make_snippets(SESSION).airport.partition("\n")
    assert shlex.split(first) == [
        f"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH={SESSION.ca_cert}",
        "duckdb",
        "<<SQL",
    ]
    assert first.endswith("<<'SQL'"), "the shell leaves the text as it is"
    sql, _, end = rest.rpartition("\n")
    assert end == "SQL"
    assert "\nSQL\n" not in sql
    assert "\t" not in sql
    assert "!" not in sql  # interactive shells expand it
    kinds = [statement.type.name for statement in duckdb.extract_statements(sql)]
    assert kinds == ["LOAD", "LOAD", "CREATE", "SET", "ATTACH", "CREATE", "INSERT", "SELECT"]
    assert f"auth_token '{SESSION.token}', SCOPE '{SESSION.flight_location}')" in sql
    assert f"location '{SESSION.flight_location}/')" in sql


def test_the_curl_snippet_sends_the_real_client() -> None:
    words = shlex.split(make_snippets(SESSION).curl.replace("\\\n", ""))
    assert words[0] == "curl"
    assert words[-1] == SESSION.token_endpoint
    assert words[words.index("--cacert") + 1] == str(SESSION.ca_cert)
    assert {"client_id=0oadevclient", "client_secret=s3cret-_value", "scope=read:data write:data"} <= set(
        words
    )


def test_the_token_snippet_works_in_any_folder() -> None:
    assert shlex.split(make_snippets(SESSION).token) == [
        f"DATA_DIR={SESSION.data_dir}",
        str(SESSION.python),
        "-m",
        "boilstream",
        "token",
        "--groups",
        "DataEngineers",
        "--scope",
        "read:data write:data",
    ]


def test_the_text_has_addresses_token_and_every_snippet_at_the_margin() -> None:
    text = render(SESSION)
    for value in (SESSION.flight_location, SESSION.issuer, SESSION.page, str(SESSION.ca_cert)):
        assert value in text
    assert f"\n{SESSION.token}\n" in text
    for snippet in dataclasses.astuple(make_snippets(SESSION)):
        assert f"\n\n{snippet}\n\n" in text


class OneTableServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no type stubs
    """Speaks the documented protocol of plain DoPut and of reads over several endpoints, in memory."""

    def __init__(self, location: str, **kwargs: object) -> None:
        super().__init__(location, **kwargs)
        self.batches: list[Any] = []

    def do_put(self, context: object, descriptor: Any, reader: Any, writer: Any) -> None:
        assert list(descriptor.path) == [b"s3", b"user_events"]
        table = reader.read_all()
        self.batches += table.to_batches(max_chunksize=1)
        ack = {
            "ack_up_to_offset": 0,
            "ack_up_to_records": table.num_rows,
            "rows": table.num_rows,
            "commit": "w/1",
        }
        writer.write(json.dumps(ack).encode())

    def get_flight_info(self, context: object, descriptor: Any) -> Any:
        endpoints = [flight.FlightEndpoint(str(index).encode(), []) for index in range(len(self.batches))]
        return flight.FlightInfo(self.batches[0].schema, descriptor, endpoints, -1, -1)

    def do_get(self, context: object, ticket: Any) -> Any:
        return flight.RecordBatchStream(pa.Table.from_batches([self.batches[int(ticket.ticket)]]))


@pytest.fixture
def session(certificates: DevCertificates, issuer: DevIssuer, issuer_folder: Path) -> Iterator[DevSession]:
    pair = (certificates.server_cert.read_bytes(), certificates.server_key.read_bytes())
    with OneTableServer("grpc+tls://127.0.0.1:0", tls_certificates=[pair]) as server:
        yield dataclasses.replace(
            SESSION,
            python=Path(sys.executable),
            flight_location=f"grpc+tls://localhost:{server.port}",
            token_endpoint=issuer.token_endpoint,
            ca_cert=certificates.ca_cert,
            client_secret=issuer.client_secret,
            token=mint(issuer_folder, groups=["DataEngineers"], scopes=["read:data", "write:data"]),
        )


def run_in_shell(snippet: str, folder: Path) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "NO_PROXY": "*"}
    result = subprocess.run(
        ["bash"],
        input=f"{snippet}\n",
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.slow
def test_snippets_run_as_they_are_pasted(session: DevSession, tmp_path: Path) -> None:
    snippets = make_snippets(session)

    written = run_in_shell(snippets.pyarrow, tmp_path)
    assert "acknowledged: {'ack_up_to_offset': 0, 'ack_up_to_records': 2, 'rows': 2" in written
    assert "rows stored: 2" in written
    assert "'event_type': 'page_view'" in written
    run_in_shell(snippets.pyarrow, tmp_path)

    queried = run_in_shell(snippets.duckdb, tmp_path)
    assert "page_view" in queried
    assert "latest" in queried

    answer = json.loads(run_in_shell(snippets.curl, tmp_path))
    assert answer["token_type"] == "Bearer"
