"""The index of all committed files, in memory: what a reader of a topic sees."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from boilstream.log.records import DataFile, Record


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the files of one topic."""

    files: int
    rows: int
    bytes: int
    """Bytes of Parquet."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of one topic at one moment, in the order in which they were added."""

    files: tuple[DataFile, ...] = ()
    first_row_ids: tuple[int, ...] = ()
    """For each file the number of rows in the files before it: the id of its first row.

    A row's id is that plus its position in the file. Files are only appended, so ids stay.
    """
    totals: Totals = Totals(0, 0, 0)


_EMPTY = Snapshot()


class _TopicFiles:
    def __init__(self) -> None:
        self._files: list[DataFile] = []
        self._first_row_ids: list[int] = []
        self._snapshot: Snapshot | None = None
        self.totals = Totals(0, 0, 0)

    def append(self, files: tuple[DataFile, ...]) -> None:
        rows, size = self.totals.rows, self.totals.bytes
        for file in files:
            self._files.append(file)
            self._first_row_ids.append(rows)
            rows += file.rows
            size += file.bytes
        self.totals = Totals(len(self._files), rows, size)
        self._snapshot = None

    def snapshot(self) -> Snapshot:
        """Made once for all readers between two commits."""
        if self._snapshot is None:
            self._snapshot = Snapshot(tuple(self._files), tuple(self._first_row_ids), self.totals)
        return self._snapshot


class LogIndex:
    """Files per topic, built from commit records. Thread-safe.

    A record is applied whole or not at all, and once: readers never see part of a commit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._topics: dict[str, _TopicFiles] = {}
        self._dropped: set[str] = set()
        self._positions: dict[str, int] = {}

    def apply(self, record: Record) -> bool:
        """Add the record; False if it, or a later one of its writer, was applied before."""
        with self._lock:
            if record.sequence <= self._positions.get(record.writer, 0):
                return False
            self._positions[record.writer] = record.sequence
            for topic in record.dropped:
                self._dropped.add(topic)
                self._topics.pop(topic, None)
            for commit in record.topics:
                if commit.topic in self._dropped:
                    continue
                self._topics.setdefault(commit.topic, _TopicFiles()).append(commit.files)
            return True

    def snapshot(self, topic: str) -> Snapshot:
        """The committed files of a topic at this moment, with the ids of their rows."""
        with self._lock:
            known = self._topics.get(topic)
            return known.snapshot() if known else _EMPTY

    def files(self, topic: str) -> tuple[DataFile, ...]:
        """The committed files of a topic at this moment: an immutable snapshot."""
        return self.snapshot(topic).files

    def totals(self, topic: str) -> Totals:
        """Sums over the committed files of a topic at this moment."""
        with self._lock:
            known = self._topics.get(topic)
            return known.totals if known else _EMPTY.totals

    def topics(self) -> frozenset[str]:
        """Ids of all topics that have files and are not dropped."""
        with self._lock:
            return frozenset(self._topics)

    def is_dropped(self, topic: str) -> bool:
        """Whether a record has ended the topic with this id."""
        with self._lock:
            return topic in self._dropped

    def dropped(self) -> frozenset[str]:
        """Ids of all topics that a record has ended."""
        with self._lock:
            return frozenset(self._dropped)
