"""DuckDB itself, where the extension leaves work to it: types, casts, defaults, plans and filters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa

from tests.support.airport.errors import AirportError
from tests.support.airport.wire import ROWID, Table

VECTOR_ROWS = 2048
"""Rows of a vector of DuckDB: the most of one batch that it sends (7.1)."""

_KEPT_OPTIMIZERS = {"expression_rewriter"}
"""What runs before filters are pushed down: constants are folded, LIKE becomes prefix."""

Source: TypeAlias = str | pa.Table
"""Rows to insert: SQL text, or a table."""


@dataclass(frozen=True)
class Plan:
    """What the scan of a statement asks of the server (6.1, 6.2)."""

    column_ids: list[int]
    json_filters: str


class Engine:
    """One DuckDB session. `lossless` is arrow_lossless_conversion; it decides the Arrow types (10.1)."""

    def __init__(self, *, lossless: bool = False, time_zone: str = "UTC") -> None:
        self._database = duckdb.connect()
        self._planner = duckdb.connect()
        for connection in (self._database, self._planner):
            connection.execute(f"SET GLOBAL TimeZone = '{time_zone}'")
        self._database.execute(f"SET GLOBAL arrow_lossless_conversion = {lossless}")
        names = [row[0] for row in self._planner.execute("SELECT name FROM duckdb_optimizers()").fetchall()]
        left_out = ",".join(name for name in names if name not in _KEPT_OPTIMIZERS)
        self._planner.execute(f"SET disabled_optimizers = '{left_out}'")

    def close(self) -> None:
        self._planner.close()
        self._database.close()

    def arrow_schema(self, columns: Mapping[str, str]) -> pa.Schema:
        """The Arrow schema that this session makes of columns with SQL types."""
        nulls = ", ".join(f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in columns.items())
        with self._database.cursor() as cursor:
            return cursor.execute(f"SELECT {nulls} LIMIT 0").to_arrow_reader(VECTOR_ROWS).schema

    def sql_types(self, fields: Iterable[pa.Field]) -> list[str]:
        """DuckDB's own types of Arrow columns."""
        schema = pa.schema([item.remove_metadata() for item in fields])
        empty = pa.RecordBatchReader.from_batches(schema, [])
        with self._database.cursor() as cursor:
            cursor.register("empty", empty)
            return [row[1] for row in cursor.execute("DESCRIBE SELECT * FROM empty").fetchall()]

    def arrow(self, sql: str, **tables: pa.Table) -> pa.Table:
        """The result of a query in the Arrow types of this session."""
        with self._database.cursor() as cursor:
            for name, table in tables.items():
                cursor.register(name, table)
            return cursor.execute(sql).to_arrow_table()

    def vectors(
        self, table: Table, source: Source, columns: list[str] | None, *, checked: bool = True
    ) -> Iterator[pa.RecordBatch]:
        """The batches of an INSERT (7.2): cast to the types of the table, with defaults filled in.

        `columns` names those of a source that is SQL text, in its order; None: all of the table. The
        first item is an empty batch with the schema. `checked`: NOT NULL and CHECK are verified. Raises
        AirportError, or an error of DuckDB.
        """
        given = source.column_names if isinstance(source, pa.Table) else columns
        names = [item.name for item in table.columns] if given is None else given
        known = {name.lower() for name in names}
        types = self.sql_types(table.columns)
        values = []
        for item, kind in zip(table.columns, types, strict=True):
            default = (item.metadata or {}).get(b"default", b"NULL").decode()
            value = quoted(item.name) if item.name.lower() in known else f"({default})"
            values.append(f"CAST({value} AS {kind}) AS {quoted(item.name)}")
        unknown = known - {item.name.lower() for item in table.columns}
        if unknown:
            raise AirportError(
                "Binder", f'Table "{table.name}" does not have a column with name {unknown}', remote=False
            )
        checks = "".join(f", ({check}) IS FALSE AS broken_{n}" for n, check in enumerate(table.checks))
        rows = source if isinstance(source, str) else "FROM given"
        listed = ", ".join(quoted(name) for name in names)
        sql = f"SELECT *{checks} FROM (SELECT {', '.join(values)} FROM ({rows}) AS source({listed})) AS converted"
        with self._database.cursor() as cursor:
            if isinstance(source, pa.Table):
                cursor.register("given", source)
            reader = cursor.execute(sql).to_arrow_reader(VECTOR_ROWS)
            width = len(table.columns)
            schema = pa.schema(list(reader.schema)[:width])
            yield pa.RecordBatch.from_arrays([pa.nulls(0, item.type) for item in schema], schema=schema)
            for batch in reader:
                if checked:
                    _check(table, batch, width)
                yield pa.RecordBatch.from_arrays(batch.columns[:width], schema=schema)

    def plan(self, table: Table, sql: str) -> Plan:
        """What DuckDB would push into the scan of `t` in this query, with the table's columns as `t`."""
        self._planner.execute(f"CREATE OR REPLACE TEMP TABLE t ({self._declaration(table)})")
        serialize = "SELECT json_serialize_plan($1, skip_empty := false, optimize := true)"
        row = self._planner.execute(serialize, [sql]).fetchone()
        assert row is not None
        if not row[0]:  # constants of BIT and BIGNUM are no text, so DuckDB cannot write them
            return Plan(list(range(len(table.columns))), "")
        answer = json.loads(row[0])
        if answer["error"]:
            raise AirportError("Binder", answer["error_message"], remote=False)
        scan, filters = _scan(answer["plans"][0])
        column_ids = [column["index"] for column in scan["column_indexes"]]
        names = ["rowid" if column == ROWID else table.columns[column].name for column in column_ids]
        if column_ids == [ROWID] and '"alias": "rowid"' not in json.dumps(answer):
            names = []  # no column at all is wanted: only how many rows there are
            column_ids = [ROWID if table.rowid is not None else 0]
        text = json.dumps({"filters": filters, "column_binding_names_by_index": names})
        return Plan(column_ids, text)

    def values(self, table: Table, sql: str, rows: pa.Table, plan: Plan) -> list[tuple[Any, ...]]:
        """The result of a query of `t` over the rows that its scan brought, as Python values."""
        with self._over(table, rows, plan) as cursor:
            return cursor.execute(sql).fetchall()

    def result(self, table: Table, sql: str, rows: pa.Table, plan: Plan) -> pa.Table:
        """The same in the Arrow types of this session."""
        with self._over(table, rows, plan) as cursor:
            return cursor.execute(sql).to_arrow_table()

    @contextmanager
    def _over(self, table: Table, rows: pa.Table, plan: Plan) -> Iterator[duckdb.DuckDBPyConnection]:
        """With `t` as the rows that a scan brought; columns that it left out are null."""
        brought = set(rows.column_names)
        types = self.sql_types(table.columns)
        values = [
            quoted(item.name) if item.name in brought else f"CAST(NULL AS {kind}) AS {quoted(item.name)}"
            for item, kind in zip(table.columns, types, strict=True)
        ]
        if "rowid" in brought and ROWID in plan.column_ids:
            values.append("rowid")
        with self._database.cursor() as cursor:
            # A reader: DuckDB would hand filters on a table back to Arrow.
            cursor.register("brought", rows.to_reader())
            cursor.execute(f"CREATE OR REPLACE TEMP TABLE t AS SELECT {', '.join(values)} FROM brought")
            yield cursor

    def _declaration(self, table: Table) -> str:
        types = self.sql_types(table.columns)
        return ", ".join(
            f"{quoted(item.name)} {kind}" for item, kind in zip(table.columns, types, strict=True)
        )


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _check(table: Table, batch: pa.RecordBatch, width: int) -> None:
    """The constraints that the client knows of."""
    for item, column in zip(table.columns, batch.columns, strict=False):
        if not item.nullable and column.null_count:
            raise AirportError(
                "Constraint", f"NOT NULL constraint failed: {table.name}.{item.name}", remote=False
            )
    for check, column in zip(table.checks, batch.columns[width:], strict=True):
        storage = column.storage if isinstance(column, pa.ExtensionArray) else column
        if any(storage.to_pylist()):
            raise AirportError(
                "Constraint",
                f"CHECK constraint failed on table {table.name} with expression CHECK({check})",
                remote=False,
            )


def _scan(plan: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The scan in a plan, and the filters that stand on it, as the extension sends them."""
    if plan["type"] == "LOGICAL_GET":
        return plan, []
    scans = [_scan(child) for child in plan["children"]]
    assert len(scans) == 1, f"the query scans {len(scans)} tables"
    scan, filters = scans[0]
    if plan["type"] == "LOGICAL_FILTER" and plan["children"][0]["type"] == "LOGICAL_GET":
        filters = [_bound(item) for item in plan["expressions"]]
    return scan, filters


def _bound(node: Any) -> Any:
    """An expression with references to columns of the scan, as they are before operators are resolved."""
    if isinstance(node, list):
        return [_bound(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("expression_class") == "BOUND_REF":
        return {
            "expression_class": "BOUND_COLUMN_REF",
            "type": "BOUND_COLUMN_REF",
            "alias": node["alias"],
            "query_location": node["query_location"],
            "return_type": node["return_type"],
            "binding": {"table_index": 0, "column_index": node["index"]},
            "depth": 0,
        }
    return {key: _bound(item) for key, item in node.items()}
