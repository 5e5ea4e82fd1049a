"""Topics as the rest of the server knows them, defined in an Iceberg catalog.

Iceberg identifiers are the folded names, so that the catalog itself refuses two names that differ
in case only; the names as written and the declared Arrow schema are table properties.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import Table
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from boilstream.catalog.names import TopicName, iceberg_identifier, key_segment
from boilstream.catalog.types import TopicSchema, parse_declared, serialize_declared
from boilstream.errors import AlreadyExists, BoilStreamError, NotFound, Unavailable
from boilstream.storage.base import ObjectStore

log = logging.getLogger("boilstream.catalog.topics")

SCHEMA_PROPERTY = "boilstream.schema-name"
TABLE_PROPERTY = "boilstream.table-name"
DECLARED_PROPERTY = "boilstream.declared-schema"

_FORMAT = {"format-version": "2", "write.parquet.compression-codec": "zstd"}


@dataclass(frozen=True, slots=True, eq=False)
class Topic:
    """One topic: a name, a schema, and the place of its files."""

    id: str
    """Iceberg table UUID: what the commit log names, so that a name can be given again."""
    name: TopicName
    schema: TopicSchema
    location: str
    """Key prefix of the topic's objects in the store, without a slash at the end."""


@dataclass(frozen=True, slots=True, eq=False)
class TopicDraft:
    """A topic that will be created when its first rows are complete."""

    name: TopicName
    schema: TopicSchema
    location: str


def draft(name: TopicName, schema: TopicSchema) -> TopicDraft:
    """A topic to be created later, with a place of its own for files that are written before."""
    unique = uuid.uuid4().hex[:12]
    return TopicDraft(name, schema, f"tables/{key_segment(name.schema)}/{key_segment(name.table)}-{unique}")


