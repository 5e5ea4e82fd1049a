"""Types and constants as DuckDB's serializer writes them, and what they mean. Pure.

Constants of different types that mean the same are equal here, so that a condition can be translated
without the casts around it: numbers are fractions, dates and times fractions of microseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from fractions import Fraction
from typing import Final, TypeAlias, TypeGuard


class Family(Enum):
    """Kinds of values; values of one family can be compared."""

    BOOLEAN = auto()
    NUMBER = auto()
    FLOAT = auto()
    DATE = auto()
    TIMESTAMP = auto()
    TIMESTAMP_TZ = auto()
    TIME = auto()
    TEXT = auto()
    BLOB = auto()
    UUID = auto()


@dataclass(frozen=True, slots=True)
class DuckType:
    """A type of DuckDB."""

    name: str
    width: int = 0
    scale: int = 0
    """Digits, and digits after the point, of a DECIMAL."""


Natural: TypeAlias = Fraction | float | str | bytes
"""Value of a constant: booleans 0 and 1, dates and times microseconds (since the epoch, UTC; or midnight)."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of a family; the value None is SQL's NULL."""

    family: Family
    value: Natural | None


INTEGERS: Final[dict[str, tuple[int, int]]] = {
    **{
        name: (-(1 << bits - 1), (1 << bits - 1) - 1)
        for name, bits in (
            ("TINYINT", 8),
            ("SMALLINT", 16),
            ("INTEGER", 32),
            ("BIGINT", 64),
            ("HUGEINT", 128),
        )
    },
    **{
        name: (0, (1 << bits) - 1)
        for name, bits in (
            ("UTINYINT", 8),
            ("USMALLINT", 16),
            ("UINTEGER", 32),
            ("UBIGINT", 64),
            ("UHUGEINT", 128),
        )
    },
}
"""Least and greatest value of the integer types."""

MICROSECONDS: Final[dict[str, tuple[Family, Fraction]]] = {
    "DATE": (Family.DATE, Fraction(86_400_000_000)),
    "TIMESTAMP_S": (Family.TIMESTAMP, Fraction(1_000_000)),
    "TIMESTAMP_MS": (Family.TIMESTAMP, Fraction(1000)),
    "TIMESTAMP": (Family.TIMESTAMP, Fraction(1)),
    "TIMESTAMP_NS": (Family.TIMESTAMP, Fraction(1, 1000)),
    "TIMESTAMP WITH TIME ZONE": (Family.TIMESTAMP_TZ, Fraction(1)),
    "TIME": (Family.TIME, Fraction(1)),
    "TIME_NS": (Family.TIME, Fraction(1, 1000)),
}
"""Family and unit of the types of dates and times."""

FLOATS: Final = ("FLOAT", "DOUBLE")

_ESCAPED_BYTE = re.compile(rb"\\x([0-9A-F]{2})")
_BLOB_TEXT = re.compile(r"(?:[ -\[\]-~]|\\x[0-9A-F]{2})*")


def duck_type(value: object) -> DuckType | None:
    """The type that JSON `{"id", "type_info"}` describes; None if it cannot be compared here.

    Text with a collation cannot: it is not ordered by its bytes. The alias JSON of VARCHAR changes nothing.
    """
    if not isinstance(value, dict) or not isinstance(name := value.get("id"), str):
        return None
    info = value.get("type_info")
    if name == "DECIMAL":
        if not isinstance(info, dict):
            return None
        width, scale = info.get("width"), info.get("scale")
        if not (_is_integer(width) and _is_integer(scale) and 0 <= scale <= width <= 38):
            return None
        return DuckType(name, width, scale)
    if info is not None and not _means_nothing(info):
        return None
    return DuckType(name)


def constant(value: object) -> Constant | None:
    """The constant that JSON `{"type", "is_null", "value"}` describes; None if it cannot be compared here."""
    if not isinstance(value, dict) or (kind := duck_type(value.get("type"))) is None:
        return None
    family = _family(kind)
    if family is None:
        return None
    if value.get("is_null") is True:
        return Constant(family, None)
    found = _natural(kind, family, value.get("value"))
    return None if found is None else Constant(family, found)


def _family(kind: DuckType) -> Family | None:
    if kind.name in INTEGERS or kind.name == "DECIMAL":
        return Family.NUMBER
    if kind.name in MICROSECONDS:
        return MICROSECONDS[kind.name][0]
    if kind.name in FLOATS:
        return Family.FLOAT
    return _OTHERS.get(kind.name)


_OTHERS = {"BOOLEAN": Family.BOOLEAN, "VARCHAR": Family.TEXT, "BLOB": Family.BLOB, "UUID": Family.UUID}


def _natural(kind: DuckType, family: Family, raw: object) -> Natural | None:
    match family:
        case Family.BOOLEAN:
            return Fraction(raw) if isinstance(raw, bool) else None
        case Family.TEXT:
            return raw if isinstance(raw, str) and _is_text(raw) else None
        case Family.BLOB:
            return _blob(raw)
        case Family.FLOAT:
            return float(raw) if isinstance(raw, float) else None
    number = _integer(raw)
    if number is None:
        return None
    match family:
        case Family.UUID:  # DuckDB flips the first bit, so that the order of integers is that of the bytes
            return (number + (1 << 127)).to_bytes(16, "big") if -(1 << 127) <= number < 1 << 127 else None
        case Family.NUMBER:
            return Fraction(number, 10**kind.scale)
    return number * MICROSECONDS[kind.name][1]


def _integer(raw: object) -> int | None:
    """An integer, or one of 128 bits in two halves."""
    if isinstance(raw, dict):
        upper, lower = raw.get("upper"), raw.get("lower")
        if _is_integer(upper) and _is_integer(lower) and 0 <= lower < 1 << 64 and abs(upper) <= 1 << 64:
            return (upper << 64) + lower
        return None
    return raw if _is_integer(raw) and abs(raw) <= 1 << 64 else None


def _is_integer(raw: object) -> TypeGuard[int]:
    return isinstance(raw, int) and not isinstance(raw, bool)


def _is_text(raw: str) -> bool:
    """Whether a text of JSON is one that UTF-8 can say: it may have lone surrogates."""
    try:
        raw.encode()
    except UnicodeEncodeError:
        return False
    return True


def _blob(raw: object) -> bytes | None:
    if not isinstance(raw, str) or not _BLOB_TEXT.fullmatch(raw):
        return None
    return _ESCAPED_BYTE.sub(lambda found: bytes.fromhex(found[1].decode()), raw.encode())


def _means_nothing(info: object) -> bool:
    """Whether what is said beside the name of a type does not change how its values compare."""
    if not isinstance(info, dict) or info.get("extension_info") is not None or info.get("collation"):
        return False
    return info.get("type") in ("GENERIC_TYPE_INFO", "STRING_TYPE_INFO") and info.get("alias") in ("", "JSON")
