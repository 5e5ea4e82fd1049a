"""Writing for a caller: permissions, topics, appends. Every transport uses these rules."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from boilstream.auth.audit import Auditor
from boilstream.auth.authorizer import Action, Authorizer, Decision
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.identity import Caller
from boilstream.catalog.changes import Change, RenameTopic, SetDefault, SetNotNull
from boilstream.catalog.constraints import Constraints
from boilstream.catalog.duckdb_types import published
from boilstream.catalog.names import TopicName, topic_name
from boilstream.catalog.sql.expressions import Default
from boilstream.catalog.topics import Topic, TopicCatalog, TopicDraft, draft
from boilstream.catalog.typemap import show
from boilstream.catalog.types import TopicSchema
from boilstream.errors import AlreadyExists, InvalidArgument, NotFound, TimedOut, Unavailable
from boilstream.ingest.append import Append
from boilstream.ingest.engine import IngestEngine
from boilstream.ingest.group import Receipt
from boilstream.ingest.rules import RowRules
from boilstream.log.index import LogIndex
from boilstream.log.writer import LogWriter
from boilstream.query.data_files import null_count
from boilstream.storage.base import ObjectStore


class Ingestion:
    """What a caller may write and define. Methods raise PermissionDenied, NotFound and InvalidArgument."""

    def __init__(
        self,
        catalog: TopicCatalog,
        engine: IngestEngine,
        log_writer: LogWriter,
        index: LogIndex,
        store: ObjectStore,
        authorizer: Authorizer,
        *,
        expiry: ExpiryRule,
        auditor: Auditor,
        auto_create: bool,
        ack_timeout: float,
    ) -> None:
        """`ack_timeout` in seconds."""
        self._catalog = catalog
        self._engine = engine
        self._log_writer = log_writer
        self._index = index
        self._store = store
        self._authorizer = authorizer
        self._expiry = expiry
        self._auditor = auditor
        self._auto_create = auto_create
        self._ack_timeout = ack_timeout

    def open(self, caller: Caller, name: TopicName, schema: pa.Schema) -> CallersAppend:
        """Begin an append to the topic; a missing one is created with its first rows (AUTO_CREATE_TOPICS)."""
        decision = self._authorizer.require(caller.identity, Action.WRITE, name)
        target: Topic | TopicDraft | None = self._catalog.find(name)
        if target is None:
            if not self._auto_create:
                raise NotFound(
                    f"topic {name} does not exist and AUTO_CREATE_TOPICS is false; create it first"
                )
            target = draft(name, TopicSchema.declare(schema))
        return self._append(caller, decision, target, schema)

    def open_version(self, caller: Caller, topic_id: str, version: int, schema: pa.Schema) -> CallersAppend:
        """Begin an append to a topic as the caller knows it; raises InvalidArgument if it was altered since."""
        topic = self._catalog.by_id(topic_id)
        if topic is None:
            raise NotFound("the table was dropped; DETACH and ATTACH again to see what is there now")
        decision = self._authorizer.require(caller.identity, Action.WRITE, topic.name)
        if topic.version != version:
            raise InvalidArgument(
                f"table {topic.name} was altered by another session; DETACH and ATTACH again to see its columns"
            )
        return self._append(caller, decision, topic, schema)

    def _append(
        self, caller: Caller, decision: Decision, target: Topic | TopicDraft, schema: pa.Schema
    ) -> CallersAppend:
        append = self._engine.open(target, schema)
        return CallersAppend(append, caller, decision, self._authorizer, self._expiry, self._auditor)

    def create_topic(
        self, caller: Caller, name: TopicName, schema: pa.Schema, checks: tuple[str, ...] = ()
    ) -> Topic:
        """Define an empty topic, whose rows may not make one of `checks` (SQL) false; raises AlreadyExists."""
        decision = self._authorizer.require(caller.identity, Action.WRITE, name)
        if self._catalog.find(name) is not None:
            raise AlreadyExists(f"topic {name} exists already")
        declared, constraints = TopicSchema.declare(schema), Constraints(checks=checks)
        RowRules(declared, constraints)  # refuses what cannot be evaluated
        with _noted_if_unsure(self._auditor, caller, decision):
            topic = self._catalog.create(draft(name, declared, constraints))
        self._auditor.allowed(caller, decision)
        return topic

    def alter_topic(self, caller: Caller, name: TopicName, change: Change) -> Topic:
        """Change the definition of a topic and return it; rows stay readable, see `boilstream.catalog.changes`.

        Raises NotFound, AlreadyExists and InvalidArgument for what cannot be.
        """
        decision = self._authorizer.require(caller.identity, Action.ADMIN, name)
        topic = self._catalog.get(name)
        if isinstance(change, RenameTopic):
            self._authorizer.require(caller.identity, Action.WRITE, topic_name(name.schema, change.table))
        if isinstance(change, SetDefault):
            self._require_evaluable(
                topic, change
            )  # takes long; the change itself compares nothing but the text
        with (
            self._engine.definitions.change(topic.id, deadline=time.monotonic() + self._ack_timeout),
            _noted_if_unsure(self._auditor, caller, decision),
        ):
            current = self._catalog.by_id(topic.id)
            if current is None:
                raise NotFound(f"topic {topic.name} was dropped meanwhile")
            # It may have been renamed since the right was asked for.
            decision = self._authorizer.require(caller.identity, Action.ADMIN, current.name)
            if isinstance(change, SetNotNull):
                self._require_no_nulls(current, change)
            altered = self._catalog.alter(topic.id, change)
        self._auditor.allowed(caller, decision, note=type(change).__name__)
        return altered

    def _require_evaluable(self, topic: Topic, change: SetDefault) -> None:
        position = topic.schema.position(change.name)
        if (
            change.sql is not None and position is not None
        ):  # a missing column is refused by the change itself
            Default.compile(change.sql, published(topic.schema).declared.field(position)).values(1)

    def _require_no_nulls(self, topic: Topic, change: SetNotNull) -> None:
        position = topic.schema.position(change.name)
        if position is None:
            return  # refused by the change itself
        field_id = topic.schema.iceberg.fields[position].field_id
        for file in self._index.files(topic.id):
            if null_count(self._store, file, field_id):
                raise InvalidArgument(
                    f"column {show(change.name)} of {topic.name} cannot become NOT NULL: "
                    "there are rows where it is null"
                )

    def create_schema(self, caller: Caller, schema: str) -> None:
        """Define a schema, unless it is there already."""
        decision = self._authorizer.require(caller.identity, Action.WRITE, None)
        with _noted_if_unsure(self._auditor, caller, decision):
            if self._catalog.create_schema(schema):
                self._auditor.allowed(caller, decision, note=f"schema {ascii(schema)[:80]} created")

    def drop_schema(self, caller: Caller, schema: str) -> None:
        """End an empty schema; raises NotFound, and InvalidArgument if it has topics."""
        decision = self._authorizer.require(caller.identity, Action.ADMIN, None)
        with _noted_if_unsure(self._auditor, caller, decision):
            self._catalog.drop_schema(schema)
        self._auditor.allowed(caller, decision, note=f"schema {ascii(schema)[:80]} dropped")

    def drop_topic(self, caller: Caller, name: TopicName) -> None:
        """End a topic: its rows are gone for every reader when this returns.

        The record in the log comes first; should the process end between the two steps, the next
        start completes the second (`forget_dropped`).
        """
        decision = self._authorizer.require(caller.identity, Action.ADMIN, name)
        topic = self._catalog.get(name)
        with _noted_if_unsure(self._auditor, caller, decision):
            self._log_writer.commit((), dropped=(topic.id,), deadline=time.monotonic() + self._ack_timeout)
        self._auditor.allowed(caller, decision)
        self._catalog.drop(topic)

    def flush(self, caller: Caller) -> None:
        """Commit all complete appends without waiting for the flush interval."""
        self._authorizer.require(caller.identity, Action.WRITE, None)
        self._engine.committer.flush(self._ack_timeout)


@contextmanager
def _noted_if_unsure(auditor: Auditor, caller: Caller, decision: Decision) -> Iterator[None]:
    """Around a change: it may have been made although the store failed, so the audit log tells of it."""
    try:
        yield
    except (TimedOut, Unavailable) as error:
        auditor.allowed(caller, decision, note=f"the outcome is not known: {error.message}")
        raise


class CallersAppend:
    """An append on behalf of a caller, for as long as the caller's token lasts; see `Append`."""

    def __init__(
        self,
        append: Append,
        caller: Caller,
        decision: Decision,
        authorizer: Authorizer,
        expiry: ExpiryRule,
        auditor: Auditor,
    ) -> None:
        self._append = append
        self._caller = caller
        self._decision = decision
        self._authorizer = authorizer
        self._expiry = expiry
        self._auditor = auditor

    @property
    def schema(self) -> TopicSchema:
        """The schema of the topic that is written to."""
        return self._append.schema

    @property
    def rows_sent(self) -> int:
        """Rows of all batches so far."""
        return self._append.rows_sent

    def write(self, batch: pa.RecordBatch | None) -> None:
        """As `Append.write`, None for no rows; afterwards raises TokenExpired if the token has ended meanwhile."""
        if batch is not None:
            self._append.write(batch)
        self.require_current()

    def write_through(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """As `Append.write_through`; afterwards raises TokenExpired if the token has ended meanwhile."""
        stored = self._append.write_through(batch)
        self.require_current()
        return stored

    def finish(self, is_abandoned: Callable[[], bool]) -> Receipt:
        """As `Append.finish`; commits nothing if the token has ended, or the right was taken away meanwhile.

        Raises TokenExpired and Denied for that.
        """
        self.require_current()
        decision = self._authorizer.require(
            self._caller.identity, self._decision.action, self._decision.topic
        )
        with _noted_if_unsure(self._auditor, self._caller, decision):
            receipt = self._append.finish(is_abandoned)
        self._auditor.allowed(self._caller, decision, rows=receipt.rows, commit=receipt.commit_id)
        return receipt

    def close(self) -> None:
        """As `Append.close`."""
        self._append.close()

    def require_current(self) -> None:
        """Raise TokenExpired if the token has ended."""
        # All or nothing: what was sent before the end of the token is not durable either.
        self._expiry.require_current(self._caller.identity, ack_up_to_offset=-1)
