"""Two spellings of the same values, and bytes that are no value of DuckDB's type."""

from __future__ import annotations

import struct
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from boilstream.catalog.types import TopicSchema
from boilstream.errors import ConstraintViolated, InvalidArgument
from tests.catalog.arrow_data import time_tz

_HUGE, _UHUGE = (pa.opaque(pa.binary(16), name, "DuckDB") for name in ("hugeint", "uhugeint"))
_TIME_TZ = pa.opaque(pa.binary(8), "time_tz", "DuckDB")
_BIT, _BIGNUM = (pa.opaque(pa.large_binary(), name, "DuckDB") for name in ("bit", "bignum"))
_DECIMAL = pa.decimal128(38, 0)
_TIME = pa.time64("us")


_INTERVAL = pa.month_day_nano_interval()
_DAY = 86_400 * 10**9
_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def _opaque(values: list[Any], kind: pa.DataType) -> Any:
    return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))


def _send(array: Any, declared: pa.DataType) -> Any:
    topic = TopicSchema.declare(pa.schema([("a", declared)]))
    batch = pa.record_batch([array], names=["a"])
    stored = topic.conform(batch.schema).to_stored(batch)
    stored.validate(full=True)
    return topic.to_declared(stored).column(0)


def _raw(number: int, *, signed: bool = True) -> bytes:
    return number.to_bytes(16, "little", signed=signed)


def _decimals(raw: list[bytes]) -> Any:
    """Decimals with any 128 bits, as DuckDB sends a HUGEINT or UHUGEINT."""
    return pa.Array.from_buffers(_DECIMAL, len(raw), [None, pa.py_buffer(b"".join(raw))])


@given(
    st.lists(st.binary(min_size=16, max_size=16), min_size=2, max_size=4), st.sampled_from([_HUGE, _UHUGE])
)
def test_all_bits_of_a_decimal_become_a_huge_integer(raw: list[bytes], kind: pa.DataType) -> None:
    assert _send(_decimals(raw)[1:], kind).storage.to_pylist() == raw[1:]


@pytest.mark.parametrize(
    ("kind", "raw", "number"),
    [
        (_HUGE, _raw(10**38 - 1), 10**38 - 1),
        (_HUGE, _raw(1 - 10**38), 1 - 10**38),
        (_UHUGE, _raw(10**38 - 1), 10**38 - 1),
        (_UHUGE, _raw(0), 0),
    ],
)
def test_huge_integers_become_decimals(kind: pa.DataType, raw: bytes, number: int) -> None:
    sent = _opaque([_raw(7), raw, None], kind)[1:]
    assert _send(sent, _DECIMAL).to_pylist() == [Decimal(number), None]
    assert _send(_opaque([_raw(7)], kind), pa.decimal128(9, 2)).to_pylist() == [Decimal("7.00")]


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (_HUGE, _raw(10**38)),
        (_HUGE, _raw(-(10**38))),
        (_HUGE, _raw(2**127 - 1)),
        (_HUGE, _raw(-(2**127))),
        (_UHUGE, _raw(10**38)),
        (_UHUGE, _raw(2**127, signed=False)),
        (_UHUGE, _raw(2**128 - 1, signed=False)),
    ],
)
def test_huge_integers_with_more_digits_than_a_decimal_are_named(kind: pa.DataType, raw: bytes) -> None:
    with pytest.raises(InvalidArgument, match="column 'a', row 2: the number has more than 38 digits"):
        _send(_opaque([_raw(1), None, raw], kind), _DECIMAL)


