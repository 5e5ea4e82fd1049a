"""The log writer against a store that fails at every step."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boilstream.errors import Internal
from boilstream.log.index import LogIndex
from boilstream.log.records import DataFile, TopicCommit, record_key
from boilstream.log.recovery import recover
from boilstream.log.writer import LogWriter
from boilstream.storage.base import StoreMisconfigured, StoreUnavailable
from tests.support.stores import MemoryStore, failing


def commit_of(name: str) -> tuple[TopicCommit, ...]:
    return (TopicCommit("t", "s3.t", "tables/s3/t", (DataFile(name, 1, 1),)),)


def names(index: LogIndex) -> list[str]:
    return [file.key for file in index.files("t")]


def soon() -> float:
    return time.monotonic() + 0.05


def later() -> float:
    return time.monotonic() + 10


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def index() -> LogIndex:
    return LogIndex()


def test_a_commit_is_on_the_store_and_visible_when_it_returns(store: MemoryStore, index: LogIndex) -> None:
    writer = LogWriter(store, index)
    record = writer.commit(commit_of("a"), deadline=later())
    assert record.key in store.objects
    assert record.commit_id == f"{writer.writer}/1"
    assert names(index) == ["a"]


def test_a_commit_whose_put_fails_before_it_lands_is_retried(store: MemoryStore, index: LogIndex) -> None:
    store.before = failing(2)
    LogWriter(store, index).commit(commit_of("a"), deadline=later())
    assert names(index) == ["a"]


def test_a_commit_whose_answer_is_lost_is_recognised_as_ours(store: MemoryStore, index: LogIndex) -> None:
    store.after = failing(1)
    record = LogWriter(store, index).commit(commit_of("a"), deadline=later())
    assert record.sequence == 1
    assert names(index) == ["a"]


def test_a_commit_that_never_lands_is_not_visible_and_the_next_one_is(
    store: MemoryStore, index: LogIndex
) -> None:
    writer = LogWriter(store, index)
    store.before = failing(10**9)
    with pytest.raises(StoreUnavailable):
        writer.commit(commit_of("lost"), deadline=soon())
    assert names(index) == []
    store.before = lambda method, key: None
    assert writer.commit(commit_of("next"), deadline=later()).sequence == 2
    assert names(index) == ["next"]


def test_a_commit_in_doubt_that_did_land_is_found_by_the_next_one(
    store: MemoryStore, index: LogIndex
) -> None:
    writer = LogWriter(store, index)
    put_fails, get_fails = failing(10**9), failing(10**9, method="get")
    store.after = put_fails
    store.before = get_fails
    with pytest.raises(StoreUnavailable):
        writer.commit(commit_of("landed"), deadline=soon())
    store.before = store.after = lambda method, key: None
    writer.commit(commit_of("next"), deadline=later())
    assert names(index) == ["landed", "next"]


def test_a_late_put_cannot_follow_its_void_record(store: MemoryStore, index: LogIndex) -> None:
    writer = LogWriter(store, index)
    store.before = failing(10**9)
    with pytest.raises(StoreUnavailable):
        writer.commit(commit_of("lost"), deadline=soon())
    store.before = lambda method, key: None
    writer.commit(commit_of("next"), deadline=later())
    assert b"lost" not in store.objects[record_key(writer.writer, 1)]
    recovered = LogIndex()
    recover(store, recovered, deadline=later())
    assert names(recovered) == ["next"]


def test_a_foreign_object_in_our_place_is_an_error_and_stays(store: MemoryStore, index: LogIndex) -> None:
    writer = LogWriter(store, index)
    store.put(record_key(writer.writer, 1), b"not ours")
    with pytest.raises(Internal, match="foreign object"):
        writer.commit(commit_of("a"), deadline=later())
    assert store.objects[record_key(writer.writer, 1)] == b"not ours"
    assert names(index) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["ok", "before", "after", "after, then get"]), max_size=8))
def test_acked_commits_are_never_lost_and_unacked_ones_are_whole_or_absent(steps: list[str]) -> None:
    store, index = MemoryStore(), LogIndex()
    writer = LogWriter(store, index)
    acked, unknown = [], []
    for number, step in enumerate(steps):
        store.before = failing(10**9) if step == "before" else lambda method, key: None
        store.after = failing(10**9) if step.startswith("after") else lambda method, key: None
        if step == "after, then get":
            store.before = failing(10**9, method="get")
        try:
            writer.commit(commit_of(f"{number}"), deadline=time.monotonic())
        except StoreUnavailable:
            unknown.append(f"{number}")
        else:
            acked.append(f"{number}")
    store.before = store.after = lambda method, key: None
    writer.commit(commit_of("last"), deadline=later())
    recovered = LogIndex()
    recover(store, recovered, deadline=later())
    assert names(recovered) == names(index)
    assert set(acked) | {"last"} <= set(names(recovered)) <= set(acked) | set(unknown) | {"last"}
    assert len(names(recovered)) == len(set(names(recovered)))


def test_a_permanent_error_after_a_lost_answer_leaves_doubt_not_a_stranger(
    store: MemoryStore, index: LogIndex
) -> None:
    writer = LogWriter(store, index)
    attempts: list[str] = []

    def before(method: str, key: str) -> None:
        attempts.append(method)
        if len(attempts) > 1:
            raise StoreMisconfigured("the credentials have expired")

    store.before, store.after = before, failing(1)
    with pytest.raises(StoreMisconfigured):
        writer.commit(commit_of("landed"), deadline=later())
    store.before = lambda method, key: None
    assert writer.commit(commit_of("next"), deadline=later()).sequence == 2
    assert names(index) == ["landed", "next"]
