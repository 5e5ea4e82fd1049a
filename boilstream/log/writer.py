"""Writes this process's own sequence of commit records."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from boilstream.errors import Internal
from boilstream.log.index import LogIndex
from boilstream.log.records import DamagedRecord, Record, TopicCommit, decode, encode, new_writer_id
from boilstream.storage.base import ObjectExists, ObjectStore
from boilstream.storage.retry import retrying

log = logging.getLogger("boilstream.log.writer")


class LogWriter:
    """Appends records to the log, one after the other, and to the index when they are durable.

    A put whose outcome is not known leaves its record in doubt: it may be there, or even arrive
    late. The next commit settles that first, by creating a void record of the same sequence. Exactly
    one of the two can exist, so afterwards it is certain which.
    """

    def __init__(
        self,
        store: ObjectStore,
        index: LogIndex,
        *,
        clock: Callable[[], float] = time.time,
        writer: str | None = None,
    ) -> None:
        self._store = store
        self._index = index
        self._clock = clock
        self.writer = writer or new_writer_id(self._now_ms())
        self._next = 1
        self._in_doubt: Record | None = None
        self._lock = threading.Lock()

    def commit(
        self, topics: tuple[TopicCommit, ...], *, dropped: tuple[str, ...] = (), deadline: float
    ) -> Record:
        """Make one record durable and visible, and return it.

        `deadline` is a time of `time.monotonic`. Raises StoreUnavailable when the store does not
        take the record until then; the record may have become durable all the same.
        """
        with self._lock:
            if self._in_doubt is not None:
                self._settle(self._in_doubt, deadline)
            record = Record(self.writer, self._next, self._now_ms(), topics, dropped)
            try:
                self._put(record, deadline)
            except BaseException:
                # Whatever the last attempt said, an earlier one may have landed.
                self._in_doubt = record
                raise
            self._accept(record)
            return record

    def _settle(self, doubtful: Record, deadline: float) -> None:
        void = Record(doubtful.writer, doubtful.sequence, self._now_ms())
        if retrying(lambda: self._create(void), deadline=deadline):
            log.warning("commit %s did not reach the store; its rows do not exist", doubtful.commit_id)
            self._accept(void)
            return
        stored = self._stored(doubtful, deadline)
        if stored == doubtful:
            log.warning("commit %s reached the store after all", doubtful.commit_id)
        self._accept(stored)

    def _put(self, record: Record, deadline: float) -> None:
        if retrying(lambda: self._create(record), deadline=deadline):
            return
        # The object is there: put by an attempt of ours whose answer was lost, or by a stranger.
        if self._stored(record, deadline) != record:
            raise _foreign(record)

    def _stored(self, expected: Record, deadline: float) -> Record:
        """The record that is stored where `expected` belongs: it, or a void one of this process."""
        data = retrying(lambda: self._store.get(expected.key), deadline=deadline)
        try:
            stored = decode(expected.key, data)
        except DamagedRecord as error:
            raise _foreign(expected) from error
        if stored != expected and (stored.topics or stored.dropped):
            raise _foreign(expected)
        return stored

    def _create(self, record: Record) -> bool:
        try:
            self._store.put(record.key, encode(record), if_absent=True)
        except ObjectExists:
            return False
        return True

    def _accept(self, record: Record) -> None:
        self._next = record.sequence + 1
        self._in_doubt = None
        self._index.apply(record)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _foreign(record: Record) -> Internal:
    log.error("%s is not a record of this process, though only it may write there", record.key)
    return Internal(f"the commit log holds a foreign object at {record.key}")
