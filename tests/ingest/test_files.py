"""Data files: nothing that goes wrong with one may lose its append or its memory."""

from __future__ import annotations

import threading
import time

import pyarrow as pa
import pytest

from boilstream.errors import Unavailable
from boilstream.ingest.budget import MemoryBudget
from boilstream.ingest.files import UPLOAD_THREADS, FileWriter
from boilstream.log.records import DataFile
from boilstream.log.statistics import ColumnStatistics
from tests.support.stores import MemoryStore

SCHEMA = pa.schema([pa.field("n", pa.int64(), metadata={"PARQUET:field_id": "4"})])
BATCH = pa.record_batch([pa.array([1, 2, 3], pa.int64())], schema=SCHEMA)


def later() -> float:
    return time.monotonic() + 10


def test_a_file_comes_with_the_statistics_of_its_rows() -> None:
    store, budget = MemoryStore(), MemoryBudget(1000)
    writer = FileWriter(store, budget)
    budget.reserve(2 * BATCH.nbytes, deadline=later())
    batches = [BATCH, pa.record_batch([pa.array([None, 7], pa.int64())], schema=SCHEMA)]
    file = writer.write("tables/t", SCHEMA, batches, 2 * BATCH.nbytes, deadline=later()).result(timeout=10)
    writer.close(later())
    (key,) = store.objects
    assert file == DataFile(key, 5, len(store.objects[key]), {4: ColumnStatistics(1, 1, 7)})


def test_a_system_without_threads_to_spare_loses_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    store, budget = MemoryStore(), MemoryBudget(1000)
    writer = FileWriter(store, budget)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        files = []
        for _ in range(2 * UPLOAD_THREADS):
            budget.reserve(BATCH.nbytes, deadline=later())
            files.append(writer.write("tables/t", SCHEMA, [BATCH], BATCH.nbytes, deadline=later()))
        assert {file.result(timeout=10).rows for file in files} == {3}
    writer.close(later())
    assert len(store.objects) == 2 * UPLOAD_THREADS
    assert budget.used == 0


def test_a_file_after_the_end_fails_and_gives_its_memory_back() -> None:
    store, budget = MemoryStore(), MemoryBudget(1000)
    writer = FileWriter(store, budget)
    writer.close(later())
    budget.reserve(BATCH.nbytes, deadline=later())
    file = writer.write("tables/t", SCHEMA, [BATCH], BATCH.nbytes, deadline=later())
    with pytest.raises(Unavailable, match="stopping"):
        file.result(timeout=10)
    assert budget.used == 0
    assert store.objects == {}


def test_a_file_whose_time_is_over_is_not_put() -> None:
    store, budget = MemoryStore(), MemoryBudget(1000)
    writer = FileWriter(store, budget)
    budget.reserve(BATCH.nbytes, deadline=later())
    file = writer.write("tables/t", SCHEMA, [BATCH], BATCH.nbytes, deadline=time.monotonic() - 1)
    with pytest.raises(Unavailable) as caught:
        file.result(timeout=10)
    writer.close(later())
    assert caught.value.retryable
    assert store.puts == []
    assert budget.used == 0
