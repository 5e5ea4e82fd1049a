"""Reading for a caller: permissions, planning, rows. Every transport uses these rules."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa

from boilstream.auth.authorizer import Action, Authorizer
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.identity import Identity
from boilstream.catalog.names import DEFAULT_SCHEMA, TopicName, fold
from boilstream.catalog.topics import Topic, TopicCatalog
from boilstream.catalog.types import TopicSchema
from boilstream.errors import Internal, NotFound
from boilstream.log.index import LogIndex, Totals
from boilstream.log.records import DataFile
from boilstream.query.predicates.predicate import Predicate
from boilstream.query.scan import Segment, divide, partition, read
from boilstream.storage.base import ObjectMissing, ObjectStore

log = logging.getLogger("boilstream.query.service")


@dataclass(frozen=True, slots=True)
class TopicSummary:
    """A topic and what it holds at this moment."""

    topic: Topic
    totals: Totals


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """A snapshot of a topic, split into parts that can be read in parallel."""

    topic: Topic
    parts: tuple[tuple[DataFile, ...], ...]


class Queries:
    """What a caller may see and read. Methods raise PermissionDenied and NotFound."""

    def __init__(
        self,
        catalog: TopicCatalog,
        index: LogIndex,
        store: ObjectStore,
        authorizer: Authorizer,
        expiry: ExpiryRule,
    ) -> None:
        self._catalog = catalog
        self._index = index
        self._store = store
        self._authorizer = authorizer
        self._expiry = expiry

    def topics(self, identity: Identity) -> list[TopicSummary]:
        """All topics that the caller may read, ordered by name."""
        return [
            TopicSummary(topic, self._index.totals(topic.id))
            for topic in self._catalog.list()
            if self._authorizer.decide(identity, Action.READ, topic.name).allowed
        ]

    def topic(self, identity: Identity, name: TopicName) -> TopicSummary:
        """One topic."""
        topic = self._readable(identity, name)
        return TopicSummary(topic, self._index.totals(topic.id))

    def plan(self, identity: Identity, name: TopicName) -> ReadPlan:
        """All rows that are committed now."""
        topic = self._readable(identity, name)
        return ReadPlan(topic, tuple(partition(self._index.files(topic.id))))

    def read(
        self,
        identity: Identity,
        name: TopicName,
        *,
        topic_id: str | None = None,
        files: Sequence[str] | None = None,
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Declared schema and rows: those of `files` (names in the topic's data folder), else all committed now.

        With `topic_id` the read fails if the name has another topic by now. The rows end with TokenExpired
        when the caller's token does, with Denied when the right to read is taken away.
        """
        topic = self._readable(identity, name)
        if topic_id is not None and topic.id != topic_id:
            raise NotFound(
                f"topic {name} was dropped and made anew since the read was planned; plan it again"
            )
        committed = self._index.files(topic.id)
        if files is None:
            chosen: Sequence[DataFile] = committed
        else:
            known = {file.key.rpartition("/")[2]: file for file in committed}
            if missing := [file for file in files if file not in known]:
                raise NotFound(f"topic {name} has no file {ascii(missing[0])[:60]}; plan the read again")
            chosen = [known[file] for file in files]
        segments = [Segment(file.key, 0, file.rows) for file in chosen]
        batches = read(self._store, topic.schema, segments)
        return topic.schema.declared, self._rows(identity, topic, batches)

    # For callers who keep definitions of topics: a topic is named by its id, its columns by a version.

    def schemas(self, identity: Identity) -> dict[str, list[Topic]]:
        """Schemas, and in each the topics that the caller may read; both ordered by name.

        A schema whose topics the caller may not read, none of them, is shown to those alone who may write
        everywhere: its name is not for the others. Empty ones are for all.
        """
        found: dict[str, list[Topic]] = {name: [] for name in self._catalog.schemas()}
        written = {fold(name): name for name in found}
        hidden: set[str] = set()
        for topic in self._catalog.list():
            name = written.get(fold(topic.name.schema), topic.name.schema)
            if self._authorizer.decide(identity, Action.READ, topic.name).allowed:
                found.setdefault(name, []).append(topic)
            else:
                hidden.add(name)
        if not self._authorizer.decide(identity, Action.WRITE, None).allowed:
            for name in hidden - {DEFAULT_SCHEMA}:
                if not found.get(name):
                    found.pop(name, None)
        return found

    def topic_by_id(self, identity: Identity, topic_id: str) -> Topic:
        """A topic as it is defined now; raises NotFound if it was dropped."""
        topic = self._catalog.by_id(topic_id)
        if topic is None or self._index.is_dropped(topic_id):
            raise _dropped()
        self._authorizer.require(identity, Action.READ, topic.name)
        return topic

    def schema_of(self, identity: Identity, topic_id: str, version: int) -> TopicSchema:
        """The schema that a topic had in one of its last versions, also if it was dropped meanwhile."""
        topic = self._lasting(topic_id)
        self._authorizer.require(identity, Action.READ, topic.name)
        return _version_of(topic, version)

    def plan_scan(
        self, identity: Identity, topic_id: str, version: int, predicate: Predicate | None = None
    ) -> list[tuple[Segment, ...]]:
        """Parts, to be read in parallel by `scan`, of all rows that are committed now and may match.

        There is no part if there are no such rows.
        """
        topic = self.topic_by_id(identity, topic_id)
        _version_of(topic, version)
        snapshot = self._index.snapshot(topic_id)
        if self._index.is_dropped(topic_id):
            raise _dropped()
        files = zip(snapshot.files, snapshot.first_row_ids, strict=True)
        return divide(
            [
                (file, first_row_id)
                for file, first_row_id in files
                if predicate is None or predicate.may_match(file.statistics, file.rows)
            ]
        )

    def scan(
        self,
        identity: Identity,
        topic_id: str,
        version: int,
        segments: Sequence[Segment],
        *,
        view: TopicSchema | None = None,
        columns: Sequence[str] | None = None,
        predicate: Predicate | None = None,
        row_ids: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a part that `plan_scan` made; see `boilstream.query.scan.read`.

        `view` is another declared form of the schema of that version. The rows are those of the plan,
        whether the topic has been altered, renamed or dropped since; they end as those of `read` do.
        """
        topic = self._lasting(topic_id)
        self._authorizer.require(identity, Action.READ, topic.name)
        schema = view or _version_of(topic, version)
        batches = read(self._store, schema, segments, columns=columns, predicate=predicate, row_ids=row_ids)
        return self._rows(identity, topic, batches)

    def _lasting(self, topic_id: str) -> Topic:
        """A topic as it is defined now, or was when it was dropped."""
        topic = self._catalog.recently(topic_id)
        if topic is None:
            raise _dropped()
        return topic

    def _rows(
        self, identity: Identity, topic: Topic, batches: Generator[pa.RecordBatch, None, None]
    ) -> Iterator[pa.RecordBatch]:
        try:
            with closing(batches):
                for batch in batches:
                    self._expiry.require_current(identity)
                    current = self._catalog.recently(topic.id) or topic  # it may have another name by now
                    self._authorizer.require(identity, Action.READ, current.name)
                    yield batch
        except ObjectMissing as error:
            if self._index.is_dropped(topic.id):
                raise NotFound(f"topic {topic.name} was dropped while it was read") from error
            log.error("a data file that the commit log names is missing: %s", error)
            raise Internal(f"a data file of topic {topic.name} is missing in the object store") from error

    def _readable(self, identity: Identity, name: TopicName) -> Topic:
        self._authorizer.require(identity, Action.READ, name)
        return self._catalog.get(name)


def _version_of(topic: Topic, version: int) -> TopicSchema:
    schema = topic.history.get(version)
    if schema is None:
        raise NotFound(
            f"version {version} of table {topic.name} is not known any more; DETACH and ATTACH again to see its columns"
        )
    return schema


def _dropped() -> NotFound:
    return NotFound("the table was dropped; DETACH and ATTACH again to see what is there now")
