"""Random tables of all types, conditions on them in SQL, and the statistics that their files have."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from boilstream.catalog.types import TopicSchema
from boilstream.log.statistics import Bound, ColumnStatistics

I64 = 2**63 - 1

ALPHABET = "abA%_\\'\"öé€\U0001f600\n\0\x7f\uffff{}."
TEXTS = st.text(ALPHABET, max_size=4) | st.text("ab", min_size=30, max_size=36)


@dataclass(frozen=True)
class Kind:
    """A column of the random tables."""

    type: pa.DataType
    raw: st.SearchStrategy[Any]
    """Raw values: integers, floats, texts or bytes."""
    literals: Callable[[Any], list[str]]
    """SQL constants that have to do with a raw value, of this type and others."""
    like: bool = False
    """Whether it is text."""


def array(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """An array of raw values."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, array(kind.storage_type, values))
    if pa.types.is_decimal(kind):
        digits = Context(prec=40)
        scaled = [None if v is None else Decimal(v).scaleb(-kind.scale, digits) for v in values]
        return pa.array(scaled, kind)
    if pa.types.is_temporal(kind):
        return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
    return pa.array(values, kind)


def integers(least: int, greatest: int) -> st.SearchStrategy[int]:
    """Integers near zero and near the ends."""
    small = st.integers(max(least, -3), min(greatest, 3))
    return small | st.integers(least, greatest) | st.sampled_from([least, greatest, least + 1, greatest - 1])


def number(value: int) -> list[str]:
    return [
        f"({value})",
        f"({value} + 1)",
        f"({value}.5)",
        "(-1)",
        "1000",
        "(-170141183460469231731687303715884105727)",
    ]


def small_number(value: int) -> list[str]:
    return [*number(value), f"({value}.25::DOUBLE)", "'nan'::DOUBLE", "'-inf'::DOUBLE", f"({value}::FLOAT)"]


def fraction(value: float) -> list[str]:
    return [
        f"'{value!r}'::DOUBLE",
        f"'{value!r}'::FLOAT",
        "0",
        "(-0.0)::DOUBLE",
        "'nan'::DOUBLE",
        "'-inf'::FLOAT",
    ]


def decimal(scale: int) -> Callable[[int], list[str]]:
    def literals(value: int) -> list[str]:
        text = f"{Decimal(value).scaleb(-scale, Context(prec=40)):f}"
        return [f"({text})", f"({text})::DECIMAL(38, {scale})", "1.005", "(-3)", "0"]

    return literals


def text(value: str) -> list[str]:
    parts = ["'" + part.replace("'", "''") + "'" for part in value.split("\0")]
    return ["(" + " || chr(0) || ".join(parts) + ")", "'a'", "''"]


def blob(value: bytes) -> list[str]:
    return ["'" + "".join(f"\\x{byte:02X}" for byte in value) + "'::BLOB"]


def date(value: int) -> list[str]:
    if not abs(value) < 10**6:
        return ["'infinity'::DATE", "'-infinity'::DATE"]
    day = f"(DATE '1970-01-01' + {value})"
    return [day, f"({day}::TIMESTAMP)", f"({day}::TIMESTAMP + INTERVAL 1 HOUR)", "'infinity'::TIMESTAMP"]


def timestamp(per_us: int, us: int, suffix: str) -> Callable[[int], list[str]]:
    def literals(value: int) -> list[str]:
        moment = value * us // per_us
        if abs(moment) > 10**17:
            return ["'infinity'::TIMESTAMP" + suffix, "'-infinity'::TIMESTAMP" + suffix]
        base = f"make_timestamp({moment})"
        cast = f"{base}::TIMESTAMP{suffix}"
        return [
            cast,
            base,
            f"make_timestamp({moment + 1})",
            f"make_timestamp({moment - 1})::TIMESTAMP{suffix}",
        ]

    return literals


def time_of_day(us: int) -> Callable[[int], list[str]]:
    def literals(value: int) -> list[str]:
        seconds, rest = divmod(value * us, 1_000_000)
        return [
            f"make_time({seconds // 3600}, {seconds // 60 % 60}, {seconds % 60}.{rest:06})",
            "TIME '00:00:01'",
        ]

    return literals