def test_times_become_those_with_the_offset_zero_and_back() -> None:
    times = pa.array([1, 0, None, 86_399_999_999], pa.int64()).view(_TIME)[1:]
    sent = _send(times, _TIME_TZ)
    assert sent.storage.to_pylist() == [time_tz(0, 0), None, time_tz(86_399_999_999, 0)]
    assert _send(sent, _TIME).equals(times)
    assert _send(pa.array([1], pa.time32("s")), _TIME_TZ).storage.to_pylist() == [time_tz(10**6, 0)]
    assert _send(_opaque([time_tz(10**6, 0)], _TIME_TZ), pa.time32("s")).cast(pa.int32()).to_pylist() == [1]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (time_tz(0, 3600), "row 1: the time has an offset from UTC"),
        (time_tz(86_400 * 10**6, 0), "row 1: the time of day is not below 24:00:00"),
    ],
)
def test_a_time_that_a_time_of_day_cannot_be_is_named(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        _send(_opaque([time_tz(0, 0), raw], _TIME_TZ), _TIME)


def test_uuids_become_their_text() -> None:
    kind = pa.uuid()
    sent = _opaque([b"x" * 16, None, bytes(range(16))], kind)[1:]
    for text in (pa.string(), pa.large_string(), pa.string_view()):
        got = _send(sent, text)
        assert got.type == text
        assert got.to_pylist() == [None, "00010203-0405-0607-0809-0a0b0c0d0e0f"]
    assert _send(sent[:0], pa.string()).to_pylist() == []


_INT32 = st.integers(-(2**31), 2**31 - 1)


@settings(deadline=None)
@given(
    _INT32,
    st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**33), 2**33).map(lambda seconds: seconds * 10**9),
    st.sampled_from(list(_UNITS)),
)
@example(-106_752, 763_145_224_192, "ns")  # the shortest duration, from parts of which one alone does not fit
@example(106_752, -763_145_224_193, "ns")
@example(106_752, -763_145_224_192, "ns")
@example(2**31 - 1, -1, "us")
def test_intervals_become_durations_where_no_value_changes(days: int, nanos: int, unit: str) -> None:
    sent = pa.array([(0, 1, 0), None, (0, days, nanos)], _INTERVAL)[1:]
    total, rest = divmod(days * _DAY + nanos, _UNITS[unit])
    if rest:
        with pytest.raises(
            InvalidArgument, match=rf"row 1: the interval has a fraction that duration\[{unit}"
        ):
            _send(sent, pa.duration(unit))
    elif not -(2**63) <= total < 2**63:
        with pytest.raises(InvalidArgument, match=r"row 1: the interval is longer than duration\[.* can be"):
            _send(sent, pa.duration(unit))
    else:
        assert _send(sent, pa.duration(unit)).cast(pa.int64()).to_pylist() == [None, total]


