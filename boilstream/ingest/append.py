"""One append: the rows of one stream, visible all together or not at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from boilstream.catalog.topics import Topic, TopicDraft
from boilstream.catalog.typemap import extends_views
from boilstream.catalog.types import TopicSchema
from boilstream.errors import BoilStreamError, InvalidArgument, TimedOut
from boilstream.ingest.group import CompleteAppend, Receipt
from boilstream.ingest.rules import rules_of
from boilstream.log.records import DataFile

if TYPE_CHECKING:
    from boilstream.ingest.engine import IngestEngine

_ANSWER_SLACK = 1.0
"""Seconds beyond the ack timeout in which the committer's own error arrives first."""


FILES_ON_THEIR_WAY = 2
"""Files of one append that are encoded or uploaded at a time, while the next one fills."""

_BATCH_OVERHEAD, _COLUMN_OVERHEAD = 1024, 256
"""Bytes that a batch and each of its columns take beside the values; tiny batches are mostly that."""

_EARLY_FILE_BYTES = 32 * 1024 * 1024
"""Size of the first two files of an append, doubled for every two that follow: encoding begins soon, and the rest
that is left for the end of the stream is small beside what went before."""

_COMPANY = 4
"""Batches that a group should have room for: copying fewer, larger ones together costs more than it saves."""

GROUP_ROWS = 65_536
"""Small batches are checked and converted together, up to so many rows: the work per batch is dear."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds one append."""

    max_file_bytes: int
    """A file is cut when this many bytes of rows are buffered, at the latest."""
    max_group_bytes: int
    """Small batches are checked and converted together, up to so many bytes."""
    ack_timeout: float
    """Longest wait for memory or for the store, seconds."""


