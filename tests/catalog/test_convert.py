"""Streams whose types are not those that the topic declares."""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boilstream.catalog import leaves
from boilstream.catalog.types import TopicSchema
from boilstream.errors import InvalidArgument


def _send(array: Any, declared: pa.DataType) -> Any:
    """The declared form of a column that was sent in another one."""
    topic = TopicSchema.declare(pa.schema([("a", declared)]))
    batch = pa.record_batch([array], names=["a"])
    batch.validate(full=True)
    stored = topic.conform(batch.schema).to_stored(batch)
    stored.validate(full=True)
    return topic.to_declared(stored).column(0)


_TEXT = ["a", None, "b", "a longer text than a view holds inline", ""]
_UUID = "00112233-4455-6677-8899-AABBCCDDEEFF"
_STRUCTS = [{"x": 1, "y": "a"}, None, {"x": None, "y": None}]


@pytest.mark.parametrize(
    ("values", "sent", "declared"),
    [
        ([1, None, -128], pa.int8(), pa.int64()),
        ([255, None], pa.int64(), pa.uint8()),
        ([1, None], pa.int32(), pa.float64()),
        ([1, None], pa.int32(), pa.decimal128(12, 2)),
        ([1.5, None], pa.float16(), pa.float64()),
        ([1.5, None, float("inf")], pa.float64(), pa.float32()),
        ([0.25, None, float("-inf")], pa.float32(), pa.float16()),
        ([65504.0, None, 2**-24], pa.float64(), pa.float16()),
        ([Decimal("1.50"), None], pa.decimal128(12, 2), pa.decimal256(30, 4)),
        ([Decimal("1.50"), None], pa.decimal128(5, 2), pa.decimal64(18, 4)),
        (_TEXT, pa.string(), pa.large_string()),
        (_TEXT, pa.large_string(), pa.string_view()),
        (_TEXT, pa.string_view(), pa.string()),
        (_TEXT, pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (_TEXT, pa.dictionary(pa.uint32(), pa.large_string()), pa.string_view()),
        (_TEXT, pa.string(), pa.json_()),
        ([b"x", None, b"y" * 30], pa.binary_view(), pa.large_binary()),
        ([b"abc", None, b"xyz"], pa.binary(), pa.binary(3)),
        ([b"abc", None, b"xyz"], pa.large_binary(), pa.binary(3)),
        ([b"abc", None, b"xyz"], pa.binary_view(), pa.binary(3)),
        ([b"abc", None, b"abc"], pa.dictionary(pa.int8(), pa.binary()), pa.binary(3)),
        ([b"abc", None, b"xyz"], pa.binary(3), pa.large_binary()),
        ([b"abc", None, b"xyz"], pa.binary(3), pa.binary_view()),
        ([b"\0x", None], pa.binary(), pa.opaque(pa.binary(), "bit", "DuckDB")),
        ([b"0123456789abcdef", None], pa.binary(16), pa.opaque(pa.binary(16), "hugeint", "DuckDB")),
        ([[1, 2], None, [], [3]], pa.list_(pa.int8()), pa.large_list(pa.int32())),
        ([[1, 2], None, [], [3]], pa.list_view(pa.int8()), pa.list_(pa.int32())),
        ([[1, 2], None, [], [3]], pa.large_list(pa.int8()), pa.large_list_view(pa.int32())),
        ([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2), pa.list_(pa.int32())),
        ([[1, 2], None, [3, 4]], pa.large_list_view(pa.int8()), pa.list_(pa.int32(), 2)),
        ([["a", None], None], pa.list_(pa.dictionary(pa.int8(), pa.string())), pa.list_(pa.string())),
        (
            _STRUCTS,
            pa.struct([("y", pa.string()), ("x", pa.int8())]),
            pa.struct([("x", pa.int64()), ("y", pa.large_string())]),
        ),
        ([[("k", 1)], None, []], pa.map_(pa.string(), pa.int8()), pa.map_(pa.large_string(), pa.int64())),
    ],
    ids=str,
)
def test_values_are_cast_when_that_is_exact(
    values: list[Any], sent: pa.DataType, declared: pa.DataType
) -> None:
    array = pa.array([*values, *values], sent)
    for part in (array, array[1:], array[2 : len(array) - 1], array[:0]):
        got = _send(part, declared)
        assert got.type == declared
        assert got.to_pylist() == part.to_pylist()


def test_units_and_zones_are_converted_when_that_is_exact() -> None:
    seconds = pa.array([0, None, -5], pa.timestamp("s", "Asia/Tokyo"))
    assert _send(seconds, pa.timestamp("ns", "UTC")).cast(pa.int64()).to_pylist() == [0, None, -5 * 10**9]
    assert _send(pa.array([0, 86_400_000], pa.date64()), pa.date32()).cast(pa.int32()).to_pylist() == [0, 1]
    assert _send(pa.array([1, None], pa.time32("s")), pa.time64("ns")).cast(pa.int64()).to_pylist() == [
        10**9,
        None,
    ]
    assert _send(pa.array([1, None], pa.duration("s")), pa.duration("ms")).cast(pa.int64()).to_pylist() == [
        1000,
        None,
    ]


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_infinite_timestamps_stay_infinite(unit: str) -> None:
    numbers = [2**63 - 1, None, 5, 1 - 2**63]
    for zone in (None, "UTC"):
        kind = pa.timestamp(unit, zone)
        sent = pa.array([0, *numbers], pa.int64()).view(kind)[1:]
        assert _send(sent, kind).cast(pa.int64()).to_pylist() == numbers
        with pytest.raises(InvalidArgument, match=r"row 1: .*out of bounds"):
            _send(pa.array([2**63 - 1, 2**63 - 2]).view(kind), kind)


@pytest.mark.parametrize("sent", [pa.float32(), pa.float64()], ids=str)
def test_what_is_no_number_and_signed_zero_stay_in_narrower_floats(sent: pa.DataType) -> None:
    values = [float("nan"), -0.0, None]
    assert str(_send(pa.array(values, sent), pa.float16()).to_pylist()) == "[nan, -0.0, None]"


@settings(deadline=None)
@given(
    st.lists(st.floats(width=32) | st.floats() | st.none(), max_size=8),
    st.sampled_from([(16, pa.float16()), (32, pa.float32())]),
)
def test_floats_narrow_where_no_value_changes(
    values: list[float | None], target: tuple[int, pa.DataType]
) -> None:
    width, kind = target
    letter = {16: "e", 32: "f"}[width]

    def fits(value: float) -> bool:
        try:
            (back,) = struct.unpack(letter, struct.pack(letter, value))
        except OverflowError:
            return False
        return bool(back == value) or value != value

    wrong = [row for row, value in enumerate(values) if value is not None and not fits(value)]
    sent = pa.array(values, pa.float64())
    if wrong:
        with pytest.raises(InvalidArgument, match=f"row {wrong[0]}: Floating point value .* is not exact as"):
            _send(sent, kind)
    else:
        assert str(_send(sent, kind).to_pylist()) == str(sent.to_pylist())


def test_uuids_are_read_from_text() -> None:
    got = _send(pa.array([_UUID, None, _UUID.lower()])[1:], pa.uuid())
    assert got.storage.to_pylist() == [None, bytes.fromhex(_UUID.replace("-", ""))]
    assert _send(pa.array([[_UUID]]), pa.list_(pa.uuid())).values.storage[0].as_py()[:2] == b"\x00\x11"


def test_extensions_lend_their_storage() -> None:
    true = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([5, 0, None], pa.int8()))
    assert _send(true, pa.bool_()).to_pylist() == [True, False, None]
    assert _send(true, pa.bool8()).storage.to_pylist() == [1, 0, None]
    assert _send(pa.array([True, None]), pa.bool8()).storage.to_pylist() == [1, None]
    document = pa.ExtensionArray.from_storage(
        pa.json_(pa.string_view()), pa.array(["{}", None], pa.string_view())
    )
    assert _send(document, pa.string()).to_pylist() == ["{}", None]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()], ids=str)
