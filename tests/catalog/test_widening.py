"""Which types a column may change to."""

from __future__ import annotations

from itertools import product

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.catalog import typemap
from boilstream.catalog.types import TopicSchema
from boilstream.catalog.widening import allowed, widens
from tests.catalog.arrow_data import LEAVES, arrays


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (pa.int8(), pa.int16()),
        (pa.int8(), pa.int64()),
        (pa.int32(), pa.int64()),
        (pa.uint8(), pa.int16()),
        (pa.uint8(), pa.uint32()),
        (pa.uint16(), pa.int32()),
        (pa.uint32(), pa.int64()),
        (pa.uint64(), pa.decimal128(20, 0)),
        (pa.uint64(), pa.decimal128(38, 0)),
        (pa.float16(), pa.float32()),
        (pa.float16(), pa.float64()),
        (pa.float32(), pa.float64()),
        (pa.decimal32(9, 2), pa.decimal128(12, 2)),
        (pa.decimal128(12, 2), pa.decimal64(12, 2)),
        (pa.timestamp("s"), pa.timestamp("us")),
        (pa.timestamp("ms", "UTC"), pa.timestamp("us", "Europe/Helsinki")),
        (pa.timestamp("ns", "UTC"), pa.timestamp("ns", "Asia/Tokyo")),
        (pa.time32("s"), pa.time64("us")),
        (pa.string(), pa.large_string()),
        (pa.large_string(), pa.string_view()),
        (pa.binary_view(), pa.large_binary()),
        (pa.date64(), pa.date32()),
        (pa.json_(), pa.string()),
        (pa.json_(), pa.json_(pa.large_string())),
        (pa.bool8(), pa.bool_()),
        (pa.bool_(), pa.bool8()),
        (pa.opaque(pa.binary(), "bit", "DuckDB"), pa.opaque(pa.large_binary(), "bit", "DuckDB")),
        (pa.list_(pa.int8()), pa.large_list(pa.int8())),
    ],
    ids=str,
)
def test_a_type_may_become_a_wider_one(old: pa.DataType, new: pa.DataType) -> None:
    assert widens(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (pa.int16(), pa.int8()),
        (pa.int32(), pa.uint32()),
        (pa.uint32(), pa.int32()),
        (pa.int32(), pa.uint64()),
        (pa.int64(), pa.decimal128(20, 0)),
        (pa.uint64(), pa.int64()),
        (pa.uint64(), pa.decimal128(20, 2)),
        (pa.decimal128(20, 0), pa.uint64()),
        (pa.int32(), pa.float64()),
        (pa.float64(), pa.float32()),
        (pa.decimal128(9, 2), pa.decimal128(12, 3)),
        (pa.decimal128(9, 2), pa.decimal128(8, 2)),
        (pa.timestamp("us"), pa.timestamp("ms")),
        (pa.timestamp("us"), pa.timestamp("ns")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.int64(), pa.timestamp("ns")),
        (pa.int64(), pa.duration("s")),
        (pa.duration("s"), pa.duration("ms")),
        (pa.time64("us"), pa.time64("ns")),
        (pa.string(), pa.json_()),
        (pa.string(), pa.binary()),
        (pa.binary(), pa.string()),
        (pa.uuid(), pa.binary(16)),
        (pa.binary(16), pa.uuid()),
        (pa.month_day_nano_interval(), pa.binary(16)),
        (pa.binary(4), pa.binary(5)),
        (pa.opaque(pa.binary(), "bit", "DuckDB"), pa.opaque(pa.binary(), "bignum", "DuckDB")),
        (pa.opaque(pa.binary(), "bit", "DuckDB"), pa.binary()),
        (pa.list_(pa.int8()), pa.list_(pa.int16())),
        (pa.list_(pa.int8()), pa.list_(pa.int8(), 2)),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.int16())])),
        (pa.struct([("a", pa.int8())]), pa.int8()),
        (pa.int8(), pa.list_(pa.int8())),
    ],
    ids=str,
)
def test_other_types_are_refused(old: pa.DataType, new: pa.DataType) -> None:
    assert not widens(old, new)


_PAIRS = [
    (old, new)
    for old, new in product([*LEAVES, pa.decimal64(12, 2), pa.decimal128(20, 0)], repeat=2)
    if typemap.without_view(old) == old and typemap.without_view(new) == new and widens(old, new)
]


def test_there_are_pairs_to_try() -> None:
    assert len({old for old, new in _PAIRS if old != new}) > 15


@given(st.sampled_from(_PAIRS), st.data())
def test_every_value_keeps_its_meaning(pair: tuple[pa.DataType, pa.DataType], data: st.DataObject) -> None:
    old, new = pair
    before, after = (TopicSchema.declare(pa.schema([("a", kind)])) for kind in pair)
    column = data.draw(arrays(old, 5, True))
    batch = pa.record_batch([column], names=["a"])
    stored = before.conform(batch.schema).to_stored(batch)
    found = after.reader(stored.schema).to_declared(stored).column(0)
    found.validate(full=True)
    assert found.type == new
    # the other way must give what was written: nothing was lost or made up
    back = before.reader(after.stored).to_declared(
        after.conform(pa.schema([("a", new)])).to_stored(pa.record_batch([found], names=["a"]))
    )
    assert back.column(0).equals(column)


def test_messages_say_what_is_allowed() -> None:
    assert allowed(pa.int32()) == "int64"
    assert allowed(pa.uuid()) == "no other type"
    assert allowed(pa.decimal128(9, 2)) == "a decimal with scale 2 and a precision of 10 to 38"
    assert allowed(pa.uint64()) == "a decimal with scale 0 and a precision of 20 to 38"
    assert allowed(pa.timestamp("s")) == "timestamp[ms] or timestamp[us]"
    assert allowed(pa.struct([("a", pa.int8())])) == "no other type"
