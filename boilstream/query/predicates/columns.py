"""The columns of a topic as what DuckDB compares: from published Arrow types to operands. Pure."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from boilstream.catalog.typemap import without_view
from boilstream.query.predicates.duckdb_values import INTEGERS, MICROSECONDS, DuckType, Family
from boilstream.query.predicates.operands import Bytes, Floats, Operand, Source, Text
from boilstream.query.predicates.steps import Steps

_INTEGERS: Final[dict[pa.DataType, str]] = {
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
}

_UNITS: Final = {"s": Fraction(1_000_000), "ms": Fraction(1000), "us": Fraction(1), "ns": Fraction(1, 1000)}
"""Units of Arrow in microseconds."""

_TIMESTAMPS: Final = {"s": "TIMESTAMP_S", "ms": "TIMESTAMP_MS", "us": "TIMESTAMP", "ns": "TIMESTAMP_NS"}

_DAY_MS: Final = 86_400_000


def operand(name: str, field_id: int | None, value: pc.Expression, kind: pa.DataType) -> Operand | None:
    """What DuckDB compares when it compares values of a published type; None if that is not done here.

    `value` gives the values: the column `name` with that Iceberg id, or a part of it, and then
    `field_id` is None. Without a rule are intervals, times with a zone, bit strings, nested values and
    what other systems call opaque.
    """
    value, plain = _plain(value, kind)
    source = Source(name, field_id, value, plain)
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.JsonType | pa.Bool8Type):
        return _extension(source, kind)
    t: Any = pa.types
    if t.is_boolean(plain):
        return Steps(source, DuckType("BOOLEAN"), Family.BOOLEAN, Fraction(1), Fraction(1), 0, 1)
    if plain in _INTEGERS:
        found = DuckType(_INTEGERS[plain])
        return Steps(source, found, Family.NUMBER, Fraction(1), Fraction(1), *INTEGERS[found.name])
    if t.is_decimal(plain):
        found = DuckType("DECIMAL", plain.precision, plain.scale)
        most = 10**plain.precision - 1
        return Steps(source, found, Family.NUMBER, Fraction(1, 10**plain.scale), Fraction(1), -most, most)
    if t.is_float32(plain) or t.is_float64(plain):
        return Floats(source, DuckType("FLOAT" if t.is_float32(plain) else "DOUBLE"), Family.FLOAT)
    if t.is_string(plain) or t.is_large_string(plain):
        return Text(source, DuckType("VARCHAR"), Family.TEXT)
    if t.is_binary(plain) or t.is_large_binary(plain):
        return Bytes(source, DuckType("BLOB"), Family.BLOB)
    return _moment(source, plain) if t.is_date(plain) or t.is_time(plain) or t.is_timestamp(plain) else None


def _plain(value: pc.Expression, kind: pa.DataType) -> tuple[pc.Expression, pa.DataType]:
    """Values and type without extension, view or fixed size: what Arrow has comparisons for."""
    if isinstance(kind, pa.Bool8Type):
        return value.cast(pa.int8()) != pa.scalar(0, pa.int8()), pa.bool_()
    if isinstance(kind, pa.BaseExtensionType):
        return value.cast(kind.storage_type), kind.storage_type
    plain = pa.binary() if pa.types.is_fixed_size_binary(kind) else without_view(kind)
    return (value, kind) if plain == kind else (value.cast(plain), plain)


def _extension(source: Source, kind: pa.BaseExtensionType) -> Operand | None:
    if isinstance(kind, pa.UuidType):
        return Bytes(source, DuckType("UUID"), Family.UUID)
    if isinstance(kind, pa.OpaqueType) and kind.vendor_name == "DuckDB" and source.type == pa.binary(16):
        name = {"hugeint": "HUGEINT", "uhugeint": "UHUGEINT"}.get(kind.type_name)
        return None if name is None else Bytes(source, DuckType(name), Family.NUMBER, ordered=False)
    return None


def _moment(source: Source, kind: pa.DataType) -> Steps:
    """Dates, times and timestamps. Bounds are days or microseconds; for nanoseconds they are raw values."""
    truncated = 1
    if pa.types.is_date(kind):
        name = "DATE"
        unit, stored = (
            (MICROSECONDS["DATE"][1], Fraction(1))
            if pa.types.is_date32(kind)
            else (_UNITS["ms"], Fraction(_DAY_MS))
        )
    else:
        unit = _UNITS[kind.unit]
        stored = Fraction(1) if kind.unit == "ns" else 1 / unit
        if pa.types.is_time(kind):
            name = "TIME_NS" if kind.unit == "ns" else "TIME"
        elif kind.tz is None:
            name = _TIMESTAMPS[kind.unit]
        else:
            name = "TIMESTAMP WITH TIME ZONE"
            truncated = 1000 if kind.unit == "ns" else 1
    most = (1 << kind.bit_width - 1) - 1
    return Steps(source, DuckType(name), MICROSECONDS[name][0], unit, stored, -most - 1, most, truncated)
