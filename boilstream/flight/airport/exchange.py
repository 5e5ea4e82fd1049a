"""DoExchange as the Airport extension uses it: INSERT. UPDATE and DELETE wait for table snapshots."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import Final

import pyarrow as pa
import pyarrow.flight as flight

from boilstream.auth.identity import Caller
from boilstream.catalog.duckdb_types import published
from boilstream.catalog.types import TopicSchema
from boilstream.errors import BoilStreamError, Unavailable, Unimplemented
from boilstream.flight.airport.catalog import table_version
from boilstream.flight.airport.codec import pack
from boilstream.flight.call import Connection
from boilstream.flight.streams import batches, schema_of
from boilstream.ingest.service import CallersAppend, Ingestion

log = logging.getLogger("boilstream.flight.airport")

OPERATION_HEADER: Final = "airport-operation"
RETURN_HEADER: Final = "return-chunks"

MAX_DRAINED_BYTES: Final = 256 * 1024 * 1024
"""How much of a stream is still read after an error: only at its end the client takes the error in its typed form."""

_REFUSED: Final = {
    "update": "UPDATE is not supported yet: tables take INSERT alone until they have snapshots",
    "delete": "DELETE and TRUNCATE are not supported yet: tables take INSERT alone until they have snapshots; "
    "DROP TABLE ends a table with its rows",
}


def run_exchange(
    ingestion: Ingestion,
    caller: Caller,
    connection: Connection,
    descriptor: flight.FlightDescriptor,
    reader: flight.MetadataRecordBatchReader,
    writer: flight.MetadataRecordBatchWriter,
    *,
    operation: str | None,
    returning: bool,
) -> None:
    """Serve one exchange to its end: its rows become durable and visible together, then the client is told.

    With `returning` each batch is answered by the rows as they are stored.
    """
    # Before anything is refused: a refusal that overtakes the client's first message loses its type.
    schema = schema_of(reader, connection)
    try:
        append = _open(ingestion, caller, descriptor, schema, operation)
    except BoilStreamError:
        # A client that waits for a reply per batch is told at once. The others end in better order, without a
        # warning of their own, when they are done sending.
        if not returning:
            writer.begin(schema)
            _drain(reader, connection)
        raise
    with closing(append):
        view = published(append.schema)
        writer.begin(view.declared)
        if returning:
            rows = _insert_returning(append, view, connection, reader, writer)
        else:
            rows = _insert(append, connection, reader)
        if connection.has_gone():
            raise Unavailable("the rows are durable, but the client has gone before it was told")
        try:
            writer.write_metadata(pack({"total_changed": rows}))
        except (pa.ArrowException, OSError):
            raise Unavailable("the rows are durable, but the client has gone before it was told") from None


def _open(
    ingestion: Ingestion,
    caller: Caller,
    descriptor: flight.FlightDescriptor,
    schema: pa.Schema,
    operation: str | None,
) -> CallersAppend:
    if operation != "insert":
        raise Unimplemented(
            _REFUSED.get(operation or "", f"DoExchange serves INSERT alone ({OPERATION_HEADER}: insert)")
        )
    known = table_version(descriptor)
    return ingestion.open_version(caller, known.topic_id, known.version, schema)


def _insert(append: CallersAppend, connection: Connection, reader: flight.MetadataRecordBatchReader) -> int:
    incoming = batches(reader, connection)
    try:
        for batch in incoming:
            append.write(batch)
        return append.finish(connection.has_gone).rows if append.rows_sent else 0
    except BoilStreamError:
        _drain(reader, connection)
        raise


def _insert_returning(
    append: CallersAppend,
    view: TopicSchema,
    connection: Connection,
    reader: flight.MetadataRecordBatchReader,
    writer: flight.MetadataRecordBatchWriter,
) -> int:
    for batch in batches(reader, connection):
        if batch is not None:
            # The client waits for one batch per batch, so an error now reaches it in the typed form.
            writer.write_batch(view.to_declared(append.write_through(batch)))
    return append.finish(connection.has_gone).rows if append.rows_sent else 0


def _drain(reader: flight.MetadataRecordBatchReader, connection: Connection) -> None:
    """Read the rest of a stream that is refused, up to a limit."""
    left = MAX_DRAINED_BYTES
    try:
        for batch in batches(reader, connection):
            left -= batch.get_total_buffer_size() if batch is not None else 0
            if left < 0:
                return
    except (BoilStreamError, flight.FlightError) as error:
        log.debug("the rest of a refused stream was not read: %s", error)
