"""Reads the SQL text of a CHECK or DEFAULT and lets only a plain scalar expression pass.

DuckDB parses the text; its syntax tree is compared with lists of what is allowed, node by node, and
what the server runs is written anew from the checked tree. So nothing that hides in the text (comments,
more statements, unbalanced parentheses) is ever run, and a form of a later DuckDB that the lists do not know
is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from boilstream.catalog.sql.functions import ALLOWED, CLOCK, CLOCK_NAMES, LAMBDAS, PER_ROW
from boilstream.catalog.sql.sandbox import EvaluationFailed, Sandbox, one_line

MAX_TEXT_BYTES: Final = 4096
"""Longest text in UTF-8."""

MAX_DEPTH: Final = 100
"""Deepest nesting of expressions."""

_COMMON = frozenset(["class", "type", "alias", "query_location"])
_SINGLE_COMPARISONS = [
    "COMPARE_EQUAL",
    "COMPARE_NOTEQUAL",
    "COMPARE_LESSTHAN",
    "COMPARE_GREATERTHAN",
    "COMPARE_LESSTHANOREQUALTO",
    "COMPARE_GREATERTHANOREQUALTO",
    "COMPARE_DISTINCT_FROM",
    "COMPARE_NOT_DISTINCT_FROM",
]
_OPERATORS = [
    "OPERATOR_NOT",
    "OPERATOR_IS_NULL",
    "OPERATOR_IS_NOT_NULL",
    "OPERATOR_COALESCE",
    "OPERATOR_NULLIF",
    "OPERATOR_TRY",
    "COMPARE_IN",
    "COMPARE_NOT_IN",
    "ARRAY_EXTRACT",
    "ARRAY_SLICE",
    "ARRAY_CONSTRUCTOR",
    "STRUCT_EXTRACT",
]
_PARTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("CONSTANT", "VALUE_CONSTANT"): (),
    ("COLUMN_REF", "COLUMN_REF"): (),
    **{("COMPARISON", kind): ("left", "right") for kind in _SINGLE_COMPARISONS},
    ("BETWEEN", "COMPARE_BETWEEN"): ("input", "lower", "upper"),
    ("CONJUNCTION", "CONJUNCTION_AND"): ("children",),
    ("CONJUNCTION", "CONJUNCTION_OR"): ("children",),
    **{("OPERATOR", kind): ("children",) for kind in _OPERATORS},
    ("CAST", "OPERATOR_CAST"): ("child",),
    ("COLLATE", "COLLATE"): ("child",),
    ("CASE", "CASE_EXPR"): ("case_checks", "else_expr"),
    ("FUNCTION", "FUNCTION"): ("children",),
    ("LAMBDA", "LAMBDA"): ("lhs", "expr"),
}
"""Class and type of the nodes that may occur, with the keys of the expressions in them."""

_REST: dict[str, frozenset[str]] = {
    "CONSTANT": frozenset(["value"]),
    "COLUMN_REF": frozenset(["column_names"]),
    "CAST": frozenset(["cast_type", "try_cast"]),
    "COLLATE": frozenset(["collation"]),
    "FUNCTION": frozenset(
        [
            "function_name",
            "schema",
            "catalog",
            "is_operator",
            "filter",
            "order_bys",
            "distinct",
            "export_state",
        ]
    ),
}
"""Other keys of a node, by its class."""

_NO_AGGREGATE = {
    "filter": None,
    "order_bys": {"type": "ORDER_MODIFIER", "orders": []},
    "distinct": False,
    "export_state": False,
}
"""What these keys of a function's node hold if it is a scalar function's."""

_REFUSALS = {
    "SUBQUERY": "it has a subquery; use the columns of one row alone",
    "WINDOW": "it has a window function; use the columns of one row alone",
    "STAR": "it has a star; name the columns",
    "PARAMETER": "it has a parameter; write the value itself",
    "POSITIONAL_REFERENCE": "it refers to a column by position; name the column",
    "DEFAULT": "DEFAULT has no meaning in it",
}


class Refused(ValueError):
    """A text is no expression that this server runs; the message is one sentence of what is wrong."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A scalar expression that passed."""

    sql: str
    """Text to run, written by DuckDB from the checked tree."""
    columns: frozenset[str]
    """Columns that it refers to, as they are declared."""
    per_row: bool
    """Whether each row has another value, whatever its columns hold."""
    clock: bool
    """Whether the value depends on the time of the statement."""