def time_ns(value: int) -> list[str]:
    seconds, rest = divmod(value, 10**9)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:09}"
    return [f"TIME_NS '{clock}'", "TIME_NS '00:00:00.000000001'"]


def uuid_text(value: bytes) -> list[str]:
    return [f"'{uuid.UUID(bytes=value)}'::UUID", "'80000000-0000-0000-0000-000000000000'::UUID"]


def hugeint(signed: bool) -> Callable[[bytes], list[str]]:
    def literals(value: bytes) -> list[str]:
        name = "HUGEINT" if signed else "UHUGEINT"
        return [f"({int.from_bytes(value, 'little', signed=signed)})::{name}", f"0::{name}"]

    return literals


def boolean(_value: object) -> list[str]:
    return ["true", "false"]


FLOATS = st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1.5, -1.5, 0.1, 1e300, 5e-324])
DAY_US = 86_400_000_000
SIXTEEN = st.binary(min_size=16, max_size=16) | st.integers(0, 2).map(lambda n: n.to_bytes(16, "little"))
INFINITE = st.sampled_from([-I64, I64])
"""What DuckDB stores for infinite timestamps of any unit."""
STAMPS = integers(-I64, I64) | st.integers(-2000, 2000)

KINDS: dict[str, Kind] = {
    "i8": Kind(pa.int8(), integers(-128, 127), small_number),
    "i16": Kind(pa.int16(), integers(-(2**15), 2**15 - 1), small_number),
    "i32": Kind(pa.int32(), integers(-(2**31), 2**31 - 1), small_number),
    "i64": Kind(pa.int64(), integers(-(2**63), I64), number),
    "u8": Kind(pa.uint8(), integers(0, 255), small_number),
    "u16": Kind(pa.uint16(), integers(0, 2**16 - 1), small_number),
    "u32": Kind(pa.uint32(), integers(0, 2**32 - 1), small_number),
    "u64": Kind(pa.uint64(), integers(0, 2**64 - 1), number),
    "f32": Kind(
        pa.float32(), FLOATS.filter(lambda x: not 1e38 < abs(x) < math.inf) | st.floats(width=32), fraction
    ),
    "f64": Kind(pa.float64(), FLOATS | st.floats(), fraction),
    "d4": Kind(pa.decimal128(4, 2), integers(-9999, 9999), decimal(2)),
    "d18": Kind(pa.decimal128(18, 0), integers(-(10**18) + 1, 10**18 - 1), decimal(0)),
    "d38": Kind(pa.decimal128(38, 10), integers(-(10**38) + 1, 10**38 - 1), decimal(10)),
    "flag": Kind(pa.bool_(), st.booleans(), boolean),
    "flag8": Kind(pa.bool8(), st.integers(0, 1), boolean),
    "text": Kind(pa.string(), TEXTS, text, like=True),
    "large text": Kind(pa.large_string(), TEXTS, text, like=True),
    "json": Kind(
        pa.json_(pa.string()), st.sampled_from(["{}", "1", '"a"', "null"]), lambda v: [f"'{v}'", "'{}'"]
    ),
    "blob": Kind(pa.binary(), st.binary(max_size=3), blob),
    "fixed": Kind(pa.binary(2), st.binary(min_size=2, max_size=2), blob),
    "uuid": Kind(pa.uuid(), SIXTEEN, uuid_text),
    "huge": Kind(pa.opaque(pa.binary(16), "hugeint", "DuckDB"), SIXTEEN, hugeint(True)),
    "uhuge": Kind(pa.opaque(pa.binary(16), "uhugeint", "DuckDB"), SIXTEEN, hugeint(False)),
    "day": Kind(pa.date32(), integers(-(2**31) + 1, 2**31 - 1) | st.integers(-9, 20000), date),
    "day64": Kind(
        pa.date64(), st.integers(-9, 20000).map(lambda n: n * 86_400_000), lambda v: date(v // 86_400_000)
    ),
    "time s": Kind(pa.time32("s"), st.integers(0, 86399), time_of_day(1_000_000)),
    "time ms": Kind(pa.time32("ms"), st.integers(0, 86_399_999), time_of_day(1000)),
    "time": Kind(pa.time64("us"), st.integers(0, DAY_US - 1), time_of_day(1)),
    "time ns": Kind(pa.time64("ns"), st.integers(0, 3) | st.integers(0, DAY_US * 1000 - 1), time_ns),
    "ts s": Kind(pa.timestamp("s"), INFINITE | st.integers(-(10**11), 10**11), timestamp(1, 1_000_000, "_S")),
    "ts ms": Kind(pa.timestamp("ms"), INFINITE | st.integers(-(10**14), 10**14), timestamp(1, 1000, "_MS")),
    "ts": Kind(pa.timestamp("us"), STAMPS, timestamp(1, 1, "")),
    "ts ns": Kind(pa.timestamp("ns"), STAMPS, timestamp(1000, 1, "_NS")),
    "tz": Kind(pa.timestamp("us", "Europe/Helsinki"), STAMPS, timestamp(1, 1, "TZ")),
    "tz s": Kind(pa.timestamp("s", "UTC"), st.integers(-(10**11), 10**11), timestamp(1, 1_000_000, "TZ")),
    "tz ns": Kind(pa.timestamp("ns", "UTC"), STAMPS, timestamp(1000, 1, "TZ")),
}

PARTS = pa.struct([("x", pa.int32()), ("y", pa.struct([("z", pa.string())]))])
PART = st.fixed_dictionaries(
    {"x": st.none() | st.integers(-1, 1), "y": st.none() | st.fixed_dictionaries({"z": st.none() | TEXTS})}
)


@dataclass(frozen=True)
class Sample:
    """A table with columns `id`, `value` of one kind, `flag`, `parts` and `list`; and conditions on it."""

    table: pa.Table
    topic: TopicSchema
    wheres: list[str]


@st.composite
def samples(draw: st.DrawFn, name: str) -> Sample:
    """A few rows with repeated values, and conditions whose constants are often among them."""
    kind = KINDS[name]
    rows = draw(st.integers(1, 8))

    def some(strategy: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(strategy, min_size=rows, max_size=rows))

    pool = draw(st.lists(kind.raw, min_size=1, max_size=4))
    nulls = draw(st.sampled_from([[], [None], [None] * 3]))
    table = pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "value": array(kind.type, some(st.sampled_from([*pool, *nulls]))),
            "flag": pa.array(some(st.sampled_from([True, False, None])), pa.bool_()),
            "parts": pa.array(some(st.none() | PART), PARTS),
            "list": pa.array(some(st.sampled_from([None, [], [1]])), pa.list_(pa.int8())),
        }
    )
    single = conditions(kind, st.sampled_from(pool) | kind.raw)
    nested = st.recursive(single | st.sampled_from(NESTED), combined, max_leaves=4)
    wheres = draw(st.lists(single | single | nested, min_size=4, max_size=12))
    return Sample(table, TopicSchema.declare(table.schema), wheres)


