"""Topics as the rest of the server knows them, defined in an Iceberg catalog.

Iceberg identifiers are the folded names, so that the catalog itself refuses two names that differ
in case only; `boilstream.catalog.definition` says what its tables keep of a topic.
"""

from __future__ import annotations

import builtins
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationError,
)
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.metadata import TableMetadata
from sqlalchemy.exc import SQLAlchemyError

from boilstream.catalog import definition, tables
from boilstream.catalog.changes import Change, apply
from boilstream.catalog.constraints import Constraints
from boilstream.catalog.definition import Definition
from boilstream.catalog.names import TopicName, iceberg_identifier, key_segment
from boilstream.catalog.schemas import Schemas
from boilstream.catalog.sql.checked import CheckedColumns, Unchecked
from boilstream.catalog.types import TopicSchema
from boilstream.errors import AlreadyExists, BoilStreamError, InvalidArgument, NotFound, Unavailable
from boilstream.storage.base import ObjectStore

log = logging.getLogger("boilstream.catalog.topics")

MAX_DROPPED: Final = 1000
"""Dropped topics that `TopicCatalog.recently` still knows."""

_FORMAT = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    TableProperties.METADATA_DELETE_AFTER_COMMIT_ENABLED: "true",
    TableProperties.METADATA_PREVIOUS_VERSIONS_MAX: "10",
}

_ATTEMPTS = 5
"""How often a change is tried when other processes change the same topic."""


@dataclass(frozen=True, slots=True, eq=False)
class Topic:
    """One topic as it was defined at some time: a name, a schema, and the place of its files."""

    id: str
    """Iceberg table UUID: what the commit log names, so that a name can be given again."""
    name: TopicName
    schema: TopicSchema
    location: str
    """Key prefix of the topic's objects in the store, without a slash at the end."""
    version: int
    """Grows with each change of the definition."""
    constraints: Constraints
    history: Mapping[int, TopicSchema]
    """Schemas of the last versions, the current one included; older ones are forgotten."""


@dataclass(frozen=True, slots=True, eq=False)
class TopicDraft:
    """A topic that will be created when its first rows are complete."""

    name: TopicName
    schema: TopicSchema
    location: str
    constraints: Constraints = field(default_factory=Constraints)
    """Defaults are by the field ids of `schema`, which are those of the table."""


def draft(name: TopicName, schema: TopicSchema, constraints: Constraints | None = None) -> TopicDraft:
    """A topic to be created later, with a place of its own for files that are written before."""
    unique = uuid.uuid4().hex[:12]
    location = f"tables/{key_segment(name.schema)}/{key_segment(name.table)}-{unique}"
    return TopicDraft(name, schema, location, constraints or Constraints())


