"""The write path as a whole: opens appends, and stops in order."""

from __future__ import annotations

import logging
import threading
import time

import pyarrow as pa

from boilstream.catalog.topics import Topic, TopicCatalog, TopicDraft
from boilstream.errors import AlreadyExists, Unavailable
from boilstream.ingest.append import Append, Limits
from boilstream.ingest.budget import MemoryBudget
from boilstream.ingest.definitions import DefinitionGuard, require_fitting
from boilstream.ingest.files import FileWriter
from boilstream.ingest.group import GroupCommitter
from boilstream.log.index import LogIndex
from boilstream.log.writer import LogWriter
from boilstream.storage.base import ObjectStore

log = logging.getLogger("boilstream.ingest.engine")


_COMMIT_SECONDS = 5.0
"""Time of the grace period that is kept for committing what is complete."""


_GROUP_BYTES = 2 * 1024 * 1024
"""Small batches of an append that are checked and converted together; each open append may hold as much."""


class IngestEngine:
    """Everything between a stream of batches and the acknowledgement of its commit."""

    def __init__(
        self,
        store: ObjectStore,
        catalog: TopicCatalog,
        log_writer: LogWriter,
        index: LogIndex,
        *,
        flush_interval: float,
        max_file_bytes: int,
        memory_limit: int,
        ack_timeout: float,
    ) -> None:
        """`flush_interval` and `ack_timeout` in seconds, `memory_limit` in bytes."""
        self.budget = MemoryBudget(memory_limit, on_pressure=self._relieve)
        self.files = FileWriter(store, self.budget)
        self.committer = GroupCommitter(
            self.files,
            self.budget,
            log_writer,
            index,
            flush_interval=flush_interval,
            max_file_bytes=max_file_bytes,
        )
        self.definitions = DefinitionGuard()
        self._catalog = catalog
        group_bytes = min(_GROUP_BYTES, max_file_bytes, memory_limit // 64)
        self._limits = Limits(max_file_bytes, group_bytes, ack_timeout)
        self._open: set[Append] = set()
        self._draining = False
        self._changed = threading.Condition()

    def open(self, target: Topic | TopicDraft, schema: pa.Schema) -> Append:
        """Begin an append of batches with `schema`; the caller closes it in any case.

        Raises InvalidArgument if the schema does not fit the topic, Unavailable while the server stops.
        """
        append = Append(self, target, schema, self._limits)
        with self._changed:
            if self._draining:
                raise _stopping()
            self._open.add(append)
        return append

    def resolve(self, target: Topic | TopicDraft) -> Topic:
        """The topic to commit to: created now if it is a draft and nobody was faster."""
        if isinstance(target, Topic):
            return target
        try:
            return self._catalog.create(target)
        except AlreadyExists:
            found = self._catalog.find(target.name)
        if found is None:
            raise AlreadyExists(
                f"the Iceberg catalog has a table {target.name} that is not a topic, or not a readable one; "
                "choose another name, or see the server's log"
            )
        if not found.schema.stored.equals(target.schema.stored, check_metadata=True):
            found.schema.conform(target.schema.declared)
            raise Unavailable(
                f"topic {found.name} was created meanwhile with another schema; send the rows again"
            )
        return found

    def require_fitting(self, rows: Topic) -> None:
        """Raise Unavailable if rows made for that definition of a topic may not be committed under its present one."""
        now = self._catalog.by_id(rows.id)
        if now is not None and now is not rows:
            require_fitting(rows, now)

    def forget(self, append: Append) -> None:
        """The append is over (called by `Append.close`)."""
        with self._changed:
            self._open.discard(append)
            self._changed.notify_all()

    def close(self, grace: float) -> None:
        """Stop in order: no new appends, open ones may finish, complete ones are committed.

        All of it takes `grace` seconds at most, the last of which are kept for committing.
        """
        deadline = time.monotonic() + grace
        last_call = deadline - min(_COMMIT_SECONDS, grace / 2)
        with self._changed:
            self._draining = True
            while self._open and (left := last_call - time.monotonic()) > 0:
                self._changed.wait(left)
            late = list(self._open)
        if late:
            log.warning("%d appends are still open after %g seconds and are given up", len(late), grace)
        for append in late:
            append.fail(_stopping())
        self.committer.close(deadline)
        self.files.close(deadline)

    def _relieve(self) -> None:
        """Memory is short: write out the largest buffer of an append that is not complete yet."""
        with self._changed:
            largest = max(self._open, key=lambda append: append.buffered, default=None)
        if largest is not None:
            largest.cut()


def _stopping() -> Unavailable:
    return Unavailable("the server is stopping; send the rows again")
