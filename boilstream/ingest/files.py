"""Data files: encoded by one pool of threads, uploaded by another."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import pyarrow as pa

from boilstream.errors import BoilStreamError, Unavailable
from boilstream.ingest.budget import MemoryBudget
from boilstream.ingest.parquet import EncodedFile, encode
from boilstream.log.records import DataFile
from boilstream.storage.base import ObjectStore, StoreUnavailable
from boilstream.storage.retry import retrying

log = logging.getLogger("boilstream.ingest.files")

Item = TypeVar("Item")

UPLOAD_THREADS = 16


class FileWriter:
    """Turns buffered rows into durable data files.

    Encoding is bound by CPU and gets a thread per core; uploading waits for the store and gets
    more. So the next file is encoded while the last one is on its way.
    """

    def __init__(self, store: ObjectStore, budget: MemoryBudget) -> None:
        self._store = store
        self._budget = budget
        self._encoders = _started_pool(os.cpu_count() or 2, "encode")
        self._uploads = _started_pool(UPLOAD_THREADS, "upload")
        self._work: set[Future[None]] = set()

    def write(
        self,
        location: str,
        schema: pa.Schema,
        batches: Sequence[pa.RecordBatch],
        reserved: int,
        *,
        deadline: float,
    ) -> Future[DataFile]:
        """Encode and upload one file below `location`; the future completes when it is durable.

        `reserved` bytes of the budget are held by `batches` and are released on the way. `deadline`
        (`time.monotonic`) ends the attempts to store the file. Never raises: the future fails with a
        BoilStreamError.
        """
        result: Future[DataFile] = Future()
        job = _Job(result, f"{location}/data", schema, list(batches), reserved, deadline)
        try:
            self._submit(self._encoders, self._encode, job)
        except RuntimeError:
            self._budget.release(reserved)
            result.set_exception(_closed())
        return result

    def discard(self, file: DataFile) -> None:
        """Remove a file that no record will name; a failure only leaves garbage behind."""
        try:
            self._submit(self._uploads, self._delete, file)
        except RuntimeError:
            self._delete(file)

    def close(self, deadline: float) -> None:
        """Finish all work until `deadline` (`time.monotonic`), give up the rest, and end the threads."""
        while self._work and (left := deadline - time.monotonic()) > 0:
            wait(list(self._work), timeout=left)
        self._encoders.shutdown(wait=False, cancel_futures=True)
        self._uploads.shutdown(wait=False, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, task: Callable[[Item], None], item: Item) -> None:
        """Raises RuntimeError when the pool is closed, and never else: its threads run already."""
        future = pool.submit(task, item)
        self._work.add(future)
        future.add_done_callback(self._work.discard)

    def _encode(self, job: _Job) -> None:
        try:
            job.rows = sum(batch.num_rows for batch in job.batches)
            job.encoded = encode(job.batches, job.schema)
            job.batches.clear()
            job.hold(min(job.reserved, job.encoded.data.size), self._budget)
            self._submit(self._uploads, self._upload, job)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the waiting append must hear of it
            job.hold(0, self._budget)
            job.result.set_exception(_closed() if isinstance(error, RuntimeError) else error)

    def _upload(self, job: _Job) -> None:
        key = f"{job.folder}/{uuid.uuid4().hex}.parquet"
        data, statistics = job.encoded.data, job.encoded.statistics
        try:
            if time.monotonic() >= job.deadline:
                raise StoreUnavailable("the object store is too slow for the rows that wait; try again later")
            retrying(partial(self._store.put, key, data), deadline=job.deadline)
        except BaseException as error:  # noqa: BLE001 - as above
            job.result.set_exception(error)
        else:
            job.result.set_result(DataFile(key, job.rows, data.size, statistics))
        finally:
            job.hold(0, self._budget)

    def _delete(self, file: DataFile) -> None:
        try:
            self._store.delete(file.key)
        except BoilStreamError as error:
            log.info("unused data file %s stays for now: %s", file.key, error)


@dataclass(slots=True, eq=False)
class _Job:
    """One file on its way through the pools."""

    result: Future[DataFile]
    folder: str
    schema: pa.Schema
    batches: list[pa.RecordBatch]
    reserved: int
    """Bytes of the budget that the job holds."""
    deadline: float
    rows: int = 0
    encoded: EncodedFile = field(init=False)

    def hold(self, size: int, budget: MemoryBudget) -> None:
        """Give back all of the budget but `size` bytes."""
        budget.release(self.reserved - size)
        self.reserved = size


def _started_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads all run: later no work can be lost because the system refuses a thread."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    together = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(together.wait)
    together.wait()
    return pool


def _closed() -> Unavailable:
    return Unavailable("the server is stopping; send the rows again")