class TopicCatalog:
    """The topics of one Iceberg catalog, cached by name. Thread-safe.

    Other processes may use the same catalog: topics that they make are found by name; what they
    alter or drop is seen when this process alters it too, or starts again. Methods raise
    Unavailable when the catalog's database or the object store does not answer.
    """

    def __init__(
        self,
        catalog: Catalog,
        store: ObjectStore,
        *,
        patience: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`patience` is how long a change waits for the changes before it, seconds; `clock` gives Unix time."""
        self._catalog = catalog
        self._patience = patience
        self._root = store.url("x").removesuffix("x")
        self._schemas = Schemas(catalog)
        self._lock = threading.Lock()
        self._changing = threading.Lock()
        self._version = int(clock() * 1000)
        self._ended: set[str] = set()
        self._topics: dict[tuple[str, str], Topic] = {}
        self._by_id: dict[str, Topic] = {}
        self._dropped: dict[str, Topic] = {}

    @property
    def version(self) -> int:
        """Grows with each change of a topic or schema that this process makes or sees; also across restarts."""
        with self._lock:
            return self._version

    def load(self) -> None:
        """Read all schemas and topics; a topic that cannot be read is reported and left out."""
        with _unavailable():
            for namespace in self._schemas.load():
                for identifier in self._catalog.list_tables(namespace):
                    table = self._load(identifier)
                    if table is not None:
                        self._remember(identifier, table.metadata)
                self._schemas.remember_namespace(namespace)

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
        identifier = iceberg_identifier(name)
        with _unavailable():
            try:
                table = self._load(identifier)
            except (NoSuchTableError, NoSuchNamespaceError):
                return None
            return self._remember(identifier, table.metadata) if table is not None else None

    def get(self, name: TopicName) -> Topic:
        """The topic with that name; raises NotFound."""
        topic = self.find(name)
        if topic is None:
            raise NotFound(f"topic {name} does not exist")
        return topic

    def by_id(self, topic_id: str) -> Topic | None:
        """The topic with that id as it is now; None if there is none, or only another process knows it yet."""
        with self._lock:
            return self._by_id.get(topic_id)

    def recently(self, topic_id: str) -> Topic | None:
        """As `by_id`; also one of the last MAX_DROPPED topics that were dropped here, for reads that had begun."""
        with self._lock:
            return self._by_id.get(topic_id) or self._dropped.get(topic_id)

    def schemas(self) -> builtins.list[str]:
        """Names of all schemas as written, sorted: the default schema, those that were made, those with topics."""
        return self._schemas.names()

    def create_schema(self, name: str) -> bool:
        """Make a schema durably; False if it is there already. Raises InvalidArgument for a bad name."""
        with self._change(), _unavailable():
            is_new = self._schemas.create(name)
        if is_new:
            self._bump()
            log.info("created schema %s", name)
        return is_new

    def drop_schema(self, name: str) -> None:
        """Remove a schema; raises NotFound, and InvalidArgument if it has topics or is the default one."""
        with self._change(), _unavailable():
            self._schemas.drop(name)
        self._bump()
        log.info("dropped schema %s", name)

    def create(self, wanted: TopicDraft) -> Topic:
        """Define the topic durably; raises AlreadyExists."""
        identifier = iceberg_identifier(wanted.name)
        kept = definition.properties(Definition(wanted.name, wanted.schema, wanted.constraints))
        with self._change(), _unavailable():
            self._schemas.ensure(wanted.name.schema)
            try:
                table = self._catalog.create_table(
                    identifier,
                    wanted.schema.iceberg,
                    location=self._root + wanted.location,
                    properties={**_FORMAT, **kept},
                )
            except TableAlreadyExistsError:
                raise AlreadyExists(f"topic {wanted.name} exists already") from None
            except (NoSuchTableError, NoSuchNamespaceError) as error:
                raise Unavailable(
                    f"topic {wanted.name} was created and dropped at once; try again"
                ) from error
            topic = self._remember(identifier, table.metadata, is_certain=True)
        if topic is None:
            raise Unavailable(f"topic {wanted.name} was created and cannot be read back; try again")
        log.info("created topic %s (%d columns)", topic.name, len(topic.schema.declared))
        return topic

    def alter(self, topic_id: str, change: Change) -> Topic:
        """Change the definition of the topic durably, all of it or nothing; returns the topic as it is then.

        Changes of one topic follow each other: each is made from what the one before has left, in
        whichever process. Raises NotFound for a topic or column that is not there, AlreadyExists
        for a name that is taken, InvalidArgument for what cannot be.
        """
        checked = CheckedColumns()
        for _ in range(_ATTEMPTS):
            checked.compile()  # takes long, so others must not wait
            with suppress(CommitFailedException, Unchecked), self._change(), _unavailable():
                topic = self.by_id(topic_id)
                if topic is None:
                    raise NotFound("the topic does not exist any more")
                return self._alter(topic, change, checked)
        raise Unavailable("other servers are changing the topic; try again")

    def _alter(self, topic: Topic, change: Change, checked: CheckedColumns) -> Topic:
        """As `alter`, one attempt; raises CommitFailedException if another process was faster, and Unchecked."""
        identifier = iceberg_identifier(topic.name)
        try:
            table = self._load(identifier)
            if table is None or str(table.metadata.table_uuid) != topic.id:
                raise NoSuchTableError
            before = self._definition(topic, table)
            after = apply(change, before, checked.of(before.constraints.checks))
            if after is before:
                metadata = table.metadata
            elif iceberg_identifier(after.name) == identifier:
                metadata = tables.commit(self._catalog, table, after)
            else:
                metadata = tables.rename(self._catalog, table, before, after)
        except TableAlreadyExistsError:
            raise AlreadyExists(f"topic {after.name} exists already") from None
        except (NoSuchTableError, NoSuchNamespaceError):
            raise NotFound(f"topic {topic.name} was dropped or renamed by another server") from None
        except ValidationError:
            raise InvalidArgument(
                f"topic {topic.name} cannot be changed so: another engine partitions or sorts its table by the column"
            ) from None
        except SQLAlchemyError:
            self._look_again(identifier)  # the change may have been made
            raise
        changed = self._remember(iceberg_identifier(after.name), metadata, is_certain=True)
        if changed is None or changed.id != topic.id:
            raise NotFound(f"topic {topic.name} was dropped meanwhile")
        if after is not before:
            log.info("%s: topic %s has version %d", type(change).__name__, changed.name, changed.version)
        return changed

    def _definition(self, topic: Topic, table: Table) -> Definition:
        try:
            return definition.read(iceberg_identifier(topic.name), table.metadata)
        except (KeyError, ValueError) as error:
            log.error("the definition of topic %s is damaged: %r", topic.name, error)
            raise Unavailable(f"the definition of topic {topic.name} cannot be read") from None

    def _look_again(self, identifier: tuple[str, str]) -> None:
        with suppress(BoilStreamError, NoSuchTableError, NoSuchNamespaceError, SQLAlchemyError):
            table = self._load(identifier)
            if table is not None:
                self._remember(identifier, table.metadata)

    def drop(self, topic: Topic) -> None:
        """Remove the definition; no error if it is gone already. The caller removes rows and files."""
        with self._change(), _unavailable():
            with self._lock:
                self._ended.add(topic.id)  # a load that is under way must not bring it back
                current = self._by_id.get(topic.id, topic)  # it may have another name by now
            self._drop_table(current)
            with self._lock:
                self._forget(topic.id)

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
            raise Unavailable("other topics are being changed and the store is slow; try again")
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

    def _remember(
        self, identifier: tuple[str, ...], metadata: TableMetadata, *, is_certain: bool = False
    ) -> Topic | None:
        """The topic of a table that was loaded, unless a drop or a newer load was faster.

        `is_certain`: the table has that name for sure, because this process has just given it.
        """
        topic = self._read(identifier, metadata)
        if topic is None:
            return None
        with self._lock:
            known = self._by_id.get(topic.id)
            holder = self._topics.get(topic.name.key)
            is_old = known is not None and known.version >= topic.version
            is_taken = holder is not None and holder.id != topic.id and not is_certain
            if topic.id in self._ended or is_old or is_taken:
                return holder
            for outdated in (known, holder):
                if outdated is not None:
                    self._forget(outdated.id)
            self._dropped.pop(topic.id, None)
            self._topics[topic.name.key] = self._by_id[topic.id] = topic
            self._version += 1
            self._schemas.remember(topic.name.schema)
            return topic

    def _forget(self, topic_id: str) -> None:
        """Know the topic as a dropped one only. The lock is held."""
        topic = self._by_id.pop(topic_id, None)
        if topic is None:
            return
        del self._topics[topic.name.key]
        self._dropped[topic_id] = topic
        while len(self._dropped) > MAX_DROPPED:
            del self._dropped[next(iter(self._dropped))]
        self._version += 1

    def _bump(self) -> None:
        with self._lock:
            self._version += 1

    def _read(self, identifier: tuple[str, ...], metadata: TableMetadata) -> Topic | None:
        location = metadata.location
        try:
            if not location.startswith(self._root):
                raise ValueError(f"its location {location} is outside the object store {self._root}")
            found = definition.read(identifier, metadata)
        except (KeyError, ValueError) as error:
            log.warning("Iceberg table %s is not served: %r", ".".join(identifier), error)
            return None
        return Topic(
            id=str(metadata.table_uuid),
            name=found.name,
            schema=found.schema,
            location=location[len(self._root) :],
            version=found.version,
            constraints=found.constraints,
            history=MappingProxyType(dict(found.versions)),
        )


@contextmanager
def _unavailable() -> Iterator[None]:
    """Turn failures of the catalog's database into Unavailable."""
    try:
        yield
    except SQLAlchemyError as error:
        log.warning("the Iceberg catalog's database failed: %s", error)
        raise Unavailable("the Iceberg catalog does not answer; try again") from error
