"""Packed statistics: the same mapping as before, in a small part of the memory."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.log.records import DataFile
from boilstream.log.statistics import (
    MAX_BOUND_CHARACTERS,
    MAX_BOUND_INTEGER,
    ColumnStatistics,
    FileStatistics,
)

bound = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(1 - MAX_BOUND_INTEGER, MAX_BOUND_INTEGER - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=MAX_BOUND_CHARACTERS),
)
columns = st.dictionaries(
    st.integers(1, 20) | st.integers(1, 2**31 - 1),
    st.builds(ColumnStatistics, st.integers(0, 2) | st.integers(0, 2**63), bound, bound),
    max_size=12,
)


@given(columns, st.integers(0, 22))
def test_it_is_the_mapping_that_was_packed(known: dict[int, ColumnStatistics], other: int) -> None:
    packed = FileStatistics(known)
    assert packed == known
    assert packed == FileStatistics(dict(reversed(known.items())))
    assert list(packed) == sorted(known)
    assert len(packed) == len(known)
    assert repr(packed) == repr(dict(sorted(known.items())))
    for field_id, statistics in known.items():
        found = packed[field_id]
        bounds = [(type(value), repr(value)) for value in (found.lower, found.upper)]
        assert bounds == [(type(value), repr(value)) for value in (statistics.lower, statistics.upper)]
    assert packed.get(other) == known.get(other)
    assert (other in packed) == (other in known)


def test_a_column_that_is_not_listed_is_not_known() -> None:
    packed = FileStatistics({1: ColumnStatistics(0), 2: ColumnStatistics(0), 4: ColumnStatistics(0, 1, 2)})
    assert [field_id in packed for field_id in range(6)] == [False, True, True, False, True, False]
    with pytest.raises(KeyError):
        packed[3]
    assert FileStatistics({1: ColumnStatistics(0)}) != FileStatistics({})


def test_files_keep_it_packed_and_compare_by_content() -> None:
    known = {7: ColumnStatistics(1, "a", "b")}
    file = DataFile("f", 9, 1, known)
    assert isinstance(file.statistics, FileStatistics)
    assert file == DataFile("f", 9, 1, FileStatistics(known))
    assert file != DataFile("f", 9, 1, {7: ColumnStatistics(1, "a", "c")})
    assert hash(file) == hash(DataFile("f", 9, 1))


@pytest.mark.parametrize(("number", "size"), [(4, 200), (50, 1500), (2000, 2500)])
def test_many_columns_take_little_memory(number: int, size: int) -> None:
    """Full 8-byte bounds of the first 100 columns."""
    known = {
        n: ColumnStatistics(0, -(2**62) - n, 2**62 + n) if n <= 100 else ColumnStatistics(0)
        for n in range(1, number + 1)
    }
    packed = FileStatistics(known)
    assert sys.getsizeof(packed) + sys.getsizeof(packed._packed) < size
