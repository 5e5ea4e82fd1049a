from __future__ import annotations

import logging
import time

import pytest

from boilstream.log.index import LogIndex
from boilstream.log.records import DataFile, Record, TopicCommit, encode, record_key
from boilstream.log.recovery import recover
from boilstream.storage.base import StoreUnavailable
from tests.support.stores import MemoryStore, failing

ONE, OTHER = f"{1:013x}-{1:08x}", f"{2:013x}-{2:08x}"


def later() -> float:
    return time.monotonic() + 10


def put(store: MemoryStore, writer: str, sequence: int, *, dropped: tuple[str, ...] = ()) -> None:
    file = DataFile(f"{writer}-{sequence}", 1, 1)
    record = Record(writer, sequence, 0, (TopicCommit("t", "s3.t", "tables/s3/t", (file,)),), dropped)
    store.put(record.key, encode(record))


def test_every_record_of_every_writer_is_found() -> None:
    store, index = MemoryStore(), LogIndex()
    for sequence in range(1, 51):
        put(store, ONE, sequence)
        put(store, OTHER, sequence)
    assert recover(store, index, deadline=later()) == 100
    assert index.totals("t").files == 100


def test_damaged_and_foreign_objects_are_reported_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    store, index = MemoryStore(), LogIndex()
    put(store, ONE, 1)
    store.put(record_key(ONE, 2), b"{broken")
    put(store, ONE, 3)
    store.put("_log/readme.txt", b"hello")
    with caplog.at_level(logging.WARNING):
        recover(store, index, deadline=later())
    assert [file.key for file in index.files("t")] == [f"{ONE}-1", f"{ONE}-3"]
    assert record_key(ONE, 2) in caplog.text
    assert "_log/readme.txt" in caplog.text
    assert len(store.objects) == 4


def test_a_store_that_recovers_in_time_is_waited_for() -> None:
    store, index = MemoryStore(), LogIndex()
    put(store, ONE, 1)
    store.before = failing(3, method="get")
    assert recover(store, index, deadline=later()) == 1


def test_a_store_that_does_not_answer_stops_the_start() -> None:
    store = MemoryStore()
    store.before = failing(10**9, method="list")
    with pytest.raises(StoreUnavailable):
        recover(store, LogIndex(), deadline=time.monotonic())
