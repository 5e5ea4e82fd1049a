"""The Arrow Flight server: RPCs to services and back."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa
import pyarrow.flight as flight

from boilstream.auth.capability import Capabilities
from boilstream.auth.manager import AuthManager
from boilstream.auth.middleware import AIRPORT_HEADER, CLIENT_SESSION_HEADER, AuthMiddlewareFactory
from boilstream.auth.middleware import MIDDLEWARE_KEY as AUTH_KEY
from boilstream.catalog.duckdb_types import published
from boilstream.catalog.topics import Topic
from boilstream.errors import InvalidArgument, Unavailable, Unimplemented
from boilstream.flight.actions import SESSION, Actions
from boilstream.flight.airport.actions import TRANSACTION_SUFFICES, AirportActions, AirportCall
from boilstream.flight.airport.exchange import OPERATION_HEADER, RETURN_HEADER, run_exchange
from boilstream.flight.airport.reads import SEALED, Reads
from boilstream.flight.call import MIDDLEWARE_KEY as CALL_KEY
from boilstream.flight.call import CallMiddlewareFactory, Connection, header
from boilstream.flight.descriptors import ReadTicket, decode_ticket, encode_ticket, topic_of
from boilstream.flight.errors import without_traceback
from boilstream.flight.gate import Gate
from boilstream.flight.streams import batches, schema_of
from boilstream.ingest.group import Receipt
from boilstream.ingest.service import Ingestion
from boilstream.query.service import Queries, TopicSummary

log = logging.getLogger("boilstream.flight.server")

STREAM_ID_HEADER = "boilstream-stream-id"


class FlightServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no stubs
    """Serves Flight at `location` as soon as it is built.

    Every RPC passes the authentication middleware and the gate first; handlers only translate.
    """

    def __init__(
        self,
        location: str,
        *,
        manager: AuthManager | None,
        gate: Gate,
        ingestion: Ingestion,
        queries: Queries,
        actions: Actions,
        airport: AirportActions,
        reads: Reads,
        capabilities: Capabilities,
        certificates: list[tuple[bytes, bytes]] | None = None,
        client_ca: bytes | None = None,
    ) -> None:
        """Without a `manager` calls need no token.

        `certificates` are (chain, key) pairs in PEM; `client_ca` makes client certificates obligatory.
        """
        self._gate = gate
        self._ingestion = ingestion
        self._queries = queries
        self._actions = actions
        self._airport = airport
        self._reads = reads
        super().__init__(
            location,
            tls_certificates=certificates,
            verify_client=client_ca is not None,
            root_certificates=client_ca,
            middleware={
                AUTH_KEY: AuthMiddlewareFactory(manager, gate.refuse, capabilities),
                CALL_KEY: CallMiddlewareFactory(),
            },
        )

    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        """Append one stream; the single result says that its rows are durable."""
        with self._gate.enter(context, "DoPut") as caller, Connection(context) as connection:
            if header(context, STREAM_ID_HEADER) is not None:
                raise Unimplemented(
                    f"numbered streams are not served yet; send the rows without the header {STREAM_ID_HEADER}"
                )
            name = topic_of(descriptor)
            schema = schema_of(reader, connection)
            principal = caller.identity.principal
            with closing(self._ingestion.open(caller, name, schema)) as append:
                log.debug("append to %s by %s begins", name, principal)
                number = 0
                for batch in batches(reader, connection):
                    append.write(batch)
                    number += batch is not None
                receipt = append.finish(connection.has_gone)
                log.debug(
                    "append to %s by %s: %d rows in commit %s",
                    name,
                    principal,
                    receipt.rows,
                    receipt.commit_id,
                )
            try:
                writer.write(_acknowledgement(receipt, number))
            except (pa.ArrowException, OSError):
                log.info("the client of commit %s has gone before it was told", receipt.commit_id)
                raise Unavailable("the rows are durable, but the call has ended") from None

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        """The rows of one ticket, as a stream of the declared schema."""
        with self._gate.enter(context, "DoGet", transaction_suffices=True) as caller:
            if ticket.ticket.startswith(SEALED):
                schema, rows = self._reads.read(caller, ticket.ticket)
            else:
                wanted = decode_ticket(ticket.ticket)
                schema, rows = self._queries.read(
                    caller.identity, wanted.name, topic_id=wanted.topic_id, files=wanted.files
                )
            return flight.GeneratorStream(schema, self._gate.guard(context, caller, rows))

    def get_flight_info(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.FlightInfo:
        """Schema, sums, and tickets for all rows that are committed now."""
        with self._gate.enter(context, "GetFlightInfo") as caller:
            plan = self._queries.plan(caller.identity, topic_of(descriptor))
            endpoints = [
                flight.FlightEndpoint(
                    encode_ticket(
                        ReadTicket(
                            plan.topic.name,
                            plan.topic.id,
                            tuple(file.key.rpartition("/")[2] for file in part),
                        )
                    ),
                    [],
                )
                for part in plan.parts
            ]
            files = [file for part in plan.parts for file in part]
            schema, answered = plan.topic.schema.declared, _descriptor(plan.topic)
            if header(context, AIRPORT_HEADER) is not None:  # airport_take_flight wants its own words back
                schema, answered = published(plan.topic.schema).declared, descriptor
            return flight.FlightInfo(
                schema,
                answered,
                endpoints,
                sum(file.rows for file in files),
                sum(file.bytes for file in files),
            )

    def get_schema(
        self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor
    ) -> flight.SchemaResult:
        """The declared schema of a topic."""
        with without_traceback(), self._gate.enter(context, "GetSchema") as caller:
            summary = self._queries.topic(caller.identity, topic_of(descriptor))
            return flight.SchemaResult(summary.topic.schema.declared)

    def list_flights(self, context: flight.ServerCallContext, criteria: bytes) -> Iterator[flight.FlightInfo]:
        """All topics that the caller may read; `criteria` must be empty."""
        with self._gate.enter(context, "ListFlights") as caller:
            if criteria:
                raise InvalidArgument(
                    "ListFlights takes no criteria; it lists all topics that the caller may read"
                )
            return iter([_summary_info(summary) for summary in self._queries.topics(caller.identity)])

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> Iterator[bytes]:
        """Run one of the actions."""
        body = memoryview(action.body)  # copied only once its size is known to be small
        if action.type == SESSION:  # the token is in the body
            with self._gate.open(context, f"action {SESSION}") as peer:
                return iter([self._actions.session(body, peer)])
        suffices = action.type in TRANSACTION_SUFFICES
        name = self._call_name(action.type)
        with self._gate.enter(context, name, transaction_suffices=suffices) as caller:
            if action.type in self._airport:
                call = AirportCall(
                    caller,
                    client_session=header(context, CLIENT_SESSION_HEADER),
                    bearer_characters=len(header(context, "authorization") or ""),
                )
                return iter([self._airport.run(call, action.type, body)])
            return iter([self._actions.run(caller, action.type, body)])

    def _call_name(self, action: str) -> str:
        """The action in logs, without text that a client made up."""
        return f"action {action}" if action in self._airport or action in self._actions else "unknown action"

    def list_actions(self, context: flight.ServerCallContext) -> list[tuple[str, str]]:
        """Names and descriptions of the actions."""
        with self._gate.enter(context, "ListActions"):
            return [*self._actions.list(), *self._airport.list()]

    def do_exchange(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.MetadataRecordBatchWriter,
    ) -> None:
        """INSERT by DuckDB's Airport extension; nothing else."""
        with (
            self._gate.enter(context, "DoExchange", transaction_suffices=True) as caller,
            Connection(context) as connection,
        ):
            run_exchange(
                self._ingestion,
                caller,
                connection,
                descriptor,
                reader,
                writer,
                operation=header(context, OPERATION_HEADER),
                returning=header(context, RETURN_HEADER) == "1",
            )


def _acknowledgement(receipt: Receipt, batches: int) -> bytes:
    return json.dumps(
        {
            "ack_up_to_offset": batches - 1,
            "ack_up_to_records": receipt.rows,
            "rows": receipt.rows,
            "commit": receipt.commit_id,
        }
    ).encode()


def _summary_info(summary: TopicSummary) -> flight.FlightInfo:
    """What a listing says of a topic: one ticket for all rows at the time of reading."""
    topic = summary.topic
    endpoint = flight.FlightEndpoint(encode_ticket(ReadTicket(topic.name)), [])
    return flight.FlightInfo(
        topic.schema.declared, _descriptor(topic), [endpoint], summary.totals.rows, summary.totals.bytes
    )


def _descriptor(topic: Topic) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_path(topic.name.schema, topic.name.table)
