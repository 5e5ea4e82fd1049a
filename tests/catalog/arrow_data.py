"""Random Arrow types and arrays of every kind that a topic can hold."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

INT_BITS = {
    pa.int8(): (-(2**7), 2**7 - 1),
    pa.int16(): (-(2**15), 2**15 - 1),
    pa.int32(): (-(2**31), 2**31 - 1),
    pa.int64(): (-(2**63), 2**63 - 1),
    pa.uint8(): (0, 2**8 - 1),
    pa.uint16(): (0, 2**16 - 1),
    pa.uint32(): (0, 2**32 - 1),
    pa.uint64(): (0, 2**64 - 1),
}
_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
_PER_MICRO = {"s": 10**6, "ms": 10**3, "us": 1, "ns": 1}

LEAVES: list[pa.DataType] = [
    *INT_BITS,
    pa.bool_(),
    pa.float16(),
    pa.float32(),
    pa.float64(),
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.binary(5),
    pa.date32(),
    pa.date64(),
    pa.time32("s"),
    pa.time32("ms"),
    pa.time64("us"),
    pa.time64("ns"),
    pa.month_day_nano_interval(),
    *[pa.timestamp(unit, zone) for unit in _DAY for zone in (None, "UTC", "Europe/Helsinki")],
    *[pa.duration(unit) for unit in _DAY],
    pa.decimal32(9, 2),
    pa.decimal64(18, 18),
    pa.decimal128(38, 0),
    pa.decimal256(38, 10),
    pa.uuid(),
    pa.bool8(),
    pa.json_(),
    pa.json_(pa.large_string()),
    pa.opaque(pa.binary(16), "hugeint", "DuckDB"),
    pa.opaque(pa.binary(8), "time_tz", "DuckDB"),
    pa.opaque(pa.large_binary(), "bit", "DuckDB"),
    pa.opaque(pa.binary(), "bignum", "DuckDB"),
    pa.opaque(pa.string(), "text", "Somebody"),
]


def types(depth: int = 3) -> st.SearchStrategy[pa.DataType]:
    """Supported types, nested at most `depth` deep."""
    leaf = st.sampled_from(LEAVES)
    if depth <= 1:
        return leaf
    inner = types(depth - 1)
    child = st.builds(lambda kind, nullable: pa.field("x", kind, nullable), inner, st.booleans())
    lists = st.sampled_from([pa.list_, pa.large_list, pa.list_view, pa.large_list_view])
    return st.one_of(
        leaf,
        st.builds(lambda make, field: make(field), lists, child),
        st.builds(lambda field, size: pa.list_(field, size), child, st.integers(1, 3)),
        st.builds(
            lambda fields: pa.struct([f.with_name(f"c{i}") for i, f in enumerate(fields)]),
            st.lists(child, min_size=1, max_size=3),
        ),
        st.builds(lambda key, item: pa.map_(key, item.with_name("value")), leaf, child),
        unions(inner),
    )


_MEMBERS = ["num", "tag", "TAG_", "täulu / 1"]


@st.composite
def unions(draw: st.DrawFn, member: st.SearchStrategy[pa.DataType]) -> pa.DataType:
    """Sparse unions with any type codes."""
    kinds = draw(st.lists(member, min_size=1, max_size=len(_MEMBERS)))
    codes = draw(
        st.one_of(
            st.just(list(range(len(kinds)))),
            st.lists(st.integers(0, 127), min_size=len(kinds), max_size=len(kinds), unique=True),
        )
    )
    names = draw(st.permutations(_MEMBERS))
    return pa.sparse_union([pa.field(name, kind) for name, kind in zip(names, kinds, strict=False)], codes)


def fields() -> st.SearchStrategy[list[pa.Field]]:
    """Top-level columns with odd but legal names."""
    made = st.builds(lambda kind, nullable: pa.field("x", kind, nullable), types(), st.booleans())
    names = ["a", "täulu / 1", "with space", "x.y", "🦆"]
    return st.lists(made, min_size=1, max_size=4).map(
        lambda columns: [column.with_name(name) for column, name in zip(columns, names, strict=False)]
    )


@st.composite
def arrays(draw: st.DrawFn, kind: pa.DataType, rows: int, nullable: bool) -> Any:
    """An array of a type, with nulls where allowed, often a slice of a longer one."""
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    return draw(_whole(kind, before + rows + after, nullable)).slice(before, rows)


@st.composite
def _whole(draw: st.DrawFn, kind: pa.DataType, rows: int, nullable: bool) -> Any:
    valid = draw(st.lists(st.booleans(), min_size=rows, max_size=rows)) if nullable else [True] * rows
    bitmap = None if all(valid) else pa.array(valid).buffers()[1]
    nulls = valid.count(False)
    t: Any = pa.types
    if t.is_struct(kind):
        parts = [draw(arrays(f.type, rows, f.nullable)) for f in kind.fields]
        return pa.Array.from_buffers(kind, rows, [bitmap], nulls, children=parts)
    if t.is_union(kind):
        parts = [draw(arrays(f.type, rows, nullable)) for f in kind]
        codes = draw(st.lists(st.sampled_from(kind.type_codes), min_size=rows, max_size=rows))
        return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(bytes(codes))], 0, children=parts)
    if t.is_fixed_size_list(kind):
        values = draw(arrays(kind.value_type, rows * kind.list_size, kind.value_field.nullable))
        return pa.Array.from_buffers(kind, rows, [bitmap], nulls, children=[values])
    if t.is_map(kind):
        ends, total = draw(_offsets(rows))
        entries = pa.Array.from_buffers(
            kind.field(0).type,
            total,
            [None],
            0,
            children=[
                draw(arrays(kind.key_type, total, False)),
                draw(arrays(kind.item_type, total, kind.item_field.nullable)),
            ],
        )
        return pa.Array.from_buffers(
            kind, rows, [bitmap, pa.array(ends, pa.int32()).buffers()[1]], nulls, children=[entries]
        )
    if t.is_list(kind) or t.is_large_list(kind) or t.is_list_view(kind) or t.is_large_list_view(kind):
        ends, total = draw(_offsets(rows))
        wide = pa.int64() if t.is_large_list(kind) or t.is_large_list_view(kind) else pa.int32()
        values = draw(arrays(kind.value_type, total, kind.value_field.nullable))
        buffers = [bitmap]
        if t.is_list(kind) or t.is_large_list(kind):
            buffers.append(pa.array(ends, wide).buffers()[1])
        else:
            order = draw(st.permutations(range(rows)))
            views = [(ends[i], ends[i + 1] - ends[i]) for i in order]
            buffers += [pa.array([view[i] for view in views], wide).buffers()[1] for i in (0, 1)]
        return pa.Array.from_buffers(kind, rows, buffers, nulls, children=[values])
    values = [draw(_value(kind)) if ok else None for ok in valid]
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    if t.is_timestamp(kind) or t.is_duration(kind):
        return pa.array(values, pa.int64()).view(kind)
    if t.is_date64(kind):
        return pa.array(values, pa.int64()).view(kind)
    if t.is_decimal(kind):
        digits = pa.array([None if v is None else f"{v}e-{kind.scale}" for v in values], pa.string())
        return digits.cast(pa.decimal128(kind.precision, kind.scale)).cast(kind)
    return pa.array(values, kind)


@st.composite
def _offsets(draw: st.DrawFn, rows: int) -> tuple[list[int], int]:
    """List offsets and the length that their values have; they may start after the first value."""
    ends = [draw(st.integers(0, 2))]
    for size in draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)):
        ends.append(ends[-1] + size)
    return ends, ends[-1] + draw(st.integers(0, 2))


def time_tz(micros: int, offset: int) -> bytes:
    """A time of day with seconds of offset from UTC as DuckDB writes it."""
    return (micros << 24 | 57_599 - offset).to_bytes(8, "little")


OPAQUE_VALUES = {
    "bit": st.builds(
        lambda unused, bits: bytes([unused]) + bits, st.integers(0, 7), st.binary(min_size=1, max_size=9)
    ),
    "bignum": st.binary(min_size=4, max_size=9),
    "time_tz": st.builds(time_tz, st.integers(0, 86_400 * 10**6), st.integers(-57_599, 57_599)),
}


def _edges(low: int, high: int) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(low, high), st.sampled_from([low, high]))


def _value(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """One value of a type without children, as `_whole` builds arrays from it."""
    t: Any = pa.types
    if isinstance(kind, pa.UuidType):
        return st.binary(min_size=16, max_size=16)
    if isinstance(kind, pa.Bool8Type):
        return st.integers(0, 1)
    if isinstance(kind, pa.OpaqueType) and kind.type_name in OPAQUE_VALUES:
        return OPAQUE_VALUES[kind.type_name]
    if isinstance(kind, pa.BaseExtensionType):
        return _value(kind.storage_type)
    if kind in INT_BITS:
        return _edges(*INT_BITS[kind])
    if t.is_boolean(kind):
        return st.booleans()
    if t.is_floating(kind):
        return st.floats(width=kind.bit_width, allow_nan=False)
    if t.is_decimal(kind):
        return _edges(1 - 10**kind.precision, 10**kind.precision - 1)
    if t.is_fixed_size_binary(kind):
        return st.binary(min_size=kind.byte_width, max_size=kind.byte_width)
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return st.text(max_size=20)
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind):
        return st.binary(max_size=20)
    if t.is_date32(kind):
        return _edges(-(2**31), 2**31 - 1)
    if t.is_date64(kind):
        return _edges(-(2**31), 2**31 - 1).map(lambda day: day * 86_400_000)
    if t.is_time(kind):
        return _edges(0, _DAY[kind.unit] - 1)
    if t.is_timestamp(kind):
        return _edges(-(2**63) // _PER_MICRO[kind.unit] + 1, (2**63 - 1) // _PER_MICRO[kind.unit])
    if t.is_duration(kind):
        return _edges(-(2**63), 2**63 - 1)
    small = _edges(-(2**31), 2**31 - 1)
    return st.tuples(small, small, _edges(-(2**63), 2**63 - 1)).map(pa.MonthDayNano)
