"""Data files of any version of a topic, read as one version: columns are matched by Iceberg field id.

    reader = schema.reader(parquet.schema_arrow, columns)     # once for each file
    for batch in parquet.iter_batches(rows, columns=reader.names):
        yield reader.to_declared(batch)                       # has reader.schema

Only top-level columns evolve. One that the file does not have reads as nulls (also where the
version demands a value), one that the version does not have is not read, names in the file mean
nothing, and values of narrower or wider types are converted exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from boilstream.catalog.convert import absent, decoder, encoder
from boilstream.catalog.leaves import Step, Unfit, chain
from boilstream.catalog.typemap import FIELD_ID, Refused, show
from boilstream.errors import InvalidArgument


def field_id(field: pa.Field) -> int | None:
    """The Iceberg field id of an Arrow field of a data file; None if it has none."""
    text = (field.metadata or {}).get(FIELD_ID)
    return int(text) if text is not None else None


class FileReader:
    """Reads one data file as one version of its topic. Get it from `TopicSchema.reader`."""

    def __init__(
        self, declared: pa.Schema, stored: pa.Schema, file_schema: pa.Schema, columns: Sequence[str] | None
    ) -> None:
        """`declared` and `stored` are of the version; see `TopicSchema.reader` for the others."""
        places = range(len(declared)) if columns is None else [_place(declared, name) for name in columns]
        present = {field_id(field): field for field in file_schema}
        self.schema: pa.Schema = pa.schema([declared.field(place) for place in places])
        """Of the batches that `to_declared` makes."""
        self._columns = [_Column(declared.field(p), stored.field(p), present) for p in places]
        self.names: list[str] = list(
            dict.fromkeys(column.source.name for column in self._columns if column.source is not None)
        )
        """Top-level columns of the file to read, by their names in it; may be empty."""
        self._known_positions: tuple[pa.Schema, dict[int | None, int]] = pa.schema([]), {}

    def to_declared(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a batch of the file, which has the columns `names` and perhaps others.

        Columns that need no conversion are shared, not copied. Raises InvalidArgument when a value
        does not fit the type of this version: another engine wrote it, or a later version is wider.
        """
        if not self._columns:
            return batch.select([])  # keeps the number of rows
        positions = self._positions_in(batch.schema)
        try:
            arrays = [column.read(batch, positions) for column in self._columns]
        except Unfit as problem:
            raise InvalidArgument(f"column {problem}") from None
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _positions_in(self, schema: pa.Schema) -> dict[int | None, int]:
        """Where the column with each field id stands; found once, for the batches of a file are alike."""
        known = self._known_positions
        if not known[0].equals(schema, check_metadata=True):
            positions = {field_id(field): position for position, field in enumerate(schema)}
            known = self._known_positions = schema, positions
        return known[1]


class _Column:
    """How one column of the version is made from a file."""

    def __init__(self, declared: pa.Field, stored: pa.Field, present: dict[int | None, pa.Field]) -> None:
        self._id = field_id(stored)
        self.source = present.get(self._id)
        name = declared.name
        decode = decoder(stored.type, declared.type, name)
        if self.source is None:
            self._step = chain(absent(stored.type, name), decode)
        else:
            self._step = chain(_widen(self.source.type, stored.type, name), decode)

    def read(self, batch: pa.RecordBatch, positions: dict[int | None, int]) -> Any:
        """The column of this version; raises Unfit."""
        array = pa.nulls(len(batch)) if self.source is None else batch.column(positions[self._id])
        return array if self._step is None else self._step(array)


def _place(schema: pa.Schema, name: str) -> int:
    place: int = schema.get_field_index(name)
    if place < 0:
        raise InvalidArgument(f"column {show(name)} does not exist; check its spelling")
    return place


def _widen(found: pa.DataType, stored: pa.DataType, path: str) -> Step | None:
    """The step from the type that the file has to the stored type of this version."""
    if found == stored:
        return None
    problems: list[Refused] = []
    step = encoder(found, stored, stored, path, problems.append)
    if problems:
        raise InvalidArgument(f"a data file of the topic cannot be read: {problems[0]}")
    return step
