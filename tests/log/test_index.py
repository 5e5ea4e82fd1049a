from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from boilstream.log.index import LogIndex, Snapshot, Totals
from boilstream.log.records import DataFile, Record, TopicCommit


def record(
    sequence: int, *names: str, writer: str = "w", topic: str = "t", dropped: tuple[str, ...] = ()
) -> Record:
    files = tuple(DataFile(name, 2, 10) for name in names)
    return Record(writer, sequence, 0, (TopicCommit(topic, "s3.t", "tables/s3/t", files),), dropped)


def test_a_record_counts_once() -> None:
    index = LogIndex()
    assert index.apply(record(1, "a"))
    assert not index.apply(record(1, "a"))
    assert index.totals("t") == Totals(1, 2, 10)


def test_a_snapshot_does_not_change() -> None:
    index = LogIndex()
    index.apply(record(1, "a"))
    snapshot = index.files("t")
    index.apply(record(2, "b"))
    assert [file.key for file in snapshot] == ["a"]
    assert [file.key for file in index.files("t")] == ["a", "b"]


def test_a_dropped_topic_stays_dropped_whatever_comes_later() -> None:
    index = LogIndex()
    index.apply(record(1, "a"))
    index.apply(Record("w", 2, 0, (), ("t",)))
    index.apply(record(1, "late", writer="other"))
    assert index.files("t") == ()
    assert index.is_dropped("t")
    assert index.topics() == frozenset()
    assert index.dropped() == {"t"}


@given(st.permutations([("x", 1), ("x", 2), ("y", 1), ("y", 2), ("y", 3)]))
def test_the_order_of_writers_does_not_matter(order: list[tuple[str, int]]) -> None:
    index = LogIndex()
    for writer in ("x", "y"):
        for sequence in sorted(s for w, s in order if w == writer):
            index.apply(record(sequence, f"{writer}{sequence}", writer=writer))
    assert {file.key for file in index.files("t")} == {"x1", "x2", "y1", "y2", "y3"}


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6))
def test_a_row_keeps_its_id_while_files_are_added(commits: list[list[int]]) -> None:
    index = LogIndex()
    known: dict[str, int] = {}
    rows = 0
    for sequence, sizes in enumerate(commits, 1):
        files = tuple(DataFile(f"{sequence}-{n}", size, 1) for n, size in enumerate(sizes))
        index.apply(Record("w", sequence, 0, (TopicCommit("t", "s3.t", "l", files),)))
        snapshot = index.snapshot("t")
        ids = dict(zip([file.key for file in snapshot.files], snapshot.first_row_ids, strict=True))
        assert known.items() <= ids.items()
        known = ids
        for file, first in zip(snapshot.files[len(snapshot.files) - len(files) :], sizes, strict=True):
            assert ids[file.key] == rows
            rows += first
        assert snapshot.totals == index.totals("t") == Totals(len(ids), rows, len(ids))


def test_readers_between_two_commits_share_a_snapshot() -> None:
    index = LogIndex()
    index.apply(record(1, "a"))
    first = index.snapshot("t")
    assert index.snapshot("t") is first
    index.apply(record(2, "b"))
    assert index.snapshot("t").first_row_ids == (0, 2)
    assert first.first_row_ids == (0,)


def test_a_topic_without_files_has_an_empty_snapshot() -> None:
    index = LogIndex()
    assert index.snapshot("t") == Snapshot((), (), Totals(0, 0, 0))
    index.apply(record(1, "a"))
    index.apply(Record("w", 2, 0, (), ("t",)))
    assert index.snapshot("t") == Snapshot((), (), Totals(0, 0, 0))
