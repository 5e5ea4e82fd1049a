"""Values in equal steps: booleans, integers, decimals, dates and times. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final

import pyarrow as pa

from boilstream.log.statistics import Bound
from boilstream.query.predicates import predicate
from boilstream.query.predicates.duckdb_values import (
    FLOATS,
    INTEGERS,
    MICROSECONDS,
    Constant,
    DuckType,
    Family,
)
from boilstream.query.predicates.operands import Op, Operand
from boilstream.query.predicates.predicate import Predicate

_MAX_TRUNCATED: Final = 32
"""Most members of an IN list each of which equals many values of a column."""

_INFINITY: Final = (1 << 63) - 1
"""DuckDB's infinite timestamp; the negative one has the opposite sign."""


@dataclass(frozen=True)
class Steps(Operand):
    """Values in equal steps, with their raw integers as keys."""

    unit: Fraction
    """What a raw 1 means, as constants have it."""
    stored: Fraction
    """The raw value for a bound of 1."""
    least: int
    greatest: int
    """Least and greatest raw value that the type allows."""
    truncated: int = 1
    """So many steps are one for DuckDB, which divides and rounds to zero."""
    finite: bool = False
    """Whether infinity has another raw value in the column than in constants."""

    def cast(self, target: DuckType) -> Operand | None:
        """As in Operand: wider integers and decimals, floats that hold all values, finer timestamps."""
        name = target.name
        if target == self.kind:
            return self
        if name in INTEGERS or name == "DECIMAL":
            return replace(self, kind=target) if self.family is Family.NUMBER and self._fits(target) else None
        if name in FLOATS:
            number = self.family is Family.NUMBER or self.kind.name == "FLOAT"
            exact = self._span <= 1 << (53 if name == "DOUBLE" else 24)
            if not (number and self.unit == 1 and exact):
                return None
            return replace(self, kind=target, family=Family.FLOAT)
        if name in MICROSECONDS and self.kind.name in MICROSECONDS:
            family, unit = MICROSECONDS[name]
            finer = family is self.family is Family.TIMESTAMP and unit < MICROSECONDS[self.kind.name][1]
            if finer or (self.kind.name == "DATE" and name == "TIMESTAMP"):
                return replace(self, kind=target, family=family, finite=True)
        return None

    @property
    def _span(self) -> Fraction:
        return max(-self.least, self.greatest) * self.unit

    def _fits(self, target: DuckType) -> bool:
        """Whether each value is one of an integer or decimal type."""
        if target.name == "DECIMAL":
            whole = (self.unit * 10**target.scale).denominator == 1
            return bool(whole and self._span < 10 ** (target.width - target.scale))
        least, greatest = INTEGERS[target.name]
        return self.unit == 1 and least <= self.least and self.greatest <= greatest

    def member(self, values: Sequence[Constant]) -> Predicate | None:
        """As in Operand."""
        return super().member(values) if self.truncated == 1 or len(values) <= _MAX_TRUNCATED else None

    def _compare(self, op: Op, value: Constant) -> Predicate | None:
        steps = self._steps(value)
        if steps is None:
            return None
        first, end = steps
        match op:
            case Op.LESS | Op.AT_LEAST:
                return self._split(op, first)
            case Op.AT_MOST:
                return self._split(Op.LESS, end)
            case Op.GREATER:
                return self._split(Op.AT_LEAST, end)
        if first == end:
            return self.source.always(op is Op.UNEQUAL)
        if end - first == 1:
            return self.source.test(op(self.source.value, self._literal(first)), self._range(op, first))
        inside = predicate.conjunction([self._split(Op.AT_LEAST, first), self._split(Op.LESS, end)])
        return inside if op is Op.EQUAL else predicate.negation(inside)

    def _split(self, op: Op, key: int) -> Predicate:
        """LESS or AT_LEAST than a key."""
        if not self.least < key <= self.greatest:
            return self.source.always((op is Op.LESS) == (key > self.greatest))
        return self.source.test(op(self.source.value, self._literal(key)), self._range(op, key))

    def _steps(self, value: Constant) -> tuple[int, int] | None:
        """The first raw value that equals a constant, and the one after the last.

        If none does, both are the first that is greater. None if that is not known.
        """
        wanted = value.value
        if isinstance(wanted, float):
            if not math.isfinite(wanted):
                place = self.least if wanted == -math.inf else self.greatest + 1
                return place, place
            wanted = Fraction(wanted)
        if not isinstance(wanted, Fraction):
            return None
        if self.finite and abs(wanted / MICROSECONDS[self.kind.name][1]) >= _INFINITY:
            return None
        count = wanted / (self.unit * self.truncated)
        first, end = (self._first(whole) for whole in (math.ceil(count), math.floor(count) + 1))
        return first, end

    def _first(self, count: int) -> int:
        """The first raw value which is at least `count` for DuckDB, or the one after the greatest."""
        raw = count * self.truncated - (0 if count > 0 else self.truncated - 1)
        return min(max(raw, self.least), self.greatest + 1)

    def _equal(self, value: Constant) -> Sequence[int] | None:
        steps = self._steps(value)
        return None if steps is None else range(*steps)

    def _key(self, bound: Bound) -> Fraction | None:
        if not isinstance(bound, int):
            return None
        if abs(bound) >= _INFINITY and self.kind.name in MICROSECONDS:
            return Fraction(bound)  # infinity is stored as it is, whatever the unit
        return bound * self.stored

    def _literal(self, key: int) -> pa.Scalar:
        return self._array([key])[0]

    def _array(self, keys: list[int]) -> pa.Array:
        kind = self.source.type
        if pa.types.is_boolean(kind):
            return pa.array([bool(key) for key in keys], kind)
        if pa.types.is_decimal(kind):
            digits = Context(prec=kind.precision)
            return pa.array([Decimal(key).scaleb(-kind.scale, digits) for key in keys], kind)
        if pa.types.is_integer(kind):
            return pa.array(keys, kind)
        return pa.array(keys, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)
