"""Reads the rows of a topic's files as a stream of batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from boilstream.catalog.types import TopicSchema
from boilstream.log.records import DataFile
from boilstream.storage.base import ObjectStore
from boilstream.storage.retry import retrying

BATCH_ROWS = 65_536
"""Rows of a batch at most: large enough for readers to work in bulk, small enough to stream."""

BATCH_BYTES = 64 * 1024 * 1024
"""Bytes of fixed-width columns in a batch at most; wide rows come in smaller batches."""

READ_PATIENCE_SECONDS = 30.0
"""How long a read waits for a store that does not answer."""

PARTITION_BYTES = 64 * 1024 * 1024
"""Parquet bytes that one parallel part of a read takes at least, before there are more parts."""

PAGE_BYTES = 256 * 1024
"""Bytes of a column that are read from a local file at once."""

MAX_PARTITIONS = 16
"""Parts of a read at most, unless their tickets would become too long."""

MAX_PART_FILES = 10_000
"""Files of a part at most: a ticket names each of them."""


def partition(files: Sequence[DataFile]) -> list[tuple[DataFile, ...]]:
    """Split the files of a read into parts of similar size that can be read in parallel.

    There is always one part at least, every file is in exactly one, and parts keep the order of files.
    """
    by_size = min(MAX_PARTITIONS, len(files), sum(file.bytes for file in files) // PARTITION_BYTES)
    by_number = -(-len(files) // MAX_PART_FILES)
    if by_number > by_size:
        return [tuple(files[start::by_number]) for start in range(by_number)]
    wanted = max(1, by_size)
    part_of = [0] * len(files)
    sizes = [0] * wanted
    for position, file in sorted(enumerate(files), key=lambda item: item[1].bytes, reverse=True):
        part_of[position] = smallest = sizes.index(min(sizes))
        sizes[smallest] += file.bytes
    return [
        tuple(f for f, owner in zip(files, part_of, strict=True) if owner == part) for part in range(wanted)
    ]


def read(store: ObjectStore, schema: TopicSchema, files: Sequence[DataFile]) -> Iterator[pa.RecordBatch]:
    """The rows of the files, in batches of the declared schema.

    Holds about one row group at a time, however many files there are. Raises ObjectMissing when a
    file has been removed, StoreUnavailable when the store does not answer.
    """
    batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, schema.row_width)))
    for file in files:
        source = retrying(partial(store.open, file.key), deadline=time.monotonic() + READ_PATIENCE_SECONDS)
        # Where a request is dear the columns of a row group are fetched in few large ones, else in pages.
        options = (
            {"pre_buffer": True} if store.is_remote else {"pre_buffer": False, "buffer_size": PAGE_BYTES}
        )
        with source, pq.ParquetFile(source, **options) as parquet:
            for batch in parquet.iter_batches(batch_rows, use_threads=False):
                yield schema.to_declared(batch)
