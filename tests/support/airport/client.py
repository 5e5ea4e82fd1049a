"""A client of the Airport protocol that behaves like DuckDB's extension (6, 7, 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from tests.support.airport.alter import AlterTable, Name
from tests.support.airport.calls import Scan
from tests.support.airport.engine import VECTOR_ROWS, Plan, Source, quoted
from tests.support.airport.errors import (
    CALL_ERRORS,
    AirportError,
    ProtocolBroken,
    remote_error,
)
from tests.support.airport.streams import next_chunk, reply, requested, total
from tests.support.airport.wire import Table, parse_endpoints, parse_table

SCAN_THREADS = 4
"""Most threads that read the endpoints of one scan."""


@dataclass
class Written:
    """What a statement with an exchange reports."""

    rows: int
    """Rows that the user is told were changed."""
    sent: int = 0
    """Rows that went over the wire."""
    returned: pa.Table | None = None
    """Rows of RETURNING, columns by name."""


@dataclass
class OpenScan:
    """A scan whose endpoints are known and not read yet."""

    client: AirportClient
    table: Table
    plan: Plan
    scan: Scan
    endpoints: list[flight.FlightEndpoint] = field(default_factory=list)

    def batches(self, endpoint: flight.FlightEndpoint) -> Iterator[pa.RecordBatch]:
        """The requested columns of one endpoint. Closing the generator cancels the call."""
        return self.client._batches(endpoint, self)

    def read(self, *, limit: int | None = None, threads: int = SCAN_THREADS) -> pa.Table:
        """All rows, or the first `limit` at least, after which the open call is cancelled."""

        def whole(endpoint: flight.FlightEndpoint) -> list[pa.RecordBatch]:
            return list(self.batches(endpoint))

        if limit is None and len(self.endpoints) > 1:
            with ThreadPoolExecutor(min(threads, len(self.endpoints))) as pool:
                found = [batch for part in pool.map(whole, self.endpoints) for batch in part]
            return pa.Table.from_batches(found, self.schema)
        batches: list[pa.RecordBatch] = []
        rows = 0
        for endpoint in self.endpoints:
            stream = self.batches(endpoint)
            for batch in stream:
                batches.append(batch)
                rows += batch.num_rows
                if limit is not None and rows >= limit:
                    stream.close()  # type: ignore[attr-defined]  # a generator
                    return pa.Table.from_batches(batches, self.schema)
        return pa.Table.from_batches(batches, self.schema)

    @property
    def positions(self) -> list[int]:
        """Where the requested columns stand in streams."""
        return list(dict.fromkeys(self.table.position(column) for column in self.plan.column_ids))

    @property
    def schema(self) -> pa.Schema:
        """What `read` gives: the requested columns with the types of the table."""
        fields = [self.table.schema.field(position) for position in self.positions]
        return pa.schema([pa.field(item.name, item.type) for item in fields])


class AirportClient(AlterTable):
    """One DuckDB process with one attachment. Every method is one statement unless it says otherwise."""

    brought: int = 0
    """Rows that the scan of the last query brought, before DuckDB filtered them again."""

    # SELECT

    def query(
        self, name: Name, sql: str, *, limit: int | None = None, threads: int = SCAN_THREADS
    ) -> list[tuple[Any, ...]]:
        """SELECT: `sql` names the table `t`. Filters and projection are pushed down as DuckDB does.

        With `limit` reading ends as soon as so many rows are there.
        """
        self.begin_statement()
        table = self.table(name)
        self.ask_version()
        plan = self.engine.plan(table, sql)
        rows = self.open(table, plan).read(limit=limit, threads=threads)
        self.brought = rows.num_rows
        return self.engine.values(table, sql, rows, plan)

    def read(self, name: Name) -> pa.Table:
        """SELECT *: all rows in the types that the server published."""
        return self.open_scan(name).read()

    def open_scan(self, name: Name, sql: str = "SELECT * FROM t") -> OpenScan:
        """A SELECT that has asked for its endpoints and has not read them."""
        self.begin_statement()
        table = self.table(name)
        self.ask_version()
        return self.open(table, self.engine.plan(table, sql))

    def select_at(self, name: Name, unit: str, value: str) -> pa.Table:
        """SELECT .. AT (unit => value) (8.2)."""
        self.begin_statement()
        table = self.table(name)
        body = {"descriptor": table.descriptor.serialize(), "at_unit": unit, "at_value": value}
        self._version_of(table, self.raw_action("flight_info", body))
        self.ask_version()
        version = self._version_of(table, self.raw_action("flight_info", body, scan=self.scan_of(table)))
        plan = self.engine.plan(version, "SELECT * FROM t")
        return self.open(version, plan, at=(unit, value)).read()

    def _version_of(self, table: Table, answer: bytes) -> Table:
        version = parse_table(answer, catalog=self.catalog, schema_name=table.schema_name)
        if version is None or version.descriptor != table.descriptor:
            raise ProtocolBroken("flight_info must answer app_metadata and the same descriptor (8.2)")
        return version

    def open(self, table: Table, plan: Plan, *, at: tuple[str, str] = ("", "")) -> OpenScan:
        """The action `endpoints` of a statement that has begun."""
        scan = self.scan_of(table)
        parameters = {
            "json_filters": plan.json_filters,
            "column_ids": plan.column_ids,
            "table_function_parameters": "",
            "table_function_input_schema": "",
            "at_unit": at[0],
            "at_value": at[1],
        }
        body = {"descriptor": table.descriptor.serialize(), "parameters": parameters}
        endpoints = parse_endpoints(self.raw_action("endpoints", body, scan=scan))
        return OpenScan(self, table, plan, scan, endpoints)

    def _batches(self, endpoint: flight.FlightEndpoint, opened: OpenScan) -> Iterator[pa.RecordBatch]:
        """By position, with the types of the catalog: the schema of the stream does not count (6.3)."""
        where = self._calls.where(opened.table.descriptor)
        reader = None
        try:
            reader = self._calls.get(endpoint.ticket, opened.scan)
            streamed = reader.schema
            while True:
                try:
                    chunk = reader.read_chunk()
                except StopIteration:
                    reader = None
                    return
                yield requested(chunk, streamed, opened.table, opened.positions)
        except CALL_ERRORS as error:
            raise remote_error(error, where=where, context="DoGet") from error
        finally:
            if reader is not None:
                reader.cancel()

    # INSERT and the like

    def insert(
        self,
        name: Name,
        source: Source,
        columns: list[str] | None = None,
        *,
        returning: bool = False,
        checked: bool = True,
    ) -> Written:
        """INSERT of SQL text or of a table, cast to the types of the table as DuckDB does.

        `columns`: those that SQL text gives; others get their default. Without `checked` NOT NULL and
        CHECK are left to the server, as by a client that does not know of them.
        """
        self.begin_statement()
        table = self.table(name)
        self.ask_version()
        batches = self.engine.vectors(table, source, columns, checked=checked)
        return self._write("insert", table, batches, returning=returning)

    def insert_raw(
        self, name: Name, schema: pa.Schema, batches: Iterator[pa.RecordBatch], *, returning: bool = False
    ) -> Written:
        """INSERT of exactly these batches, which the caller has cut and typed."""
        self.begin_statement()
        table = self.table(name)
        self.ask_version()

        def headed() -> Iterator[pa.RecordBatch]:
            yield pa.RecordBatch.from_arrays([pa.nulls(0, item.type) for item in schema], schema=schema)
            yield from batches

        return self._write("insert", table, headed(), returning=returning)

    def insert_select(self, name: Name, source: Name, sql: str = "SELECT * FROM t") -> Written:
        """INSERT INTO name SELECT .. FROM source (`t`), both on the server: the exchange opens first."""
        self.begin_statement()
        table, origin = self.table(name), self.table(source)
        self.ask_version()
        self.ask_version()

        def batches() -> Iterator[pa.RecordBatch]:
            yield from self.engine.vectors(table, table.schema.empty_table().select(_names(table)), None)
            plan = self.engine.plan(origin, sql)
            rows = self.engine.result(origin, sql, self.open(origin, plan).read(), plan)
            vectors = self.engine.vectors(table, rows.rename_columns(_names(table)), None)
            next(vectors)
            yield from vectors

        return self._write("insert", table, batches())

    def create_table_as(self, name: Name, sql: str, *, if_not_exists: bool = False) -> Written:
        """CREATE TABLE name AS sql; sends no rows if the client knows a table of this name already (5.3)."""
        self.begin_statement()
        rows = self.engine.arrow(sql)
        schema_name, table_name = name if isinstance(name, tuple) else ("s3", name)
        known = table_name.lower() in self._tables_of(schema_name)
        table = self.create(name, rows.schema, on_conflict="ignore" if if_not_exists else "error")
        if known:
            return Written(0)
        self.require_same_layout(rows.schema, table)

        def batches() -> Iterator[pa.RecordBatch]:
            yield pa.RecordBatch.from_arrays(
                [pa.nulls(0, item.type) for item in rows.schema], schema=rows.schema
            )
            yield from rows.to_batches(max_chunksize=VECTOR_ROWS)

        return self._write("insert", table, batches())

    # UPDATE and DELETE

    def update(
        self, name: Name, assignments: Mapping[str, str], where: str = "true", *, returning: bool = False
    ) -> Written:
        """UPDATE name SET column = expression .. WHERE where."""
        values = [f"{expression} AS {quoted(column)}" for column, expression in assignments.items()]
        if returning:
            others = [item.name for item in self.table(name).columns if item.name not in assignments]
            values += [quoted(other) for other in others]
        return self._change(
            "update", name, f"SELECT {', '.join(values)}, rowid FROM t WHERE {where}", returning
        )

    def delete(self, name: Name, where: str = "true", *, returning: bool = False) -> Written:
        """DELETE FROM name WHERE where; TRUNCATE is the same without a condition."""
        return self._change("delete", name, f"SELECT rowid FROM t WHERE {where}", returning)

    def _change(self, operation: str, name: Name, sql: str, returning: bool) -> Written:
        self.begin_statement()
        table = self.table(name)
        self.ask_version()
        self.ask_version()
        if table.rowid is None:
            raise AirportError("INTERNAL", "BindRowIdColumns could not find the row id column", remote=False)

        def batches() -> Iterator[pa.RecordBatch]:
            plan = self.engine.plan(table, sql)
            empty = pa.Table.from_batches([], OpenScan(self, table, plan, self.scan_of(table)).schema)
            schema = self.engine.result(table, sql, empty, plan).schema
            yield pa.RecordBatch.from_arrays([pa.nulls(0, item.type) for item in schema], schema=schema)
            rows = self.engine.result(table, sql, self.open(table, plan).read(), plan)
            yield from rows.to_batches(max_chunksize=VECTOR_ROWS)

        return self._write(operation, table, batches(), returning=returning)

    # The exchange

    def _write(
        self, operation: str, table: Table, batches: Iterator[pa.RecordBatch], *, returning: bool = False
    ) -> Written:
        """One exchange (7.1); the first batch only tells the schema."""
        schema = next(batches).schema
        scan = self.scan_of(table)
        where = self._calls.where(scan.descriptor)

        def step(call: Callable[[], Any], *, typed: bool = True) -> Any:
            try:
                return call()
            except CALL_ERRORS as error:
                raise remote_error(
                    error, where=where, context=f"DoExchange {operation}", typed=typed
                ) from error

        # A refusal may be there before the descriptor and the schema are sent: then it has no type.
        writer, reader = step(lambda: self._calls.exchange(operation, scan, returning=returning), typed=False)
        try:
            step(lambda: writer.begin(schema), typed=False)
            replied = step(lambda: reader.schema)
            sent = 0
            replies = []
            try:
                for batch in batches:
                    step(partial(writer.write_batch, batch), typed=False)
                    sent += batch.num_rows
                    if returning:
                        replies.append(reply(step(lambda: next_chunk(reader)), operation, batch, table))
            finally:
                # A statement that fails in the client ends its stream like a shorter one (7.5).
                with suppress(*CALL_ERRORS):
                    writer.done_writing()
            changed = total(step(lambda: next_chunk(reader)))
        finally:
            with suppress(*CALL_ERRORS):  # the final status is never looked at
                writer.close()
        returned = pa.Table.from_batches(replies, replied) if returning else None
        return Written(changed, sent, returned)


def _names(table: Table) -> list[str]:
    return [item.name for item in table.columns]
