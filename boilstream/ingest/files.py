"""Data files: encoded by one pool of threads, uploaded by another."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from boilstream.errors import BoilStreamError
from boilstream.ingest.budget import MemoryBudget
from boilstream.ingest.parquet import encode
from boilstream.log.records import DataFile
from boilstream.storage.base import ObjectStore
from boilstream.storage.retry import retrying

log = logging.getLogger("boilstream.ingest.files")

UPLOAD_THREADS = 16


class FileWriter:
    """Turns buffered rows into durable data files.

    Encoding is bound by CPU and gets a thread per core; uploading waits for the store and gets
    more. So the next file is encoded while the last one is on its way.
    """

    def __init__(self, store: ObjectStore, budget: MemoryBudget, *, ack_timeout: float) -> None:
        self._store = store
        self._budget = budget
        self._ack_timeout = ack_timeout
        self._encoders = ThreadPoolExecutor(os.cpu_count() or 2, thread_name_prefix="encode")
        self._uploads = ThreadPoolExecutor(UPLOAD_THREADS, thread_name_prefix="upload")

    def write(
        self, location: str, schema: pa.Schema, batches: Sequence[pa.RecordBatch], reserved: int
    ) -> Future[DataFile]:
        """Encode and upload one file below `location`; the future completes when it is durable.

        `reserved` bytes of the budget are held by `batches` and are released on the way. The future
        fails with a BoilStreamError.
        """
        result: Future[DataFile] = Future()
        self._encoders.submit(self._encode, result, f"{location}/data", schema, list(batches), reserved)
        return result

    def discard(self, file: DataFile) -> None:
        """Remove a file that no record will name; a failure only leaves garbage behind."""
        try:
            self._uploads.submit(self._delete, file)
        except RuntimeError:  # the pool is closed already
            self._delete(file)

    def close(self) -> None:
        """Finish all work and end the threads."""
        self._encoders.shutdown()
        self._uploads.shutdown()

    def _encode(
        self,
        result: Future[DataFile],
        folder: str,
        schema: pa.Schema,
        batches: list[pa.RecordBatch],
        reserved: int,
    ) -> None:
        try:
            rows = sum(batch.num_rows for batch in batches)
            data = encode(batches, schema)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the waiting append must hear of it
            self._budget.release(reserved)
            result.set_exception(error)
            return
        batches.clear()
        held = min(reserved, data.size)
        self._budget.release(reserved - held)
        self._uploads.submit(self._upload, result, folder, data, rows, held)

    def _upload(self, result: Future[DataFile], folder: str, data: pa.Buffer, rows: int, held: int) -> None:
        key = f"{folder}/{uuid.uuid4().hex}.parquet"
        try:
            deadline = time.monotonic() + self._ack_timeout
            retrying(lambda: self._store.put(key, data), deadline=deadline)
        except BaseException as error:  # noqa: BLE001 - as above
            result.set_exception(error)
        else:
            result.set_result(DataFile(key, rows, data.size))
        finally:
            self._budget.release(held)

    def _delete(self, file: DataFile) -> None:
        try:
            self._store.delete(file.key)
        except BoilStreamError as error:
            log.info("unused data file %s stays for now: %s", file.key, error)