def test_views_under_nulls_are_not_followed(kind: pa.DataType) -> None:
    """Validation skips them, so they may point anywhere; a cast would end the process."""
    text = "a longer text than a view holds inline"
    bitmap, views, *data = pa.array([text, text, "b", "c"], kind).buffers()
    astray = struct.pack("<i4sii", 2**31 - 1, b"xxxx", 2**30, 2**30)
    damaged = pa.py_buffer(views.to_pybytes()[:16] + astray + views.to_pybytes()[32:])
    bitmap = pa.array([True, False, True, False]).buffers()[1]
    array = pa.Array.from_buffers(kind, 4, [bitmap, damaged, *data])
    values = pa.array([text, None, "b", None], pa.string()).cast(pa.binary()).to_pylist()
    for start in range(3):
        got = _send(array[start:], pa.binary() if pa.types.is_binary_view(kind) else pa.string())
        assert got.cast(pa.binary()).to_pylist() == values[start:]


def test_run_ends_are_decoded() -> None:
    text = pa.array(["x", None, "y"])
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3, 6], pa.int32()), text)
    assert _send(runs, pa.string()).to_pylist() == ["x", "x", None, "y", "y", "y"]
    assert _send(runs[1:4], pa.string_view()).to_pylist() == ["x", None, "y"]
    numbers = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int16()), pa.array([7, None]))
    assert _send(numbers[1:], pa.int8()).to_pylist() == [7, None]


