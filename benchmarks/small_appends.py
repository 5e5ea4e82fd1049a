"""1,000 appends of 10 rows from 50 concurrent clients: files must not be more than flush ticks."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from benchmarks.report import ratio
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

CLIENTS = 50
APPENDS = 1000
ROWS = 10
FLUSH_INTERVAL_MS = 250


def main() -> None:
    """Print the ratio of data files to flush ticks."""
    print(f"small appends: {APPENDS} appends of {ROWS} rows from {CLIENTS} clients, local store, TLS")
    with (
        tempfile.TemporaryDirectory(prefix="boilstream-bench-") as folder,
        IssuerProcess.start(Path(folder) / "issuer") as issuer,
    ):
        environment = issuer.environment() | {
            "DATA_DIR": f"{folder}/data",
            "LOG_LEVEL": "info",
            "S3_FLUSH_INTERVAL_MS": str(FLUSH_INTERVAL_MS),
        }
        with ServerProcess(environment) as server:
            token = issuer.token(groups="Writers")
            data = pa.table({"n": pa.array(range(ROWS)), "text": ["hello"] * ROWS})
            barrier = threading.Barrier(CLIENTS + 1)

            def work(_: int) -> list[float]:
                client = Client(server.location, token, issuer.ca_cert)
                barrier.wait()
                waits = []
                for _ in range(APPENDS // CLIENTS):
                    start = time.monotonic()
                    client.put(["s3", "small"], data)
                    waits.append(time.monotonic() - start)
                return waits

            with ThreadPoolExecutor(CLIENTS) as pool:
                futures = [pool.submit(work, number) for number in range(CLIENTS)]
                barrier.wait()
                start = time.monotonic()
                waits = sorted(wait for future in futures for wait in future.result())
                wall = time.monotonic() - start
            files = list(Path(folder, "data", "store", "tables").rglob("data/*.parquet"))
    ticks = math.floor(wall * 1000 / FLUSH_INTERVAL_MS) + 1
    print(
        f"  {len(files)} files in {wall:.2f} s ({ticks} ticks of {FLUSH_INTERVAL_MS} ms); {APPENDS / wall:.0f} "
        f"appends/s; ack median {waits[len(waits) // 2] * 1000:.0f} ms, "
        f"p99 {waits[len(waits) * 99 // 100] * 1000:.0f} ms"
    )
    ratio("data files", len(files) / ticks, "flush ticks", "<= 1")


if __name__ == "__main__":
    main()
