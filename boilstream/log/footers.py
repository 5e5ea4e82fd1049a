"""Column statistics from the footer of a Parquet file: of one row group, or of all. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, Final

import pyarrow as pa

from boilstream.catalog.typemap import FIELD_ID
from boilstream.log.statistics import MAX_BOUND_CHARACTERS, Bound, ColumnStatistics

MAX_BOUNDED_COLUMNS: Final = 100
"""Top-level columns of a file that have bounds: the first ones."""

_LAST_CODE_POINT: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)


class Footer:
    """The columns without children among the first of a Parquet file, by their field ids."""

    def __init__(self, metadata: Any) -> None:
        """`metadata` is the `pyarrow.parquet.FileMetaData` of the file."""
        self._metadata = metadata
        self._columns: dict[int, tuple[int, pa.DataType]] = {}
        leaf = 0
        for position, field in enumerate(metadata.schema.to_arrow_schema()):
            text = (field.metadata or {}).get(FIELD_ID)
            if text is not None and position < MAX_BOUNDED_COLUMNS and not pa.types.is_nested(field.type):
                self._columns[int(text)] = leaf, field.type
            leaf += _leaves(field.type)

    def row_group(self, number: int, field_ids: Collection[int]) -> dict[int, ColumnStatistics]:
        """Statistics of some columns in one row group; a column that is not in them is not known.

        Floats have no upper bound: a footer does not tell whether there are NaN.
        """
        row_group = self._metadata.row_group(number)
        known = {}
        for field_id in self._columns.keys() & field_ids:
            found = self._read(row_group, field_id)
            if found is not None:
                upper = None if isinstance(found.upper, float) else found.upper
                known[field_id] = ColumnStatistics(found.nulls, found.lower, upper)
        return known

    def bounds(self) -> dict[int, tuple[Bound | None, Bound | None]]:
        """Lower and upper bounds of the columns in all row groups; those of floats leave out NaN."""
        lower: dict[int, list[Bound | None]] = {field_id: [] for field_id in self._columns}
        upper: dict[int, list[Bound | None]] = {field_id: [] for field_id in self._columns}
        for number in range(self._metadata.num_row_groups):
            row_group = self._metadata.row_group(number)
            for field_id in self._columns:
                found = self._read(row_group, field_id)
                if found is None or found.nulls < row_group.num_rows:
                    lower[field_id].append(found.lower if found else None)
                    upper[field_id].append(found.upper if found else None)
        return {
            field_id: (_extreme(min, lower[field_id]), _extreme(max, upper[field_id]))
            for field_id in self._columns
        }

    def _read(self, row_group: Any, field_id: int) -> ColumnStatistics | None:
        leaf, kind = self._columns[field_id]
        statistics = row_group.column(leaf).statistics
        if statistics is None or not statistics.has_null_count:
            return None
        if not statistics.has_min_max:
            return ColumnStatistics(statistics.null_count)
        return ColumnStatistics(
            statistics.null_count, _lower(kind, statistics.min_raw), _upper(kind, statistics.max_raw)
        )


def null_count(metadata: Any, field_id: int) -> int | None:
    """Rows of a file in which a top-level column is null, by its footer; None if that does not tell.

    In a file without the column it is null in all rows. The footer tells nothing of a column with
    children, for it counts the nulls of those, nor where the writer left out statistics.
    """
    leaf = 0
    for field in metadata.schema.to_arrow_schema():
        if (field.metadata or {}).get(FIELD_ID) == str(field_id).encode():
            if not field.nullable:
                return 0
            return None if pa.types.is_nested(field.type) else _leaf_null_count(metadata, leaf)
        leaf += _leaves(field.type)
    rows: int = metadata.num_rows
    return rows


def _leaf_null_count(metadata: Any, leaf: int) -> int | None:
    nulls = 0
    for number in range(metadata.num_row_groups):
        statistics = metadata.row_group(number).column(leaf).statistics
        if statistics is None or not statistics.has_null_count:
            return None
        nulls += statistics.null_count
    return nulls


def _extreme(choose: Callable[..., Any], bounds: list[Bound | None]) -> Bound | None:
    """The least or greatest of bounds; None if one is not known, or there are none."""
    if not bounds or None in bounds:
        return None
    chosen: Bound = choose(bounds)
    return chosen


def _lower(kind: pa.DataType, raw: Any) -> Bound | None:
    value = _bound(kind, raw)
    return value[:MAX_BOUND_CHARACTERS] if isinstance(value, str) else value


def _upper(kind: pa.DataType, raw: Any) -> Bound | None:
    value = _bound(kind, raw)
    return _cut_up(value) if isinstance(value, str) else value


def _cut_up(text: str) -> str | None:
    """A text of at most 32 code points that is not less; None if there is none."""
    if len(text) <= MAX_BOUND_CHARACTERS:
        return text
    prefix = text[:MAX_BOUND_CHARACTERS]
    while prefix:
        following = ord(prefix[-1]) + 1
        prefix = prefix[:-1]
        if following <= _LAST_CODE_POINT:
            return prefix + chr(_SURROGATES.stop if following in _SURROGATES else following)
    return None


def _bound(kind: pa.DataType, raw: Any) -> Bound | None:
    """A value of the physical Parquet type as a bound; None for a type or value that has none."""
    t: Any = pa.types
    if t.is_string(kind) or t.is_large_string(kind):
        return _text(raw)
    if t.is_float32(kind) or t.is_float64(kind):
        return float(raw) if math.isfinite(raw) else None
    if t.is_boolean(kind):
        return bool(raw)
    if t.is_decimal(kind):
        return int.from_bytes(raw, "big", signed=True) if isinstance(raw, bytes) else int(raw)
    if t.is_signed_integer(kind) or t.is_date32(kind):
        return int(raw)
    if (t.is_timestamp(kind) or t.is_time64(kind)) and kind.unit == "us":
        return int(raw)
    return None


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:  # another writer cut it within a character
        return None


def _leaves(kind: pa.DataType) -> int:
    """Parquet columns that hold a type of a file."""
    if pa.types.is_nested(kind):
        return sum(_leaves(kind.field(index).type) for index in range(kind.num_fields))
    return 1
