"""Types that two clients spell differently for the same values, and what bytes of DuckDB's own types must be.

DuckDB sends a HUGEINT, UUID, BIT, ... either as an extension type (`SET arrow_lossless_conversion =
true`) or as a plain type. Either form may be written to a column of the other where the values
mean the same. It reads a duration as an INTERVAL and sends it back as one. arrow.opaque types count as
DuckDB's by vendor, name and storage; their layouts are those of DuckDB's `dtime_tz_t`, `hugeint_t`,
`Bit` and `Bignum`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from boilstream.catalog.arrays import validity
from boilstream.catalog.leaves import Step, Unfit, cast, chain, is_text, plain, unwrapping

_BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())
_STORAGE: Final[dict[str, tuple[pa.DataType, ...]]] = {
    "hugeint": (pa.binary(16),),
    "uhugeint": (pa.binary(16),),
    "time_tz": (pa.binary(8),),
    "bit": _BYTES,
    "bignum": _BYTES,
}
_SQL_NAMES: Final = {"time_tz": "TIME WITH TIME ZONE"}
"""Those that are not the name in capitals."""

_HUGE: Final = pa.decimal128(38, 0)
"""What DuckDB sends a HUGEINT and UHUGEINT as, with their 128 bits unchanged."""

_INTERVAL: Final = pa.month_day_nano_interval()
_NANOS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY_NANOS: Final = 86_400 * 10**9
_DAY_MICROS: Final = 86_400_000_000
_OFFSET_BITS: Final = 24
_MAX_OFFSET: Final = 57_599
"""Seconds of the largest offset of a TIMETZ, 15:59:59; the bits hold how far an offset is below it."""


def is_named_by_duckdb(kind: pa.DataType) -> bool:
    """Whether DuckDB takes a type for one of its own by vendor and name, whatever its storage."""
    return isinstance(kind, pa.OpaqueType) and kind.vendor_name == "DuckDB" and kind.type_name in _STORAGE


def duckdb_type(kind: pa.DataType) -> str | None:
    """Name of the DuckDB type that an arrow.opaque type stands for, None if it is no such type."""
    if is_named_by_duckdb(kind) and kind.storage_type in _STORAGE[kind.type_name]:
        return str(kind.type_name)
    return None


def sql_name(kind: pa.DataType) -> str | None:
    """What DuckDB calls a type of its own in SQL, None if it is no such type."""
    name = duckdb_type(kind)
    return None if name is None else _SQL_NAMES.get(name, name.upper())


def translation(sent: pa.DataType, declared: pa.DataType, path: str) -> tuple[Step | None, pa.DataType]:
    """The step from values as they were sent to the other spelling, and its type.

    (None, sent) where there is none. Raises Refused for a type that cannot be sent.
    """
    extended = isinstance(sent, pa.BaseExtensionType), isinstance(declared, pa.BaseExtensionType)
    if all(extended):
        return None, sent
    bare, middle = plain(sent, path), plain(declared, path)
    if bare == _INTERVAL and pa.types.is_duration(middle):
        return chain(unwrapping(sent, path), _to_duration(middle, path)), middle
    if not any(extended):
        return None, sent
    known = duckdb_type(sent) or duckdb_type(declared)
    into_opaque = duckdb_type(declared) is not None
    step: Step | None = None
    if _is_huge(declared) and bare == _HUGE:
        step, bare = (lambda array: array.view(middle)), middle
    elif known in ("hugeint", "uhugeint") and pa.types.is_decimal(middle):
        step, bare = _to_decimal(known == "hugeint", path), _HUGE
    elif known == "time_tz" and into_opaque and pa.types.is_time(bare):
        step, bare = chain(cast(pa.time64("us"), path), _to_time_tz), middle
    elif known == "time_tz" and pa.types.is_time(middle):
        step, bare = _to_time(path), pa.time64("us")
    elif isinstance(sent, pa.UuidType) and is_text(middle):
        step, bare = _to_text, pa.string()
    return (None, sent) if step is None else (chain(unwrapping(sent, path), step), bare)


def validated_as(sent: pa.DataType, declared: pa.DataType) -> pa.DataType:
    """A type of the same layout as `sent`, of which all values that the column takes are valid.

    A HUGEINT that was sent as a decimal may have more digits than a decimal can have.
    """
    return declared.storage_type if sent == _HUGE and _is_huge(declared) else sent


def _is_huge(declared: pa.DataType) -> bool:
    return duckdb_type(declared) in ("hugeint", "uhugeint")


def check(declared: pa.DataType, path: str) -> Step | None:
    """The step that raises Unfit for bytes that are no value of DuckDB's type: they can end its process."""
    test, reason = _TESTS.get(duckdb_type(declared) or "", (None, ""))
    if test is None:
        return None
    wrong: Callable[[Any], Any] = test

    def step(array: Any) -> Any:
        if pc.any(wrong(array)).as_py():
            raise Unfit(path, reason)
        return array

    return step


def _wrong_bit(array: Any) -> Any:
    # the number of unused bits, then the bits
    padding = pc.binary_slice(array, 0, 1)
    return pc.or_(pc.less(pc.binary_length(array), 2), pc.greater(padding, pa.scalar(b"\7", padding.type)))


