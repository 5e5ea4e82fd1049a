"""Data files in the store: opening one, and what must be looked up in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pyarrow.parquet as pq

from boilstream.catalog.evolution import field_id as id_of
from boilstream.log.footers import null_count as footer_null_count
from boilstream.log.records import DataFile
from boilstream.storage.base import ObjectStore
from boilstream.storage.retry import retrying

READ_PATIENCE_SECONDS = 30.0
"""How long opening a file waits for a store that does not answer."""

PAGE_BYTES = 256 * 1024
"""Bytes of a column that are read from a local file at once."""

COUNT_ROWS = 65_536
"""Rows of a column that are held to count its nulls."""


@contextmanager
def opened(store: ObjectStore, key: str) -> Iterator[pq.ParquetFile]:
    """The data file under `key`, closed at the end; raises ObjectMissing and StoreUnavailable."""
    source = retrying(partial(store.open, key), deadline=time.monotonic() + READ_PATIENCE_SECONDS)
    # Where a request is dear the columns of a row group are fetched in few large ones, else in pages.
    options = {"pre_buffer": True} if store.is_remote else {"pre_buffer": False, "buffer_size": PAGE_BYTES}
    with source, pq.ParquetFile(source, **options) as parquet:
        yield parquet


def null_count(store: ObjectStore, file: DataFile, field_id: int) -> int:
    """Rows of a file in which a top-level column is null: all, where the file does not have the column.

    Where the log does not tell (of files of a release without statistics, and of columns newer than the
    file) the file is opened: its footer is read, and the column itself only if the footer cannot tell.

    Raises ObjectMissing and StoreUnavailable.
    """
    known = file.statistics.get(field_id)
    if known is not None or not file.rows:
        return known.nulls if known else 0
    with opened(store, file.key) as parquet:
        nulls = footer_null_count(parquet.metadata, field_id)
        return _counted(parquet, field_id) if nulls is None else nulls


def _counted(parquet: pq.ParquetFile, field_id: int) -> int:
    (name,) = (field.name for field in parquet.schema_arrow if id_of(field) == field_id)
    nulls = 0
    for batch in parquet.iter_batches(COUNT_ROWS, columns=[name]):
        # By its id, for the reader takes the name also for a path into another column.
        (place,) = (place for place, field in enumerate(batch.schema) if id_of(field) == field_id)
        nulls += batch.column(place).null_count
    return nulls
