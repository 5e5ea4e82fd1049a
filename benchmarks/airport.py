"""INSERT and SELECT as DuckDB's Airport extension makes them, against the same server without its work.

INSERT: 5 million rows in batches of 2048, acknowledged and durable, against a server that receives
the same exchange and throws the rows away. SELECT: the same rows from their files, against a plain
DoGet of the same table held in the memory of a server.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from benchmarks.data import event_table
from benchmarks.report import ratio
from boilstream.machine import MIB
from tests.support.airport import AirportClient
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

REPOSITORY = Path(__file__).parents[1]
VECTOR_ROWS = 2048
COLUMNS = {"id": "BIGINT", "time": "TIMESTAMPTZ", "amount": "DOUBLE", "page": "VARCHAR"}
ROUNDS = 3


def _best(measured: Callable[[int], object]) -> float:
    """Seconds of the fastest of ROUNDS runs, which are told their number."""
    seconds = []
    for number in range(ROUNDS):
        start = time.monotonic()
        measured(number)
        seconds.append(time.monotonic() - start)
    return min(seconds)


def _insert(client: AirportClient, table: pa.Table) -> Callable[[int], object]:
    batches = table.to_batches(max_chunksize=VECTOR_ROWS)

    def run(number: int) -> None:
        written = client.insert_raw(f"events{number}", table.schema, iter(batches))
        assert written.rows == table.num_rows

    return run


def _select(client: AirportClient, rows: int) -> Callable[[int], object]:
    def run(_: int) -> None:
        assert client.read("events0").num_rows == rows

    return run


def _from_memory(client: Client, rows: int) -> Callable[[int], object]:
    def run(_: int) -> None:
        assert client.read(b"any").num_rows == rows

    return run


def _measure(table: pa.Table, *, tls: bool) -> tuple[float, float]:
    """Ratios of INSERT and of SELECT."""
    with (
        tempfile.TemporaryDirectory(prefix="boilstream-bench-") as folder,
        IssuerProcess.start(Path(folder) / "issuer") as issuer,
    ):
        token = issuer.token(groups="Admins")
        common = issuer.environment() | {"LOG_LEVEL": "info"}
        if not tls:
            del common["TLS_CERT_PATH"], common["TLS_KEY_PATH"]
        seconds: dict[str, float] = {}
        for name, module in (("reference", "benchmarks.reference_server"), ("server", "boilstream")):
            environment = common | {"DATA_DIR": f"{folder}/{name}", "PYTHONPATH": str(REPOSITORY)}
            with ServerProcess(environment, module=module) as server:
                location = server.location.replace("127.0.0.1", "localhost")
                ca = issuer.ca_cert if tls else None
                with AirportClient(location, ca=ca, secret_token=token, attach_token=token) as client:
                    for number in range(ROUNDS):
                        client.create_table(f"events{number}", COLUMNS)
                    seconds[f"{name} insert"] = _best(_insert(client, table))
                    if name == "server":
                        _select(client, table.num_rows)(0)
                        seconds["server select"] = _best(_select(client, table.num_rows))
                if name == "reference":
                    plain = Client(server.location, token, ca)
                    _from_memory(plain, table.num_rows)(0)
                    seconds["reference select"] = _best(_from_memory(plain, table.num_rows))
                    plain.close()
    for what, taken in seconds.items():
        print(
            f"  {'TLS' if tls else 'plain'}, {what}: {taken:.2f} s, {table.num_rows / taken / 1e6:.2f} million rows/s, "
            f"{table.nbytes / taken / MIB:.0f} MiB/s"
        )
    return (
        seconds["reference insert"] / seconds["server insert"],
        seconds["reference select"] / seconds["server select"],
    )


def main() -> None:
    """Print the ratios."""
    table = event_table()
    print(
        f"Airport: {table.num_rows:,} rows of {table.num_columns} columns, {table.nbytes / MIB:.0f} MiB, local store"
    )
    for tls in (False, True):
        insert, select = _measure(table, tls=tls)
        suffix = ", TLS" if tls else ""
        ratio(f"INSERT{suffix}", insert, "the same exchange thrown away", ">= 0.5")
        ratio(f"SELECT{suffix}", select, "a DoGet from memory", ">= 0.7")


if __name__ == "__main__":
    main()