def read(text: str, columns: Iterable[str], sandbox: Sandbox) -> Expression:
    """The expression of a text over columns of those names; raises Refused."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Refused("it is no valid Unicode text") from None
    if size > MAX_TEXT_BYTES:
        raise Refused(f"it has {size} bytes and may have {MAX_TEXT_BYTES}")
    if "\0" in text:
        raise Refused("it holds a NUL character")
    try:
        shell = sandbox.parse("SELECT 1")
        # The two readings differ for a list, a trailing comma, SELECT's own words and what closes a parenthesis.
        bare, wrapped = (
            _without_places(sandbox.parse(sql)) for sql in (f"SELECT {text}\n", f"SELECT ({text}\n)")
        )
        selected = _selected(bare)
        reader = _Reader(columns)
        checked = [reader.node(node) for node in selected]
        if len(selected) != 1 or selected[0]["alias"] or not _with(shell, selected) == bare == wrapped:
            raise Refused("it is not one expression alone")
        tree = _with(shell, checked)
        sql = sandbox.render(tree)
        if _without_places(sandbox.parse(sql)) != tree or not sql.startswith("SELECT "):
            raise Refused("it has a form that DuckDB does not write as it reads it; write it in another way")
    except EvaluationFailed as problem:
        raise Refused(problem.reason) from None
    except RecursionError:
        raise Refused(f"it is nested more than {MAX_DEPTH} deep") from None
    return Expression(
        sql.removeprefix("SELECT "), frozenset(reader.columns), per_row=reader.per_row, clock=reader.clock
    )


def fold(name: str) -> bytes:
    """A column name in the form in which DuckDB compares it: it ignores the case of ASCII letters only."""
    return name.encode(errors="surrogatepass").lower()


class _Reader:
    """Checks a tree and gathers what it refers to."""

    def __init__(self, columns: Iterable[str]) -> None:
        self.columns: set[str] = set()
        self.per_row = False
        self.clock = False
        self._known: dict[bytes, list[str]] = {}
        for name in columns:
            self._known.setdefault(fold(name), []).append(name)

    def node(self, node: Any, depth: int = 0, names: frozenset[bytes] = frozenset()) -> dict[str, Any]:
        """The node in the form to run; `names` are those of the lambda parameters around it."""
        if depth > MAX_DEPTH:
            raise Refused(f"it is nested more than {MAX_DEPTH} deep")
        kind = str(node.get("class"))
        if kind in _REFUSALS:
            raise Refused(_REFUSALS[kind])
        parts = _PARTS.get((kind, str(node.get("type"))))
        if parts is None or not _COMMON | _REST.get(kind, frozenset()) | set(parts) >= set(node):
            raise Refused(f"it has a part that is not allowed ({one_line(str(node.get('type')), 40)})")
        match kind:
            case "CONSTANT":
                return _constant(node)
            case "COLUMN_REF":
                self._column(node["column_names"], names)
            case "FUNCTION":
                node = self._function(node)
            case "CAST":
                _check_type(node["cast_type"])
            case "CASE":
                checks = [
                    {key: self.node(check[key], depth + 1, names) for key in ("when_expr", "then_expr")}
                    for check in node["case_checks"]
                ]
                return {
                    **node,
                    "case_checks": checks,
                    "else_expr": self.node(node["else_expr"], depth + 1, names),
                }
        found = dict(node)
        for part in parts:
            inner = node[part]
            if isinstance(inner, list):
                takes_lambda = kind == "FUNCTION" and node["function_name"] in LAMBDAS
                found[part] = [
                    self._lambda(child, depth + 1, names)
                    if takes_lambda and position == 1 and child.get("class") == "LAMBDA"
                    else self.node(child, depth + 1, names)
                    for position, child in enumerate(inner)
                ]
            else:
                found[part] = self.node(inner, depth + 1, names)
        return found

    def _column(self, path: list[str], names: frozenset[bytes]) -> None:
        first = fold(path[0])
        if first in names:
            return
        known = self._known.get(first, [])
        if len(known) == 1:
            self.columns.add(known[0])
        elif known:
            raise Refused(
                f"{_show(path[0])} is the name of {len(known)} columns if case is ignored, as SQL does"
            )
        elif len(path) == 1 and first.decode(errors="replace") in CLOCK_NAMES:
            self.clock = True
        elif self._known:
            raise Refused(f"there is no column {_show(path[0])}")
        else:
            raise Refused(f"it may not refer to a column such as {_show(path[0])}")

    def _function(self, node: dict[str, Any]) -> dict[str, Any]:
        if any(node.get(key, usual) != usual for key, usual in _NO_AGGREGATE.items()):
            raise Refused("it has an aggregate function; use the columns of one row alone")
        owner = [name for name in (node["catalog"], node["schema"]) if name]
        if owner and owner != ["main"]:  # `name.upper()` is another way to write upper(name)
            value = {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "column_names": owner}
            node = {**node, "catalog": "", "schema": "", "children": [value, *node["children"]]}
        name = node["function_name"]
        if name not in ALLOWED:
            raise Refused(f"the function {_show(name)} is not allowed in it")
        self.per_row |= name in PER_ROW
        self.clock |= name in CLOCK
        return node

    def _lambda(self, node: dict[str, Any], depth: int, names: frozenset[bytes]) -> dict[str, Any]:
        left = node["lhs"]
        several = left.get("class") == "FUNCTION" and left.get("function_name") == "row"
        parameters = left["children"] if several else [left]
        for parameter in parameters:
            if parameter.get("class") != "COLUMN_REF" or len(parameter["column_names"]) != 1:
                raise Refused("a lambda in it has a parameter that is no name")
        inner = names | {fold(parameter["column_names"][0]) for parameter in parameters}
        for part in [left, *parameters]:
            self.node(part, depth, inner)
        return {**node, "expr": self.node(node["expr"], depth, inner)}


def _constant(node: dict[str, Any]) -> dict[str, Any]:
    """The node, or a cast where DuckDB would write a constant that reads as another type."""
    value = node["value"]
    kind = value["type"]["id"]
    if value["is_null"] or kind not in ("BOOLEAN", "DOUBLE"):
        return node
    text = {"type": {"id": "VARCHAR", "type_info": None}, "is_null": False}
    text["value"] = repr(value["value"]) if kind == "DOUBLE" else "t" if value["value"] else "f"
    return {
        "class": "CAST",
        "type": "OPERATOR_CAST",
        "alias": node["alias"],
        "child": {"class": "CONSTANT", "type": "VALUE_CONSTANT", "alias": "", "value": text},
        "cast_type": {"id": kind, "type_info": None},
        "try_cast": False,
    }


def _check_type(kind: Any) -> None:
    """Refuse a type that carries an expression or lives in a named catalog."""
    if isinstance(kind, list):
        for part in kind:
            _check_type(part)
    elif isinstance(kind, dict):
        if "class" in kind or kind.get("catalog") or kind.get("schema"):
            raise Refused("it has a type that is not built in")
        for part in kind.values():
            _check_type(part)


def _selected(tree: Mapping[str, Any]) -> list[Any]:
    """What the first statement selects; nothing if it is no plain SELECT."""
    statements = tree["statements"]
    return list(statements[0]["node"].get("select_list", [])) if statements else []


def _with(shell: Mapping[str, Any], selected: list[Any]) -> dict[str, Any]:
    """A plain SELECT of those expressions."""
    statement = shell["statements"][0]
    found = {**shell, "statements": [{**statement, "node": {**statement["node"], "select_list": selected}}]}
    plain: dict[str, Any] = _without_places(found)
    return plain


def _without_places(tree: Any) -> Any:
    """A tree without the places in the text, which do not matter."""
    if isinstance(tree, dict):
        return {key: _without_places(value) for key, value in tree.items() if key != "query_location"}
    if isinstance(tree, list):
        return [_without_places(value) for value in tree]
    return tree


def _show(name: str) -> str:
    return repr(one_line(name, 120))
