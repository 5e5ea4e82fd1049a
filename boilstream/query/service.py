"""Reading for a caller: permissions, planning, rows. Every transport uses these rules."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from boilstream.auth.authorizer import Action, Authorizer
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.identity import Identity
from boilstream.catalog.names import TopicName
from boilstream.catalog.topics import Topic, TopicCatalog
from boilstream.errors import Internal, NotFound
from boilstream.log.index import LogIndex, Totals
from boilstream.log.records import DataFile
from boilstream.query.scan import partition, read
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
        return topic.schema.declared, self._rows(identity, topic, chosen)

    def _rows(self, identity: Identity, topic: Topic, files: Sequence[DataFile]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in read(self._store, topic.schema, files):
                self._expiry.require_current(identity)
                self._authorizer.require(identity, Action.READ, topic.name)
                yield batch
        except ObjectMissing as error:
            if self._index.is_dropped(topic.id):
                raise NotFound(f"topic {topic.name} was dropped while it was read") from error
            log.error("a data file that the commit log names is missing: %s", error)
            raise Internal(f"a data file of topic {topic.name} is missing in the object store") from error

    def _readable(self, identity: Identity, name: TopicName) -> Topic:
        self._authorizer.require(identity, Action.READ, name)
        return self._catalog.get(name)
