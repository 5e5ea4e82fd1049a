"""Counting nulls in files that the log tells nothing of: of earlier releases, and of other versions."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boilstream.catalog.typemap import FIELD_ID
from boilstream.log.footers import MAX_BOUNDED_COLUMNS
from boilstream.log.records import DataFile
from boilstream.log.statistics import ColumnStatistics
from boilstream.query import data_files
from boilstream.query.data_files import null_count, opened
from boilstream.storage.base import ObjectMissing
from tests.support.stores import MemoryStore


def stored(store: MemoryStore, table: pa.Table, **options: Any) -> DataFile:
    """A file of an earlier release, whose columns have the field ids 1, 2, 3, ..."""
    fields = [field.with_metadata({FIELD_ID: str(n)}) for n, field in enumerate(table.schema, 1)]
    sink = pa.BufferOutputStream()
    pq.write_table(table.cast(pa.schema(fields)), sink, **options)
    data = sink.getvalue()
    key = f"data/{len(store.objects)}.parquet"
    store.put(key, data)
    return DataFile(key, table.num_rows, data.size)


@pytest.fixture
def columns_read(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The columns that were read from files."""
    calls: list[list[str]] = []

    class Watched(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no stubs
        def iter_batches(self, *args: Any, **options: Any) -> Any:
            calls.append(options["columns"])
            return super().iter_batches(*args, **options)

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    return calls


def test_the_footer_tells_of_columns_without_children(columns_read: list[list[str]]) -> None:
    table = pa.table(
        {"a": [1, None, 3, None, None], "s": [{"x": 1}] * 5, "b": ["v"] * 5, "c": pa.nulls(5, pa.int8())}
    )
    store = MemoryStore()
    file = stored(store, table, row_group_size=2)
    assert [null_count(store, file, field_id) for field_id in (1, 3, 4)] == [3, 0, 5]
    assert columns_read == []


def test_a_column_that_the_file_does_not_have_is_null_in_all_rows(columns_read: list[list[str]]) -> None:
    store = MemoryStore()
    assert null_count(store, stored(store, pa.table({"a": [1, 2, 3]})), 9) == 3
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1, 2]}), sink)  # without field ids
    store.put("other", sink.getvalue())
    assert null_count(store, DataFile("other", 2, 1), 1) == 2
    assert columns_read == []


def test_columns_behind_the_ones_with_bounds_are_counted_too() -> None:
    names = [f"c{n}" for n in range(MAX_BOUNDED_COLUMNS + 1)]
    store = MemoryStore()
    file = stored(store, pa.table({name: [1, None] for name in names}))
    assert null_count(store, file, len(names)) == 1


@pytest.mark.parametrize(
    ("values", "nulls"),
    [
        (pa.array([[1, None], None, [], None, [None]]), 2),
        (pa.array([{"a": None}, None, {"a": 1}, {"a": 2}, {"a": None}]), 1),
        (pa.array([[("k", None)], None, [], None, None], pa.map_(pa.string(), pa.int32())), 3),
        (pa.array([[{"a": [None]}], [None], [], [{"a": None}], []]), 0),
    ],
    ids=str,
)
def test_columns_with_children_are_read(
    monkeypatch: pytest.MonkeyPatch, columns_read: list[list[str]], values: pa.Array, nulls: int
) -> None:
    monkeypatch.setattr(data_files, "COUNT_ROWS", 2)
    store = MemoryStore()
    table = pa.table({"a": pa.nulls(5, pa.int8()), "n": values, "b": pa.nulls(5, pa.int8())})
    assert null_count(store, stored(store, table), 2) == nulls
    assert columns_read == [["n"]]


def test_a_column_with_children_that_demands_values_need_not_be_read(columns_read: list[list[str]]) -> None:
    schema = pa.schema([pa.field("l", pa.list_(pa.int8()), nullable=False)])
    store = MemoryStore()
    assert null_count(store, stored(store, pa.table({"l": [[1], []]}, schema=schema)), 1) == 0
    assert columns_read == []


def test_a_name_that_is_also_a_path_is_not_confused() -> None:
    table = pa.table({"x": [{"y": [1]}, {"y": None}, None], "x.y": pa.array([[1], [], None])})
    store = MemoryStore()
    file = stored(store, table)
    assert [null_count(store, file, field_id) for field_id in (1, 2)] == [1, 1]


def test_without_statistics_in_the_footer_the_column_is_read(columns_read: list[list[str]]) -> None:
    store = MemoryStore()
    file = stored(store, pa.table({"a": [1, None, None]}), write_statistics=False)
    assert null_count(store, file, 1) == 2
    assert columns_read == [["a"]]


def test_what_the_log_tells_needs_no_file() -> None:
    assert null_count(MemoryStore(), DataFile("gone", 5, 1, {3: ColumnStatistics(2)}), 3) == 2
    assert null_count(MemoryStore(), DataFile("gone", 0, 1), 3) == 0
    with pytest.raises(ObjectMissing):
        null_count(MemoryStore(), DataFile("gone", 5, 1, {3: ColumnStatistics(2)}), 4)


def test_an_opened_file_is_closed_at_the_end() -> None:
    store = MemoryStore()
    file = stored(store, pa.table({"a": [1]}))
    with opened(store, file.key) as parquet:
        assert parquet.metadata.num_rows == 1
    with pytest.raises(ValueError, match="closed"):
        parquet.read()
