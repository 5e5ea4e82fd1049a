"""Writing for a caller: permissions, topics, appends. Every transport uses these rules."""

from __future__ import annotations

import time

import pyarrow as pa

from boilstream.auth.authorizer import Action, Authorizer
from boilstream.auth.identity import Identity
from boilstream.catalog.names import TopicName
from boilstream.catalog.topics import Topic, TopicCatalog, draft
from boilstream.catalog.types import TopicSchema
from boilstream.errors import AlreadyExists, NotFound
from boilstream.ingest.append import Append
from boilstream.ingest.engine import IngestEngine
from boilstream.log.writer import LogWriter


class Ingestion:
    """What a caller may write and define. Methods raise PermissionDenied, NotFound and InvalidArgument."""

    def __init__(
        self,
        catalog: TopicCatalog,
        engine: IngestEngine,
        log_writer: LogWriter,
        authorizer: Authorizer,
        *,
        auto_create: bool,
        ack_timeout: float,
    ) -> None:
        """`ack_timeout` in seconds."""
        self._catalog = catalog
        self._engine = engine
        self._log_writer = log_writer
        self._authorizer = authorizer
        self._auto_create = auto_create
        self._ack_timeout = ack_timeout

    def open(self, identity: Identity, name: TopicName, schema: pa.Schema) -> Append:
        """Begin an append to the topic; a missing one is created with its first rows (AUTO_CREATE_TOPICS)."""
        self._authorizer.require(identity, Action.WRITE, str(name))
        topic = self._catalog.find(name)
        if topic is not None:
            return self._engine.open(topic, schema)
        if not self._auto_create:
            raise NotFound(f"topic {name} does not exist and AUTO_CREATE_TOPICS is false; create it first")
        return self._engine.open(draft(name, TopicSchema.declare(schema)), schema)

    def create_topic(self, identity: Identity, name: TopicName, schema: pa.Schema) -> Topic:
        """Define an empty topic; raises AlreadyExists."""
        self._authorizer.require(identity, Action.WRITE, str(name))
        if self._catalog.find(name) is not None:
            raise AlreadyExists(f"topic {name} exists already")
        return self._catalog.create(draft(name, TopicSchema.declare(schema)))

    def drop_topic(self, identity: Identity, name: TopicName) -> None:
        """End a topic: its rows are gone for every reader when this returns.

        The record in the log comes first; should the process end between the two steps, the next
        start completes the second (`forget_dropped`).
        """
        self._authorizer.require(identity, Action.ADMIN, str(name))
        topic = self._catalog.get(name)
        self._log_writer.commit((), dropped=(topic.id,), deadline=time.monotonic() + self._ack_timeout)
        self._catalog.drop(topic)

    def flush(self, identity: Identity) -> None:
        """Commit all complete appends without waiting for the flush interval."""
        self._authorizer.require(identity, Action.WRITE, None)
        self._engine.committer.flush(self._ack_timeout)