NESTED = (
    "flag",
    "(NOT flag)",
    "(flag IS NOT TRUE)",
    "(parts.x > 0)",
    "(parts['x'] IN (0, 1))",
    "(parts.y IS NULL)",
    "(parts.y.z IS NULL)",
    "(parts.y.z >= 'b')",
    "starts_with(parts.y.z, 'a')",
    "(parts IS NOT NULL)",
    "(list IS NULL)",
    "(list = [1])",
)


@st.composite
def conditions(draw: st.DrawFn, kind: Kind, raw: st.SearchStrategy[Any]) -> str:
    """One test of the column `value`."""
    column = "value"
    literal = raw.flatmap(lambda found: st.sampled_from(kind.literals(found)))
    constants = draw(st.lists(literal, min_size=2, max_size=3))
    first, second = constants[:2]
    forms = [
        f"{column} {draw(st.sampled_from(['=', '<>', '<', '<=', '>', '>=']))} {first}",
        f"{first} {draw(st.sampled_from(['=', '<', '>=']))} {column}",
        f"{column} BETWEEN {first} AND {second}",
        f"{column} > {first} AND {column} <= {second}",
        f"{column} IN ({', '.join(constants)})",
        f"{column} NOT IN ({', '.join(constants)})",
        f"{column} IN ({first}, NULL)",
        f"{column} NOT IN ({first}, NULL)",
        f"{column} IS DISTINCT FROM {first}",
        f"{column} IS NOT DISTINCT FROM {first}",
        f"{column} IS NULL",
        f"{column} IS NOT NULL",
        f"({column} < {first}) IS NULL",
        f"({column} < {first}) = false",
        f"({column} >= {first}) IS NOT TRUE",
        f"hash({column}) > 9000000000000000000",
    ]
    if kind.like:
        pattern = draw(st.text("ab%_\\ö\n", max_size=5).map(lambda v: text(v)[0]))
        forms += [
            f"{column} LIKE {pattern}",
            f"{column} NOT LIKE {pattern}",
            f"{column} LIKE {pattern} ESCAPE '\\'",
            f"{column} NOT LIKE {pattern} ESCAPE '\\'",
            f"{column} ILIKE {pattern}",
            f"starts_with({column}, {first})",
            f"{column} ^@ {first}",
            f"ends_with({column}, {first})",
            f"contains({column}, {first})",
            f"{column}::VARCHAR > {first}",
            f"length({column}) > 1",
        ]
    if pa.types.is_boolean(kind.type) or isinstance(kind.type, pa.Bool8Type):
        forms += [column, f"NOT {column}", f"{column} IS TRUE"]
    return f"({draw(st.sampled_from(forms))})"