@pytest.mark.parametrize(
    ("sent", "declared"),
    [
        (pa.float64(), pa.int64()),
        (pa.float32(), pa.decimal128(9, 2)),
        (pa.binary(3), pa.binary(4)),
        (pa.uuid(), pa.binary(8)),
        (pa.month_day_nano_interval(), pa.int64()),
        (pa.month_day_nano_interval(), pa.time64("us")),
        (pa.duration("us"), pa.month_day_nano_interval()),
        (pa.string(), pa.int64()),
        (pa.int64(), pa.string()),
        (pa.binary(), pa.string()),
        (pa.bool_(), pa.int8()),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us", "UTC"), pa.timestamp("us")),
        (pa.date32(), pa.timestamp("us")),
        (pa.int64(), pa.timestamp("ns")),
        (pa.int64(), pa.duration("s")),
        (pa.int64(), pa.decimal128(9, 0)),
        (pa.json_(), pa.uuid()),
        (pa.opaque(pa.binary(16), "uhugeint", "DuckDB"), pa.opaque(pa.binary(16), "hugeint", "DuckDB")),
        (pa.list_(pa.int8()), pa.int8()),
        (pa.int8(), pa.list_(pa.int8())),
        (pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 3)),
        (pa.list_(pa.int8(), 0), pa.list_(pa.int8())),
        (pa.map_(pa.string(), pa.int8()), pa.list_(pa.struct([("key", pa.string()), ("value", pa.int8())]))),
        (pa.sparse_union([pa.field("x", pa.int8())]), pa.struct([("x", pa.int8())])),
        (pa.struct([("x", pa.int8())]), pa.sparse_union([pa.field("x", pa.int8())])),
        (pa.dense_union([pa.field("x", pa.int8())]), pa.sparse_union([pa.field("x", pa.int8())])),
        (pa.sparse_union([pa.field("y", pa.int8())]), pa.sparse_union([pa.field("x", pa.int8())])),
        (pa.sparse_union([pa.field("x", pa.string())]), pa.sparse_union([pa.field("x", pa.int8())])),
        (pa.decimal128(37, 0), pa.opaque(pa.binary(16), "hugeint", "DuckDB")),
        (pa.decimal128(38, 0), pa.opaque(pa.binary(16), "hugeint", "Somebody")),
        (pa.decimal128(38, 0), pa.opaque(pa.binary(16), "time_tz", "DuckDB")),
        (pa.int64(), pa.opaque(pa.binary(8), "time_tz", "DuckDB")),
        (pa.opaque(pa.binary(8), "time_tz", "DuckDB"), pa.decimal128(38, 0)),
        (pa.uuid(), pa.json_()),
        (pa.uuid(), pa.int64()),
    ],
    ids=str,
)
def test_types_that_mean_something_else_are_refused_before_the_first_batch(sent: Any, declared: Any) -> None:
    topic = TopicSchema.declare(pa.schema([("a", declared)]))
    with pytest.raises(InvalidArgument, match="column 'a"):
        topic.conform(pa.schema([("a", sent)]))


