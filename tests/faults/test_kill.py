"""SIGKILL at any moment: what was acknowledged is there once and whole, the rest is whole or absent."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.flight as flight
import pytest

from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

pytestmark = pytest.mark.slow

ROUNDS = 4
WORKERS = 8
TOPICS = [["s3", f"kill_{number}"] for number in range(3)]
LARGE_ROWS = 40_000
"""Rows of an append that is cut into several files of 1 MiB each."""
PADDING = "x" * 80


@dataclass(slots=True)
class Ledger:
    """What the clients sent, and what the server said about it. Thread-safe."""

    sent: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Append id -> number of its topic, rows."""
    acknowledged: set[int] = field(default_factory=set)
    commits: dict[int, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, topic: int, rows: int) -> int:
        """Note an append and return its id, before anything of it is sent."""
        with self._lock:
            number = len(self.sent)
            self.sent[number] = (topic, rows)
            return number

    def acknowledge(self, number: int, commit: str) -> None:
        with self._lock:
            self.acknowledged.add(number)
            self.commits[number] = commit


def rows_of(append: int, count: int) -> list[pa.RecordBatch]:
    """The rows of one append: its id, and the position of each row."""
    schema = pa.schema([("append", pa.int64()), ("position", pa.int64()), ("padding", pa.string())])
    step = 8192
    return [
        pa.record_batch(
            [
                pa.array([append] * size, pa.int64()),
                pa.array(range(start, start + size), pa.int64()),
                pa.array([PADDING] * size),
            ],
            schema=schema,
        )
        for start in range(0, count, step)
        for size in [min(step, count - start)]
    ]


def write_until_cut_off(location: str, token: str, ca_cert: Path, ledger: Ledger, seed: int) -> None:
    """Append small and large appends to random topics until the server is gone."""
    rng = random.Random(seed)
    client = Client(location, token, ca_cert)
    try:
        while True:
            topic = rng.randrange(len(TOPICS))
            rows = LARGE_ROWS if rng.random() < 0.1 else rng.randrange(1, 200)
            number = ledger.begin(topic, rows)
            answer = client.put(TOPICS[topic], rows_of(number, rows))
            assert answer["rows"] == rows
            ledger.acknowledge(number, answer["commit"])
    except flight.FlightError as error:
        assert not error.extra_info, f"the connection was to be cut, and not an answer to come: {error}"
    finally:
        client.close()


def check(client: Client, ledger: Ledger) -> int:
    """Compare everything that can be read with the ledger, and return how many rows that is."""
    found: dict[int, tuple[int, int]] = {}
    listed = client.topics()
    for number, path in enumerate(TOPICS):
        if ".".join(path) not in listed:
            continue
        table = client.get(path)
        assert client.info(path).total_records == table.num_rows
        assert pc.all(pc.equal(table["padding"], PADDING)).as_py() is not False
        # Sorting copies, too: Acero complains of buffers as they come from the network.
        rows = table.select(["append", "position"]).sort_by([("append", "ascending")])
        groups = rows.group_by("append").aggregate(
            [("position", "count"), ("position", "count_distinct"), ("position", "max")]
        )
        for row in groups.to_pylist():
            append, count = row["append"], row["position_count"]
            assert count == row["position_count_distinct"] == row["position_max"] + 1, f"{path}: {row}"
            assert append not in found, f"append {append} is in {path} and in another topic"
            found[append] = (number, count)
    assert ledger.acknowledged <= found.keys(), "acknowledged rows are missing"
    assert {number: ledger.sent.get(number) for number in found} == found, "an append is not whole"
    return sum(rows for _, rows in found.values())


def test_a_kill_at_any_moment_loses_and_doubles_nothing(issuer: IssuerProcess, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    environment = {
        "DATA_DIR": str(tmp_path / "data"),
        "MAX_FILE_MB": "1",
        "S3_FLUSH_INTERVAL_MS": "10",
        "LOG_LEVEL": "info",
    }
    server = ServerProcess(issuer.environment() | environment)
    token = issuer.token(groups="Admins")
    ledger = Ledger()
    for number in range(ROUNDS):
        with server, ThreadPoolExecutor(WORKERS) as pool:
            look(server, token, issuer, ledger)
            before = len(ledger.acknowledged)
            work = [
                pool.submit(
                    write_until_cut_off,
                    server.location,
                    token,
                    issuer.ca_cert,
                    ledger,
                    rng.randrange(2**32),
                )
                for _ in range(WORKERS)
            ]
            if number == 0:  # while the topics are made
                wait_for(lambda: len(ledger.sent) == WORKERS)
                time.sleep(rng.random() / 10)
            else:
                wait_for(lambda before=before: len(ledger.acknowledged) > before)
                time.sleep(rng.random())  # the moment of the kill is the input of this test
            server.kill()
            for done in work:
                done.result()
    with server:
        rows = look(server, token, issuer, ledger)
    assert len(ledger.acknowledged) >= ROUNDS - 1
    assert_commits_name_their_rows(tmp_path / "data" / "store", ledger, rows)


def look(server: ServerProcess, token: str, issuer: IssuerProcess, ledger: Ledger) -> int:
    """`check` with a client of its own."""
    client = Client(server.location, token, issuer.ca_cert)
    try:
        return check(client, ledger)
    finally:
        client.close()


def assert_commits_name_their_rows(store: Path, ledger: Ledger, rows: int) -> None:
    """Every acknowledgement named a record that is there, and all records together hold all rows."""
    records = {
        f"{path.parent.name}/{int(path.stem)}": json.loads(path.read_bytes())
        for path in (store / "_log").rglob("*.json")
    }
    assert {ledger.commits[number] for number in ledger.acknowledged} <= records.keys()
    files = [file for record in records.values() for topic in record["topics"] for file in topic["files"]]
    assert sum(file["rows"] for file in files) == rows
    assert max(file["rows"] for file in files) < LARGE_ROWS, "large appends were to be cut into several files"
    assert len({file["key"] for file in files}) == len(files)


def wait_for(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)
