"""A catalog of topics over a real SQLite database, with its metadata in a store in memory."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from boilstream.catalog import file_io
from boilstream.catalog.constraints import Constraints
from boilstream.catalog.factory import CATALOG_NAME, open_catalog
from boilstream.catalog.names import topic_name
from boilstream.catalog.topics import Topic, TopicCatalog, TopicDraft, draft
from boilstream.catalog.types import TopicSchema
from tests.support.stores import MemoryStore

NUMBERS = pa.schema([pa.field("n", pa.int64())])


class World:
    """One database and one store; `open` is what a process does when it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.catalog = self.open()

    def open(self, patience: float = 1.0) -> TopicCatalog:
        catalog = open_catalog(None, self.folder, self.store, patience=patience)
        catalog.load()
        return catalog

    def make(self, schema: str, table: str) -> Topic:
        return self.catalog.create(new(schema, table))

    def sql(self, statement: str) -> None:
        with closing(sqlite3.connect(self.folder / "catalog.sqlite")) as connection, connection:
            connection.execute(statement)

    def plain_iceberg(self, *, elsewhere: bool) -> SqlCatalog:
        """The same catalog as another Iceberg client uses it, with its tables in our store or elsewhere."""
        properties: dict[str, Any] = {"uri": f"sqlite:///{self.folder / 'catalog.sqlite'}"}
        if elsewhere:
            properties["warehouse"] = f"file://{self.folder / 'elsewhere'}"
        else:
            properties |= {
                "warehouse": self.store.url("tables"),
                "py-io-impl": "boilstream.catalog.file_io.StoreFileIO",
                file_io.STORE_PROPERTY: self.store,
                file_io.PATIENCE_PROPERTY: 5.0,
            }
        return SqlCatalog(CATALOG_NAME, **properties)


def new(
    schema: str, table: str, columns: pa.Schema = NUMBERS, constraints: Constraints | None = None
) -> TopicDraft:
    return draft(topic_name(schema, table), TopicSchema.declare(columns), constraints)


def names(catalog: TopicCatalog) -> list[str]:
    return [str(topic.name) for topic in catalog.list()]