class Append:
    """Takes the batches of one stream. Made by `IngestEngine.open`.

    `write` is called by one thread; `cut` and `fail` may be called by others.
    """

    def __init__(
        self, engine: IngestEngine, target: Topic | TopicDraft, schema: pa.Schema, limits: Limits
    ) -> None:
        self._engine = engine
        self._target = target
        self._rules = rules_of(target)
        self._conformer = target.schema.conform(schema, self._rules.defaults)
        self._groups = not any(extends_views(field.type) for field in schema)
        self._limits = limits
        self._incoming: list[pa.RecordBatch] = []
        self._incoming_rows = self._incoming_bytes = 0
        self._lock = threading.Lock()
        self._buffer: list[pa.RecordBatch] = []
        self._files: list[Future[DataFile]] = []
        self._cuts = 0
        self._failure: BoilStreamError | None = None
        self._batches = 0
        self.buffered = 0
        """Bytes in the buffer."""
        self.rows_sent = 0
        """Rows of all batches that were written."""

    @property
    def schema(self) -> TopicSchema:
        """The schema of the topic that is written to."""
        return self._target.schema

    def write(self, batch: pa.RecordBatch) -> None:
        """Take the rows of the batch, which is checked in full; waits while the server has no memory for them.

        Raises InvalidArgument for a batch that is damaged or does not fit the topic, perhaps only with
        a later batch or with `finish`, and ResourceExhausted when no memory becomes free within the ack
        timeout.
        """
        if self._failure is not None:
            raise self._failure
        batch = self._conformer.prepare(batch)
        size = _held(batch)
        is_large = size * _COMPANY >= self._limits.max_group_bytes
        if is_large or not self._engine.budget.try_reserve(size):
            self._take()  # as a file in the making it can be relieved
            self._reserve(size)
        self._incoming.append(batch)
        self._incoming_rows += batch.num_rows
        self._incoming_bytes += size
        self.rows_sent += batch.num_rows
        if (
            self._incoming_rows >= GROUP_ROWS
            or is_large
            or self._incoming_bytes >= self._limits.max_group_bytes
            or self._engine.budget.is_tight
            or not self._groups
        ):
            self._take()

    def write_through(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """As `write`, but checked now; gives the rows in the stored form."""
        self._take()
        batch = self._conformer.prepare(batch)
        self.rows_sent += batch.num_rows
        self._batches += 1
        stored = self._checked(batch, self._batches)
        self._keep(stored)
        return stored

    def _take(self) -> None:
        """Move what came in to the buffer: checked, and in the stored form."""
        batches, first = self._forget_incoming(), self._batches + 1
        self._batches += len(batches)
        for stored in self._converted(batches, first):
            self._keep(stored)

    def _converted(self, batches: list[pa.RecordBatch], first: int) -> Iterable[pa.RecordBatch]:
        if len(batches) > 1:
            try:
                return [self._convert(together) for together in _together(batches)]
            except (pa.ArrowException, InvalidArgument):
                pass  # one by one, to tell which batch it is
        return (self._checked(batch, number) for number, batch in enumerate(batches, first))

    def _checked(self, batch: pa.RecordBatch, number: int) -> pa.RecordBatch:
        _validate(batch, number)
        return self._convert(batch)

    def _convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The stored form of a batch whose bytes are checked; raises InvalidArgument."""
        stored = self._conformer.to_stored(batch)
        if stored.num_rows:
            self._rules.require(stored)
        return stored

    def _keep(self, stored: pa.RecordBatch) -> None:
        """Buffer rows in the stored form."""
        if not stored.num_rows:
            return
        size = stored.nbytes + _overhead(stored)
        self._reserve(size)
        with self._lock:
            if self._failure is not None:
                self._engine.budget.release(size)
                raise self._failure
            self._buffer.append(stored)
            self.buffered += size
        if self.buffered >= min(self._limits.max_file_bytes, _EARLY_FILE_BYTES << self._cuts // 2):
            self._await_turn()
            self.cut()

    def _forget_incoming(self) -> list[pa.RecordBatch]:
        """Give back the memory of what came in; returns it."""
        batches, self._incoming = self._incoming, []
        self._engine.budget.release(self._incoming_bytes)
        self._incoming_rows = self._incoming_bytes = 0
        return batches

    def _reserve(self, size: int) -> None:
        self._engine.budget.reserve(size, deadline=time.monotonic() + self._limits.ack_timeout)

    def _await_turn(self) -> None:
        """Wait while the stream has its share of files on their way.

        A client that sends faster than files are encoded would only fill the memory, and fresh memory
        costs more than encoding does.
        """
        with self._lock:
            unfinished = [file for file in self._files if not file.done()]
        if len(unfinished) >= FILES_ON_THEIR_WAY:
            wait(unfinished, timeout=self._limits.ack_timeout, return_when=FIRST_COMPLETED)

    def cut(self) -> None:
        """Send the buffered rows on as a file of their own."""
        with self._lock:
            if not self._buffer:
                return
            future = self._engine.files.write(
                self._target.location,
                self._target.schema.stored,
                self._buffer,
                self.buffered,
                deadline=time.monotonic() + self._limits.ack_timeout,
            )
            self._buffer, self.buffered = [], 0
            self._files.append(future)
            self._cuts += 1
        future.add_done_callback(self._note_failure)

    def finish(self, is_abandoned: Callable[[], bool]) -> Receipt:
        """Make all rows durable and visible together; returns when they are.

        `is_abandoned` tells whether the client has gone; it is asked again just before the commit.
        Raises InvalidArgument if there were no rows, Unavailable, ResourceExhausted or TimedOut when
        the store does not take them in time (the rows may then have become durable or not).
        """
        self._take()
        if self.rows_sent == 0:
            raise InvalidArgument("the stream held no rows; nothing was written")
        topic = self._engine.resolve(self._target)
        deadline = time.monotonic() + self._limits.ack_timeout
        done = self._engine.definitions.begin_commit(topic.id, deadline=deadline)
        try:
            self._engine.require_fitting(topic)
            with self._lock:
                if self._failure is not None:
                    raise self._failure
                complete = CompleteAppend(
                    topic=topic,
                    rows=self.rows_sent,
                    tail=self._buffer,
                    tail_bytes=self.buffered,
                    files=self._files,
                    deadline=deadline,
                    is_abandoned=is_abandoned,
                )
                self._buffer, self.buffered, self._files = [], 0, []
        except BaseException:
            done()
            raise
        # Not when this thread gives up waiting: the rows may still be committed then.
        complete.receipt.add_done_callback(lambda _: done())
        self._engine.committer.submit(complete)
        try:
            return complete.receipt.result(max(0.0, deadline - time.monotonic()) + _ANSWER_SLACK)
        except TimeoutError:
            raise TimedOut(
                f"the rows were not acknowledged within ACK_TIMEOUT_SECONDS ({self._limits.ack_timeout:g} s); "
                "they may have become durable or not"
            ) from None

    def fail(self, error: BoilStreamError) -> None:
        """Make the next `write` or `finish` raise `error`."""
        with self._lock:
            self._failure = self._failure or error

    def close(self) -> None:
        """Forget what was not handed on by `finish`; its files are removed."""
        self._forget_incoming()
        with self._lock:
            self._engine.budget.release(self.buffered)
            files, self._files = self._files, []
            self._buffer, self.buffered = [], 0
        for future in files:
            future.add_done_callback(self._discard)
        self._engine.forget(self)

    def _note_failure(self, future: Future[DataFile]) -> None:
        error = future.exception()
        if isinstance(error, BoilStreamError):
            self.fail(error)

    def _discard(self, future: Future[DataFile]) -> None:
        if future.exception() is None:
            self._engine.files.discard(future.result())


def _overhead(batch: pa.RecordBatch) -> int:
    return _BATCH_OVERHEAD + _COLUMN_OVERHEAD * int(batch.num_columns)


def _held(batch: pa.RecordBatch) -> int:
    """Bytes that a batch takes as it came in; looks at no value, for nobody has checked them yet."""
    return int(batch.get_total_buffer_size()) + _overhead(batch)


def _together(batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """The rows of all batches in one, or few where they are too many bytes; raises pa.ArrowException.

    They are checked in full before they are copied.
    """
    table = pa.Table.from_batches(batches)
    table.validate(full=True)
    combined: list[pa.RecordBatch] = table.combine_chunks().to_batches()
    return combined


def _validate(batch: pa.RecordBatch, number: int) -> None:
    """Check every offset, index and text of the batch.

    Parquet encoding trusts them: corrupt string offsets or dictionary indices would end the process.
    """
    try:
        batch.validate(full=True)
        return
    except (pa.ArrowInvalid, pa.ArrowIndexError):
        pass  # found again below, column by column
    for field, column in zip(batch.schema, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except (pa.ArrowInvalid, pa.ArrowIndexError) as error:
            reason = str(error).splitlines()[0][:200]
            if (
                reason.startswith("time") and "acceptable range" in reason
            ):  # DuckDB has 24:00:00, Iceberg has not
                raise InvalidArgument(
                    f"batch {number}, column {field.name!r}: a time of day must be before 24:00:00"
                ) from None
            raise InvalidArgument(f"batch {number}, column {field.name!r} is damaged: {reason}") from None
    raise InvalidArgument(f"batch {number} is damaged: its columns have different lengths")
