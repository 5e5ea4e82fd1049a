"""Predicates over the rows of a topic: a vectorised filter, and what file statistics say about it. Pure.

A predicate is TRUE, FALSE or NULL for a row, as in SQL; rows for which it is TRUE match. One that is
not exact may call more rows TRUE than its source does, never fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Flag, auto
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from boilstream.log.statistics import Bound, ColumnStatistics

Statistics: TypeAlias = Mapping[int, ColumnStatistics]
"""What is known of the top-level columns of one file, by Iceberg field id."""


class Outcome(Flag):
    """Which values a predicate may have for the rows of a file."""

    NOTHING = 0
    TRUE = auto()
    FALSE = auto()
    NULL = auto()
    VALUE = TRUE | FALSE
    ANYTHING = VALUE | NULL


Range: TypeAlias = Callable[[Bound | None, Bound | None], Outcome]
"""TRUE and FALSE as far as values between two bounds may give them; a bound of None is not known."""

Facts: TypeAlias = Callable[[Statistics, int], Outcome]
"""What a predicate may be for the rows of a file with these statistics and so many rows."""

NULL_BOOLEAN: Final = pa.scalar(None, pa.bool_())


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition on rows of a topic. Make it with the functions of this module."""

    expression: pc.Expression | None
    """The condition over columns of the published types, for `Table.filter`; None: all rows."""
    columns: frozenset[str]
    """Names of the columns that `expression` needs."""
    exact: bool
    """Whether `expression` keeps just the rows that the source keeps, and not more."""
    outcomes: Facts
    """What the predicate may be in a file."""

    def may_match(self, statistics: Statistics, rows: int) -> bool:
        """Whether a row of a file may match. False only if no row can.

        `rows` is the number of rows that the statistics describe. Columns that are not in the
        statistics are not known.
        """
        return rows > 0 and bool(self.outcomes(statistics, rows) & Outcome.TRUE)


def everything(*, exact: bool) -> Predicate:
    """The predicate that all rows match; not exact where it stands for one that is not understood."""
    return Predicate(None, frozenset(), exact, _always(Outcome.TRUE))


def constant(value: bool | None) -> Predicate:
    """The predicate that has this value for all rows."""
    if value is None:
        return Predicate(pc.scalar(NULL_BOOLEAN), frozenset(), True, _always(Outcome.NULL))
    return Predicate(pc.scalar(value), frozenset(), True, _always(Outcome.TRUE if value else Outcome.FALSE))


def comparison(name: str, field_id: int | None, expression: pc.Expression, possible: Range) -> Predicate:
    """A test of the values of one column, which is NULL where the column is.

    `field_id` is None if the statistics do not describe the values that are tested.
    """

    def outcomes(statistics: Statistics, rows: int) -> Outcome:
        known = None if field_id is None else statistics.get(field_id)
        if known is None:
            return Outcome.ANYTHING
        found = Outcome.NULL if known.nulls else Outcome.NOTHING
        return found if known.nulls == rows else found | possible(known.lower, known.upper)

    return Predicate(expression, frozenset({name}), True, outcomes)


def column_is_null(name: str, field_id: int | None, value: pc.Expression) -> Predicate:
    """IS NULL of a column. Arguments as for `comparison`."""

    def outcomes(statistics: Statistics, rows: int) -> Outcome:
        known = None if field_id is None else statistics.get(field_id)
        if known is None:
            return Outcome.VALUE
        found = Outcome.TRUE if known.nulls else Outcome.NOTHING
        return found if known.nulls == rows else found | Outcome.FALSE

    return Predicate(value.is_null(), frozenset({name}), True, outcomes)


def conjunction(parts: Sequence[Predicate]) -> Predicate:
    """AND of predicates. One that stands for what is not understood is left out."""
    exact = all(part.exact for part in parts)
    known = [part for part in parts if part.expression is not None]
    if not known:
        return everything(exact=exact)
    return replace(_junction(known, pc.and_kleene, Outcome.TRUE, Outcome.FALSE), exact=exact)


