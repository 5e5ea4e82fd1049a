"""Reads the rows of a topic's files as a stream of batches: the columns that are wanted, the rows that match."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.acero as acero
import pyarrow.compute as pc
import pyarrow.parquet as pq

from boilstream.catalog.evolution import FileReader
from boilstream.catalog.typemap import fixed_width
from boilstream.catalog.types import TopicSchema
from boilstream.log.footers import Footer
from boilstream.log.records import DataFile
from boilstream.query.data_files import opened
from boilstream.query.predicates.predicate import Predicate
from boilstream.storage.base import ObjectStore

BATCH_ROWS = 65_536
"""Rows of a batch at most: large enough for readers to work in bulk, small enough to stream."""

BATCH_BYTES = 64 * 1024 * 1024
"""Bytes of fixed-width columns in a batch at most; wide rows come in smaller batches."""

RUN_BYTES = 32 * 1024 * 1024
"""Bytes (of Parquet before compression) that are read at once, if they are more than one row group."""

PARTITION_BYTES = 8 * 1024 * 1024
"""Parquet bytes that one parallel part of a read takes at least, before there are more parts."""

MAX_PARTITIONS = 16
"""Parts of a read at most, unless their tickets would become too long."""

MAX_PART_FILES = 10_000
"""Files of a part at most: a ticket names each of them."""

ROW_ID = pa.field("rowid", pa.int64())
"""The pseudo column with the ids of rows, see `boilstream.log.index.Snapshot`."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of a snapshot, or one of several parts of it that are read in parallel."""

    key: str
    first_row_id: int
    """Of the file."""
    rows: int
    """Of the file."""
    part: int = 0
    """Which of the parts, from 0."""
    parts: int = 1
    """How many parts the file is read in. Each takes its share of the row groups, perhaps none."""

    def share(self, things: int) -> range:
        """Which of the file's row groups (or rows, if only they are counted) this part takes."""
        return range(things * self.part // self.parts, things * (self.part + 1) // self.parts)


def partition(files: Sequence[DataFile]) -> list[tuple[DataFile, ...]]:
    """Split the files of a read into parts of similar size that can be read in parallel.

    There is always one part at least, every file is in exactly one, and parts keep the order of files.
    """
    return [tuple(files[place] for place in part) for part in _balanced([file.bytes for file in files])]


def divide(files: Sequence[tuple[DataFile, int]]) -> list[tuple[Segment, ...]]:
    """As `partition`, for files with the ids of their first rows; large files are divided too.

    There is no part if there are no files.
    """
    size = sum(file.bytes for file, _ in files)
    fair = max(PARTITION_BYTES, -(-size // MAX_PARTITIONS))
    segments: list[Segment] = []
    sizes: list[int] = []
    for file, first_row_id in files:
        parts = max(1, file.bytes // fair)
        segments.extend(Segment(file.key, first_row_id, file.rows, part, parts) for part in range(parts))
        sizes.extend([file.bytes // parts] * parts)
    return [tuple(segments[place] for place in part) for part in _balanced(sizes) if part]


def _balanced(sizes: Sequence[int]) -> list[list[int]]:
    """Places of things with these sizes (bytes), in parts of similar size; at least one part."""
    by_size = min(MAX_PARTITIONS, len(sizes), sum(sizes) // PARTITION_BYTES)
    by_number = -(-len(sizes) // MAX_PART_FILES)
    if by_number > by_size:
        return [list(range(start, len(sizes), by_number)) for start in range(by_number)]
    parts: list[list[int]] = [[] for _ in range(max(1, by_size))]
    filled = [0] * len(parts)
    for place in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        smallest = filled.index(min(filled))
        parts[smallest].append(place)
        filled[smallest] += sizes[place]
    return [sorted(part) for part in parts]


def output_schema(schema: TopicSchema, columns: Sequence[str] | None, *, row_ids: bool) -> pa.Schema:
    """Schema of the batches that `read` gives; raises InvalidArgument for an unknown column."""
    fields = list(schema.reader(pa.schema([]), columns).schema)
    return pa.schema([ROW_ID, *fields] if row_ids else fields)


def read(
    store: ObjectStore,
    schema: TopicSchema,
    segments: Sequence[Segment],
    *,
    columns: Sequence[str] | None = None,
    predicate: Predicate | None = None,
    row_ids: bool = False,
) -> Generator[pa.RecordBatch, None, None]:
    """The rows of the segments, in batches of the declared schema.

    `columns` are the names of the columns in the order in which they are given, None for all. Only rows
    for which `predicate` is true are given; its expression is over the declared form of `schema`. With
    `row_ids` there is a first column `rowid`.

    No file is opened when only the number of rows or their ids are wanted. Holds RUN_BYTES or one row
    group at a time, however many files there are. Where nothing matches in as many there is an empty
    batch, so that a reader who has lost interest can close the iterator, which closes the file.

    Raises ObjectMissing when a file has been removed, StoreUnavailable when the store does not
    answer, InvalidArgument for an unknown column.
    """
    yield from _Scan(store, schema, columns, predicate, row_ids=row_ids).rows(segments)


class _Scan:
    """What is the same for all segments of a read."""

    def __init__(
        self,
        store: ObjectStore,
        schema: TopicSchema,
        columns: Sequence[str] | None,
        predicate: Predicate | None,
        *,
        row_ids: bool,
    ) -> None:
        self._store = store
        self._schema = schema
        self._columns = columns
        self._predicate = predicate
        self._filter = predicate.expression if predicate else None
        self._tested = sorted(predicate.columns) if predicate else []
        places = [schema.declared.get_field_index(name) for name in self._tested]
        self._tested_ids = {schema.iceberg.fields[place].field_id for place in places}
        self._row_ids = row_ids
        self._output = output_schema(schema, columns, row_ids=row_ids)
        fields = [*self._output, *(schema.declared.field(name) for name in self._tested)]
        self._known_readers: tuple[pa.Schema, tuple[FileReader, FileReader]] | None = None
        """Files of one topic mostly have the same schema."""
        width = sum(fixed_width(field.type) for field in fields)
        self._batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, width)))

    def rows(self, segments: Iterable[Segment]) -> Iterator[pa.RecordBatch]:
        """The rows of the segments."""
        predicate = self._predicate
        if predicate is not None:
            segments = (segment for segment in segments if predicate.may_match({}, segment.rows))
        if self._filter is None and len(self._output) == int(self._row_ids):
            yield from self._counted(segments)
            return
        for segment in segments:
            with opened(self._store, segment.key) as parquet:
                yield from self._read(parquet, segment)

    def _counted(self, segments: Iterable[Segment]) -> Iterator[pa.RecordBatch]:
        """Batches of row ids, or without columns, which need no file; they are filled across segments."""
        for ids in _filled(_ids(segments)):
            if self._row_ids:
                arrays = [pa.arange(part.start, part.stop) for part in ids]
                yield pa.RecordBatch.from_arrays([pa.concat_arrays(arrays)], schema=self._output)
            else:
                yield pa.RecordBatch.from_arrays([pa.nulls(sum(map(len, ids)))], names=[""]).select([])

    def _read(self, parquet: pq.ParquetFile, segment: Segment) -> Iterator[pa.RecordBatch]:
        """The rows of a segment of an open file."""
        output, tested = self._readers(parquet.schema_arrow)
        names = list(dict.fromkeys([*output.names, *tested.names]))
        for row_groups, start in self._runs(parquet.metadata, segment):
            row_id = segment.first_row_id + start
            nothing: pa.RecordBatch | None = None
            is_empty = True
            for batch in parquet.iter_batches(
                self._batch_rows, row_groups=row_groups, columns=names, use_threads=True
            ):
                found = self._finished(batch, row_id, output, tested)
                row_id += batch.num_rows
                if found.num_rows:
                    is_empty = False
                    yield found
                else:
                    nothing = found
            if is_empty and nothing is not None:
                yield nothing

    def _readers(self, file_schema: pa.Schema) -> tuple[FileReader, FileReader]:
        """What reads the columns that are given, and those that are tested, from a file with that schema."""
        known = self._known_readers
        if known is None or not known[0].equals(file_schema, check_metadata=True):
            output = self._schema.reader(file_schema, self._columns)
            tested = self._schema.reader(file_schema, self._tested)
            known = self._known_readers = file_schema, (output, tested)
        return known[1]

    def _runs(self, metadata: pq.FileMetaData, segment: Segment) -> Iterator[tuple[list[int], int]]:
        """Row groups that follow each other and are read at once, with the position of their first row.

        Those that cannot have a matching row are left out.
        """
        may_match = self._pruning(metadata)
        run: list[int] = []
        run_start = run_bytes = position = 0
        share = segment.share(metadata.num_row_groups)
        for number in range(share.stop):
            row_group = metadata.row_group(number)
            if number in share:
                matches = may_match(number)
                if run and (not matches or run_bytes + row_group.total_byte_size > RUN_BYTES):
                    yield run, run_start
                    run, run_bytes = [], 0
                if matches:
                    run_start = run_start if run else position
                    run_bytes += row_group.total_byte_size
                    run.append(number)
            position += row_group.num_rows
        if run:
            yield run, run_start

    def _pruning(self, metadata: pq.FileMetaData) -> Callable[[int], bool]:
        """What tells whether a row group may have rows that match."""
        predicate = self._predicate
        if predicate is None:
            return lambda _number: True
        footer = Footer(metadata)
        return lambda number: predicate.may_match(
            footer.row_group(number, self._tested_ids), metadata.row_group(number).num_rows
        )

    def _finished(
        self, batch: pa.RecordBatch, first_row_id: int, output: FileReader, tested: FileReader
    ) -> pa.RecordBatch:
        """The rows of a batch of a file that match, in the form of the output."""
        if self._filter is not None or self._row_ids:
            # Beside the columns of the file, so that it is filtered along with them.
            batch = batch.append_column(ROW_ID, pa.arange(first_row_id, first_row_id + batch.num_rows))
        if self._filter is not None:
            batch = batch.filter(_truth(self._filter, tested.to_declared(batch)))
        declared = output.to_declared(batch)
        if not self._row_ids:
            return declared
        return pa.RecordBatch.from_arrays([batch.columns[-1], *declared.columns], schema=self._output)


def _ids(segments: Iterable[Segment]) -> Iterator[range]:
    """Ids of the rows of the segments; those that follow each other are together."""
    found = range(0)
    for segment in segments:
        share = segment.share(segment.rows)
        start, stop = segment.first_row_id + share.start, segment.first_row_id + share.stop
        if start != found.stop:
            yield found
            found = range(start, start)
        found = range(found.start, stop)
    yield found


def _filled(ids: Iterable[range]) -> Iterator[list[range]]:
    """The same ids in lots of BATCH_ROWS; the last is less, if it is not whole."""
    lot: list[range] = []
    room = BATCH_ROWS
    for part in ids:
        while part:
            lot.append(part[:room])
            part, room = part[room:], room - len(lot[-1])
            if not room:
                yield lot
                lot, room = [], BATCH_ROWS
    if lot:
        yield lot


def _truth(expression: pc.Expression, batch: pa.RecordBatch) -> pa.Array:
    """The values of a condition for the rows of a batch."""
    source = acero.TableSourceNodeOptions(pa.Table.from_batches([batch]))
    plan = acero.Declaration.from_sequence(
        [
            acero.Declaration("table_source", source),
            acero.Declaration("project", acero.ProjectNodeOptions([expression], ["truth"])),
        ]
    )
    return plan.to_table(use_threads=False).column(0).combine_chunks()
