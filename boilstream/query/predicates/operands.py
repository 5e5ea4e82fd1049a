"""What DuckDB's conditions compare: values of columns, with the order that they have in DuckDB. Pure.

Each kind of value turns a comparison with a constant into a predicate that is exact, in the filter and
for the bounds of a file, or into None where it cannot. Integers, dates and the like are in
`boilstream.query.predicates.steps`.
"""

from __future__ import annotations

import math
import operator
import re
import struct
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from boilstream.log.statistics import Bound
from boilstream.query.predicates import predicate
from boilstream.query.predicates.duckdb_values import Constant, DuckType, Family
from boilstream.query.predicates.predicate import NULL_BOOLEAN, Outcome, Predicate, Range

MAX_PATTERN: Final = 1000
"""Longest LIKE pattern that is translated, in characters."""


class Op(Enum):
    """Comparisons, by their names in DuckDB."""

    EQUAL = "COMPARE_EQUAL"
    UNEQUAL = "COMPARE_NOTEQUAL"
    LESS = "COMPARE_LESSTHAN"
    AT_MOST = "COMPARE_LESSTHANOREQUALTO"
    GREATER = "COMPARE_GREATERTHAN"
    AT_LEAST = "COMPARE_GREATERTHANOREQUALTO"

    @property
    def flipped(self) -> Op:
        """The comparison with its sides exchanged."""
        return _FLIPPED.get(self, self)

    def __call__(self, left: Any, right: Any) -> Any:
        """Compare keys or make an expression."""
        return _FUNCTIONS[self](left, right)


_FLIPPED: Final = {
    Op.LESS: Op.GREATER,
    Op.AT_MOST: Op.AT_LEAST,
    Op.GREATER: Op.LESS,
    Op.AT_LEAST: Op.AT_MOST,
}

