"""Sustained DoPut, acknowledged and durable, against the same Parquet encoding without a server.

The reference encodes the same batches with the same options, in files of the same size, in this
process on all cores, and throws the result away: no transport, no validation, no disk.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.data import mixed_batch
from benchmarks.report import ratio
from boilstream.catalog.types import TopicSchema
from boilstream.ingest.parquet import encode
from boilstream.machine import MIB
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

STREAMS = 4
DISTINCT_BATCHES = 12
FILE_BYTES = 128 * MIB


def reference(batches: list[pa.RecordBatch], seconds: float) -> float:
    """Bytes per second of encoding alone, on all cores."""
    stored = TopicSchema.declare(batches[0].schema).stored
    conformed = [pa.RecordBatch.from_arrays(batch.columns, schema=stored) for batch in batches]
    size = sum(batch.nbytes for batch in conformed)
    file = conformed * max(1, FILE_BYTES // size)
    deadline = time.monotonic() + seconds

    def work(_: int) -> int:
        encoded = 0
        while time.monotonic() < deadline:
            encode(file, stored)
            encoded += sum(batch.nbytes for batch in file)
        return encoded

    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        total = sum(pool.map(work, range(os.cpu_count() or 2)))
    return total / (time.monotonic() - start)


def _stream(
    number: int, location: str, token: str, ca_cert: Path | None, seconds: float, barrier: Any, results: Any
) -> None:
    batches = [mixed_batch(number * DISTINCT_BATCHES + seed) for seed in range(DISTINCT_BATCHES)]
    client = Client(location, token, ca_cert)
    barrier.wait()
    start = time.monotonic()
    sent = appends = 0
    while time.monotonic() - start < seconds:
        # Appends of about 1 GiB: long enough to be a stream, short enough to be acknowledged several times.
        append = batches * (1024 * MIB // (sum(batch.nbytes for batch in batches)))
        acknowledgement = client.put(["s3", "benchmark"], append)
        assert acknowledgement["rows"] == sum(batch.num_rows for batch in append)
        sent += sum(batch.nbytes for batch in append)
        appends += 1
    results.put((sent, appends, start, time.monotonic()))


def durable(seconds: float, *, tls: bool) -> float:
    """Bytes per second through the server, from the first batch to the last acknowledgement."""
    with (
        tempfile.TemporaryDirectory(prefix="boilstream-bench-") as folder,
        IssuerProcess.start(Path(folder) / "issuer") as issuer,
    ):
        environment = issuer.environment() | {"DATA_DIR": f"{folder}/data", "LOG_LEVEL": "info"}
        if not tls:
            del environment["TLS_CERT_PATH"], environment["TLS_KEY_PATH"]
        with ServerProcess(environment) as server:
            context = multiprocessing.get_context("spawn")
            barrier, results = context.Barrier(STREAMS), context.Queue()
            arguments = (server.location, issuer.token(groups="Writers"), issuer.ca_cert if tls else None)
            streams = [
                context.Process(target=_stream, args=(number, *arguments, seconds, barrier, results))
                for number in range(STREAMS)
            ]
            for stream in streams:
                stream.start()
            answers = [results.get(timeout=seconds * 10 + 120) for _ in streams]
            for stream in streams:
                stream.join()
            used = server.cpu_seconds()
    sent: int = sum(answer[0] for answer in answers)
    wall: float = max(answer[3] for answer in answers) - min(answer[2] for answer in answers)
    print(
        f"  {'TLS' if tls else 'plain'}: {sent / wall / MIB:.0f} MiB/s acknowledged and durable "
        f"({sent / MIB:.0f} MiB in {wall:.1f} s, {sum(answer[1] for answer in answers)} appends, "
        f"server {used / (sent / 2**30):.2f} core-seconds per GiB)"
    )
    return sent / wall


def main(seconds: float = 30.0) -> None:
    """Print the ratios."""
    batches = [mixed_batch(seed) for seed in range(DISTINCT_BATCHES)]
    print(
        f"durable DoPut: {STREAMS} streams, batches of {batches[0].num_rows} rows x {batches[0].num_columns} columns, "
        f"{batches[0].nbytes / MIB:.1f} MiB each, local store"
    )
    rate = reference(batches, seconds / 3)
    print(f"  reference: {rate / MIB:.0f} MiB/s encoded in-process on {os.cpu_count()} cores")
    ratio("durable DoPut", durable(seconds, tls=False) / rate, "encoding alone", ">= 0.5")
    ratio("durable DoPut, TLS", durable(seconds, tls=True) / rate, "encoding alone", "reported")


if __name__ == "__main__":
    main()
