"""The attached catalog: what the client keeps of it, and the statements that change it (3, 5, 9)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.flight as flight

from tests.support.airport.calls import Call, Calls, Scan
from tests.support.airport.engine import Engine
from tests.support.airport.errors import AirportError, ClientWouldCrash, catalog_error
from tests.support.airport.wire import (
    Contents,
    Fields,
    SchemaItem,
    Table,
    parse_schemas,
    parse_table,
    parse_version,
    same_layout,
    unpack,
)


class Catalog:
    """One process with one attached catalog.

    `attach_token` is that of ATTACH, `secret_token` that of a SECRET whose scope covers the location.
    Tables are named without their schema where it is `s3`, else as (schema, table). What was loaded once
    stays as it is until `attach` is called again.
    """

    def __init__(
        self,
        location: str,
        *,
        ca: Path | None = None,
        catalog: str = "boilstream",
        attach_token: str | None = None,
        secret_token: str | None = None,
        lossless: bool = False,
        time_zone: str = "UTC",
        session: str | None = None,
    ) -> None:
        self.engine = Engine(lossless=lossless, time_zone=time_zone)
        self.catalog = catalog
        self._calls = Calls(
            location,
            ca=ca,
            catalog=catalog,
            attach_token=attach_token,
            secret_token=secret_token,
            session=session or str(uuid.uuid4()),
        )
        self._transaction: str | None = None
        self._explicit = False
        self._began = False
        self.attach()

    def attach(self) -> None:
        """DETACH and ATTACH: forget everything; calls nothing."""
        self._loaded = False
        self._items: dict[str, SchemaItem] = {}
        self._contents: dict[str, Contents] = {}
        self._tables: dict[str, dict[str, Table]] = {}
        self._broken: set[str] = set()
        self._version_is_fixed = False

    def close(self) -> None:
        self._calls.close()
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def calls(self) -> list[Call]:
        """All calls since the start or the last `take_calls`."""
        return self._calls.record

    def take_calls(self) -> list[str]:
        """Names of the calls since this was called last; T, V, L for the first three of 9.1."""
        short = {"create_transaction": "T", "catalog_version": "V", "list_schemas": "L"}
        names = [short.get(call.name, call.name) for call in self._calls.record]
        self._calls.record.clear()
        return names

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """BEGIN and COMMIT: one create_transaction for all statements in between."""
        self._explicit, self._began = True, False
        try:
            yield
        finally:
            self._explicit = False

    # What statements begin with

    def begin_statement(self) -> None:
        """T: at the first touch of the catalog in each transaction (8.1)."""
        if self._explicit and self._began:
            return
        body = self._calls.action("create_transaction", {"catalog_name": self.catalog})
        fields = Fields(unpack(body, "create_transaction"), "create_transaction")
        self._transaction = fields.optional_text("identifier")
        self._began = True

    def ask_version(self) -> int | None:
        """V: not asked any more once it was said to be fixed."""
        if self._version_is_fixed:
            return None
        body = self._calls.action("catalog_version", {"catalog_name": self.catalog})
        version, self._version_is_fixed = parse_version(unpack(body, "catalog_version"))
        return version

    def _load(self, *, again: bool = False) -> None:
        """(L): once per attachment. A failure is remembered as an empty catalog (3.5)."""
        if self._loaded and not (again and not self._items):
            return
        self._loaded = True
        body = self._calls.action("list_schemas", {"catalog_name": self.catalog})
        for item in parse_schemas(body):
            self._items[item.name.lower()] = item
            # Contents that create_schema answered before are kept (5.1).
            self._contents.setdefault(item.name.lower(), item.contents)

    def _tables_of(self, schema_name: str) -> dict[str, Table]:
        key = schema_name.lower()
        self._load()
        if key not in self._items or key in self._broken:
            raise catalog_error(f'Schema with name "{schema_name}" not found')
        if key not in self._tables:
            self._broken.add(key)  # until all of its tables are read
            name = self._items[key].name
            found: dict[str, Table] = {}
            for data in self._contents[key].items(name, lambda: self._calls.list_flights(name)):
                table = parse_table(data, catalog=self.catalog, schema_name=name)
                if table is not None:
                    if table.name.lower() in found:
                        raise ClientWouldCrash(f"two tables called {table.name!r}, ignoring case")
                    found[table.name.lower()] = table
            self._tables[key] = found
            self._broken.remove(key)
        return self._tables[key]

    def table(self, name: str | tuple[str, str]) -> Table:
        """The table as this attachment knows it; raises AirportError if it does not."""
        schema_name, table_name = split(name)
        table = self._tables_of(schema_name).get(table_name.lower())
        if table is None:
            raise catalog_error(f"Table with name {table_name} does not exist!")
        return table

    def scan_of(self, table: Table) -> Scan:
        """The context of the data calls of one statement."""
        return Scan(table.descriptor, self._transaction)

    # Statements that only read

    def show_all_tables(self) -> list[tuple[str, str]]:
        """SHOW ALL TABLES: (schema, table) of all tables; loads the list again if that failed before."""
        self._load(again=True)
        names = [
            (self._items[key].name, table.name)
            for key in list(self._items)
            for table in self._tables_of(key).values()
        ]
        return sorted(names)

    def schemas(self) -> dict[str, SchemaItem]:
        """duckdb_schemas(): schemas by name as written."""
        self._load(again=True)
        return {item.name: item for item in self._items.values()}

    def use(self, schema_name: str) -> None:
        """USE catalog.schema."""
        self.begin_statement()
        self._tables_of(schema_name)

    # Schemas

    def create_schema(self, name: str) -> None:
        """CREATE SCHEMA, with or without IF NOT EXISTS, which are the same on the wire."""
        self.ask_version()
        self.begin_statement()
        body: dict[str, Any] = {"catalog_name": self.catalog, "schema": name, "comment": None, "tags": {}}
        answer = self._calls.action("create_schema", body)
        contents = Contents.parse(unpack(answer, "create_schema"), "create_schema")
        if name.lower() not in self._items:
            self._items[name.lower()] = SchemaItem(name, "", {}, contents)
            self._contents[name.lower()] = contents

    def drop_schema(self, name: str, *, if_exists: bool = False) -> None:
        """DROP SCHEMA."""
        self.ask_version()
        self.begin_statement()
        body = {
            "type": "schema",
            "catalog_name": self.catalog,
            "schema_name": "",
            "name": name,
            "ignore_not_found": if_exists,
        }
        self._calls.action("drop_schema", body)
        for kept in (self._items, self._contents, self._tables):
            kept.pop(name.lower(), None)

    # Tables

    def create_table(
        self,
        name: str | tuple[str, str],
        columns: Mapping[str, str] | pa.Schema,
        *,
        if_not_exists: bool = False,
        not_null: Sequence[str] = (),
        checks: Sequence[str] = (),
        primary_key: Sequence[str] = (),
        unique: Sequence[str] = (),
        extra: Sequence[str] = (),
    ) -> Table:
        """CREATE TABLE with SQL types (or the Arrow schema of the session). `extra`: texts like UNIQUE(b, c)."""
        self.begin_statement()
        return self.create(
            name,
            self.arrow_schema(columns),
            on_conflict="ignore" if if_not_exists else "error",
            not_null=not_null,
            checks=checks,
            primary_key=primary_key,
            unique=unique,
            extra=extra,
        )

    def arrow_schema(self, columns: Mapping[str, str] | pa.Schema) -> pa.Schema:
        """The columns as the session sends them: nullable, and without metadata."""
        if isinstance(columns, pa.Schema):
            return pa.schema([pa.field(item.name, item.type) for item in columns])
        return self.engine.arrow_schema(columns)

    def create(
        self,
        name: str | tuple[str, str],
        schema: pa.Schema,
        *,
        on_conflict: str = "error",
        not_null: Sequence[str] = (),
        checks: Sequence[str] = (),
        primary_key: Sequence[str] = (),
        unique: Sequence[str] = (),
        extra: Sequence[str] = (),
    ) -> Table:
        """The calls of CREATE TABLE after T (5.2)."""
        schema_name, table_name = split(name)
        tables = self._tables_of(schema_name)
        self.ask_version()
        required = {*not_null, *primary_key}
        body = {
            "catalog_name": self.catalog,
            "schema_name": schema_name,
            "table_name": table_name,
            "arrow_schema": schema.serialize().to_pybytes(),
            "on_conflict": on_conflict,
            "not_null_constraints": [index for index, item in enumerate(schema) if item.name in required],
            "unique_constraints": [],
            "check_constraints": list(checks),
            "primary_key_columns": list(primary_key) if len(primary_key) == 1 else [],
            "unique_columns": list(unique),
            "multi_key_primary_keys": list(primary_key) if len(primary_key) > 1 else [],
            "extra_constraints": list(extra),
        }
        table = self._answered(self._calls.action("create_table", body), schema_name)
        tables[table_name.lower()] = table
        return table

    def require_same_layout(self, schema: pa.Schema, table: Table) -> None:
        """CREATE TABLE AS writes the vectors of the request as the types of the answer (10.1)."""
        if [item.name for item in schema] != [item.name for item in table.columns]:
            raise ClientWouldCrash(f"the columns of the answer differ from the request: {table.schema}")
        for asked, given in zip(schema, table.columns, strict=True):
            if not same_layout(asked.type, given.type):
                raise ClientWouldCrash(f"column {asked.name!r} was asked as {asked.type}, made {given.type}")

    def drop_table(self, name: str | tuple[str, str], *, if_exists: bool = False) -> None:
        """DROP TABLE; with IF EXISTS a table that the client does not know is not asked for."""
        schema_name, table_name = split(name)
        self.ask_version()
        self.begin_statement()
        tables = self._tables_of(schema_name)
        table = tables.get(table_name.lower())
        if table is None:
            if if_exists:
                return
            raise catalog_error(f"Table with name {table_name} does not exist!")
        self.ask_version()
        body = {
            "type": "table",
            "catalog_name": self.catalog,
            "schema_name": table.schema_name,
            "name": table.name,
            "ignore_not_found": if_exists,
        }
        self._calls.action("drop_table", body)
        del tables[table_name.lower()]

    def alter(
        self, name: str | tuple[str, str], action: str, *, if_exists: bool = False, **extra: Any
    ) -> Table | None:
        """ALTER TABLE with the extra keys of its action (5.4); None if IF EXISTS finds no table."""
        self.begin_statement()
        try:
            table = self.table(name)
        except AirportError:
            if if_exists:
                return None
            raise
        self.ask_version()
        body = {
            "catalog": self.catalog,
            "schema": table.schema_name,
            "name": table.name,
            "ignore_not_found": if_exists,
            **extra,
        }
        changed = self._answered(self._calls.action(action, body), table.schema_name)
        tables = self._tables_of(table.schema_name)
        del tables[table.name.lower()]
        tables[changed.name.lower()] = changed
        return changed

    def one_column(self, name: str, kind: str | pa.DataType) -> bytes:
        """`column_schema` of the actions that carry one."""
        if isinstance(kind, str):
            return self.engine.arrow_schema({name: kind}).serialize().to_pybytes()  # type: ignore[no-any-return]
        return pa.schema([pa.field(name, kind)]).serialize().to_pybytes()  # type: ignore[no-any-return]

    def _answered(self, body: bytes, schema_name: str) -> Table:
        name = self._items[schema_name.lower()].name
        table = parse_table(body, catalog=self.catalog, schema_name=name)
        if table is None:
            raise ClientWouldCrash("the answer to DDL is a FlightInfo without app_metadata")
        return table

    def raw_action(self, name: str, body: Mapping[str, Any] | bytes, *, scan: Scan | None = None) -> bytes:
        """An action with this body, for calls that no statement makes."""
        if isinstance(body, bytes):
            return self._calls.raw_action(name, body, scan=scan)
        return self._calls.action(name, body, scan=scan)

    @property
    def connection(self) -> flight.FlightClient:
        """For calls that no statement makes."""
        return self._calls.connection


def split(name: str | tuple[str, str]) -> tuple[str, str]:
    """Schema and table."""
    return ("s3", name) if isinstance(name, str) else name
