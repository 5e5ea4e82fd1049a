"""Reading data files: the right rows, columns and ids, and no more of a file than is needed."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boilstream.catalog.changes import AddColumn, Change, ChangeType, DropColumn, RenameColumn, apply
from boilstream.catalog.definition import Definition
from boilstream.catalog.duckdb_types import published
from boilstream.catalog.names import topic_name
from boilstream.catalog.types import TopicSchema
from boilstream.errors import InvalidArgument
from boilstream.ingest import parquet
from boilstream.log.records import DataFile
from boilstream.query import scan
from boilstream.query.predicates.filters import parse
from boilstream.query.predicates.predicate import Outcome, Predicate, comparison, constant, everything
from boilstream.query.scan import (
    MAX_PARTITIONS,
    PARTITION_BYTES,
    Segment,
    divide,
    output_schema,
    partition,
    read,
)
from boilstream.storage.base import ObjectMissing
from tests.catalog.arrow_data import arrays, types
from tests.support.stores import MemoryStore

SCHEMA = TopicSchema.declare(
    pa.schema([("n", pa.int64()), ("s", pa.string()), ("f", pa.float64()), ("l", pa.list_(pa.int8()))])
)
GROUP = 4
"""Rows of a row group in these tests."""


@pytest.fixture(autouse=True)
def small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", GROUP)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Parquet files were asked for."""
    calls: list[dict[str, Any]] = []

    class Watched(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no stubs
        def iter_batches(self, *args: Any, **options: Any) -> Any:
            calls.append(options)
            return super().iter_batches(*args, **options)

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    return calls


class Files(MemoryStore):
    """A store of data files, which remembers what was opened and which files are open."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.files: list[pa.NativeFile] = []

    def add(self, schema: TopicSchema, table: pa.Table) -> DataFile:
        """A file with the rows of a table in the declared form."""
        conformer = schema.conform(table.schema)
        batches = [conformer.to_stored(batch) for batch in table.combine_chunks().to_batches()]
        encoded = parquet.encode(batches, schema.stored)
        key = f"data/{len(self.objects)}.parquet"
        self.put(key, encoded.data)
        return DataFile(key, table.num_rows, encoded.data.size, encoded.statistics)

    def open(self, key: str) -> pa.NativeFile:
        self.opened.append(key)
        self.files.append(super().open(key))
        return self.files[-1]


def numbers(start: int, stop: int) -> pa.Table:
    """Rows whose columns all tell the number of the row."""
    rows = range(start, stop)
    return pa.table(
        {
            "n": list(rows),
            "s": [f"{n:04}" for n in rows],
            "f": [n / 2 for n in rows],
            "l": [[n % 100] * (n % 3) if n % 5 else None for n in rows],
        },
        schema=SCHEMA.declared,
    )


@dataclass
class Stored:
    """A topic with files of these many rows; row ids are the values of n."""

    store: Files
    segments: list[Segment]

    def read(
        self,
        columns: Sequence[str] | None = None,
        predicate: Predicate | None = None,
        *,
        row_ids: bool = False,
    ) -> pa.Table:
        batches = list(
            read(self.store, SCHEMA, self.segments, columns=columns, predicate=predicate, row_ids=row_ids)
        )
        return pa.Table.from_batches(batches, output_schema(SCHEMA, columns, row_ids=row_ids))


def stored(*sizes: int) -> Stored:
    store, segments, rows = Files(), [], 0
    for size in sizes:
        file = store.add(SCHEMA, numbers(rows, rows + size))
        segments.append(Segment(file.key, rows, size))
        rows += size
    return Stored(store, segments)


def where(compare: Callable[[Any, int], Any], value: int, *, name: str = "n") -> Predicate:
    """A comparison of n (field id 1) with a value; `compare` is a function of module operator."""

    def possible(lower: Any, upper: Any) -> Outcome:
        if lower is None or upper is None:
            return Outcome.VALUE
        edges = [lower, upper, *range(max(lower, value - 1), min(upper, value + 1) + 1)]
        found = Outcome.NOTHING
        for number in edges:
            found |= Outcome.TRUE if compare(number, value) else Outcome.FALSE
        return found

    return comparison(name, 1, compare(pc.field(name), value), possible)


def test_all_rows_and_columns_come_in_the_order_of_the_files() -> None:
    assert stored(10, 1, 7).read().equals(numbers(0, 18))


@pytest.mark.parametrize("names", [["s"], ["l", "n"], ["f", "s", "n", "l"], ["n", "n"]])
def test_columns_come_in_the_order_asked(names: list[str]) -> None:
    topic = stored(10, 7)
    found = topic.read(names)
    assert found.schema.names == names
    assert found.equals(numbers(0, 17).select(names))


def test_only_the_needed_columns_are_read(asked: list[dict[str, Any]]) -> None:
    topic = stored(3)
    topic.read(["s"])
    topic.read(["s"], where(operator.lt, 2))
    topic.read(["n"], where(operator.lt, 2))
    assert [call["columns"] for call in asked] == [["s"], ["s", "n"], ["n"]]


def test_an_unknown_column_is_refused_even_without_rows() -> None:
    with pytest.raises(InvalidArgument, match="'x' does not exist"):
        list(read(Files(), SCHEMA, [], columns=["x"]))


@pytest.mark.parametrize("predicate", [None, everything(exact=False)])
def test_counting_and_row_ids_open_no_file(
    monkeypatch: pytest.MonkeyPatch, predicate: Predicate | None
) -> None:
    monkeypatch.setattr(scan, "BATCH_ROWS", 4)
    topic = stored(10, 3)
    assert topic.read([], predicate, row_ids=True).column("rowid").to_pylist() == list(range(13))
    counted = list(read(topic.store, SCHEMA, topic.segments, columns=[], predicate=predicate))
    assert [batch.num_rows for batch in counted] == [4, 4, 4, 1]
    assert {batch.num_columns for batch in counted} == {0}
    assert topic.store.opened == []


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 3)), max_size=9),
    st.integers(1, 12),
)
def test_ids_without_columns_come_in_full_batches(files: list[tuple[int, int, int]], lot: int) -> None:
    segments, expected, row_id = [], list[int](), 0
    for others, rows, parts in files:  # rows of files of other parts, rows of this file
        row_id += others
        segments += [Segment("f", row_id, rows, part, parts) for part in range(parts)]
        expected += range(row_id, row_id + rows)
        row_id += rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "BATCH_ROWS", lot)
        with_ids = list(read(Files(), SCHEMA, segments, columns=[], row_ids=True))
        counted = list(read(Files(), SCHEMA, segments, columns=[]))
    assert [row_id for batch in with_ids for row_id in batch.column("rowid").to_pylist()] == expected
    full, rest = divmod(len(expected), lot)
    sizes = [*full * [lot], *([rest] if rest else [])]
    assert [batch.num_rows for batch in with_ids] == [batch.num_rows for batch in counted] == sizes


def test_rows_that_match_come_with_their_ids_and_without_the_columns_that_were_tested() -> None:
    topic = stored(10, 7)
    found = topic.read(["s"], where(operator.gt, 8), row_ids=True)
    assert found.schema.names == ["rowid", "s"]
    assert found.column("rowid").to_pylist() == list(range(9, 17))
    assert found.column("s").to_pylist() == [f"{n:04}" for n in range(9, 17)]


def test_counting_rows_that_match() -> None:
    topic = stored(10, 7)
    batches = read(topic.store, SCHEMA, topic.segments, columns=[], predicate=where(operator.gt, 8))
    assert sum(batch.num_rows for batch in batches) == 8


def test_a_row_for_which_the_condition_is_null_does_not_match() -> None:
    store = Files()
    file = store.add(SCHEMA, pa.table({"n": [1, None, 3], "s": ["a", "b", "c"]}))
    segments = [Segment(file.key, 5, 3)]
    found = list(read(store, SCHEMA, segments, columns=["s"], predicate=where(operator.ne, 1), row_ids=True))
    assert [batch.to_pydict() for batch in found] == [{"rowid": [7], "s": ["c"]}]


def test_row_groups_that_cannot_match_are_not_read(asked: list[dict[str, Any]]) -> None:
    topic = stored(30)
    assert topic.read(["n"], where(operator.eq, 13)).column("n").to_pylist() == [13]
    outside = where(lambda n, value: (n < value) | (n > 24), 6)
    assert topic.read(["n"], outside).column("n").to_pylist() == [*range(6), *range(25, 30)]
    assert topic.read(["n"], where(operator.gt, 29)).num_rows == 0
    assert [call["row_groups"] for call in asked] == [[3], [0, 1], [6, 7]]


def test_row_groups_are_read_in_runs_of_bounded_size(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = stored(30)
    assert topic.read(row_ids=True).column("rowid").to_pylist() == list(range(30))
    monkeypatch.setattr(scan, "RUN_BYTES", 1)
    assert topic.read(row_ids=True).column("rowid").to_pylist() == list(range(30))
    assert [len(call["row_groups"]) for call in asked] == [8, *8 * [1]]


def test_where_nothing_matches_there_is_still_a_chance_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "RUN_BYTES", 1)
    topic = stored(2 * GROUP)
    blind = where(operator.lt, 0)
    blind = Predicate(blind.expression, blind.columns, True, lambda _statistics, _rows: Outcome.ANYTHING)
    batches = list(read(topic.store, SCHEMA, topic.segments, columns=["s"], predicate=blind, row_ids=True))
    assert [batch.num_rows for batch in batches] == [0, 0]
    assert batches[0].schema.names == ["rowid", "s"]


@pytest.mark.parametrize(("value", "rows"), [(True, 10), (False, 0), (None, 0)])
@pytest.mark.parametrize("columns", [["n"], []])
def test_conditions_without_columns(value: bool | None, rows: int, columns: list[str]) -> None:
    topic = stored(10)
    assert topic.read(columns, constant(value), row_ids=True).num_rows == rows
    assert len(topic.store.opened) == (rows > 0)


def test_closing_a_read_closes_its_file() -> None:
    topic = stored(10, 7)
    batches = read(topic.store, SCHEMA, topic.segments)
    next(batches)
    (file,) = topic.store.files
    assert not file.closed
    batches.close()
    assert file.closed
    assert topic.store.opened == [topic.segments[0].key]


def test_a_missing_file_is_an_error_of_the_store() -> None:
    topic = stored(10)
    topic.store.objects.clear()
    with pytest.raises(ObjectMissing):
        topic.read()


@given(st.integers(0, 40), st.integers(1, 9), st.booleans())
@settings(deadline=None, max_examples=40)
def test_parts_of_a_file_have_all_its_rows_once_with_their_ids(rows: int, parts: int, counts: bool) -> None:
    topic = stored(rows)
    (whole,) = topic.segments
    segments = [Segment(whole.key, 100, rows, part, parts) for part in range(parts)]
    columns = [] if counts else ["n"]
    batches = list(read(topic.store, SCHEMA, segments, columns=columns, row_ids=True))
    ids = [number for batch in batches for number in batch.column("rowid").to_pylist()]
    assert ids == list(range(100, 100 + rows))
    if not counts:
        assert [n + 100 for batch in batches for n in batch.column("n").to_pylist()] == ids


# Files of other versions


def versions(*changes: Change) -> list[TopicSchema]:
    """The schema and what each change made of it."""
    definition = Definition(topic_name("s3", "t"), SCHEMA)
    found = [SCHEMA]
    for change in changes:
        definition = apply(change, definition, lambda sql, schema: ())
        found.append(definition.schema)
    return found


def test_files_of_all_versions_are_read_by_field_id() -> None:
    store = Files()
    first, renamed, dropped, added = versions(
        RenameColumn("n", "m"), DropColumn("s"), AddColumn(pa.field("s", pa.int64()))
    )
    rows = numbers(0, 3)
    tables = [
        (first, rows),
        (renamed, rows.rename_columns(["m", "s", "f", "l"])),
        (dropped, rows.drop("s").rename_columns(["m", "f", "l"])),
        (added, rows.drop("s").rename_columns(["m", "f", "l"]).append_column("s", [[7, 8, 9]])),
    ]
    segments = [Segment(store.add(schema, table).key, 3 * n, 3) for n, (schema, table) in enumerate(tables)]
    new = pa.Table.from_batches(read(store, added, segments, columns=["s", "m"], row_ids=True))
    assert new.column("s").to_pylist() == [*9 * [None], 7, 8, 9]
    assert new.column("m").to_pylist() == 4 * [0, 1, 2]
    old = pa.Table.from_batches(read(store, first, segments, columns=["s", "n"]))
    assert old.column("s").to_pylist() == [*2 * ["0000", "0001", "0002"], *6 * [None]]
    missing = comparison("s", 6, pc.field("s") > 7, lambda lower, upper: Outcome.ANYTHING)
    found = list(read(store, added, segments, columns=["s"], predicate=missing, row_ids=True))
    assert [row for batch in found for row in batch.to_pylist()] == [
        {"rowid": 10, "s": 8},
        {"rowid": 11, "s": 9},
    ]


def test_a_condition_sees_the_widened_type() -> None:
    store = Files()
    narrow = TopicSchema.declare(pa.schema([("n", pa.int32())]))
    definition = Definition(topic_name("s3", "t"), narrow)
    wide = apply(ChangeType("n", pa.int64()), definition, lambda sql, schema: ()).schema
    segments = [
        Segment(store.add(narrow, pa.table({"n": pa.array([1, 2], pa.int32())})).key, 0, 2),
        Segment(store.add(wide, pa.table({"n": [2, 2**40]})).key, 2, 2),
    ]
    found = read(store, wide, segments, predicate=where(operator.gt, 1), row_ids=True)
    assert pa.Table.from_batches(found).to_pydict() == {"rowid": [1, 2, 3], "n": [2, 2, 2**40]}


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_type_is_filtered_like_a_table_in_memory(data: st.DataObject) -> None:
    kind = data.draw(types())
    values = data.draw(arrays(kind, 12, True))
    keep = data.draw(st.lists(st.booleans(), min_size=12, max_size=12))
    declared = pa.schema([("k", pa.bool_()), ("x", kind)])
    schema = published(TopicSchema.declare(declared))
    store = Files()
    file = store.add(schema, pa.table([pa.array(keep), values], schema=declared))
    segments = [Segment(file.key, 0, 12)]
    predicate = comparison("k", 1, pc.field("k"), lambda lower, upper: Outcome.ANYTHING)
    rows = shown(read(store, schema, segments, columns=["x"]))
    found = shown(read(store, schema, segments, columns=["x"], predicate=predicate))
    assert found == [row for row, keeps in zip(rows, keep, strict=True) if keeps]


def shown(batches: Iterator[pa.RecordBatch]) -> list[str]:
    """The values of a column of any type as text: Python has no values for some timestamps."""
    rows = []
    for batch in batches:
        batch.validate(full=True)
        values = batch.column(0)
        rows += [values.slice(n, 1).to_string(window=100, container_window=100) for n in range(len(values))]
    return rows


def test_a_filter_of_duckdb() -> None:
    def column(index: int, kind: str) -> dict[str, Any]:
        return {
            "expression_class": "BOUND_COLUMN_REF",
            "return_type": {"id": kind, "type_info": None},
            "binding": {"table_index": 0, "column_index": index},
        }

    def value(kind: str, plain: Any) -> dict[str, Any]:
        constant = {"type": {"id": kind, "type_info": None}, "is_null": False, "value": plain}
        return {"expression_class": "BOUND_CONSTANT", "value": constant}

    def test(kind: str, left: Any, right: Any) -> dict[str, Any]:
        return {"expression_class": "BOUND_COMPARISON", "type": kind, "left": left, "right": right}

    filters = [
        test("COMPARE_GREATERTHAN", column(0, "BIGINT"), value("BIGINT", 9)),
        test("COMPARE_LESSTHAN", column(1, "VARCHAR"), value("VARCHAR", "0013")),
    ]
    text = json.dumps({"filters": filters, "column_binding_names_by_index": ["n", "s"]})
    topic = stored(30)
    found = topic.read(["f"], parse(text, published(SCHEMA)), row_ids=True)
    assert found.to_pydict() == {"rowid": [10, 11, 12], "f": [5.0, 5.5, 6.0]}


# Partition of work

sizes = st.lists(st.integers(1, 3 * PARTITION_BYTES), max_size=40)


@given(sizes)
def test_every_file_is_in_exactly_one_part_and_parts_keep_the_order(sizes: list[int]) -> None:
    files = [DataFile(f"{number:03}", 1, size) for number, size in enumerate(sizes)]
    parts = partition(files)
    assert sorted(file.key for part in parts for file in part) == [file.key for file in files]
    assert all(list(part) == sorted(part, key=lambda file: file.key) for part in parts)
    assert 1 <= len(parts) <= MAX_PARTITIONS


def test_a_small_topic_is_one_part() -> None:
    assert len(partition([DataFile("a", 1, 1000), DataFile("b", 1, 1000)])) == 1
    assert partition([]) == [()]


def test_a_large_topic_is_several_of_similar_size() -> None:
    files = [DataFile(str(number), 1, PARTITION_BYTES) for number in range(8)]
    parts = partition(files)
    assert len(parts) == 8


@given(st.lists(st.integers(1, 40 * PARTITION_BYTES), max_size=40))
def test_every_share_of_every_file_is_in_exactly_one_part(sizes: list[int]) -> None:
    files = [(DataFile(f"{number:03}", size, size), number) for number, size in enumerate(sizes)]
    parts = divide(files)
    assert all(parts)
    assert len(parts) <= MAX_PARTITIONS
    assert bool(parts) == bool(files)
    segments = sorted((s for part in parts for s in part), key=lambda s: (s.key, s.part))
    shares = [(s.key, row) for s in segments for row in (s.share(s.rows).start, s.share(s.rows).stop)]
    expected: list[tuple[str, int]] = []
    for file, _ in files:
        count = sum(segment.key == file.key for segment in segments)
        edges = [file.rows * n // count for n in range(count + 1)]
        expected.extend((file.key, edge) for pair in pairwise(edges) for edge in pair)
    assert shares == expected


def test_a_large_file_is_several_parts() -> None:
    file = DataFile("a", 1000, 5 * PARTITION_BYTES)
    assert divide([(file, 7)]) == [(Segment("a", 7, 1000, part, 5),) for part in range(5)]
    assert divide([(DataFile("a", 10, 100), 0), (DataFile("b", 10, 100), 10)]) == [
        (Segment("a", 0, 10), Segment("b", 10, 10))
    ]
    assert divide([]) == []