def test_what_lies_under_nulls_is_ignored() -> None:
    garbage = pa.array([1, 2**62, 3, 2**62], pa.int64()).view(pa.timestamp("s"))
    bitmap = pa.array([True, False, True, False]).buffers()[1]
    struct = pa.Array.from_buffers(pa.struct([("x", garbage.type)]), 4, [bitmap], children=[garbage])
    assert _send(struct, struct.type).equals(struct)
    ends = pa.array([0, 1, 2, 3, 4], pa.int32()).buffers()[1]
    lists = pa.Array.from_buffers(pa.list_(garbage.type), 4, [bitmap, ends], children=[garbage])
    assert _send(lists, lists.type).equals(lists)
    fixed = pa.Array.from_buffers(pa.list_(garbage.type, 1), 4, [bitmap], children=[garbage])
    assert _send(fixed[1:], fixed.type).equals(fixed[1:])


def test_required_children_may_be_null_under_a_null_struct() -> None:
    inner = pa.struct([pa.field("y", pa.string(), nullable=False)])
    kind = pa.struct(
        [
            pa.field("x", inner, nullable=False),
            pa.field("l", pa.list_(pa.int8()), nullable=False),
            pa.field("u", pa.uuid(), nullable=False),
        ]
    )
    struct = pa.nulls(3, kind)
    got = _send(struct, kind)
    assert got.null_count == 3
    assert [got.field(index).null_count for index in range(3)] == [0, 0, 0]


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "MAX_EXPANDED_BYTES", 100_000)
    monkeypatch.setattr("boilstream.catalog.types.MAX_EXPANDED_BYTES", 100_000)


def _long_view() -> Any:
    text = pa.array(["x" * 1000], pa.string_view())
    views = text.buffers()[1].to_pybytes() * 1000
    return pa.Array.from_buffers(pa.string_view(), 1000, [None, pa.py_buffer(views), text.buffers()[2]])


def _runs(values: Any, rows: int) -> Any:
    return pa.RunEndEncodedArray.from_arrays(pa.array([rows], pa.int32()), values)


def _list_of(values: Any) -> Any:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize(
    ("array", "declared"),
    [
        (
            pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int8()), pa.array(["x" * 1000])),
            pa.string(),
        ),
        (
            pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int8()), pa.nulls(1, pa.binary(1000))),
            pa.binary(1000),
        ),
        (_long_view(), pa.string()),
        (_long_view()[200:700], pa.large_string()),
        (_runs(pa.array([1]), 2**31 - 1), pa.int64()),
        (_runs(pa.array(["x"]), 2**31 - 1), pa.string()),
        (_runs(pa.array(["x" * 1000]), 1000), pa.string()),
        (pa.nulls(1000), pa.binary(1000)),
        (_list_of(pa.nulls(2**31 - 1)), pa.list_(pa.int64())),
        (
            _list_of(pa.StructArray.from_arrays([pa.nulls(2**31 - 1)], ["x"])),
            pa.list_(pa.struct([("x", pa.int8())])),
        ),
        (
            _list_of(pa.FixedSizeListArray.from_arrays(pa.nulls(2**31 - 1), 1)),
            pa.list_(pa.list_(pa.int64(), 1)),
        ),
        (pa.nulls(10), pa.struct([("x", pa.binary(20_000))])),
        (
            _list_of(_runs(pa.array([1]), 2**31 - 1)),
            pa.list_(pa.int64()),
        ),
    ],
    ids=range(13),
)
def test_small_batches_do_not_grow_without_bound(array: Any, declared: pa.DataType) -> None:
    topic = TopicSchema.declare(pa.schema([("a", declared)]))
    batch = pa.record_batch([array], names=["a"])
    batch.validate(full=True)
    with pytest.raises(InvalidArgument, match=r"column 'a.*decodes to more than"):
        topic.conform(batch.schema).to_stored(batch)


@pytest.mark.usefixtures("low_limit")
def test_the_bound_counts_all_columns_of_a_batch() -> None:
    names = [f"c{index}" for index in range(10)]
    topic = TopicSchema.declare(pa.schema([(name, pa.binary(100)) for name in names]))
    batch = pa.record_batch([pa.nulls(500)] * 10, names=names)
    with pytest.raises(InvalidArgument, match="column 'c1': the batch decodes"):
        topic.conform(batch.schema).to_stored(batch)


def test_list_views_that_share_values_are_refused() -> None:
    values, sizes = pa.array([1, 2, 3]), pa.array([2, 2], pa.int32())
    shared = pa.ListViewArray.from_arrays(pa.array([0, 1], pa.int32()), sizes, values)
    with pytest.raises(InvalidArgument, match="row 1: list views that share values"):
        _send(shared, pa.list_(pa.int64()))
