"""Sparse unions: as structs, with nulls, in pieces of larger arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import parquet_files_to_data_files

from boilstream.catalog.types import TopicSchema
from boilstream.errors import InvalidArgument

_KIND = pa.sparse_union([pa.field("num", pa.int32()), pa.field("tag", pa.string())])


def _union(codes: list[int], *members: Any, kind: pa.DataType = _KIND) -> Any:
    return pa.Array.from_buffers(
        kind, len(codes), [None, pa.py_buffer(bytes(codes))], 0, children=list(members)
    )


def _numbers(*values: int | None) -> Any:
    return pa.array(values, pa.int32())


def _stored(array: Any, declared: pa.DataType, *, nullable: bool = True) -> Any:
    topic = TopicSchema.declare(pa.schema([pa.field("a", declared, nullable=nullable)]))
    batch = pa.record_batch([array], schema=pa.schema([("a", array.type)]))
    batch.validate(full=True)
    stored = topic.conform(batch.schema).to_stored(batch)
    stored.validate(full=True)
    assert topic.to_declared(stored).column(0).to_pylist() == array.to_pylist()
    return stored.column(0)


def test_a_union_is_a_struct_of_a_tag_and_its_members() -> None:
    union = _union([0, 0, 1, 1], _numbers(1, None, 77, None), pa.array(["x", "y", "b", None]))
    for part, start in ((union, 0), (union[1:], 1)):
        assert (
            _stored(part, _KIND).to_pylist()
            == [
                {"tag_": 0, "num": 1, "tag": None},
                None,
                {"tag_": 1, "num": None, "tag": "b"},
                {"tag_": 1, "num": None, "tag": None},
            ][start:]
        )


def test_members_are_matched_by_name() -> None:
    sent = pa.sparse_union([pa.field("TAG", pa.string_view()), pa.field("num", pa.int8())], [7, 3])
    union = _union(
        [7, 3, 7],
        pa.array(["a", None, None], pa.string_view()),
        pa.array([None, 5, None], pa.int8()),
        kind=sent,
    )
    assert [row and row["tag_"] for row in _stored(union, _KIND).to_pylist()] == [1, 0, 1]
    only = pa.sparse_union([pa.field("tag", pa.string())])
    assert _stored(_union([0, 0], pa.array(["a", None]), kind=only), _KIND).to_pylist() == [
        {"tag_": 1, "num": None, "tag": "a"},
        {"tag_": 1, "num": None, "tag": None},
    ]


def test_what_other_members_hold_is_no_value() -> None:
    kind = pa.sparse_union(
        [pa.field("s", pa.timestamp("s")), pa.field("u", pa.sparse_union([pa.field("x", pa.int8())]))]
    )
    garbage = pa.array([2**62, 1], pa.int64()).view(pa.timestamp("s"))
    inner = _union([0, 0], pa.array([1, 2], pa.int8()), kind=kind.field(1).type)
    stored = _stored(_union([1, 0], garbage, inner, kind=kind), kind)
    assert stored.field(1).is_valid().to_pylist() == [False, True]
    assert stored.field(2).to_pylist() == [{"tag": 0, "x": 1}, None]


@pytest.mark.parametrize("codes", [[0, 0], [0, 1]])
def test_a_null_of_any_member_is_refused_where_none_may_be(codes: list[int]) -> None:
    union = _union(codes, _numbers(1, None), pa.array([None, None], pa.string()))
    with pytest.raises(
        InvalidArgument, match="column 'a', row 1: null in a column that does not allow nulls"
    ):
        _stored(union, _KIND, nullable=False)
    listed = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), union)
    with pytest.raises(InvalidArgument, match=r"column 'a\.element', row 1: null in a column"):
        _stored(listed, pa.list_(pa.field("element", _KIND, nullable=False)))
    assert _stored(union[:1], _KIND, nullable=False).null_count == 0


def test_a_union_in_a_null_struct_is_no_value() -> None:
    union = _union([1, 0, 1, 0], _numbers(None, 1, None, None), pa.array(["a", None, "b", None]))
    valid = pa.array([True, False, False, True])
    for nullable in (True, False):
        kind = pa.struct(
            [pa.field("u", _KIND, nullable=nullable), pa.field("n", pa.int8(), nullable=nullable)]
        )
        n = pa.array([1, None, 3, 4], pa.int8())
        struct = pa.Array.from_buffers(kind, 4, [valid.buffers()[1]], children=[union, n])
        for part in (struct[:3], struct[1:3]):
            assert _stored(part, kind).is_valid().to_pylist() == part.is_valid().to_pylist()
    with pytest.raises(InvalidArgument, match=r"column 'a\.u', row 3: null in a column"):
        _stored(struct, kind)


def test_members_of_the_same_layout_are_shared() -> None:
    union = _union([0, 1], _numbers(1, None), pa.array([None, "b"]))
    stored = _stored(union, _KIND)
    for place in (0, 1):
        addresses = [buffer.address for buffer in union.field(place).buffers() if buffer is not None]
        found = [buffer.address for buffer in stored.field(place + 1).buffers() if buffer is not None]
        assert found == addresses


@pytest.mark.parametrize("tag", [-1, 2, 255])
def test_a_tag_that_another_engine_wrote_and_that_names_no_member_is_refused(tag: int) -> None:
    topic = TopicSchema.declare(pa.schema([("a", _KIND)]))
    rows = pa.array([{"tag_": 0}, None, {"tag_": tag}], topic.stored.field("a").type)
    with pytest.raises(InvalidArgument, match="column 'a': the tag of a union is not 0 to 1"):
        topic.to_declared(pa.record_batch([rows], schema=topic.stored))


def test_json_in_views_is_taken_out_of_lists_with_nulls() -> None:
    kind = pa.json_(pa.string_view())
    texts = pa.array(
        ['"longer than a view holds inline"', "1", '"also longer than a view holds"', None], pa.string_view()
    )
    json = pa.ExtensionArray.from_storage(kind, texts)
    union = _union([0] * 4, json, kind=pa.sparse_union([pa.field("j", kind)]))
    values = pa.StructArray.from_arrays([json, union], ["j", "u"])
    offsets, valid = pa.array([0, 1, 3, 4], pa.int32()), pa.array([True, False, True])
    declared = pa.struct([("j", pa.json_()), ("u", pa.sparse_union([pa.field("j", pa.json_())]))])
    for made, sent in (
        (pa.list_(declared), pa.list_(values.type)),
        (pa.large_list_view(declared), pa.list_view(values.type)),
    ):
        buffers = [valid.buffers()[1], offsets.buffers()[1]]
        if pa.types.is_list_view(sent):
            buffers.append(pa.array([1, 2, 1], pa.int32()).buffers()[1])
        lists = pa.Array.from_buffers(sent, 3, buffers, children=[values])
        rows = _stored(lists, made).to_pylist()
        assert rows == [
            [{"j": texts[0].as_py(), "u": {"tag": 0, "j": texts[0].as_py()}}],
            None,
            [{"j": None, "u": None}],
        ]


def test_an_iceberg_reader_sees_tag_and_members(tmp_path: Path) -> None:
    topic = TopicSchema.declare(pa.schema([("l", pa.list_(_KIND)), ("u", _KIND)]))
    union = _union([0, 1, 0], _numbers(1, None, None), pa.array([None, "b", None]))
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 3, 3], pa.int32()), union)
    batch = pa.record_batch([lists, union], names=["l", "u"])
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table(topic.conform(batch.schema).to_stored(batch)), path, store_schema=False)
    catalog = SqlCatalog(
        "c", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse"
    )
    catalog.create_namespace("n")
    table = catalog.create_table("n.t", topic.iceberg, properties={"format-version": "2"})
    assert table.schema().as_struct() == topic.iceberg.as_struct()
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        for data_file in parquet_files_to_data_files(table.io, table.metadata, iter([str(path)])):
            append.append_data_file(data_file)
    (found,) = table.scan().to_arrow().combine_chunks().to_batches()
    one, two = {"tag_": 0, "num": 1, "tag": None}, {"tag_": 1, "num": None, "tag": "b"}
    assert found.to_pylist() == [{"l": [one, two], "u": one}, {"l": [None], "u": two}, {"l": [], "u": None}]
    assert topic.to_declared(found).equals(batch)
