"""The filters of a WHERE clause as the Airport client sends them: bound, optimised and serialised by DuckDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa

# What runs after the client's serialiser, and what would leave no filter to serialise.
_DISABLED = ",".join(
    [
        "statistics_propagation",
        "unused_columns",
        "column_lifetime",
        "compressed_materialization",
        "late_materialization",
        "in_clause",
    ]
)


class Oracle:
    """A DuckDB that holds one table `t`, and says what it does with WHERE clauses."""

    def __init__(self, table: pa.Table) -> None:
        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute(f"SET disabled_optimizers = '{_DISABLED}'")
        self._connection.register("arrow", table)
        self._connection.execute("CREATE TABLE t AS SELECT * FROM arrow")
        self._names = list(table.column_names)

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def kept(self, where: str) -> set[int]:
        """The `id` of each row that a WHERE clause keeps; raises duckdb.Error where evaluating it fails."""
        rows = self._connection.execute(f"SELECT id FROM t WHERE {where}").fetchall()
        return {int(row[0]) for row in rows}

    def json_filters(self, where: str, order: list[str] | None = None) -> str:
        """What the client would send. `order`: names by binding index, of which some need not be columns."""
        names = order or self._names
        query = f"SELECT * FROM (SELECT * FROM t LIMIT 1000000) WHERE {where}"
        text = self._connection.execute("SELECT json_serialize_plan(?, optimize := true)", [query]).fetchone()
        assert text is not None
        plan = json.loads(text[0])
        assert not plan["error"], plan
        filters: list[Any] = []
        for node in _nodes(plan["plans"]):
            if node["type"] == "LOGICAL_FILTER":
                filters += node["expressions"]
            elif node["type"] == "LOGICAL_EMPTY_RESULT":
                value = {"type": {"id": "BOOLEAN", "type_info": None}, "is_null": False, "value": False}
                filters.append({"expression_class": "BOUND_CONSTANT", "value": value})
        document = {
            "filters": [self._bound(expression, names) for expression in filters],
            "column_binding_names_by_index": names,
        }
        return json.dumps(document)

    def _bound(self, expression: Any, names: list[str]) -> Any:
        """An expression with column references as they are before DuckDB resolves them."""
        if isinstance(expression, list):
            return [self._bound(part, names) for part in expression]
        if not isinstance(expression, dict):
            return expression
        if expression.get("expression_class") == "BOUND_REF":
            index = names.index(self._names[expression["index"]])
            kept = {name: value for name, value in expression.items() if name != "index"}
            return kept | {
                "expression_class": "BOUND_COLUMN_REF",
                "type": "BOUND_COLUMN_REF",
                "binding": {"table_index": 0, "column_index": index},
                "depth": 0,
            }
        return {name: self._bound(value, names) for name, value in expression.items()}


def _nodes(plans: list[Any]) -> Iterator[Any]:
    for node in plans:
        yield node
        yield from _nodes(node["children"])
