"""Incoming streams of batches, told apart from connections that were lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.flight as flight

from boilstream.errors import InvalidArgument, Unavailable
from boilstream.flight.call import Connection


def schema_of(reader: flight.MetadataRecordBatchReader, connection: Connection) -> pa.Schema:
    """The schema of a stream, once it has arrived; raises as `batches` does."""
    with _readable(connection):
        return reader.schema


def batches(
    reader: flight.MetadataRecordBatchReader, connection: Connection
) -> Iterator[pa.RecordBatch | None]:
    """All batches of a stream, which nobody has checked yet; None stands for a message without rows.

    Raises InvalidArgument for bytes that are no Arrow IPC, and Unavailable when the client has gone
    before its stream was complete: for Flight a lost connection is an end like any other.
    """
    while True:
        with _readable(connection):
            try:
                chunk = reader.read_chunk()
            except StopIteration:
                break
        yield chunk.data
    if connection.has_gone():
        raise _gone()


@contextmanager
def _readable(connection: Connection) -> Iterator[None]:
    """Tell a stream that is not Arrow, or whose client has gone, from a defect of ours."""
    try:
        yield
    except flight.FlightError:
        raise
    except (pa.ArrowException, OSError) as error:
        if connection.has_gone():
            raise _gone() from None
        reason = (str(error).splitlines() or [""])[0][:200]
        raise InvalidArgument(f"the stream is not valid Arrow IPC: {reason}") from None


def _gone() -> Unavailable:
    return Unavailable("the client has gone before its stream was complete; nothing was written")
