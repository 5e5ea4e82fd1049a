"""Two spellings of the same values, and bytes that are no value of DuckDB's type."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.catalog.types import TopicSchema
from boilstream.errors import InvalidArgument
from tests.catalog.arrow_data import time_tz

_HUGE, _UHUGE = (pa.opaque(pa.binary(16), name, "DuckDB") for name in ("hugeint", "uhugeint"))
_TIME_TZ = pa.opaque(pa.binary(8), "time_tz", "DuckDB")
_BIT, _BIGNUM = (pa.opaque(pa.large_binary(), name, "DuckDB") for name in ("bit", "bignum"))
_DECIMAL = pa.decimal128(38, 0)
_TIME = pa.time64("us")


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
