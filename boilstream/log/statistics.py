"""What is known of the columns of a data file, packed: an index of many files keeps it in memory. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import msgpack

Bound = int | float | str | bool
"""A value in its stored form: dates are days since 1970-01-01, times and timestamps microseconds,
decimals their unscaled integers."""

MAX_BOUND_CHARACTERS: Final = 32
"""Longest text in a bound, in code points."""

MAX_BOUND_INTEGER: Final = 10**38
"""Integers in bounds are smaller than this, without the sign: a decimal has 38 digits at most."""

_LONG_INTEGER: Final = 0
"""Extension type of integers that msgpack has no form for."""

_LONG_INTEGER_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """What is known of the values of one column in some rows.

    Values are ordered as DuckDB orders them: text by code points, NaN above all other floats.
    """

    nulls: int
    """Rows in which the column is null."""
    lower: Bound | None = None
    """No value is less; a text may be a prefix of the least. None: unknown."""
    upper: Bound | None = None
    """No value is greater; a text may be one that no row has. None: unknown."""


class _Columns(NamedTuple):
    """The content, as lists: that is faster to unpack than an object for each column."""

    starts: list[int]
    """First field id of each run of consecutive ones with the same number of nulls; in order."""
    lengths: list[int]
    """Field ids in each run."""
    nulls: list[int]
    """Nulls of each column of a run."""
    bounded: list[int]
    """Field ids of the columns with a bound; in order."""
    lowers: list[Bound | None]
    uppers: list[Bound | None]


class FileStatistics(Mapping[int, ColumnStatistics]):
    """Statistics of the columns of a file by field id, in ascending order. Immutable.

    About 20 bytes a column with bounds of 8 bytes; columns without bounds and with as many nulls as their
    neighbours take none.
    """

    __slots__ = ("_packed",)

    def __init__(self, columns: Mapping[int, ColumnStatistics]) -> None:
        """A copy of `columns`; field ids are positive, integers in bounds less than MAX_BOUND_INTEGER."""
        self._packed = _pack(columns) if columns else b""

    def __getitem__(self, field_id: int) -> ColumnStatistics:
        columns = _unpack(self._packed)
        run = bisect_right(columns.starts, field_id) - 1
        if run < 0 or field_id >= columns.starts[run] + columns.lengths[run]:
            raise KeyError(field_id)
        place = bisect_left(columns.bounded, field_id)
        if place == len(columns.bounded) or columns.bounded[place] != field_id:
            return ColumnStatistics(columns.nulls[run])
        return ColumnStatistics(columns.nulls[run], columns.lowers[place], columns.uppers[place])

    def __iter__(self) -> Iterator[int]:
        columns = _unpack(self._packed)
        for start, length in zip(columns.starts, columns.lengths, strict=True):
            yield from range(start, start + length)

    def __len__(self) -> int:
        return sum(_unpack(self._packed).lengths)

    def __repr__(self) -> str:
        return repr(dict(self))


def _pack(columns: Mapping[int, ColumnStatistics]) -> bytes:
    content = _Columns([], [], [], [], [], [])
    following = None
    for field_id, known in sorted(columns.items()):
        if field_id == following and known.nulls == content.nulls[-1]:
            content.lengths[-1] += 1
        else:
            content.starts.append(field_id)
            content.lengths.append(1)
            content.nulls.append(known.nulls)
        following = field_id + 1
        if known.lower is not None or known.upper is not None:
            content.bounded.append(field_id)
            content.lowers.append(known.lower)
            content.uppers.append(known.upper)
    packed: bytes = msgpack.packb(content, default=_long_integer)
    return packed


@lru_cache(32)  # a condition asks for several columns of one file in a row
def _unpack(packed: bytes) -> _Columns:
    if not packed:
        return _Columns([], [], [], [], [], [])
    return _Columns(*msgpack.unpackb(packed, ext_hook=_integer))


def _long_integer(value: int) -> msgpack.ExtType:
    return msgpack.ExtType(_LONG_INTEGER, value.to_bytes(_LONG_INTEGER_BYTES, "big", signed=True))


def _integer(_kind: int, data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)
