"""What a client may declare."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.types import StructType

from boilstream.catalog.declared import MAX_COLUMNS, MAX_DEPTH
from boilstream.catalog.types import TopicSchema
from boilstream.errors import InvalidArgument


def _nested(depth: int) -> pa.DataType:
    kind = pa.int32()
    for _ in range(depth - 1):
        kind = pa.struct([("x", kind)])
    return kind


def test_metadata_of_clients_is_dropped() -> None:
    planted = {"planted": "x", "PARQUET:field_id": "77", "ARROW:extension:name": "evil.type"}
    inner = pa.field("l", pa.int32(), metadata=planted)
    schema = pa.schema(
        [
            pa.field("a", pa.int32(), metadata=planted),
            pa.field("b", pa.list_(inner)),
            pa.field("c", pa.struct([inner]), nullable=False),
            pa.field("d", pa.map_(inner.with_nullable(False), inner)),
            pa.field("e", pa.json_()),
        ],
        metadata=planted,
    )
    declared = TopicSchema.declare(schema).declared
    assert declared.equals(schema.remove_metadata())
    assert declared.field("c").nullable is False
    message = declared.serialize().to_pybytes()
    assert b"planted" not in message
    assert b"evil" not in message
    assert b"arrow.json" in message


@pytest.mark.parametrize(
    ("sent", "declared"),
    [
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.dictionary(pa.int8(), pa.int64(), ordered=True), pa.int64()),
        (pa.list_(pa.dictionary(pa.uint16(), pa.string_view())), pa.list_(pa.string_view())),
        (pa.run_end_encoded(pa.int16(), pa.float32()), pa.float32()),
        (pa.map_(pa.string(), pa.int8(), keys_sorted=True), pa.map_(pa.string(), pa.int8())),
        (pa.json_(pa.string_view()), pa.json_(pa.string())),
        (pa.opaque(pa.binary_view(), "bit", "DuckDB"), pa.opaque(pa.binary(), "bit", "DuckDB")),
        (
            pa.sparse_union([pa.field("x", pa.dictionary(pa.uint8(), pa.string()), nullable=False)], [7]),
            pa.sparse_union([pa.field("x", pa.string())], [7]),
        ),
        (
            pa.map_(pa.string(), pa.list_(pa.dictionary(pa.uint8(), pa.string()), 2)),
            pa.map_(pa.string(), pa.list_(pa.string(), 2)),
        ),
    ],
    ids=str,
)
def test_encodings_of_batches_are_not_declared(sent: pa.DataType, declared: pa.DataType) -> None:
    assert TopicSchema.declare(pa.schema([("a", sent)])).declared.field("a").type == declared


_REFUSED: list[tuple[Any, str]] = [
    (pa.null(), "'a': it has no type"),
    (pa.list_(pa.null()), "'a.element': it has no type"),
    (pa.dense_union([pa.field("x", pa.int32())]), "'a': dense unions are not supported; send a sparse union"),
    (pa.sparse_union([]), "'a': a union needs at least one member"),
    (pa.sparse_union([pa.field("x", pa.int8()), pa.field("y", pa.int8())], [1, 1]), "'a': the type codes"),
    (pa.sparse_union([pa.field("x", pa.int8())], [-1]), "'a': the type codes"),
    (pa.sparse_union([pa.field("x", pa.int8()), pa.field("X", pa.int8())]), "'a.X': this name is taken"),
    (pa.sparse_union([pa.field("", pa.int8())]), "#0': the name is empty"),
    (pa.struct([]), "'a': a struct needs at least one child"),
    (pa.decimal256(39, 0), "'a': decimal256.39, 0. is not supported"),
    (pa.decimal128(5, -1), "precision of 1 to 38"),
    (pa.decimal128(5, 6), "precision of 1 to 38"),
    (pa.binary(0), "'a': a fixed-size binary has 1 to"),
    (pa.binary(2**31 - 1), "use binary"),
    (pa.list_(pa.binary(4096), 17), "'a.element': a fixed-size binary"),
    (pa.list_(pa.int8(), 0), "'a': a fixed-size list has 1 to"),
    (pa.list_(pa.list_(pa.int8(), 300), 300), "'a.element': a fixed-size list"),
    (pa.list_(pa.struct([("x", pa.list_(pa.int8(), 300))]), 300), "'a.element.x': a fixed-size list"),
    (pa.timestamp("us", "no zone"), "'a': its time zone"),
    (pa.timestamp("ns", "x" * 65), "'a': its time zone"),
    (pa.fixed_shape_tensor(pa.int32(), [2]), "fixed_shape_tensor.* is not supported; send its storage type"),
    (pa.opaque(pa.list_(pa.int8()), "t", "v"), "arrow.opaque needs a storage type without children"),
    (pa.opaque(pa.binary(), "t\n", "v"), "short printable text"),
    (pa.dictionary(pa.int8(), pa.list_(pa.int8())), "'a': .* send the values without the encoding"),
    (pa.run_end_encoded(pa.int16(), pa.struct([("x", pa.int8())])), "send the values without the encoding"),
    (pa.struct([("x", pa.int8()), ("X", pa.int8())]), "'a.X': this name is taken"),
]


@pytest.mark.parametrize(("kind", "message"), _REFUSED, ids=lambda value: str(value)[:40])
def test_types_that_cannot_be_stored_are_refused(kind: pa.DataType, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        TopicSchema.declare(pa.schema([("fine", pa.int8()), ("a", kind)]))
    topic = TopicSchema.declare(pa.schema([("fine", pa.int8()), ("a", pa.date32())]))
    if not pa.types.is_null(kind):
        with pytest.raises(InvalidArgument, match="column 'a"):
            topic.conform(pa.schema([("fine", pa.int8()), ("a", kind)]))


class _Unknown(pa.ExtensionType):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(pa.int32(), "test.unknown")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


def test_an_extension_type_of_someone_else_is_refused() -> None:
    unknown = _Unknown()  # pyarrow holds it by a weak reference only
    with pytest.raises(InvalidArgument, match=r"'a': extension type .* send its storage type int32"):
        TopicSchema.declare(pa.schema([("a", unknown)]))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "at least one"),
        ([""], "#0': the name is empty"),
        (["a\x00b"], "has a control character"),
        (["ok", "x" * 256], "more than 255 bytes"),
        (["ü" * 128], "more than 255 bytes"),
        ([b"\xff"], "#0': the name is not UTF-8"),
        (["straße", "STRASSE"], "STRASSE': this name is taken"),
        (["a", "a"], "a': this name is taken"),
    ],
)
def test_names_that_cannot_be_are_refused(names: list[Any], message: str) -> None:
    columns = [pa.field(name, pa.int32()) for name in names]
    with pytest.raises(InvalidArgument, match=message) as failure:
        TopicSchema.declare(pa.schema(columns))
    assert len(failure.value.message) < 300
    assert failure.value.message.isprintable()
    if names:
        with pytest.raises(InvalidArgument, match=message):
            TopicSchema.declare(pa.schema([("outer", pa.list_(pa.struct(columns)))]))
        with pytest.raises(InvalidArgument, match=message):
            TopicSchema.declare(pa.schema([("a", pa.int32())])).conform(pa.schema(columns))


def test_columns_with_one_dotted_path_are_refused() -> None:
    schema = pa.schema([("a.b", pa.int32()), ("a", pa.struct([("b", pa.int32())]))])
    with pytest.raises(InvalidArgument, match="same dotted path"):
        TopicSchema.declare(schema)


def test_names_may_be_unusual() -> None:
    names = ["täulu / 1", "a.b", "select", "🦆", " ", "..", "x" * 255]
    assert TopicSchema.declare(pa.schema([(name, pa.int8()) for name in names])).stored.names == names


@pytest.mark.parametrize(
    ("members", "tag"),
    [(["a"], "tag"), (["tag"], "tag_"), (["tag_", "TAG", "Tag__"], "tag___"), (["täg", "tag_"], "tag")],
)
def test_the_tag_of_a_union_has_a_name_of_its_own(members: list[str], tag: str) -> None:
    kind = pa.sparse_union([pa.field(name, pa.int8()) for name in members])
    (column,) = TopicSchema.declare(pa.schema([("u", kind)])).iceberg.fields
    assert isinstance(column.field_type, StructType)
    children = column.field_type.fields
    assert [child.name for child in children] == [tag, *members]
    assert children[0].doc == "position of the union's member that holds the value, from 0"


def test_depth_and_columns_are_bounded() -> None:
    topic = TopicSchema.declare(pa.schema([("x", _nested(MAX_DEPTH))]))
    assert len(topic.iceberg.field_ids) == MAX_DEPTH
    with pytest.raises(InvalidArgument, match=f"deeper than {MAX_DEPTH}"):
        TopicSchema.declare(pa.schema([("x", _nested(MAX_DEPTH + 1))]))
    columns = [(f"c{i}", pa.list_(pa.int8())) for i in range(MAX_COLUMNS // 2)]
    assert len(TopicSchema.declare(pa.schema(columns)).iceberg.field_ids) == MAX_COLUMNS
    with pytest.raises(InvalidArgument, match=f"more than {MAX_COLUMNS} columns"):
        TopicSchema.declare(pa.schema([*columns, ("one more", pa.int8())]))
    union = ("u", pa.sparse_union([pa.field("x", pa.int8())]))
    assert len(TopicSchema.declare(pa.schema([*columns[:-2], union])).iceberg.field_ids) == MAX_COLUMNS - 1
    with pytest.raises(InvalidArgument, match=f"more than {MAX_COLUMNS} columns"):
        TopicSchema.declare(pa.schema([*columns[:-1], union]))