class TopicCatalog:
    """The topics of one Iceberg catalog, cached by name. Thread-safe.

    Methods raise Unavailable when the catalog's database or the object store does not answer.
    """

    def __init__(self, catalog: Catalog, store: ObjectStore, *, patience: float = 30.0) -> None:
        """`patience` is how long a change waits for the changes before it, seconds."""
        self._catalog = catalog
        self._patience = patience
        self._root = store.url("x").removesuffix("x")
        self._lock = threading.Lock()
        self._changing = threading.Lock()
        self._ended: set[str] = set()
        self._topics: dict[tuple[str, str], Topic] = {}

    def load(self) -> None:
        """Read all topics from the catalog; one that cannot be read is reported and left out."""
        with _unavailable():
            for namespace in self._catalog.list_namespaces():
                for identifier in self._catalog.list_tables(namespace):
                    table = self._load(identifier)
                    if table is not None:
                        self._remember(table)

    def list(self) -> list[Topic]:
        """All topics, ordered by name."""
        with self._lock:
            return [topic for _, topic in sorted(self._topics.items())]

    def find(self, name: TopicName) -> Topic | None:
        """The topic with that name, also if another process has made it since; None if there is none."""
        with self._lock:
            topic = self._topics.get(name.key)
        if topic is not None:
            return topic
        with _unavailable():
            try:
                table = self._load(iceberg_identifier(name))
            except (NoSuchTableError, NoSuchNamespaceError):
                return None
            return self._remember(table) if table is not None else None

    def get(self, name: TopicName) -> Topic:
        """The topic with that name; raises NotFound."""
        topic = self.find(name)
        if topic is None:
            raise NotFound(f"topic {name} does not exist")
        return topic

    def create(self, wanted: TopicDraft) -> Topic:
        """Define the topic durably; raises AlreadyExists."""
        declared = wanted.schema.declared
        identifier = iceberg_identifier(wanted.name)
        properties = {
            **_FORMAT,
            SCHEMA_PROPERTY: wanted.name.schema,
            TABLE_PROPERTY: wanted.name.table,
            DECLARED_PROPERTY: serialize_declared(declared),
        }
        with self._change(), _unavailable():
            # The usual case is that another topic made it, perhaps in another process just now.
            with suppress(NamespaceAlreadyExistsError, IntegrityError):
                self._catalog.create_namespace(identifier[:1])
            try:
                table = self._catalog.create_table(
                    identifier,
                    wanted.schema.iceberg,
                    location=self._root + wanted.location,
                    properties=properties,
                )
            except TableAlreadyExistsError:
                raise AlreadyExists(f"topic {wanted.name} exists already") from None
            except (NoSuchTableError, NoSuchNamespaceError) as error:
                raise Unavailable(
                    f"topic {wanted.name} was created and dropped at once; try again"
                ) from error
        topic = self._remember(table)
        if topic is None:
            raise Unavailable(f"topic {wanted.name} was created and cannot be read back; try again")
        log.info("created topic %s (%d columns)", topic.name, len(declared))
        return topic

    def drop(self, topic: Topic) -> None:
        """Remove the definition; no error if it is gone already. The caller removes rows and files."""
        with self._change(), _unavailable():
            with self._lock:
                self._ended.add(topic.id)  # a load that is under way must not bring it back
            self._drop_table(topic)
            with self._lock:
                if self._topics.get(topic.name.key) is topic:
                    del self._topics[topic.name.key]

    def _drop_table(self, topic: Topic) -> None:
        identifier = iceberg_identifier(topic.name)
        try:
            table = self._load(identifier)
            if table is not None and str(table.metadata.table_uuid) != topic.id:
                log.info("topic %s was dropped and made anew meanwhile; the new one stays", topic.name)
                return
            self._catalog.drop_table(identifier)
            log.info("dropped topic %s", topic.name)
        except (NoSuchTableError, NoSuchNamespaceError):
            log.info("topic %s was dropped already", topic.name)

    @contextmanager
    def _change(self) -> Iterator[None]:
        """One change of definitions at a time: creating and dropping one name must not overlap."""
        if not self._changing.acquire(timeout=self._patience):
            raise Unavailable("other topics are being created and the store is slow; try again")
        try:
            yield
        finally:
            self._changing.release()

    def _load(self, identifier: tuple[str, ...]) -> Table | None:
        """The Iceberg table, or None, reported, if its metadata is missing or damaged."""
        try:
            return self._catalog.load_table(identifier)
        except (BoilStreamError, NoSuchTableError, NoSuchNamespaceError, SQLAlchemyError):
            raise
        except Exception as error:  # noqa: BLE001 - pyiceberg raises whatever its parsers do
            log.error("Iceberg table %s is not served, it cannot be read: %r", ".".join(identifier), error)
            return None

    def _remember(self, table: Table) -> Topic | None:
        """The topic of a table that was loaded, unless a drop or a newer load was faster."""
        topic = self._read(table)
        if topic is None:
            return None
        with self._lock:
            if topic.id in self._ended:
                return self._topics.get(topic.name.key)
            return self._topics.setdefault(topic.name.key, topic)

    def _read(self, table: Table) -> Topic | None:
        properties = table.properties
        location = table.location()
        try:
            name = TopicName(properties[SCHEMA_PROPERTY], properties[TABLE_PROPERTY])
            declared = parse_declared(properties[DECLARED_PROPERTY])
            if not location.startswith(self._root):
                raise ValueError(f"its location {location} is outside the object store {self._root}")
            schema = TopicSchema.load(declared, table.schema())
        except (KeyError, ValueError) as error:
            log.warning("Iceberg table %s is not served: %r", ".".join(table.name()), error)
            return None
        return Topic(str(table.metadata.table_uuid), name, schema, location[len(self._root) :])


@contextmanager
def _unavailable() -> Iterator[None]:
    """Turn failures of the catalog's database into Unavailable."""
    try:
        yield
    except SQLAlchemyError as error:
        log.warning("the Iceberg catalog's database failed: %s", error)
        raise Unavailable("the Iceberg catalog does not answer; try again") from error
