"""Predicates against a model in Python: three values, and what the bounds of a file allow."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.acero as acero
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boilstream.log.statistics import ColumnStatistics
from boilstream.query.predicates import predicate
from boilstream.query.predicates.columns import operand
from boilstream.query.predicates.duckdb_values import Constant, Family
from boilstream.query.predicates.operands import Op, Operand, Text
from boilstream.query.predicates.predicate import Outcome, Predicate

IDS = {"a": 1, "b": 2}
Row = dict[str, int | None]
OPS: dict[Op, Callable[[Any, Any], bool]] = {
    Op.EQUAL: operator.eq,
    Op.UNEQUAL: operator.ne,
    Op.LESS: operator.lt,
    Op.AT_MOST: operator.le,
    Op.GREATER: operator.gt,
    Op.AT_LEAST: operator.ge,
}


@dataclass(frozen=True)
class Case:
    """A predicate and what it must be for a row."""

    predicate: Predicate
    model: Callable[[Row], bool | None]


def values(name: str, kind: pa.DataType) -> Operand:
    found = operand(name, IDS[name], pc.field(name), kind)
    assert found is not None
    return found


def compared(name: str, op: Op, key: int) -> Case:
    found = values(name, pa.int64()).compare(op, Constant(Family.NUMBER, Fraction(key)))
    assert found is not None

    def model(row: Row) -> bool | None:
        held = row[name]
        return None if held is None else OPS[op](held, key)

    return Case(found, model)


def listed(name: str, keys: list[int]) -> Case:
    found = values(name, pa.int64()).member([Constant(Family.NUMBER, Fraction(key)) for key in keys])
    assert found is not None
    return Case(found, lambda row: None if row[name] is None else row[name] in keys)


def constant(value: bool | None) -> Case:
    return Case(predicate.constant(value), lambda _row: value)


def null(name: str) -> Case:
    return Case(predicate.column_is_null(name, IDS[name], pc.field(name)), lambda row: row[name] is None)


def both(parts: list[Case]) -> Case:
    def model(row: Row) -> bool | None:
        found = [part.model(row) for part in parts]
        return False if False in found else None if None in found else True

    return Case(predicate.conjunction([part.predicate for part in parts]), model)


def either(parts: list[Case]) -> Case:
    def model(row: Row) -> bool | None:
        found = [part.model(row) for part in parts]
        return True if True in found else None if None in found else False

    return Case(predicate.disjunction([part.predicate for part in parts]), model)


def opposite(part: Case) -> Case:
    def model(row: Row) -> bool | None:
        found = part.model(row)
        return None if found is None else not found

    return Case(predicate.negation(part.predicate), model)


def chosen(when: Case, then: Case, otherwise: Case) -> Case:
    return Case(
        predicate.choice(when.predicate, then.predicate, otherwise.predicate),
        lambda row: then.model(row) if when.model(row) else otherwise.model(row),
    )


def extended(parts: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    several = st.lists(parts, min_size=1, max_size=5)
    return (
        several.map(both)
        | several.map(either)
        | parts.map(opposite)
        | parts.map(lambda p: Case(predicate.is_true(p.predicate), lambda row: p.model(row) is True))
        | parts.map(lambda p: Case(predicate.is_null(p.predicate), lambda row: p.model(row) is None))
        | st.builds(chosen, parts, parts, parts)
    )


NAMES = st.sampled_from(["a", "b"])
KEYS = st.integers(-3, 3)
CASES = st.recursive(
    st.builds(compared, NAMES, st.sampled_from(Op), KEYS)
    | st.builds(listed, NAMES, st.lists(KEYS, max_size=4))
    | st.builds(null, NAMES)
    | st.sampled_from([True, False, None]).map(constant),
    extended,
    max_leaves=8,
)
ROWS = st.lists(st.fixed_dictionaries({"a": st.none() | KEYS, "b": st.none() | KEYS}), min_size=1, max_size=6)


def found(case: Case, rows: list[Row]) -> list[bool | None]:
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64())])
    source = acero.Declaration(
        "table_source", acero.TableSourceNodeOptions(pa.Table.from_pylist(rows, schema))
    )
    project = acero.ProjectNodeOptions([case.predicate.expression], ["found"])
    answers: list[bool | None] = (
        acero.Declaration("project", project, [source]).to_table()["found"].to_pylist()
    )
    return answers


@settings(deadline=None)
@given(case=CASES, rows=ROWS)
def test_three_values_and_what_a_file_may_hold(case: Case, rows: list[Row]) -> None:
    expected = [case.model(row) for row in rows]
    assert found(case, rows) == expected
    assert case.predicate.exact
    known = {}
    for name, field in IDS.items():
        held = [key for row in rows if (key := row[name]) is not None]
        lower, upper = (min(held), max(held)) if held else (None, None)
        known[field] = ColumnStatistics(len(rows) - len(held), lower, upper)
    possible = case.predicate.outcomes(known, len(rows))
    for answer in expected:
        assert (Outcome.NULL if answer is None else Outcome.TRUE if answer else Outcome.FALSE) in possible
    assert case.predicate.may_match(known, len(rows)) or True not in expected
    assert case.predicate.may_match({}, len(rows)) or True not in expected


@given(case=CASES)
def test_a_file_without_rows_never_matches(case: Case) -> None:
    assert not case.predicate.may_match({}, 0)


@pytest.mark.parametrize(
    ("op", "key", "match", "other"),
    [
        (Op.EQUAL, 9, False, True),
        (Op.EQUAL, 10, True, True),
        (Op.EQUAL, 20, True, True),
        (Op.EQUAL, 21, False, True),
        (Op.LESS, 10, False, True),
        (Op.LESS, 11, True, True),
        (Op.LESS, 21, True, False),
        (Op.AT_MOST, 9, False, True),
        (Op.AT_MOST, 20, True, False),
        (Op.GREATER, 20, False, True),
        (Op.GREATER, 9, True, False),
        (Op.AT_LEAST, 21, False, True),
        (Op.AT_LEAST, 10, True, False),
        (Op.UNEQUAL, 10, True, True),
        (Op.UNEQUAL, 9, True, False),
    ],
)
def test_files_are_pruned_at_their_bounds(op: Op, key: int, match: bool, other: bool) -> None:
    case = compared("a", op, key)
    known = {1: ColumnStatistics(0, 10, 20)}
    assert case.predicate.may_match(known, 5) is match
    assert opposite(case).predicate.may_match(known, 5) is other


def test_a_file_of_one_value_and_one_of_nulls() -> None:
    one, none = {1: ColumnStatistics(0, 5, 5)}, {1: ColumnStatistics(3, None, None)}
    assert not compared("a", Op.UNEQUAL, 5).predicate.may_match(one, 3)
    assert not opposite(listed("a", [4, 5])).predicate.may_match(one, 3)
    assert not compared("a", Op.UNEQUAL, 5).predicate.may_match(none, 3)
    assert not null("a").predicate.may_match(one, 3)
    assert null("a").predicate.may_match(none, 3)
    assert not opposite(null("a")).predicate.may_match(none, 3)


@pytest.mark.parametrize(
    ("lower", "upper", "match", "other"),
    [
        ("aa", "ab", False, True),
        ("aa", "abc", True, True),
        ("abc", "abd", True, True),
        ("abca", "abcz", True, False),
        ("abd", "zz", False, True),
        ("ac", "zz", False, True),
        (None, "abb", False, True),
        ("abc", None, True, True),
        (None, None, True, True),
        ("ab", "abc", True, True),
    ],
)
def test_prefixes_prune(lower: str | None, upper: str | None, match: bool, other: bool) -> None:
    text = values("a", pa.string())
    assert isinstance(text, Text)
    known = {1: ColumnStatistics(0, lower, upper)}
    starts = text.match("prefix", "abc")
    assert starts.may_match(known, 5) is match
    assert predicate.negation(starts).may_match(known, 5) is other
    like = text.like("abc_%", None)
    assert like is not None
    assert like.may_match(known, 5) is match
    assert predicate.negation(like).may_match(known, 5)


@pytest.mark.parametrize(
    ("kind", "lower", "upper"),
    [
        (pa.int64(), "a", "b"),
        (pa.int64(), 0.5, 0.6),
        (pa.float64(), "a", "b"),
        (pa.float64(), float("nan"), float("nan")),
        (pa.string(), 1, 2),
        (pa.binary(), "x", "y"),
    ],
)
def test_bounds_of_another_kind_are_not_used(kind: pa.DataType, lower: Any, upper: Any) -> None:
    tested = values("a", kind)
    wanted: dict[Family, Any] = {
        Family.NUMBER: Fraction(7),
        Family.FLOAT: 7.0,
        Family.TEXT: "c",
        Family.BLOB: b"c",
    }
    equal = tested.compare(Op.EQUAL, Constant(tested.family, wanted[tested.family]))
    assert equal is not None
    assert equal.may_match({1: ColumnStatistics(0, lower, upper)}, 5)


@pytest.mark.parametrize("pattern", ["a" * 1001, "a\0b"])
def test_patterns_that_are_not_translated(pattern: str) -> None:
    text = values("a", pa.string())
    assert isinstance(text, Text)
    assert text.like(pattern, None) is None


@pytest.mark.parametrize("escape", ["%", "_", "ö", "\0", "!!"])
def test_escape_characters_that_are_not_translated(escape: str) -> None:
    text = values("a", pa.string())
    assert isinstance(text, Text)
    assert text.like("ab", escape) is None
    assert text.like("ab!", "!") is None


def test_what_is_not_understood_is_never_left_out_of_an_or() -> None:
    unknown, known = predicate.everything(exact=False), compared("a", Op.EQUAL, 5).predicate
    assert predicate.disjunction([known, unknown]).expression is None
    kept = predicate.conjunction([known, unknown])
    assert kept.expression is not None
    assert not kept.exact
    assert not kept.may_match({1: ColumnStatistics(0, 10, 20)}, 5)


@pytest.mark.parametrize(
    ("pattern", "escape", "matching"),
    [
        ("a_b", None, ["a\nb", "aöb", "a%b"]),
        ("a%b", None, ["ab", "a\nb", "aöb", "a%b", "a.*b"]),
        ("a!%b", "!", ["a%b"]),
        ("a.*b", None, ["a.*b"]),
        ("", None, [""]),
    ],
)
def test_like_is_about_characters(pattern: str, escape: str | None, matching: list[str]) -> None:
    text = values("a", pa.string())
    assert isinstance(text, Text)
    found = text.like(pattern, escape)
    assert found is not None
    table = pa.table({"a": ["", "ab", "a\nb", "aöb", "a%b", "a.*b", "ab\n", None]})
    assert table.filter(found.expression)["a"].to_pylist() == matching
