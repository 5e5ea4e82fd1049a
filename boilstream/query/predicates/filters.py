"""The filters that DuckDB's Airport client sends with a scan, as predicates. Pure.

The client serialises DuckDB's bound expressions to JSON and applies them again to what it receives, so
they are hints: what is not understood here counts as true. The form is described by DuckDB's
`serialize_expression.cpp`; the client is whoever holds a token, so nothing in the text is trusted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from boilstream.catalog.types import TopicSchema
from boilstream.errors import InvalidArgument
from boilstream.query.predicates import predicate
from boilstream.query.predicates.columns import operand
from boilstream.query.predicates.duckdb_values import Constant, Family, constant, duck_type
from boilstream.query.predicates.operands import Op, Operand, Text
from boilstream.query.predicates.predicate import Predicate

MAX_CHARACTERS: Final = 8 * 1024 * 1024
"""Longest text that is read; a longer one filters nothing. 10,000 constants take about 2.5 million."""

MAX_DEPTH: Final = 64
"""Deepest nesting of expressions that is translated."""

MAX_NODES: Final = 1000
"""Most expressions that are translated, not counting constants in lists."""

_log = logging.getLogger("boilstream.query.predicates.filters")

_UNKNOWN: Final = predicate.everything(exact=False)


def parse(json_filters: str, schema: TopicSchema) -> Predicate:
    """The predicate that a `json_filters` text of the Airport protocol means.

    `schema` is the published form of the topic's schema: its declared types are those that DuckDB sees.
    Parts that are not understood count as true, and the predicate is then not exact; so does a text
    longer than MAX_CHARACTERS or nested too deep to be read. Raises InvalidArgument if the text is no
    JSON, or not an object with `filters` and `column_binding_names_by_index`.
    """
    if not json_filters:
        return predicate.everything(exact=True)
    if len(json_filters) > MAX_CHARACTERS:
        _log.debug("a filter of %d characters is not used", len(json_filters))
        return _UNKNOWN
    try:
        document = json.loads(json_filters)
    except RecursionError:
        _log.debug("a filter that is nested too deep is not used")
        return _UNKNOWN
    except ValueError:
        raise InvalidArgument("json_filters is not JSON; send what DuckDB's serializer writes") from None
    filters, names = _members(document, "filters", "column_binding_names_by_index")
    if not isinstance(filters, list) or not isinstance(names, list):
        raise InvalidArgument(
            "json_filters is not an object with the lists filters and column_binding_names_by_index"
        )
    translator = _Translator(names, schema)
    return predicate.conjunction([translator.predicate(part) for part in filters])


def _members(value: object, *names: str) -> list[Any]:
    """Members of a JSON object; None for each that is not there."""
    return [value.get(name) for name in names] if isinstance(value, dict) else [None] * len(names)


@dataclass(frozen=True, slots=True)
class _Place:
    """A column, or a part of a struct."""

    name: str
    field_id: int | None
    path: tuple[str, ...]
    type: pa.DataType

    @property
    def value(self) -> pc.Expression:
        return pc.field(*self.path)


class _Translator:
    """Translates the expressions of one filter."""

    def __init__(self, names: list[Any], schema: TopicSchema) -> None:
        self._names = names
        self._places = {
            field.name: _Place(field.name, kept.field_id, (field.name,), field.type)
            for field, kept in zip(schema.declared, schema.iceberg.fields, strict=True)
        }
        self._nodes = 0

    def predicate(self, node: object, depth: int = 1) -> Predicate:
        """The predicate that an expression means."""
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            return _UNKNOWN
        kind, children = _members(node, "expression_class", "children")
        translate = _CLASSES.get(kind) if isinstance(kind, str) else None
        if translate is None or (kind in _WITH_CHILDREN and not isinstance(children, list)):
            return _UNKNOWN
        return translate(self, node, depth + 1)

    def _conjunction(self, node: Any, depth: int) -> Predicate:
        parts = [self.predicate(child, depth) for child in node["children"]]
        match node.get("type") if parts else None:
            case "CONJUNCTION_AND":
                return predicate.conjunction(parts)
            case "CONJUNCTION_OR":
                return predicate.disjunction(parts)
        return _UNKNOWN

    def _comparison(self, node: Any, depth: int) -> Predicate:
        kind, left, right = _members(node, "type", "left", "right")
        flip = _constant(left) is not None
        if flip:
            left, right = right, left
        value = _constant(right)
        if value is None:
            return _UNKNOWN
        if kind in _DISTINCT:
            same = self._same(left, value, depth)
            return _negated(same) if kind == "COMPARE_DISTINCT_FROM" else same
        try:
            op = Op(kind)
        except ValueError:
            return _UNKNOWN
        return self._compared(left, op.flipped if flip else op, value, depth)

    def _compared(self, node: object, op: Op, value: Constant, depth: int) -> Predicate:
        if value.value is None:
            return predicate.constant(None)
        found = self._operand(node, depth)
        if found is not None:
            return found.compare(op, value) or _UNKNOWN
        if value.family is not Family.BOOLEAN or op not in (Op.EQUAL, Op.UNEQUAL):
            return _UNKNOWN
        condition = self.predicate(node, depth)
        wanted = bool(value.value) == (op is Op.EQUAL)
        return condition if wanted else _negated(condition)

    def _same(self, node: object, value: Constant, depth: int) -> Predicate:
        """IS NOT DISTINCT FROM a constant."""
        if value.value is None:
            return self._null(node, depth)
        equal = self._compared(node, Op.EQUAL, value, depth)
        return predicate.is_true(equal) if equal.exact else _UNKNOWN

    def _null(self, node: object, depth: int) -> Predicate:
        """IS NULL."""
        place = self._place(node, depth)
        if place is not None:
            if pa.types.is_union(place.type):  # whose nulls are those of its members
                return _UNKNOWN
            return predicate.column_is_null(place.name, place.field_id, place.value)
        found = self._operand(node, depth)
        if found is not None:
            return predicate.column_is_null(found.source.name, found.source.field_id, found.source.value)
        condition = self.predicate(node, depth)
        return predicate.is_null(condition) if condition.exact else _UNKNOWN

    def _between(self, node: Any, depth: int) -> Predicate:
        tested, lower, upper = _members(node, "input", "lower", "upper")
        parts = []
        for bound, inclusive, ops in (
            (lower, node.get("lower_inclusive"), (Op.GREATER, Op.AT_LEAST)),
            (upper, node.get("upper_inclusive"), (Op.LESS, Op.AT_MOST)),
        ):
            value = _constant(bound)
            if value is None or not isinstance(inclusive, bool):
                parts.append(_UNKNOWN)
            else:
                parts.append(self._compared(tested, ops[inclusive], value, depth))
        return predicate.conjunction(parts)

    def _operator(self, node: Any, depth: int) -> Predicate:
        children = node["children"]
        match node.get("type"), len(children):
            case "OPERATOR_NOT", 1:
                return _negated(self.predicate(children[0], depth))
            case "OPERATOR_IS_NULL", 1:
                return self._null(children[0], depth)
            case "OPERATOR_IS_NOT_NULL", 1:
                return _negated(self._null(children[0], depth))
            case "COMPARE_IN", count if count > 1:
                return self._member(children, depth)
            case "COMPARE_NOT_IN", count if count > 1:
                return _negated(self._member(children, depth))
        return _UNKNOWN

    def _member(self, children: list[Any], depth: int) -> Predicate:
        found = self._operand(children[0], depth)
        if found is None:
            return _UNKNOWN
        values = []
        for child in children[1:]:
            value = _constant(child)
            if value is None:
                return _UNKNOWN
            values.append(value)
        known = [value for value in values if value.value is not None]
        inside = found.member(known)
        if inside is None or len(known) == len(values):
            return inside or _UNKNOWN
        return predicate.disjunction([inside, predicate.constant(None)])

    def _function(self, node: Any, depth: int) -> Predicate:
        name, children = _members(node, "name", "children")
        if name in _EXTRACT:
            return self._flag(node, depth)
        text = self._operand(children[0], depth) if len(children) > 1 else None
        wanted = [_constant(child) for child in children[1:]]
        arguments = [value.value for value in wanted if value is not None and isinstance(value.value, str)]
        if not isinstance(text, Text) or len(arguments) != len(wanted):
            return _UNKNOWN
        match name, arguments:
            case "prefix" | "starts_with" | "^@", [prefix]:
                return text.match("prefix", prefix)
            case "suffix" | "ends_with", [suffix]:
                return text.match("suffix", suffix)
            case "contains", [part]:
                return text.match("contains", part)
            case "~~", [pattern]:
                return text.like(pattern, None) or _UNKNOWN
            case "!~~", [pattern]:
                return _negated(text.like(pattern, None) or _UNKNOWN)
            case "like_escape", [pattern, escape]:
                return text.like(pattern, escape or None) or _UNKNOWN
            case "not_like_escape", [pattern, escape]:
                return _negated(text.like(pattern, escape or None) or _UNKNOWN)
        return _UNKNOWN

    def _case(self, node: Any, depth: int) -> Predicate:
        checks, otherwise = _members(node, "case_checks", "else_expr")
        if not isinstance(checks, list) or depth + len(checks) > MAX_DEPTH:
            return _UNKNOWN
        depth += len(checks)  # each check is nested in the one before
        found = self.predicate(otherwise, depth)
        for check in reversed(checks):
            when, then = (self.predicate(part, depth) for part in _members(check, "when_expr", "then_expr"))
            if not (when.exact and then.exact and found.exact):
                return _UNKNOWN
            found = predicate.choice(when, then, found)
        return found

    def _flag(self, node: object, depth: int) -> Predicate:
        """A boolean column, or part of one, as a condition."""
        found = self._operand(node, depth)
        if found is None or found.family is not Family.BOOLEAN:
            return _UNKNOWN
        return found.compare(Op.EQUAL, _TRUE) or _UNKNOWN

    def _literal(self, node: Any, _depth: int) -> Predicate:
        value = _constant(node)
        if value is None or value.family is not Family.BOOLEAN:
            return _UNKNOWN
        return predicate.constant(None if value.value is None else bool(value.value))

    def _operand(self, node: object, depth: int) -> Operand | None:
        """The values that an expression compares; None if it is none of the kinds known here."""
        kind, child, return_type = _members(node, "expression_class", "child", "return_type")
        if depth > MAX_DEPTH:
            return None
        if kind == "BOUND_CAST":
            found, target = self._operand(child, depth + 1), duck_type(return_type)
            return found.cast(target) if found is not None and target is not None else None
        place = self._place(node, depth)
        if place is None:
            return None
        found = operand(place.name, place.field_id, place.value, place.type)
        if kind == "BOUND_COLUMN_REF" and (found is None or found.kind != duck_type(return_type)):
            return None  # the client believes in another type
        return found

    def _place(self, node: object, depth: int) -> _Place | None:
        kind, name, children = _members(node, "expression_class", "name", "children")
        if kind == "BOUND_COLUMN_REF":
            return self._column(node)
        if kind != "BOUND_FUNCTION" or name not in _EXTRACT or depth > MAX_DEPTH:
            return None
        if not isinstance(children, list) or len(children) != 2:
            return None
        parent, key = self._place(children[0], depth + 1), _constant(children[1])
        if (
            parent is None
            or not pa.types.is_struct(parent.type)
            or key is None
            or not isinstance(key.value, str)
        ):
            return None
        index = parent.type.get_field_index(key.value)
        if index < 0:
            return None
        return _Place(parent.name, None, (*parent.path, key.value), parent.type.field(index).type)

    def _column(self, node: object) -> _Place | None:
        binding, level = _members(node, "binding", "depth")
        (index,) = _members(binding, "column_index")
        if level not in (0, None) or type(index) is not int or not 0 <= index < len(self._names):
            return None
        name = self._names[index]
        return self._places.get(name) if isinstance(name, str) and name != _ROW_ID else None


def _constant(node: object) -> Constant | None:
    kind, value = _members(node, "expression_class", "value")
    return constant(value) if kind == "BOUND_CONSTANT" else None


def _negated(part: Predicate) -> Predicate:
    return predicate.negation(part) if part.exact else _UNKNOWN


_TRUE: Final = Constant(Family.BOOLEAN, Fraction(1))

_ROW_ID: Final = "rowid"
"""How the client names the pseudo column."""

_DISTINCT: Final = ("COMPARE_DISTINCT_FROM", "COMPARE_NOT_DISTINCT_FROM")

_EXTRACT: Final = ("struct_extract", "array_extract")

_WITH_CHILDREN: Final = ("BOUND_CONJUNCTION", "BOUND_OPERATOR", "BOUND_FUNCTION")

_CLASSES: Final[dict[str, Callable[[_Translator, Any, int], Predicate]]] = {
    "BOUND_BETWEEN": _Translator._between,
    "BOUND_CASE": _Translator._case,
    "BOUND_CAST": _Translator._flag,
    "BOUND_COLUMN_REF": _Translator._flag,
    "BOUND_COMPARISON": _Translator._comparison,
    "BOUND_CONJUNCTION": _Translator._conjunction,
    "BOUND_CONSTANT": _Translator._literal,
    "BOUND_FUNCTION": _Translator._function,
    "BOUND_OPERATOR": _Translator._operator,
}