def combined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(parts, parts)
    return (
        pair.map(lambda p: f"({p[0]} AND {p[1]})")
        | pair.map(lambda p: f"({p[0]} OR {p[1]})")
        | parts.map(lambda p: f"(NOT {p})")
        | parts.map(lambda p: f"({p} IS NULL)")
        | st.tuples(parts, parts, parts).map(lambda p: f"(CASE WHEN {p[0]} THEN {p[1]} ELSE {p[2]} END)")
    )


def bounds(kind: pa.DataType, stored: pa.Array) -> tuple[Bound | None, Bound | None]:
    """Least and greatest of a stored column without nulls, in the form of ColumnStatistics."""
    values: list[Any]
    if pa.types.is_floating(kind):
        values = stored.to_pylist()
        numbers = [value for value in values if not math.isnan(value)]
        if not numbers:
            return None, None
        return min(numbers), max(numbers) if len(numbers) == len(values) else None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = stored.to_pylist()
        return min(values)[:32], rounded_up(max(values))
    if pa.types.is_boolean(kind):
        values = stored.to_pylist()
    elif pa.types.is_decimal(kind):
        values = [int(value.scaleb(kind.scale, Context(prec=40))) for value in stored.to_pylist()]
    elif pa.types.is_integer(kind) or pa.types.is_temporal(kind):
        values = stored.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    else:
        return None, None
    return min(values), max(values)


def rounded_up(value: str) -> str | None:
    if len(value) <= 32:
        return value
    assert value[31] in "ab"
    return value[:31] + chr(ord(value[31]) + 1)


def statistics(table: pa.Table, topic: TopicSchema) -> dict[int, ColumnStatistics]:
    """What the log says of a file with these rows."""
    (batch,) = table.combine_chunks().to_batches()
    stored = topic.conform(table.schema).to_stored(batch)
    found = {}
    for field, column in zip(topic.iceberg.fields, stored.columns, strict=True):
        values = column.drop_null()
        lower, upper = bounds(values.type, values) if len(values) else (None, None)
        found[field.field_id] = ColumnStatistics(column.null_count, lower, upper)
    return found


@st.composite
def subsets(draw: st.DrawFn, known: Mapping[int, ColumnStatistics]) -> dict[int, ColumnStatistics]:
    """The same with less known."""
    forget = draw(st.sampled_from(["nothing", "lower", "upper", "columns"]))
    gone = draw(st.sets(st.sampled_from(sorted(known)))) if forget == "columns" else set()
    return {
        key: ColumnStatistics(
            value.nulls,
            None if forget == "lower" else value.lower,
            None if forget == "upper" else value.upper,
        )
        for key, value in known.items()
        if key not in gone
    }
