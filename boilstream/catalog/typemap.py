"""Which Arrow types a column may have, and what Iceberg and Parquet make of them.

Three forms of one type: *declared* (what clients read back), *Iceberg* (format version 2) and
*stored* (the Arrow type of the data files, which are Iceberg-legal Parquet). One table, `leaf`,
holds the rule for each type without children; lists, structs, maps and unions are built from it.

Iceberg has no unions. A sparse union is a struct with a required int child, the tag, which tells
the position of the member that holds the value, and one optional child for each member, of which
all others are null. A row whose value is a null of the first member is a null struct.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import pyarrow as pa
from pyiceberg import types as ice

from boilstream.catalog.names import fold

MAX_FIXED_WIDTH: Final = 65_536
"""Most bytes of a fixed-size binary, and most slots of (nested) fixed-size lists: a null takes them too."""

FIELD_ID: Final = b"PARQUET:field_id"
"""Key of Arrow field metadata that pyarrow writes as the field id of the Parquet schema."""

MAX_OPAQUE_NAME: Final = 255
"""Longest type or vendor name of an arrow.opaque type in characters."""

UTC_MICROS: Final = pa.timestamp("us", tz="UTC")
"""Stored form of every timestamp with a time zone, except nanoseconds."""

_TAG_DOC = "position of the union's member that holds the value, from 0"

_ZONE = re.compile(r"[A-Za-z0-9_+:/-]{1,64}")


class Refused(ValueError):
    """A column cannot be as it is; `path` is its dotted name and `reason` what is wrong and what to do."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"column {show(path)}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Leaf:
    """What becomes of a declared type without children."""

    iceberg: ice.PrimitiveType
    stored: pa.DataType
    doc: str | None = None
    """Meaning of the stored value where the Iceberg type does not tell it."""


def show(path: str) -> str:
    """A column's dotted path, quoted and short, for messages."""
    return repr(path if len(path) <= 120 else f"{path[:117]}...")


def show_type(kind: pa.DataType) -> str:
    """A type as Arrow writes it, short and printable, for messages."""
    text = "".join(char if char.isprintable() else "?" for char in str(kind))
    return text if len(text) <= 120 else f"{text[:117]}..."


def join(path: str, name: str) -> str:
    """The dotted path of a child."""
    return f"{path}.{name}" if path else name


def is_list(kind: pa.DataType) -> bool:
    """Whether `kind` is any of the five list types (a map is not)."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or is_list_view(kind)
    )


def is_list_view(kind: pa.DataType) -> bool:
    """Whether `kind` is a list view of either offset width."""
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def has_children(kind: pa.DataType) -> bool:
    """Whether values of `kind` consist of other values."""
    t: Any = pa.types
    return bool(t.is_struct(kind) or t.is_map(kind) or t.is_union(kind) or is_list(kind))


def without_view(kind: pa.DataType) -> pa.DataType:
    """The offset layout for a binary or string view; other types as they are."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    return kind


def extends_views(kind: pa.DataType) -> bool:
    """Whether an extension type over a view layout is in `kind`: pyarrow 26 flattens lists of it wrongly."""
    if isinstance(kind, pa.BaseExtensionType):
        return bool(without_view(kind.storage_type) != kind.storage_type)
    return any(extends_views(kind.field(index).type) for index in range(kind.num_fields))


def opaque_names(kind: pa.OpaqueType, path: str) -> tuple[str, str]:
    """Type and vendor name of an arrow.opaque type; raises Refused unless they are short printable text."""
    names = str(kind.type_name), str(kind.vendor_name)
    if not all(len(name) <= MAX_OPAQUE_NAME and name.isprintable() for name in names):
        raise Refused(path, "type and vendor name of arrow.opaque must be short printable text")
    return names


