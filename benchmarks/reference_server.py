"""The same server without its work, to measure the rest against: `python -m benchmarks.reference_server serve`.

An INSERT passes authentication, permission and transport, and its rows are thrown away. DoGet answers
with one table that is held in memory, whatever the ticket.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.flight as flight

import boilstream.app
from benchmarks.data import event_table
from boilstream.cli import main
from boilstream.flight.server import FlightServer
from boilstream.ingest.append import Append
from boilstream.ingest.group import Receipt


def _drop(append: Append, batch: pa.RecordBatch) -> None:
    append.rows_sent += batch.num_rows


def _acknowledge(append: Append, _is_abandoned: Callable[[], bool]) -> Receipt:
    return Receipt(append.rows_sent, "nothing")


class _MemoryServer(FlightServer):
    """Serves one table from memory."""

    _table: pa.Table | None = None

    def do_get(self, context: flight.ServerCallContext, _ticket: flight.Ticket) -> flight.FlightDataStream:
        with self._gate.enter(context, "DoGet"):
            if self._table is None:
                self._table = event_table()
            return flight.RecordBatchStream(self._table)


if __name__ == "__main__":
    for place, name, replacement in (
        (Append, "write", _drop),
        (Append, "finish", _acknowledge),
        (boilstream.app, "FlightServer", _MemoryServer),
    ):
        setattr(place, name, replacement)
    main()
