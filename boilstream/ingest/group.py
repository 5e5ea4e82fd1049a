"""Group commit: many appends share files, files share commit records.

Appends that are complete wait for the next flush, which makes one file per topic of their rows. A
flush starts at once if none has started within the flush interval, else when that time is over or
a file is full: a lone append pays no delay, a crowd shares. Appends that already cut files of their
own do not wait. Flushes whose files are durable are committed by one record, in the order in which
they become durable, so a slow upload delays only its own flush.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field

import pyarrow as pa

from boilstream.catalog.topics import Topic
from boilstream.errors import BoilStreamError, Internal, NotFound, Unavailable
from boilstream.ingest.budget import MemoryBudget
from boilstream.ingest.files import FileWriter
from boilstream.log.index import LogIndex
from boilstream.log.records import DataFile, TopicCommit
from boilstream.log.writer import LogWriter

log = logging.getLogger("boilstream.ingest.group")


@dataclass(frozen=True, slots=True)
class Receipt:
    """The acknowledgement of one append: its rows are durable and visible."""

    rows: int
    commit_id: str


@dataclass(slots=True, eq=False)
class CompleteAppend:
    """An append whose rows have all arrived."""

    topic: Topic
    rows: int
    tail: Sequence[pa.RecordBatch]
    """Rows that are in no file yet."""
    tail_bytes: int
    files: Sequence[Future[DataFile]]
    """Files that were cut while the rows arrived."""
    deadline: float
    """When its client stops waiting, in `time.monotonic`."""
    is_abandoned: Callable[[], bool]
    """Whether the client has gone without completing the call."""
    receipt: Future[Receipt] = field(default_factory=Future)


@dataclass(slots=True, eq=False)
class _Part:
    """Files that stand or fall together with the appends whose rows they hold."""

    topic: Topic
    appends: list[CompleteAppend]
    files: list[Future[DataFile]]


class _Bundle:
    """The parts of one flush; handed on when the last of their files is done."""

    def __init__(self, parts: list[_Part], done: Callable[[_Bundle], object]) -> None:
        self.parts = parts
        self._done = done
        futures = [future for part in parts for future in part.files]
        self._left = len(futures)
        self._lock = threading.Lock()
        for future in futures:
            future.add_done_callback(self._count)

    def _count(self, _: Future[DataFile]) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        self._done(self)


class GroupCommitter:
    """Takes complete appends, makes them durable together, and answers their receipts."""

    def __init__(
        self,
        files: FileWriter,
        budget: MemoryBudget,
        log_writer: LogWriter,
        index: LogIndex,
        *,
        flush_interval: float,
        max_file_bytes: int,
    ) -> None:
        """`flush_interval` in seconds; `max_file_bytes` of rows in memory."""
        self._files = files
        self._budget = budget
        self._log_writer = log_writer
        self._index = index
        self._flush_interval = flush_interval
        self._max_file_bytes = max_file_bytes
        self._pending: list[CompleteAppend] = []
        self._pending_bytes = 0
        self._urgent = False
        self._closing = False
        self._changed = threading.Condition()
        self._durable: queue.SimpleQueue[_Bundle | None] = queue.SimpleQueue()
        self._unanswered: set[Future[Receipt]] = set()
        self._flusher = threading.Thread(target=self._flush_loop, name="flush", daemon=True)
        self._recorder = threading.Thread(target=self._record_loop, name="record", daemon=True)
        self._flusher.start()
        self._recorder.start()

    def submit(self, append: CompleteAppend) -> None:
        """Take the append; its receipt completes, or fails with a BoilStreamError."""
        with self._changed:
            if self._closing:
                self._refuse(append, _stopping())
                return
            self._unanswered.add(append.receipt)
            append.receipt.add_done_callback(self._unanswered.discard)
            if not append.files:
                self._pending.append(append)
                self._pending_bytes += append.tail_bytes
                self._changed.notify()
                return
        files = [*append.files, *([self._write([append])] if append.tail else [])]
        _Bundle([_Part(append.topic, [append], files)], self._durable.put)

    def flush(self, timeout: float) -> None:
        """Make all complete appends durable now; returns when they are answered or after `timeout` seconds."""
        with self._changed:
            waiting = list(self._unanswered)
            self._urgent = bool(self._pending)
            self._changed.notify()
        deadline = time.monotonic() + timeout
        for receipt in waiting:
            try:
                receipt.result(timeout=max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise Unavailable("not everything could be made durable in time; try again") from None
            except BoilStreamError as error:
                log.info("an append failed during a requested flush: %s", error)

    def close(self, deadline: float) -> None:
        """Commit what is complete until `deadline` (`time.monotonic`), refuse the rest, and end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._flusher.join(max(0.0, deadline - time.monotonic()))
        wait(list(self._unanswered), timeout=max(0.0, deadline - time.monotonic()))
        self._durable.put(None)
        self._recorder.join(max(0.0, deadline - time.monotonic()))
        for receipt in list(self._unanswered):
            with suppress(InvalidStateError):  # answered just now
                receipt.set_exception(_stopping())

    # Flushing

    def _flush_loop(self) -> None:
        last_start = float("-inf")
        while True:
            with self._changed:
                while not self._pending and not self._closing:
                    self._changed.wait()
                while (left := last_start + self._flush_interval - time.monotonic()) > 0:
                    if self._closing or self._urgent or self._pending_bytes >= self._max_file_bytes:
                        break
                    self._changed.wait(left)
                appends, self._pending, self._pending_bytes, self._urgent = self._pending, [], 0, False
                if not appends and self._closing:
                    return
            last_start = time.monotonic()
            try:
                self._flush(appends)
            except Exception as error:
                log.exception("a flush failed")
                _fail(appends, _explained(error))

    def _flush(self, appends: list[CompleteAppend]) -> None:
        by_topic: dict[tuple[str, int], list[CompleteAppend]] = {}  # one schema in a file
        for append in appends:
            if append.is_abandoned():
                self._refuse(append, Unavailable("the client has gone; nothing was written"))
            else:
                by_topic.setdefault((append.topic.id, append.topic.version), []).append(append)
        parts = [
            _Part(group[0].topic, group, [self._write(group)])
            for of_topic in by_topic.values()
            for group in self._file_groups(of_topic)
        ]
        if parts:
            _Bundle(parts, self._durable.put)

    def _refuse(self, append: CompleteAppend, error: BoilStreamError) -> None:
        append.tail = ()
        self._budget.release(append.tail_bytes)
        for future in append.files:
            future.add_done_callback(self._discard)
        _fail([append], error)

    def _discard(self, future: Future[DataFile]) -> None:
        if future.exception() is None:
            self._files.discard(future.result())

    def _file_groups(self, appends: list[CompleteAppend]) -> Iterator[list[CompleteAppend]]:
        group: list[CompleteAppend] = []
        size = 0
        for append in appends:
            if group and size + append.tail_bytes > self._max_file_bytes:
                yield group
                group, size = [], 0
            group.append(append)
            size += append.tail_bytes
        yield group

    def _write(self, appends: list[CompleteAppend]) -> Future[DataFile]:
        topic = appends[0].topic
        batches = [batch for append in appends for batch in append.tail]
        for append in appends:
            append.tail = ()
        return self._files.write(
            topic.location,
            topic.schema.stored,
            batches,
            sum(append.tail_bytes for append in appends),
            deadline=max(append.deadline for append in appends),
        )

    # Recording

    def _record_loop(self) -> None:
        while True:
            bundles = [self._durable.get()]
            while not self._durable.empty():
                bundles.append(self._durable.get())
            parts = [part for bundle in bundles if bundle for part in bundle.parts]
            try:
                self._record(parts)
            except Exception as error:
                log.exception("a commit failed")
                _fail([append for part in parts for append in part.appends], _explained(error))
            if None in bundles:
                return

    def _record(self, parts: list[_Part]) -> None:
        ready: list[tuple[_Part, list[DataFile]]] = []
        for part in parts:
            files = self._settled(part)
            if files:
                ready.append((part, files))
        if not ready:
            return
        by_topic: dict[str, tuple[Topic, list[DataFile]]] = {}
        for part, files in ready:
            by_topic.setdefault(part.topic.id, (part.topic, []))[1].extend(files)
        appends = [append for part, _ in ready for append in part.appends]
        try:
            record = self._log_writer.commit(
                tuple(
                    TopicCommit(topic.id, str(topic.name), topic.location, tuple(files))
                    for topic, files in by_topic.values()
                ),
                deadline=max(append.deadline for append in appends),
            )
        except BoilStreamError as error:
            # The files stay: the record may have become durable, or may yet.
            log.warning("commit of %d appends failed: %s", len(appends), error)
            _fail(appends, error)
            return
        for append in appends:
            with suppress(InvalidStateError):  # refused because the server stops: its client will retry
                append.receipt.set_result(Receipt(append.rows, record.commit_id))

    def _settled(self, part: _Part) -> list[DataFile]:
        """The files of the part, or none after its appends were told why it cannot be committed."""
        problem: BoilStreamError | None = None
        files = []
        for future in part.files:
            error = future.exception()
            if error is None:
                files.append(future.result())
            else:
                problem = problem or _explained(error)
        if problem is None and self._index.is_dropped(part.topic.id):
            problem = NotFound(
                f"topic {part.topic.name} was dropped while rows were on their way; nothing was written"
            )
        if problem is None and all(append.is_abandoned() for append in part.appends):
            problem = Unavailable("the client has gone; nothing was written")
        if problem is None:
            return files
        for file in files:
            self._files.discard(file)
        _fail(part.appends, problem)
        return []


def _explained(error: BaseException) -> BoilStreamError:
    if isinstance(error, BoilStreamError):
        return error
    log.error("an append failed on a defect", exc_info=error)
    return Internal("the rows could not be written because of a defect of the server")


def _fail(appends: Sequence[CompleteAppend], error: BoilStreamError) -> None:
    for append in appends:
        with suppress(InvalidStateError):
            append.receipt.set_exception(error)


def _stopping() -> Unavailable:
    return Unavailable("the server is stopping; send the rows again")
