"""Which type a column may get later: old files stay as they are, and every value keeps its meaning.

Iceberg allows int to long, float to double and a higher precision of decimals (specification,
"Schema Evolution"); one Iceberg type stands for several declared ones, among which the same
question is asked of the values.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
from pyiceberg import types as ice

from boilstream.catalog.typemap import has_children, is_list, leaf, show_type, without_view

_UNITS: Final = ("s", "ms", "us")

_CANDIDATES: Final = (
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(
        pa.float16(),
        pa.float32(),
        pa.float64(),
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.large_binary(),
    ),
    *(pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.bool_(), pa.bool8()),
    *(pa.timestamp(unit, zone) for unit in _UNITS for zone in (None, "UTC")),
)


def widens(old: pa.DataType, new: pa.DataType) -> bool:
    """Whether a column of the declared type `old` may become one of `new`; both are normalised."""
    if old == new:
        return True
    if has_children(old) or has_children(new):
        return _is_variable_list(old) and _is_variable_list(new) and old.value_field == new.value_field
    return _iceberg_allows(leaf(old).iceberg, leaf(new).iceberg) and _keeps_meaning(old, new)


def allowed(old: pa.DataType) -> str:
    """What a column of the declared type `old` may become, for messages."""
    names = [show_type(kind) for kind in _CANDIDATES if kind != old and widens(old, kind)]
    if pa.types.is_decimal(old) and old.precision < 38:
        names.append(f"a decimal with scale {old.scale} and a precision of {old.precision + 1} to 38")
    if old == pa.uint64():
        names.append("a decimal with scale 0 and a precision of 20 to 38")
    return " or ".join(names) or "no other type"


def _iceberg_allows(old: ice.PrimitiveType, new: ice.PrimitiveType) -> bool:
    if isinstance(old, ice.DecimalType) and isinstance(new, ice.DecimalType):
        return old.scale == new.scale and old.precision <= new.precision
    return (
        old == new
        or (isinstance(old, ice.IntegerType) and isinstance(new, ice.LongType))
        or (isinstance(old, ice.FloatType) and isinstance(new, ice.DoubleType))
    )


def _keeps_meaning(old: pa.DataType, new: pa.DataType) -> bool:
    """Whether all values of `old` are values of `new`, for types whose stored forms fit."""
    if isinstance(old, pa.BaseExtensionType) or isinstance(new, pa.BaseExtensionType):
        return _extension_keeps_meaning(old, new)
    old, new = without_view(old), without_view(new)
    t: Any = pa.types
    if t.is_integer(old) and t.is_integer(new):
        (low, high), (new_low, new_high) = _range(old), _range(new)
        return new_low <= low and high <= new_high
    if t.is_floating(old) and t.is_floating(new):
        return bool(old.bit_width <= new.bit_width)
    if t.is_decimal(new):
        return bool(t.is_decimal(old) or t.is_uint64(old))
    if t.is_timestamp(old) and t.is_timestamp(new):
        return (old.tz is None) == (new.tz is None) and _finer(old, new)
    if t.is_time(old) and t.is_time(new):
        return _finer(old, new)
    return any(
        old in kinds and new in kinds
        for kinds in (
            (pa.string(), pa.large_string()),
            (pa.binary(), pa.large_binary()),
            (pa.date32(), pa.date64()),
        )
    )


def _extension_keeps_meaning(old: pa.DataType, new: pa.DataType) -> bool:
    if isinstance(old, pa.Bool8Type) or isinstance(new, pa.Bool8Type):
        return bool(pa.types.is_boolean(old) or pa.types.is_boolean(new))
    if isinstance(old, pa.JsonType) and not isinstance(new, pa.BaseExtensionType):
        return _keeps_meaning(old.storage_type, new)
    if isinstance(old, pa.JsonType) and isinstance(new, pa.JsonType):
        return True
    if isinstance(old, pa.OpaqueType) and isinstance(new, pa.OpaqueType):
        same = (old.type_name, old.vendor_name) == (new.type_name, new.vendor_name)
        return same and _same_layout(old.storage_type, new.storage_type)
    return False


def _same_layout(old: pa.DataType, new: pa.DataType) -> bool:
    """Whether both hold the same bytes: the meaning of an opaque value is in them."""
    return old == new or any(
        old in kinds and new in kinds
        for kinds in ((pa.string(), pa.large_string()), (pa.binary(), pa.large_binary()))
    )


def _is_variable_list(kind: pa.DataType) -> bool:
    return is_list(kind) and not pa.types.is_fixed_size_list(kind)


def _finer(old: pa.DataType, new: pa.DataType) -> bool:
    """Whether both units are equal, or stored in the same way and the new one is finer."""
    if old.unit in _UNITS and new.unit in _UNITS:
        return _UNITS.index(old.unit) <= _UNITS.index(new.unit)
    return bool(old.unit == new.unit)


def _range(kind: pa.DataType) -> tuple[int, int]:
    bits = int(kind.bit_width)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if pa.types.is_signed_integer(kind) else (0, 2**bits - 1)