@pytest.mark.parametrize("unit", _UNITS)
def test_an_interval_with_months_is_named(unit: str) -> None:
    garbage = pa.array([(0, 1, 0), (5, 5, 5), (0, 0, 0)], _INTERVAL).buffers()[1]
    sent = pa.Array.from_buffers(_INTERVAL, 3, [pa.array([True, False, True]).buffers()[1], garbage])
    found = _send(sent, pa.duration(unit))
    assert found.cast(pa.int64()).to_pylist() == [_DAY // _UNITS[unit], None, 0]
    with pytest.raises(InvalidArgument, match="column 'a', row 2: the interval has months"):
        _send(pa.array([(0, 1, 0), None, (-1, 30, 0)], _INTERVAL), pa.duration(unit))


def test_nested_intervals_become_durations() -> None:
    kind = pa.struct([("l", pa.list_(_INTERVAL)), ("m", pa.map_(_INTERVAL, pa.int8()))])
    second = (0, 0, 10**9)
    sent = pa.array([None, {"l": [second, None], "m": [(second, 1)]}], kind)
    wanted = pa.struct([("l", pa.large_list(pa.duration("ms"))), ("m", pa.map_(pa.duration("s"), pa.int8()))])
    assert _send(sent, wanted).cast(wanted).to_pylist() == [
        None,
        {"l": [timedelta(seconds=1), None], "m": [(timedelta(seconds=1), 1)]},
    ]


def _message(array: Any) -> bytes:
    """A stream of one batch with one column."""
    sink, sent = pa.BufferOutputStream(), pa.record_batch([array], names=["a"])
    with pa.ipc.new_stream(sink, sent.schema) as writer:
        writer.write_batch(sent)
    return bytes(sink.getvalue())


def _batch(array: Any) -> pa.RecordBatch:
    """What the server receives of a column."""
    return pa.ipc.open_stream(_message(array)).read_next_batch()


_TOO_LONG = [_raw(2**127 - 1), _raw(-(2**127)), _raw(10**38)]


def _around(numbers: Any, kind: pa.DataType) -> list[tuple[Any, pa.DataType]]:
    """Columns of every kind with the numbers in them, and what they may be declared as."""
    three, field = pa.array([0, 1, 3], pa.int32()), pa.field("x", numbers.type)
    lists = pa.ListArray.from_arrays(three, numbers)
    fixed = pa.FixedSizeListArray.from_arrays(numbers, 1)
    views = pa.ListViewArray.from_arrays(
        pa.array([2, 0, 1], pa.int32()), pa.array([1] * 3, pa.int32()), numbers
    )
    maps = pa.MapArray.from_arrays(three, numbers, pa.array(["a", None, "c"]).dictionary_encode())
    code = pa.array([0, 5, 0], pa.int8())
    union = pa.UnionArray.from_sparse(code, [numbers, pa.array([1, 2, 3])], ["x", "y"], [0, 5])
    texts = pa.array(["a" * 20, None, "c"], pa.string_view())
    structs = pa.StructArray.from_arrays([texts, numbers, pa.nulls(3)], names=["T", "X", "N"])
    return [
        (numbers, kind),
        (lists, pa.large_list(kind)),
        (fixed, pa.list_(kind, 1)),
        (fixed, pa.list_(kind)),
        (views, pa.list_(kind)),
        (maps, pa.map_(kind, pa.string())),
        (union, pa.sparse_union([pa.field("y", pa.int64()), field.with_type(kind)])),
        (structs, pa.struct([("x", kind), ("n", _DECIMAL), ("t", pa.string())])),
        (pa.ListArray.from_arrays(three, structs), pa.list_(pa.struct([("t", pa.string()), ("x", kind)]))),
    ]


_PLACES = ["column", "list", "fixed", "list of fixed", "view", "map", "union", "struct", "structs"]


@pytest.mark.parametrize("kind", [_HUGE, _UHUGE], ids=["hugeint", "uhugeint"])
@pytest.mark.parametrize("place", _PLACES)
def test_huge_integers_of_more_digits_than_a_decimal_pass_the_validation(
    place: str, kind: pa.DataType
) -> None:
    array, declared = _around(_decimals(_TOO_LONG), kind)[_PLACES.index(place)]
    batch = _batch(array)
    if place == "structs":
        declared = pa.list_(pa.struct([*declared.value_type, ("n", pa.int8())]))
    topic = TopicSchema.declare(pa.schema([("a", declared)]))
    conformer = topic.conform(batch.schema)
    with pytest.raises(pa.ArrowInvalid, match="does not fit in precision"):
        batch.validate(full=True)
    prepared = conformer.prepare(batch)
    prepared.validate(full=True)
    stored = conformer.to_stored(prepared)
    stored.validate(full=True)
    plain = _around(pa.array(_TOO_LONG, pa.binary(16)), kind)[_PLACES.index(place)][0]
    wanted = _batch(plain)
    assert stored.equals(topic.conform(wanted.schema).to_stored(wanted))


@pytest.mark.parametrize("place", _PLACES)
def test_decimals_are_not_taken_for_huge_integers(place: str) -> None:
    array, declared = _around(_decimals(_TOO_LONG), _DECIMAL)[_PLACES.index(place)]
    if place == "structs":
        declared = pa.list_(pa.struct([*declared.value_type, ("n", pa.int8())]))
    batch = _batch(array)
    conformer = TopicSchema.declare(pa.schema([("a", declared)])).conform(batch.schema)
    assert conformer.prepare(batch) is batch


@pytest.mark.parametrize("place", _PLACES)
def test_a_slice_is_prepared_as_well(place: str) -> None:
    array, declared = _around(_decimals(_TOO_LONG), _HUGE)[_PLACES.index(place)]
    if place == "structs":
        declared = pa.list_(pa.struct([*declared.value_type, ("n", pa.int8())]))
    topic = TopicSchema.declare(pa.schema([("a", declared)]))
    plain = _around(pa.array(_TOO_LONG, pa.binary(16)), _HUGE)[_PLACES.index(place)][0]
    batch, wanted = (pa.record_batch([part[1:]], names=["a"]) for part in (array, plain))
    conformer = topic.conform(batch.schema)
    prepared = conformer.prepare(batch)
    prepared.validate(full=True)
    stored = conformer.to_stored(prepared)
    assert stored.equals(topic.conform(wanted.schema).to_stored(wanted))


def test_a_damaged_batch_is_left_to_the_validation() -> None:
    topic = TopicSchema.declare(pa.schema([("a", pa.list_(_HUGE))]))
    good = pa.ListArray.from_arrays(pa.array([0, 1, 3], pa.int32()), _decimals(_TOO_LONG))
    data = _message(good)
    offsets = struct.pack("<iii", 0, 1, 3)
    assert data.count(offsets) == 1
    wrong = data.replace(offsets, struct.pack("<iii", 0, 1, 900))
    batch = pa.ipc.open_stream(wrong).read_next_batch()
    prepared = topic.conform(batch.schema).prepare(batch)
    with pytest.raises(pa.ArrowInvalid):
        prepared.validate(full=True)


def test_what_needs_no_preparation_is_shared() -> None:
    topic = TopicSchema.declare(pa.schema([("h", _HUGE), ("b", pa.int8()), ("c", pa.int8())]))
    batch = pa.record_batch({"b": pa.array([1], pa.int8()), "H": _decimals(_TOO_LONG[:1])})
    prepared = topic.conform(batch.schema).prepare(batch)
    assert prepared.schema.names == ["b", "H"]
    for old, new in zip(batch.columns, prepared.columns, strict=True):
        assert old.buffers()[1].address == new.buffers()[1].address
    lossless = pa.record_batch({"h": _opaque([_raw(1)], _HUGE)})
    assert topic.conform(lossless.schema).prepare(lossless) is lossless


def test_a_null_that_its_type_does_not_allow_is_left_to_the_checks() -> None:
    child = pa.field("x", _DECIMAL, nullable=False)
    nulls = pa.Array.from_buffers(pa.struct([child]), 2, [None], 0, children=[pa.nulls(2, _DECIMAL)])
    topic = TopicSchema.declare(pa.schema([("a", pa.struct([pa.field("x", _HUGE, nullable=False)]))]))
    batch = pa.record_batch([nulls], names=["a"])
    conformer = topic.conform(batch.schema)
    prepared = conformer.prepare(batch)
    prepared.validate(full=True)
    with pytest.raises(ConstraintViolated, match=r"column 'a\.x', row 0: null in"):
        conformer.to_stored(prepared)


def test_nested_values_are_translated() -> None:
    numbers = _decimals([_raw(number) for number in range(3)])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, None, 3], pa.int32()), numbers)
    got = _send(lists, pa.large_list(_HUGE))
    assert got.is_valid().to_pylist() == [True, True, False]
    assert got[1].values.storage.to_pylist() == [_raw(1), _raw(2)]
    maps = pa.MapArray.from_arrays([0, 1], numbers[:1], pa.array([5], pa.int64()).view(_TIME))
    got = _send(maps, pa.map_(_UHUGE, _TIME_TZ))
    assert got.keys.storage.to_pylist() == [_raw(0)]
    assert got.items.storage.to_pylist() == [time_tz(5, 0)]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (_BIT, b"\7\xff", [b"", b"\0", b"\x08\xff", b"\xff\xff"]),
        (_BIGNUM, b"\x80\0\1\0", [b"", b"\x80\0\1"]),
        (
            _TIME_TZ,
            time_tz(86_400 * 10**6, -57_599),
            [time_tz(86_400 * 10**6 + 1, 0), time_tz(0, -57_600), b"\xff" * 8],
        ),
    ],
)
def test_bytes_that_are_no_value_of_duckdb_are_named(
    kind: pa.DataType, good: bytes, bad: list[bytes]
) -> None:
    assert _send(_opaque([good, None], kind), kind).storage.to_pylist() == [good, None]
    for wrong in bad:
        for sent in (_opaque([good, None, wrong], kind), pa.array([good, None, wrong], kind.storage_type)):
            with pytest.raises(InvalidArgument, match="column 'a', row 2: the bytes are not a"):
                _send(sent, kind)
        other = pa.opaque(kind.storage_type, kind.type_name, "Somebody")
        assert _send(_opaque([wrong], other), other).storage.to_pylist() == [wrong]