def _wrong_bignum(array: Any) -> Any:
    return pc.less(pc.binary_length(array), 4)  # a header of three bytes, then the digits


def _wrong_time_tz(array: Any) -> Any:
    bits = array.view(pa.int64())
    micros, below = _micros(bits), pc.bit_wise_and(bits, 2**_OFFSET_BITS - 1)
    outside = pc.or_(pc.less(micros, 0), pc.greater(micros, _DAY_MICROS))
    return pc.or_(outside, pc.greater(below, 2 * _MAX_OFFSET))


_TESTS: Final[dict[str, tuple[Callable[[Any], Any], str]]] = {
    "bit": (_wrong_bit, "the bytes are not a BIT of DuckDB: a count of 0 to 7 unused bits, then the bits"),
    "bignum": (_wrong_bignum, "the bytes are not a BIGNUM of DuckDB: a header of 3 bytes, then the digits"),
    "time_tz": (
        _wrong_time_tz,
        "the bytes are not a TIMETZ of DuckDB: 40 bits of microseconds and 24 bits of offset",
    ),
}


def _micros(bits: Any) -> Any:
    return pc.shift_right(bits, _OFFSET_BITS)


def _to_time_tz(array: Any) -> Any:
    """Times as those with the offset 0."""
    bits = pc.shift_left(array.view(pa.int64()), _OFFSET_BITS)
    return pc.bit_wise_or(bits, _MAX_OFFSET).view(pa.binary(8))


def _to_time(path: str) -> Step:
    def step(array: Any) -> Any:
        bits = array.view(pa.int64())
        micros = _micros(bits)
        offset = pc.not_equal(pc.bit_wise_and(bits, 2**_OFFSET_BITS - 1), _MAX_OFFSET)
        if pc.any(offset).as_py():
            raise Unfit(path, "the time has an offset from UTC, which the column cannot keep")
        if pc.any(pc.or_(pc.less(micros, 0), pc.greater_equal(micros, _DAY_MICROS))).as_py():
            raise Unfit(path, "the time of day is not below 24:00:00")
        return micros.view(pa.time64("us"))

    return step


def _to_duration(kind: pa.DataType, path: str) -> Step:
    """The step from intervals to durations; a day has 24 hours."""
    per_unit = _NANOS[kind.unit]
    units_per_day = pa.scalar(_DAY_NANOS // per_unit, pa.decimal128(14, 0))

    def step(array: Any) -> Any:
        # months and days as int32, nanoseconds as int64
        months, days = _slot(array, pa.int32(), 0), _slot(array, pa.int32(), 1)
        nanos = _slot(array, pa.int64(), 1)
        if pc.any(pc.not_equal(months, 0)).as_py():
            raise Unfit(path, "the interval has months, which are no fixed time; send days instead")
        units = pc.divide(nanos, per_unit)
        if pc.any(pc.not_equal(pc.multiply(units, per_unit), nanos)).as_py():
            raise Unfit(path, f"the interval has a fraction that {kind} cannot keep")
        # decimals have room for all sums
        whole = pc.multiply(days.cast(pa.decimal128(10, 0)), units_per_day)
        total = pc.add(whole, units.cast(pa.decimal128(19, 0)))
        try:
            return total.cast(pa.int64()).view(kind)
        except pa.ArrowInvalid:
            raise Unfit(path, f"the interval is longer than {kind} can be") from None

    return step


def _slot(array: Any, kind: pa.DataType, index: int) -> Any:
    """The number at that place in the 16 bytes of each value, null where the value is."""
    bitmap, data = array.buffers()
    size = 128 // kind.bit_width
    numbers = pa.Array.from_buffers(kind, size * (array.offset + len(array)), [None, data])
    records = pa.Array.from_buffers(
        pa.list_(kind, size), len(array), [bitmap], offset=array.offset, children=[numbers]
    )
    return pc.list_element(records, index)


def _to_decimal(signed: bool, path: str) -> Step:
    high = pa.scalar(10**38 - 1, _HUGE)
    low = pa.scalar(
        1 - 10**38 if signed else 0, _HUGE
    )  # an unsigned one that is not below 2^127 seems negative

    def step(array: Any) -> Any:
        numbers = array.view(_HUGE)
        if pc.any(pc.or_(pc.less(numbers, low), pc.greater(numbers, high))).as_py():
            raise Unfit(path, "the number has more than 38 digits")
        return numbers

    return step


def _to_text(array: Any) -> Any:
    """The 16 bytes of UUIDs as text (8-4-4-4-12 hexadecimal digits, RFC 9562)."""
    data = array.buffers()[1].slice(array.offset * 16, len(array) * 16)
    digits = pa.py_buffer(data.to_pybytes().hex().encode())
    whole = pa.Array.from_buffers(pa.binary(32), len(array), [validity(array), digits])
    edges = (0, 8, 12, 16, 20, 32)
    parts = [pc.binary_slice(whole, start, stop) for start, stop in pairwise(edges)]
    parts = [part.cast(pa.binary()).cast(pa.string()) for part in parts]
    return pc.binary_join_element_wise(*parts, "-")
