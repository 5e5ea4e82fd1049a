"""The index of all committed files, in memory: what a reader of a topic sees."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from boilstream.log.records import DataFile, Record


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the files of one topic."""

    files: int
    rows: int
    bytes: int
    """Bytes of Parquet."""


@dataclass(slots=True)
class _TopicFiles:
    files: list[DataFile] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0


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
                topic_files = self._topics.setdefault(commit.topic, _TopicFiles())
                topic_files.files.extend(commit.files)
                topic_files.rows += sum(file.rows for file in commit.files)
                topic_files.bytes += sum(file.bytes for file in commit.files)
            return True

    def files(self, topic: str) -> tuple[DataFile, ...]:
        """The committed files of a topic at this moment: an immutable snapshot."""
        with self._lock:
            known = self._topics.get(topic)
            return tuple(known.files) if known else ()

    def totals(self, topic: str) -> Totals:
        """Sums over the committed files of a topic at this moment."""
        with self._lock:
            known = self._topics.get(topic)
            return Totals(len(known.files), known.rows, known.bytes) if known else Totals(0, 0, 0)

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
