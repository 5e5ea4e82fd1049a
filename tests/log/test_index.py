from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from boilstream.log.index import LogIndex, Totals
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
