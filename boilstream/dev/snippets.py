"""What `boilstream dev` prints: addresses, a token, and snippets that work when pasted.

Everything is real: absolute paths, the token, the client's secret. Nothing needs a program that
is not installed beside BoilStream, except in the one that says so.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DevSession:
    """A running `boilstream dev`, as its user must know it. All paths are absolute."""

    python: Path
    """The Python interpreter that has BoilStream's packages."""
    data_dir: Path
    """The setting DATA_DIR."""
    flight_location: str
    """Where Arrow Flight listens: `grpc+tls://localhost:50051`."""
    issuer: str
    """The claim `iss` of the tokens."""
    page: str
    """Address of the page that makes tokens."""
    token_endpoint: str
    ca_cert: Path
    client_id: str
    client_secret: str
    token: str
    """An access token that may read and write."""


@dataclass(frozen=True, slots=True)
class Snippets:
    """Shell commands, each complete by itself."""

    pyarrow: str
    """Writes two rows, reads the acknowledgement, reads all rows back."""
    duckdb: str
    """Counts the rows with SQL."""
    airport: str
    """Attaches the server to the DuckDB command, and creates, writes and queries a table in SQL."""
    curl: str
    """Gets a token by the client credentials grant."""
    token: str
    """Makes a user's token without the server."""


_WRITE_AND_READ = """
now = datetime.now(timezone.utc)
rows = pa.table({
    "timestamp": pa.array([now, now], pa.timestamp("us", tz="UTC")),
    "user_id": ["user-1", "user-2"],
    "event_type": ["login", "page_view"],
    "properties": [json.dumps({"method": "sso"}), json.dumps({"page": "/home"})],
})
writer, reader = client.do_put(descriptor, rows.schema, options)
with writer:
    writer.write_table(rows)
    writer.done_writing()
    acknowledgement = reader.read()  # None if the server refused; then the end of this block raises its error
print("acknowledged:", json.loads(acknowledgement.to_pybytes()))

info = client.get_flight_info(descriptor, options)
stored = pa.concat_tables([client.do_get(endpoint.ticket, options).read_all() for endpoint in info.endpoints])
print("rows stored:", stored.num_rows)
for row in stored.slice(max(0, stored.num_rows - 5)).to_pylist():
    print(row)
"""

_QUERY = """
info = client.get_flight_info(descriptor, options)
batches = (chunk.data for endpoint in info.endpoints for chunk in client.do_get(endpoint.ticket, options))
user_events = pa.RecordBatchReader.from_batches(info.schema, batches).__arrow_c_stream__()
duckdb.sql(\"\"\"
    SELECT event_type, count(*) AS events, count(DISTINCT user_id) AS users, max(timestamp) AS latest
    FROM user_events
    GROUP BY event_type
    ORDER BY events DESC, event_type
\"\"\").show()
"""


_TABLE_IN_SQL = """
CREATE TABLE IF NOT EXISTS boilstream.s3.user_events (
    timestamp TIMESTAMPTZ, user_id VARCHAR, event_type VARCHAR, properties JSON);
INSERT INTO boilstream.s3.user_events
    SELECT now(), 'user-' || i, 'sign_up', {'plan': 'free'}::JSON FROM range(3) t(i);
SELECT event_type, count(*) AS events, count(DISTINCT user_id) AS users, max(timestamp) AS latest
    FROM boilstream.s3.user_events
    GROUP BY event_type
    ORDER BY events DESC, event_type;
"""


def make_snippets(session: DevSession) -> Snippets:
    """The commands for one session."""
    quote = shlex.quote
    return Snippets(
        pyarrow=_program(session, "import json\nfrom datetime import datetime, timezone\n", _WRITE_AND_READ),
        duckdb=_program(session, "import duckdb\n", _QUERY),
        airport=f"""\
GRPC_DEFAULT_SSL_ROOTS_FILE_PATH={quote(str(session.ca_cert))} duckdb <<'SQL'
INSTALL airport FROM community;
LOAD airport;
CREATE SECRET boilstream (TYPE airport, auth_token '{session.token}', SCOPE '{session.flight_location}');
SET arrow_lossless_conversion = true;
ATTACH 'boilstream' (TYPE AIRPORT, location '{session.flight_location}/');
{_TABLE_IN_SQL}SQL""",
        curl=" \\\n  ".join(
            [
                f"curl --silent --show-error --cacert {quote(str(session.ca_cert))}",
                "--data grant_type=client_credentials",
                "--data-urlencode 'scope=read:data write:data'",
                f"--data-urlencode {quote(f'client_id={session.client_id}')}",
                f"--data-urlencode {quote(f'client_secret={session.client_secret}')}",
                r"--write-out '\n'",
                quote(session.token_endpoint),
            ]
        ),
        token=f"DATA_DIR={quote(str(session.data_dir))} {quote(str(session.python))} -m boilstream token "
        '--groups DataEngineers --scope "read:data write:data"',
    )


def render(session: DevSession) -> str:
    """The whole text; the snippets start at the left margin, so that they can be copied as they are."""
    snippets = make_snippets(session)
    return f"""
BoilStream is ready, with an identity provider for development.

  Arrow Flight   {session.flight_location}
  Issuer         {session.issuer}
  Token page     {session.page}
  CA file        {session.ca_cert}
  Data folder    {session.data_dir}

A token that may read and write:

{session.token}

Paste any of these into a second terminal.

--- Write and read with pyarrow ---

{snippets.pyarrow}

--- Query with DuckDB in Python (needs rows from the snippet above) ---

{snippets.duckdb}

--- Attach with DuckDB's Airport extension (needs the duckdb command, and the internet to install it) ---

{snippets.airport}

--- Get a token with client id and secret ---

{snippets.curl}

--- Make another token ---

{snippets.token}

Stop with Ctrl+C; rows and keys stay in the data folder, and tokens stay valid.
"""


def _program(session: DevSession, imports: str, body: str) -> str:
    """A shell command that runs a Python program with a Flight client, call options and a descriptor."""
    return f"""\
{shlex.quote(str(session.python))} - <<'PY'
{imports}import pyarrow as pa
import pyarrow.flight as flight

with open({str(session.ca_cert)!r}, "rb") as file:
    client = flight.connect({session.flight_location!r}, tls_root_certs=file.read())
token = {session.token!r}
options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + token.encode())])
descriptor = flight.FlightDescriptor.for_path("s3", "user_events")
{body}PY"""