def disjunction(parts: Sequence[Predicate]) -> Predicate:
    """OR of predicates, at least one. If one of them is not understood, the whole is not."""
    if any(part.expression is None for part in parts):
        return everything(exact=False)
    return _junction(parts, pc.or_kleene, Outcome.FALSE, Outcome.TRUE)


def negation(part: Predicate) -> Predicate:
    """NOT of an exact predicate that has an expression."""

    def outcomes(statistics: Statistics, rows: int) -> Outcome:
        return _swapped(part.outcomes(statistics, rows))

    return Predicate(~_expression(part), part.columns, True, outcomes)


def is_true(part: Predicate) -> Predicate:
    """IS TRUE of an exact predicate that has an expression: FALSE where that is NULL."""

    def outcomes(statistics: Statistics, rows: int) -> Outcome:
        found = part.outcomes(statistics, rows)
        return found & Outcome.TRUE | (Outcome.FALSE if found & ~Outcome.TRUE else Outcome.NOTHING)

    expression = pc.coalesce(_expression(part), pc.scalar(False))
    return Predicate(expression, part.columns, True, outcomes)


def is_null(part: Predicate) -> Predicate:
    """IS NULL of an exact predicate that has an expression."""

    def outcomes(statistics: Statistics, rows: int) -> Outcome:
        found = part.outcomes(statistics, rows)
        null = Outcome.TRUE if found & Outcome.NULL else Outcome.NOTHING
        return null | (Outcome.FALSE if found & Outcome.VALUE else Outcome.NOTHING)

    return Predicate(_expression(part).is_null(), part.columns, True, outcomes)


def choice(when: Predicate, then: Predicate, otherwise: Predicate) -> Predicate:
    """CASE WHEN .. THEN .. ELSE .. END of exact predicates that have expressions."""

    def outcomes(statistics: Statistics, rows: int) -> Outcome:
        asked = when.outcomes(statistics, rows)
        found = then.outcomes(statistics, rows) if asked & Outcome.TRUE else Outcome.NOTHING
        return found | otherwise.outcomes(statistics, rows) if asked & ~Outcome.TRUE else found

    expression = pc.if_else(_expression(is_true(when)), _expression(then), _expression(otherwise))
    return Predicate(expression, when.columns | then.columns | otherwise.columns, True, outcomes)


def _junction(
    parts: Sequence[Predicate],
    function: Callable[[pc.Expression, pc.Expression], pc.Expression],
    neutral: Outcome,
    decisive: Outcome,
) -> Predicate:
    """AND, which FALSE decides, or OR, which TRUE decides."""
    if len(parts) == 1:
        return parts[0]

    def outcomes(statistics: Statistics, rows: int) -> Outcome:
        found = [part.outcomes(statistics, rows) for part in parts]
        result = Outcome.NOTHING
        if any(one & decisive for one in found):
            result |= decisive
        if all(one & neutral for one in found):
            result |= neutral
        if all(one & (neutral | Outcome.NULL) for one in found) and any(one & Outcome.NULL for one in found):
            result |= Outcome.NULL
        return result

    expressions = [_expression(part) for part in parts]
    while len(expressions) > 1:  # as a balanced tree: what evaluates it is recursive
        odd = expressions[-1:] if len(expressions) % 2 else []
        pairs = zip(expressions[::2], expressions[1::2], strict=False)
        expressions = [function(left, right) for left, right in pairs] + odd
    columns = frozenset[str]().union(*(part.columns for part in parts))
    return Predicate(expressions[0], columns, all(part.exact for part in parts), outcomes)


def _always(found: Outcome) -> Facts:
    def outcomes(_statistics: Statistics, _rows: int) -> Outcome:
        return found

    return outcomes


def _expression(part: Predicate) -> pc.Expression:
    assert part.expression is not None
    return part.expression


def _swapped(found: Outcome) -> Outcome:
    result = found & Outcome.NULL
    if found & Outcome.TRUE:
        result |= Outcome.FALSE
    if found & Outcome.FALSE:
        result |= Outcome.TRUE
    return result
