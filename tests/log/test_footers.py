"""Bounds from Parquet footers, also of files that other engines wrote."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.catalog.typemap import FIELD_ID
from boilstream.log.footers import MAX_BOUNDED_COLUMNS, Footer
from boilstream.log.statistics import MAX_BOUND_CHARACTERS, Bound, ColumnStatistics

LAST = chr(0x10FFFF)


def footer(table: pa.Table, **options: Any) -> Footer:
    """The footer of a file whose columns have the field ids 1, 2, 3, ..."""
    fields = [field.with_metadata({FIELD_ID: str(n)}) for n, field in enumerate(table.schema, 1)]
    sink = pa.BufferOutputStream()
    pq.write_table(table.cast(pa.schema(fields)), sink, **options)
    return Footer(pq.read_metadata(pa.BufferReader(sink.getvalue())))


def bounds(values: pa.Array, **options: Any) -> tuple[Bound | None, Bound | None]:
    return footer(pa.table({"x": values}), **options).bounds()[1]


def test_row_groups_have_statistics_of_their_own() -> None:
    found = footer(pa.table({"x": [1, None, 3, None, None, 9]}), row_group_size=2)
    assert [found.row_group(number, {1}) for number in range(3)] == [
        {1: ColumnStatistics(1, 1, 1)},
        {1: ColumnStatistics(1, 3, 3)},
        {1: ColumnStatistics(1, 9, 9)},
    ]
    assert found.row_group(0, {2}) == {}
    assert found.bounds() == {1: (1, 9)}


def test_row_groups_of_nulls_do_not_hide_the_others() -> None:
    assert bounds(pa.array([5, None, None, None, 3, 4]), row_group_size=2) == (3, 5)
    assert bounds(pa.nulls(4, pa.int64()), row_group_size=2) == (None, None)


def test_one_row_group_without_bounds_hides_the_others() -> None:
    values = pa.array(["b" * 5000, "a", "c", "d"])  # Parquet C++ keeps no bounds over 4096 bytes
    assert bounds(values, row_group_size=2) == (None, None)
    assert bounds(pa.array([1, 2]), write_statistics=False) == (None, None)
    assert footer(pa.table({"x": [1]}), write_statistics=False).row_group(0, {1}) == {}


def test_a_row_group_has_no_upper_bound_of_floats_for_it_may_have_nan() -> None:
    values = pa.array([1.0, float("nan"), 2.0])
    assert footer(pa.table({"x": values})).row_group(0, {1}) == {1: ColumnStatistics(0, 1.0, None)}
    assert bounds(values) == (1.0, 2.0)
    assert bounds(pa.array([float("nan")])) == (None, None)


def test_infinity_is_no_bound() -> None:
    assert bounds(pa.array([float("-inf"), 1.0, float("inf")])) == (None, None)


@pytest.mark.parametrize(
    "kind", [pa.uint8(), pa.uint32(), pa.uint64(), pa.binary(), pa.float16(), pa.timestamp("ms")]
)
def test_types_whose_stored_form_is_another_have_none(kind: pa.DataType) -> None:
    values = pa.array([b"a"]) if kind == pa.binary() else pa.array([1]).cast(kind)
    assert bounds(values) == (None, None)


def test_columns_are_found_behind_nested_ones() -> None:
    table = pa.table(
        {
            "l": pa.array([[{"a": 1, "b": 2}], None]),
            "m": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
            "x.y": [7, 8],
        }
    )
    assert footer(table).bounds() == {3: (7, 8)}


def test_only_the_first_columns_have_bounds() -> None:
    table = pa.table({f"c{n}": [n] for n in range(MAX_BOUNDED_COLUMNS + 1)})
    assert list(footer(table).bounds()) == list(range(1, MAX_BOUNDED_COLUMNS + 1))


def test_columns_without_a_field_id_are_left_out() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1]}), sink)
    assert Footer(pq.read_metadata(pa.BufferReader(sink.getvalue()))).bounds() == {}


long_texts = st.text(st.sampled_from(["a", "é", chr(0xD7FF), chr(0xE000), LAST]), min_size=30, max_size=40)


@given(st.lists(st.text(max_size=40) | long_texts, min_size=1, max_size=5))
def test_texts_are_cut_and_still_enclose_the_values(values: list[str]) -> None:
    lower, upper = bounds(pa.array(values))
    assert isinstance(lower, str)
    assert len(lower) <= MAX_BOUND_CHARACTERS
    assert min(values).startswith(lower)
    if upper is None:
        assert max(values).startswith(MAX_BOUND_CHARACTERS * LAST)
    else:
        assert isinstance(upper, str)
        assert len(upper) <= MAX_BOUND_CHARACTERS
        assert upper.encode() >= max(values).encode()


@pytest.mark.parametrize(
    ("text", "upper"),
    [
        (32 * "a", 32 * "a"),
        (33 * "a", 31 * "a" + "b"),
        (31 * "a" + LAST + "a", 30 * "a" + "b"),
        (31 * "a" + chr(0xD7FF) + "a", 31 * "a" + chr(0xE000)),
        (32 * LAST, 32 * LAST),
        (33 * LAST, None),
    ],
)
def test_the_upper_bound_of_a_long_text_is_rounded_up(text: str, upper: str | None) -> None:
    assert bounds(pa.array([text]))[1] == upper