_FUNCTIONS: Final[dict[Op, Callable[[Any, Any], Any]]] = {
    Op.EQUAL: operator.eq,
    Op.UNEQUAL: operator.ne,
    Op.LESS: operator.lt,
    Op.AT_MOST: operator.le,
    Op.GREATER: operator.gt,
    Op.AT_LEAST: operator.ge,
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where values come from."""

    name: str
    """Of the top-level column."""
    field_id: int | None
    """Iceberg id of the column; None for a part of it, which statistics do not describe."""
    value: pc.Expression
    type: pa.DataType
    """Of `value`: a type without extension or view."""

    def test(self, expression: pc.Expression, possible: Range) -> Predicate:
        """A predicate that is NULL where the value is."""
        return predicate.comparison(self.name, self.field_id, expression, possible)

    def always(self, result: bool) -> Predicate:
        """The predicate with this result for all values."""
        found = outcome(result, not result)
        return self.test(pc.if_else(self.value.is_valid(), result, NULL_BOOLEAN), lambda _low, _high: found)


@dataclass(frozen=True)
class Operand(ABC):
    """Values of a column, or of a lossless cast of it.

    A *key* stands for a value; keys are ordered as DuckDB orders the values.
    """

    source: Source
    kind: DuckType
    """As DuckDB sees the values."""
    family: Family

    def compare(self, op: Op, value: Constant) -> Predicate | None:
        """The comparison with a constant that is not NULL; None if it is not understood."""
        return self._compare(op, value) if value.family is self.family else None

    def member(self, values: Sequence[Constant]) -> Predicate | None:
        """Whether a value equals one of some constants, none of them NULL; None if it is not understood."""
        keys: set[Any] = set()
        for value in values:
            found = self._equal(value) if value.family is self.family else None
            if found is None:
                return None
            keys.update(found)
        members = sorted(keys)
        inside = self.source.value.isin(self._array(members))
        # isin() is false for a null
        expression = pc.if_else(self.source.value.is_valid(), inside, NULL_BOOLEAN)
        return self.source.test(expression, self._any_of(members))

    def cast(self, target: DuckType) -> Operand | None:
        """The values cast to another type, if each keeps its meaning and its place in the order; else None."""
        return self if target == self.kind else None

    @abstractmethod
    def _compare(self, op: Op, value: Constant) -> Predicate | None:
        """As `compare`, with a constant of the same family."""

    @abstractmethod
    def _equal(self, value: Constant) -> Sequence[Any] | None:
        """Keys of all values that equal a constant of the same family; None if they are not known."""

    @abstractmethod
    def _array(self, keys: list[Any]) -> pa.Array:
        """The values for keys, and what else isin() needs to find them."""

    @abstractmethod
    def _key(self, bound: Bound) -> Any:
        """The key of a file's bound, None if it is none of this kind of values."""

    def _range(self, op: Op, key: Any) -> Range:
        """What a comparison with a key gives for values between two bounds."""

        def possible(lower: Bound | None, upper: Bound | None) -> Outcome:
            low, high = self._bounds(lower, upper)
            if op in (Op.EQUAL, Op.UNEQUAL):
                same = (low is None or low <= key) and (high is None or key <= high)
                other = low is None or high is None or not low == key == high
                return outcome(same, other) if op is Op.EQUAL else outcome(other, same)
            if op in (Op.GREATER, Op.AT_LEAST):
                low, high = high, low
            return outcome(low is None or op(low, key), high is None or not op(high, key))

        return possible

    def _any_of(self, keys: list[Any]) -> Range:
        """What membership in sorted keys gives for values between two bounds."""

        def possible(lower: Bound | None, upper: Bound | None) -> Outcome:
            low, high = self._bounds(lower, upper)
            first = 0 if low is None else bisect_left(keys, low)
            found = first < len(keys) and (high is None or keys[first] <= high)
            return outcome(found, not (found and low is not None and low == high))

        return possible

    def _bounds(self, lower: Bound | None, upper: Bound | None) -> tuple[Any, Any]:
        return None if lower is None else self._key(lower), None if upper is None else self._key(upper)


def outcome(true: bool, false: bool) -> Outcome:
    """TRUE and FALSE as far as they are possible."""
    return (Outcome.TRUE if true else Outcome.NOTHING) | (Outcome.FALSE if false else Outcome.NOTHING)


@dataclass(frozen=True)
class Floats(Operand):
    """Floating point numbers. A key is (is NaN, number): DuckDB's NaN equals itself and is the greatest."""

    def cast(self, target: DuckType) -> Operand | None:
        """As in Operand: a float becomes a double."""
        if target == self.kind or target != DuckType("DOUBLE"):
            return super().cast(target)
        wide = replace(self.source, value=self.source.value.cast(pa.float64()), type=pa.float64())
        return replace(self, source=wide, kind=target)

    def _compare(self, op: Op, value: Constant) -> Predicate | None:
        keys = self._equal(value)
        return (
            None
            if keys is None
            else self.source.test(self._expression(op, *keys[0]), self._range(op, keys[0]))
        )

    def _expression(self, op: Op, is_nan: bool, number: float) -> pc.Expression:
        value, nan = self.source.value, pc.is_nan(self.source.value)
        if not is_nan:
            found = op(value, pa.scalar(number, self.source.type))
            return found | nan if op in (Op.GREATER, Op.AT_LEAST) else found
        match op:
            case Op.EQUAL | Op.AT_LEAST:
                return nan
            case Op.UNEQUAL | Op.LESS:
                return ~nan
        return pc.if_else(value.is_valid(), op is Op.AT_MOST, NULL_BOOLEAN)

    def _equal(self, value: Constant) -> Sequence[tuple[bool, float]] | None:
        number = value.value
        if not isinstance(number, float):
            return None
        if pa.types.is_float32(self.source.type) and math.isfinite(number) and not _is_single(number):
            return None
        return [_float_key(number)]

    def _array(self, keys: list[tuple[bool, float]]) -> pa.Array:
        numbers = [math.nan if is_nan else number for is_nan, number in keys]
        return pa.array([*numbers, -0.0] if 0.0 in numbers else numbers, self.source.type)

    def _key(self, bound: Bound) -> tuple[bool, float] | None:
        return _float_key(bound) if isinstance(bound, float) and not math.isnan(bound) else None


def _float_key(number: float) -> tuple[bool, float]:
    return (True, 0.0) if math.isnan(number) else (False, number + 0.0)  # -0.0 becomes 0.0


def _is_single(number: float) -> bool:
    """Whether a double is a value of single precision."""
    try:
        return bool(struct.unpack("f", struct.pack("f", number))[0] == number)
    except OverflowError:
        return False


@dataclass(frozen=True)
class Bytes(Operand):
    """Binary values, with their bytes as keys."""

    ordered: bool = True
    """Whether DuckDB orders the values by these bytes."""

    def _compare(self, op: Op, value: Constant) -> Predicate | None:
        keys = self._equal(value) if self.ordered or op in (Op.EQUAL, Op.UNEQUAL) else None
        if keys is None:
            return None
        if not keys:
            return self.source.always(op is Op.UNEQUAL)
        return self.source.test(
            op(self.source.value, pa.scalar(keys[0], self.source.type)), self._range(op, keys[0])
        )

    def _equal(self, value: Constant) -> Sequence[bytes] | None:
        if isinstance(value.value, Fraction):  # HUGEINT and UHUGEINT, little endian
            if value.value.denominator != 1:
                return []
            signed = self.kind.name == "HUGEINT"
            try:
                return [int(value.value).to_bytes(16, "little", signed=signed)]
            except OverflowError:
                return []
        return [value.value] if isinstance(value.value, bytes) else None

    def _array(self, keys: list[bytes]) -> pa.Array:
        return pa.array(keys, self.source.type)

    def _key(self, _bound: Bound) -> None:
        return None  # statistics have no bounds of binary values


@dataclass(frozen=True)
class Text(Operand):
    """Text, ordered by its UTF-8 bytes, which is the order of code points."""

    def match(self, how: Literal["prefix", "suffix", "contains"], wanted: str) -> Predicate:
        """Whether text starts with, ends with or contains `wanted`."""
        if how == "prefix":
            return self.source.test(pc.starts_with(self.source.value, wanted), self._prefix(wanted))
        function = pc.ends_with if how == "suffix" else pc.match_substring
        return self.source.test(function(self.source.value, wanted), lambda _low, _high: Outcome.VALUE)

    def like(self, pattern: str, escape: str | None) -> Predicate | None:
        """LIKE; None if the pattern is too long, or one that DuckDB refuses."""
        if len(pattern) > MAX_PATTERN:
            return None
        translated = _regex(pattern, escape)
        if translated is None:
            return None
        regex, prefix = translated
        try:
            pc.match_substring_regex(pa.scalar(""), regex)
        except pa.ArrowInvalid:  # too much for RE2
            return None
        starts = self._prefix(prefix)

        def possible(lower: Bound | None, upper: Bound | None) -> Outcome:
            return starts(lower, upper) & Outcome.TRUE | Outcome.FALSE

        return self.source.test(pc.match_substring_regex(self.source.value, regex), possible)

    def _prefix(self, prefix: str) -> Range:
        def possible(lower: Bound | None, upper: Bound | None) -> Outcome:
            low, high = self._bounds(lower, upper)
            before = high is not None and high < prefix
            after = low is not None and low > prefix and not low.startswith(prefix)
            both = low is not None and high is not None and low.startswith(prefix) and high.startswith(prefix)
            return outcome(not before and not after, not both)

        return possible

    def _compare(self, op: Op, value: Constant) -> Predicate | None:
        if not isinstance(value.value, str):
            return None
        literal = pa.scalar(value.value, self.source.type)
        return self.source.test(op(self.source.value, literal), self._range(op, value.value))

    def _equal(self, value: Constant) -> Sequence[str] | None:
        return [value.value] if isinstance(value.value, str) else None

    def _array(self, keys: list[str]) -> pa.Array:
        return pa.array(keys, self.source.type)

    def _key(self, bound: Bound) -> str | None:
        return bound if isinstance(bound, str) else None


def _regex(pattern: str, escape: str | None) -> tuple[str, str] | None:
    """A LIKE pattern as a regular expression of RE2, and the text that all matches begin with.

    None for patterns that DuckDB treats in ways of its own: a zero byte, which it takes for the escape
    character, `%` or `_` as escape character, and one that ends with the escape character.
    """
    if "\0" in pattern or (escape is not None and (escape in "%_\0" or len(escape.encode()) > 1)):
        return None
    parts, prefix, fixed = [], [], True
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            literal = next(characters, None)
            if literal is None:
                return None
            parts.append(re.escape(literal))
        elif character in "%_":
            parts.append(".*" if character == "%" else ".")
            fixed = False
            continue
        else:
            literal = character
            parts.append(re.escape(character))
        if fixed:
            prefix.append(literal)
    return rf"\A(?s:{''.join(parts)})\z", "".join(prefix)
