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
from boilstream.catalog.names import TopicName
from boilstream.catalog.topics import Topic, TopicCatalog, TopicDraft, draft
from boilstream.catalog.types import TopicSchema
from boilstream.errors import AlreadyExists, NotFound, TimedOut, Unavailable
from boilstream.ingest.append import Append
from boilstream.ingest.engine import IngestEngine
from boilstream.ingest.group import Receipt
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
        expiry: ExpiryRule,
        auditor: Auditor,
        auto_create: bool,
        ack_timeout: float,
    ) -> None:
        """`ack_timeout` in seconds."""
        self._catalog = catalog
        self._engine = engine
        self._log_writer = log_writer
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
        append = self._engine.open(target, schema)
        return CallersAppend(append, caller, decision, self._authorizer, self._expiry, self._auditor)

    def create_topic(self, caller: Caller, name: TopicName, schema: pa.Schema) -> Topic:
        """Define an empty topic; raises AlreadyExists."""
        decision = self._authorizer.require(caller.identity, Action.WRITE, name)
        if self._catalog.find(name) is not None:
            raise AlreadyExists(f"topic {name} exists already")
        with _noted_if_unsure(self._auditor, caller, decision):
            topic = self._catalog.create(draft(name, TopicSchema.declare(schema)))
        self._auditor.allowed(caller, decision)
        return topic

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

    def write(self, batch: pa.RecordBatch) -> None:
        """As `Append.write`; afterwards raises TokenExpired if the token has ended meanwhile."""
        self._append.write(batch)
        self.require_current()

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
