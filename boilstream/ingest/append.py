"""One append: the rows of one stream, visible all together or not at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from boilstream.catalog.topics import Topic, TopicDraft
from boilstream.errors import BoilStreamError, InvalidArgument, TimedOut
from boilstream.ingest.group import CompleteAppend, Receipt
from boilstream.log.records import DataFile

if TYPE_CHECKING:
    from boilstream.ingest.engine import IngestEngine

_ANSWER_SLACK = 1.0
"""Seconds beyond the ack timeout in which the committer's own error arrives first."""


FILES_ON_THEIR_WAY = 2
"""Files of one append that are encoded or uploaded at a time, while the next one fills."""

_BATCH_OVERHEAD, _COLUMN_OVERHEAD = 1024, 256
"""Bytes that a batch and each of its columns take beside the values; tiny batches are mostly that."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds one append."""

    max_file_bytes: int
    """A file is cut when this many bytes of rows are buffered."""
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
        self._conformer = target.schema.conform(schema)
        self._limits = limits
        self._lock = threading.Lock()
        self._buffer: list[pa.RecordBatch] = []
        self._files: list[Future[DataFile]] = []
        self._failure: BoilStreamError | None = None
        self._batches = 0
        self.buffered = 0
        """Bytes in the buffer."""
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Check the batch in full and take its rows; waits while the server has no memory for them.

        Raises InvalidArgument for a batch that is damaged or does not fit the topic, and
        ResourceExhausted when no memory becomes free within the ack timeout.
        """
        self._batches += 1
        _validate(batch, self._batches)
        if batch.num_rows == 0:
            return
        stored = self._conformer.to_stored(batch)
        size = stored.nbytes + _BATCH_OVERHEAD + _COLUMN_OVERHEAD * stored.num_columns
        self._engine.budget.reserve(size, deadline=time.monotonic() + self._limits.ack_timeout)
        with self._lock:
            if self._failure is not None:
                self._engine.budget.release(size)
                raise self._failure
            self._buffer.append(stored)
            self.buffered += size
            self.rows += batch.num_rows
        if self.buffered >= self._limits.max_file_bytes:
            self._await_turn()
            self.cut()

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
        future.add_done_callback(self._note_failure)

    def finish(self, is_abandoned: Callable[[], bool]) -> Receipt:
        """Make all rows durable and visible together; returns when they are.

        `is_abandoned` tells whether the client has gone; it is asked again just before the commit.
        Raises InvalidArgument if there were no rows, Unavailable, ResourceExhausted or TimedOut when
        the store does not take them in time (the rows may then have become durable or not).
        """
        if self.rows == 0:
            raise InvalidArgument("the stream held no rows; nothing was written")
        topic = self._engine.resolve(self._target)
        with self._lock:
            if self._failure is not None:
                raise self._failure
            complete = CompleteAppend(
                topic=topic,
                rows=self.rows,
                tail=self._buffer,
                tail_bytes=self.buffered,
                files=self._files,
                deadline=time.monotonic() + self._limits.ack_timeout,
                is_abandoned=is_abandoned,
            )
            self._buffer, self.buffered, self._files = [], 0, []
        self._engine.committer.submit(complete)
        try:
            return complete.receipt.result(self._limits.ack_timeout + _ANSWER_SLACK)
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
            raise InvalidArgument(f"batch {number}, column {field.name!r} is damaged: {reason}") from None
    raise InvalidArgument(f"batch {number} is damaged: its columns have different lengths")
