"""What the client takes from streams, and what it would not survive there (6.3, 7.1)."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.flight as flight

from tests.support.airport.errors import ClientWouldCrash, ProtocolBroken
from tests.support.airport.wire import Fields, Table, unpack


def next_chunk(reader: flight.FlightStreamReader) -> flight.FlightStreamChunk | None:
    """The next message; None at the end of the stream."""
    try:
        return reader.read_chunk()
    except StopIteration:
        return None


def requested(
    chunk: flight.FlightStreamChunk, streamed: pa.Schema, table: Table, positions: list[int]
) -> pa.RecordBatch:
    """The columns that DuckDB looks at; the others may be anything (6.3, 6.4)."""
    if chunk.data is None:
        raise ClientWouldCrash("a message without rows ends the stream for the client, the rest is lost")
    if chunk.app_metadata is not None:
        progress = unpack(chunk.app_metadata.to_pybytes(), "metadata of a batch")
        if not isinstance(progress, dict) or not isinstance(progress.get(b"progress"), float):
            raise ClientWouldCrash(f"metadata of a batch is not its progress: {progress!r:.80}")
    arrays = []
    fields = [table.schema.field(position) for position in positions]
    for position, wanted in zip(positions, fields, strict=True):
        if position >= len(streamed):
            raise ClientWouldCrash(f"column {wanted.name!r} was asked for and is not in the stream")
        if streamed.field(position).type != wanted.type:
            raise ClientWouldCrash(
                f"column {wanted.name!r} is {streamed.field(position).type} at position {position} of the stream, "
                f"read as {wanted.type}"
            )
        array = chunk.data.column(position)
        array.validate(full=True)
        if array.null_count and not wanted.nullable:
            raise ProtocolBroken(f"column {wanted.name!r} is NOT NULL and has a null")
        arrays.append(array)
    schema = pa.schema([pa.field(item.name, item.type) for item in fields])
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def reply(
    chunk: flight.FlightStreamChunk | None, operation: str, batch: pa.RecordBatch, table: Table
) -> pa.RecordBatch:
    """The answer to one batch of a statement with RETURNING (7.1 to 7.3)."""
    if chunk is None:
        raise ClientWouldCrash("RETURNING: the stream ended where a batch was expected")
    if chunk.data is None:
        raise ClientWouldCrash("RETURNING: a message without rows")
    if chunk.data.num_rows != batch.num_rows:
        raise ClientWouldCrash(f"RETURNING: {chunk.data.num_rows} rows for {batch.num_rows}")
    if operation == "delete" and chunk.data.num_rows:
        raise ClientWouldCrash("DELETE RETURNING: INTERNAL error, and the rows are deleted already")
    if operation == "update" and chunk.data.schema.names != batch.schema.names:
        raise ClientWouldCrash(
            "UPDATE RETURNING: the columns have another order than the batch that was sent"
        )
    chunk.data.validate(full=True)
    for item in table.columns if operation == "insert" else []:
        index = chunk.data.schema.get_field_index(item.name)
        if index < 0:
            raise ClientWouldCrash(f"RETURNING: column {item.name!r} is missing")
        if chunk.data.schema.field(index).type != item.type:
            raise ClientWouldCrash(f"RETURNING: {item.name!r} is {chunk.data.schema.field(index).type}")
    return chunk.data


def total(chunk: flight.FlightStreamChunk | None) -> int:
    """Rows that the last message of an exchange reports."""
    if chunk is None:
        raise ProtocolBroken("no total_changed: the statement reports 0 rows and no error")
    if chunk.data is not None or chunk.app_metadata is None:
        raise ClientWouldCrash("rows instead of total_changed")
    return Fields(unpack(chunk.app_metadata.to_pybytes(), "total_changed"), "total_changed").natural(
        "total_changed"
    )
