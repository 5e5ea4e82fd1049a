"""The write path over a store in memory that can be made to fail, without a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from boilstream.catalog.factory import open_catalog
from boilstream.catalog.names import topic_name
from boilstream.catalog.topics import Topic, TopicCatalog, TopicDraft, draft
from boilstream.catalog.types import TopicSchema
from boilstream.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from boilstream.ingest.engine import IngestEngine
from boilstream.log.index import LogIndex
from boilstream.log.recovery import recover
from boilstream.log.writer import LogWriter
from boilstream.query.scan import Segment, read
from tests.support.stores import MemoryStore, failing

SCHEMA = pa.schema([pa.field("n", pa.int64())])
MIB = 1024 * 1024


class World:
    """An engine and what it stands on."""

    def __init__(self, folder: Path, **options: float) -> None:
        self.store = MemoryStore()
        self.catalog: TopicCatalog = open_catalog(None, folder, self.store)
        self.index = LogIndex()
        self.log_writer = LogWriter(self.store, self.index)
        self.engine = IngestEngine(
            self.store,
            self.catalog,
            self.log_writer,
            self.index,
            flush_interval=options.get("flush_interval", 0.0),
            max_file_bytes=int(options.get("max_file_bytes", MIB)),
            memory_limit=int(options.get("memory_limit", 64 * MIB)),
            ack_timeout=options.get("ack_timeout", 5.0),
        )

    def topic(self, name: str = "t") -> Topic:
        return self.catalog.create(draft(topic_name("s3", name), TopicSchema.declare(SCHEMA)))

    def append(self, target: Topic | TopicDraft, *batches: pa.RecordBatch, gone: bool = False) -> int:
        append = self.engine.open(target, SCHEMA)
        try:
            for batch in batches:
                append.write(batch)
            return append.finish(lambda: gone).rows
        finally:
            append.close()

    def rows(self, topic: Topic) -> list[int]:
        """What a fresh process would read."""
        index = LogIndex()
        recover(self.store, index, deadline=time.monotonic() + 5)
        assert index.files(topic.id) == self.index.files(topic.id)
        segments = [Segment(file.key, 0, file.rows) for file in index.files(topic.id)]
        batches = read(self.store, topic.schema, segments)
        return [value for batch in batches for value in batch.column("n").to_pylist()]

    def data_files(self) -> list[str]:
        return [key for key in self.store.objects if key.endswith(".parquet")]


def rows(*values: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(values, pa.int64())], schema=SCHEMA)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.engine.close(5)
    assert world.engine.budget.used == 0, "every reserved byte is released"


def test_the_data_is_put_before_the_record(world: World) -> None:
    topic = world.topic()
    assert world.append(topic, rows(1, 2), rows(3)) == 3
    data, record = world.store.puts[-2:]
    assert data.startswith(f"{topic.location}/data/")
    assert record.startswith("_log/")
    assert world.rows(topic) == [1, 2, 3]


def test_nothing_is_visible_when_the_data_cannot_be_put(tmp_path: Path) -> None:
    world = World(tmp_path, ack_timeout=0.3)
    topic = world.topic()
    world.store.before = failing(10**9, contains=".parquet")
    with pytest.raises(Unavailable) as caught:
        world.append(topic, rows(1))
    assert caught.value.retryable
    assert world.rows(topic) == []
    world.store.before = lambda method, key: None
    world.append(topic, rows(2))
    assert world.rows(topic) == [2]
    world.engine.close(1)
    assert world.engine.budget.used == 0


def test_a_store_that_comes_back_in_time_costs_nothing(world: World) -> None:
    topic = world.topic()
    world.store.before = failing(3)
    world.append(topic, rows(1))
    assert world.rows(topic) == [1]


def test_a_client_that_has_gone_leaves_nothing(world: World) -> None:
    topic = world.topic()
    with pytest.raises(Unavailable, match="gone"):
        world.append(topic, rows(1), gone=True)
    assert world.rows(topic) == []


def test_a_large_append_of_a_client_that_has_gone_leaves_no_files(tmp_path: Path) -> None:
    world = World(tmp_path, max_file_bytes=8)
    topic = world.topic()
    with pytest.raises(Unavailable, match="gone"):
        world.append(topic, rows(1, 2), rows(3, 4), gone=True)
    world.engine.close(5)
    assert world.data_files() == []
    assert world.engine.budget.used == 0


def test_an_append_that_is_closed_early_leaves_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, max_file_bytes=8)
    topic = world.topic()
    append = world.engine.open(topic, SCHEMA)
    append.write(rows(1, 2))
    append.write(rows(3))
    append.close()
    world.engine.close(5)
    assert world.data_files() == []
    assert world.rows(topic) == []
    assert world.engine.budget.used == 0


def test_an_append_is_visible_whole_even_when_it_cuts_many_files(tmp_path: Path) -> None:
    world = World(tmp_path, max_file_bytes=80)
    topic = world.topic()
    world.append(topic, *(rows(*range(start, start + 10)) for start in range(0, 100, 10)))
    assert world.rows(topic) == list(range(100))
    assert len(world.index.files(topic.id)) == 10
    assert sum(key.startswith("_log/") for key in world.store.puts) == 1
    world.engine.close(5)


def test_a_crowd_shares_files_and_records(tmp_path: Path) -> None:
    world = World(tmp_path, flush_interval=0.2)
    topic = world.topic()
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda n: world.append(topic, rows(n)), range(50)))
    assert sorted(world.rows(topic)) == list(range(50))
    assert len(world.data_files()) <= 4
    world.engine.close(5)


def test_topics_of_one_flush_share_a_record(tmp_path: Path) -> None:
    world = World(tmp_path, flush_interval=0.3)
    one, two, first = world.topic("one"), world.topic("two"), world.topic("first")
    world.append(first, rows(0))  # this flush starts at once; the next two share one
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda topic: world.append(topic, rows(1)), [one, two]))
    assert sum(key.startswith("_log/") for key in world.store.puts) == 2
    world.engine.close(5)


def test_a_full_file_does_not_wait_for_the_interval(tmp_path: Path) -> None:
    world = World(tmp_path, flush_interval=3600, max_file_bytes=800)
    topic = world.topic()
    world.append(topic, rows(0))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: world.append(topic, rows(*range(n, n + 30))), range(4)))
    assert len(world.rows(topic)) == 121
    world.engine.close(5)


def test_a_requested_flush_does_not_wait_either(tmp_path: Path) -> None:
    world = World(tmp_path, flush_interval=3600)
    topic = world.topic()
    world.append(topic, rows(0))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.append, topic, rows(1))
        while not waiting.done():
            world.engine.committer.flush(5)
        assert waiting.result() == 1
    world.engine.close(5)


def test_a_draft_becomes_a_topic_with_its_first_rows(world: World) -> None:
    wanted = draft(topic_name("s3", "new"), TopicSchema.declare(SCHEMA))
    assert world.catalog.find(wanted.name) is None
    world.append(wanted, rows(1))
    assert world.rows(world.catalog.get(wanted.name)) == [1]


def test_a_draft_without_rows_becomes_nothing(world: World) -> None:
    wanted = draft(topic_name("s3", "new"), TopicSchema.declare(SCHEMA))
    with pytest.raises(InvalidArgument, match="no rows"):
        world.append(wanted)
    with pytest.raises(InvalidArgument, match="no rows"):
        world.append(wanted, rows(), rows())
    assert world.catalog.find(wanted.name) is None


def test_rows_of_a_topic_that_is_dropped_meanwhile_are_refused(world: World) -> None:
    topic = world.topic()
    append = world.engine.open(topic, SCHEMA)
    append.write(rows(1))
    world.log_writer.commit((), dropped=(topic.id,), deadline=time.monotonic() + 5)
    with pytest.raises(NotFound, match="dropped"):
        append.finish(lambda: False)
    append.close()
    world.engine.close(5)
    assert world.data_files() == []


def test_memory_pressure_writes_out_what_lies_idle(tmp_path: Path) -> None:
    world = World(tmp_path, memory_limit=5000)
    topic = world.topic()
    idle = world.engine.open(topic, SCHEMA)
    idle.write(rows(*range(200)))
    assert world.append(topic, rows(*range(1000, 1200))) == 200
    assert idle.finish(lambda: False).rows == 200
    idle.close()
    assert len(world.rows(topic)) == 400
    world.engine.close(5)
    assert world.engine.budget.used == 0


def test_memory_that_never_becomes_free_is_a_retryable_error(tmp_path: Path) -> None:
    world = World(tmp_path, memory_limit=4000, ack_timeout=0.3)
    topic = world.topic()
    release = threading.Event()

    def stall(method: str, key: str) -> None:
        if key.endswith(".parquet"):
            release.wait(20)

    world.store.before = stall
    blocked = world.engine.open(topic, SCHEMA)
    blocked.write(rows(*range(240)))
    with pytest.raises(ResourceExhausted):
        for _ in range(50):  # what is already encoded takes little, so it needs several to fill the memory
            blocked.write(rows(*range(240)))
    release.set()
    blocked.close()
    world.engine.close(5)
    assert world.engine.budget.used == 0


def test_no_append_begins_while_the_engine_stops(world: World) -> None:
    topic = world.topic()
    world.engine.close(0)
    with pytest.raises(Unavailable, match="stopping"):
        world.engine.open(topic, SCHEMA)


def test_an_open_append_is_given_up_after_the_grace(world: World) -> None:
    topic = world.topic()
    append = world.engine.open(topic, SCHEMA)
    append.write(rows(1))
    world.engine.close(0.05)
    with pytest.raises(Unavailable, match="stopping"):
        append.write(rows(2))
    with pytest.raises(Unavailable, match="stopping"):
        append.finish(lambda: False)
    append.close()
    assert world.rows(topic) == []


@pytest.mark.slow
def test_a_stop_is_over_in_time_while_the_store_is_away(tmp_path: Path) -> None:
    world = World(tmp_path, ack_timeout=60)
    topic = world.topic()
    world.store.before = failing(10**9)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.append, topic, rows(1))
        while not world.engine.committer._unanswered:
            assert not waiting.done()
        world.engine.close(0.5)
        with pytest.raises(Unavailable, match="stopping"):
            waiting.result(timeout=20)
    world.store.before = lambda method, key: None  # lets the last attempt end


def test_tiny_batches_count_with_what_they_take_in_memory(world: World) -> None:
    append = world.engine.open(world.topic(), SCHEMA)
    for number in range(100):
        append.write(rows(number))
    assert world.engine.budget.used >= 100 * 1024
    append.close()