def expands(kind: pa.DataType) -> bool:
    """Whether arrays of a type may hold far fewer bytes than their plain values do."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) or pa.types.is_null(kind):
        return True
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return True
    if isinstance(kind, pa.BaseExtensionType):
        return expands(kind.storage_type)
    return any(expands(kind.field(index).type) for index in range(kind.num_fields))


def fixed_width(kind: pa.DataType) -> int:
    """Bytes that each row of `kind` takes in memory, null or not: at least 1, and without variable parts."""
    if isinstance(kind, pa.BaseExtensionType):
        return fixed_width(kind.storage_type)
    if pa.types.is_struct(kind):
        return sum(fixed_width(field.type) for field in kind.fields)
    if pa.types.is_union(kind):
        return 1 + sum(fixed_width(field.type) for field in kind)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * fixed_width(kind.value_type)
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width)
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:  # a type of variable width: its offset or view
        return 16


def encoded_value(kind: pa.DataType, path: str) -> pa.DataType:
    """Value type of a dictionary or run-end encoded type; raises Refused if that has children."""
    value = kind.value_type
    if value.num_fields or isinstance(value, pa.BaseExtensionType) or pa.types.is_dictionary(value):
        raise Refused(path, f"{show_type(kind)} is not supported; send the values without the encoding")
    return value


def leaf(kind: pa.DataType, path: str = "", slots: int = 1) -> Leaf:
    """The rule for a declared type without children; raises Refused if there is none.

    `slots` is how many entries of it the fixed-size lists around it reserve for each row.
    """
    t: Any = pa.types
    if isinstance(kind, pa.UuidType):
        return Leaf(ice.UUIDType(), kind)
    if isinstance(kind, pa.Bool8Type):
        return Leaf(ice.BooleanType(), pa.bool_())
    if isinstance(kind, pa.BaseExtensionType):
        return leaf(kind.storage_type, path, slots)
    if t.is_decimal(kind):
        if 1 <= kind.precision <= 38 and 0 <= kind.scale <= kind.precision:
            return Leaf(
                ice.DecimalType(kind.precision, kind.scale), pa.decimal128(kind.precision, kind.scale)
            )
        raise Refused(
            path, f"{show_type(kind)} is not supported; use a precision of 1 to 38 and a scale of 0 to it"
        )
    if t.is_fixed_size_binary(kind):
        if 0 < kind.byte_width * slots <= MAX_FIXED_WIDTH:
            return Leaf(ice.FixedType(kind.byte_width), kind)
        raise Refused(path, f"a fixed-size binary has 1 to {MAX_FIXED_WIDTH} bytes per row; use binary")
    if t.is_timestamp(kind):
        return _timestamp(kind, path)
    if t.is_time(kind):
        if kind.unit == "ns":
            return Leaf(ice.LongType(), pa.int64(), "time of day in nanoseconds since midnight")
        return Leaf(ice.TimeType(), pa.time64("us"))
    if t.is_duration(kind):
        return Leaf(ice.LongType(), pa.int64(), f"duration in {_UNITS[kind.unit]}")
    found = _LEAVES.get(kind)
    if found is not None:
        return found
    if t.is_null(kind):
        raise Refused(path, "it has no type (null); declare the type that its values will have")
    raise Refused(path, f"type {show_type(kind)} is not supported; cast it to one that is")


def require_sparse(kind: pa.DataType, path: str) -> None:
    """Raise Refused for a union that is not sparse, and for one whose type codes do not tell its members."""
    if kind.mode != "sparse":
        raise Refused(
            path,
            "dense unions are not supported; send a sparse union, or a struct with one nullable child for each member",
        )
    if not kind.num_fields:
        raise Refused(path, "a union needs at least one member; add one or leave the column out")
    if len(set(kind.type_codes)) != kind.num_fields or min(kind.type_codes) < 0:
        raise Refused(path, "the type codes of a union are 0 to 127, another for each member; correct them")


def union_tag(kind: pa.DataType) -> str:
    """Name of the child that holds the tag in the struct that stands for a sparse union.

    It is `tag`, with as many underscores as keep it apart from the members, whatever the case.
    """
    taken = {fold(field.name) for field in kind}
    return next(name for name in ("tag" + "_" * size for size in count()) if name not in taken)


def _timestamp(kind: pa.DataType, path: str) -> Leaf:
    try:
        zone = kind.tz
    except UnicodeDecodeError:
        zone = ""
    if zone is not None and not _ZONE.fullmatch(zone):
        raise Refused(
            path, "its time zone is not a zone name or offset; use one such as 'UTC' or 'Europe/Helsinki'"
        )
    if kind.unit == "ns":
        doc = "nanoseconds since 1970-01-01T00:00:00" + (" UTC" if zone else ", without time zone")
        return Leaf(ice.LongType(), pa.int64(), doc)
    if zone:
        return Leaf(ice.TimestamptzType(), UTC_MICROS)
    return Leaf(ice.TimestampType(), pa.timestamp("us"))


_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

_INT, _LONG = Leaf(ice.IntegerType(), pa.int32()), Leaf(ice.LongType(), pa.int64())

_LEAVES: Final[dict[pa.DataType, Leaf]] = {
    pa.bool_(): Leaf(ice.BooleanType(), pa.bool_()),
    pa.int8(): _INT,
    pa.int16(): _INT,
    pa.int32(): _INT,
    pa.uint8(): _INT,
    pa.uint16(): _INT,
    pa.uint32(): _LONG,
    pa.int64(): _LONG,
    pa.uint64(): Leaf(ice.DecimalType(20, 0), pa.decimal128(20, 0)),
    pa.float16(): Leaf(ice.FloatType(), pa.float32()),
    pa.float32(): Leaf(ice.FloatType(), pa.float32()),
    pa.float64(): Leaf(ice.DoubleType(), pa.float64()),
    pa.string(): Leaf(ice.StringType(), pa.string()),
    pa.large_string(): Leaf(ice.StringType(), pa.large_string()),
    pa.string_view(): Leaf(ice.StringType(), pa.string()),
    pa.binary(): Leaf(ice.BinaryType(), pa.binary()),
    pa.large_binary(): Leaf(ice.BinaryType(), pa.large_binary()),
    pa.binary_view(): Leaf(ice.BinaryType(), pa.binary()),
    pa.date32(): Leaf(ice.DateType(), pa.date32()),
    pa.date64(): Leaf(ice.DateType(), pa.date32()),
    pa.month_day_nano_interval(): Leaf(
        ice.FixedType(16),
        pa.binary(16),
        "interval: months and days as int32, nanoseconds as int64, little endian",
    ),
}


def iceberg_fields(fields: Iterable[pa.Field], ids: Iterator[int]) -> list[ice.NestedField]:
    """The Iceberg fields of normalised declared ones, with ids that are unique and nothing more."""
    return [
        ice.NestedField(
            next(ids),
            field.name,
            iceberg_type(field.type, ids),
            required=not field.nullable,
            doc="; ".join(dict.fromkeys(_docs(field.type))) or None,
        )
        for field in fields
    ]


def iceberg_type(kind: pa.DataType, ids: Iterator[int]) -> ice.IcebergType:
    """The Iceberg type of a normalised declared one."""
    if pa.types.is_struct(kind):
        return ice.StructType(*iceberg_fields(kind.fields, ids))
    if pa.types.is_union(kind):
        tag = ice.NestedField(next(ids), union_tag(kind), ice.IntegerType(), required=True, doc=_TAG_DOC)
        return ice.StructType(tag, *iceberg_fields(kind, ids))
    if is_list(kind):
        element = kind.value_field
        return ice.ListType(next(ids), iceberg_type(element.type, ids), element_required=not element.nullable)
    if pa.types.is_map(kind):
        value = kind.item_field
        return ice.MapType(
            next(ids),
            iceberg_type(kind.key_type, ids),
            next(ids),
            iceberg_type(value.type, ids),
            value_required=not value.nullable,
        )
    return leaf(kind).iceberg


def _docs(kind: pa.DataType) -> Iterator[str]:
    """Meanings of the leaves that have no Iceberg field of their own to carry them."""
    if is_list(kind):
        yield from _docs(kind.value_type)
    elif pa.types.is_map(kind):
        yield from _docs(kind.key_type)
        yield from _docs(kind.item_type)
    elif not (pa.types.is_struct(kind) or pa.types.is_union(kind)):
        doc = leaf(kind).doc
        if doc is not None:
            yield doc


def stored_field(field: ice.NestedField, declared: pa.DataType) -> pa.Field:
    """The field of the data files for an Iceberg field whose type fits the declared one."""
    return pa.field(
        field.name,
        _stored(declared, field.field_type),
        nullable=field.optional,
        metadata={FIELD_ID: str(field.field_id)},
    )


def _stored(declared: pa.DataType, iceberg: ice.IcebergType) -> pa.DataType:
    if isinstance(iceberg, ice.StructType):
        kinds = [field.type for field in declared]
        if pa.types.is_union(declared):
            kinds.insert(0, pa.int32())  # the tag
        pairs = zip(iceberg.fields, kinds, strict=True)
        return pa.struct([stored_field(field, kind) for field, kind in pairs])
    if isinstance(iceberg, ice.ListType):
        element = stored_field(iceberg.element_field, declared.value_type)
        large = pa.types.is_large_list(declared) or pa.types.is_large_list_view(declared)
        return pa.large_list(element) if large else pa.list_(element)
    if isinstance(iceberg, ice.MapType):
        return pa.map_(
            stored_field(iceberg.key_field, declared.key_type),
            stored_field(iceberg.value_field, declared.item_type),
        )
    return leaf(declared).stored


def fits(declared: pa.DataType, iceberg: ice.IcebergType) -> bool:
    """Whether `iceberg` is what a normalised declared type maps to, whatever the ids."""
    return bool(_shape(iceberg_type(declared, count(1))) == _shape(iceberg))


def _shape(kind: ice.IcebergType) -> Any:
    """An Iceberg type without ids and docs, to compare."""
    if isinstance(kind, ice.StructType):
        return [(field.name, field.required, _shape(field.field_type)) for field in kind.fields]
    if isinstance(kind, ice.ListType):
        return "list", kind.element_required, _shape(kind.element_type)
    if isinstance(kind, ice.MapType):
        return "map", kind.value_required, _shape(kind.key_type), _shape(kind.value_type)
    return kind
