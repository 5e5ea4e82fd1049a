"""Reading: the action `endpoints` plans, DoGet serves what it planned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.flight as flight

from boilstream.auth.capability import TICKET, Capabilities
from boilstream.auth.identity import Caller
from boilstream.catalog.duckdb_types import published
from boilstream.errors import InvalidArgument, Unimplemented
from boilstream.flight.airport.catalog import TableVersion, table_version, with_row_id
from boilstream.flight.airport.codec import Request, pack
from boilstream.flight.descriptors import topic_of
from boilstream.query.predicates.filters import parse
from boilstream.query.scan import Segment
from boilstream.query.service import Queries

ROW_ID_COLUMN: Final = 2**64 - 1
"""How the client names the pseudo column."""

THIS_SERVER: Final = "arrow-flight-reuse-connection://?"
"""The location of an endpoint that the client reads over the connection that it has."""

SEALED: Final = b"\0"
"""The first byte of these tickets; no topic's name and no JSON begins with it."""

MAX_FILTER_CHARACTERS: Final = 64 * 1024
"""Longest filters that travel in a ticket; beyond it rows are filtered by the client alone."""


@dataclass(frozen=True, slots=True)
class ScanTicket:
    """What one DoGet reads: all that is needed for it, whatever happens to the topic meanwhile."""

    topic_id: str
    version: int
    segments: tuple[Segment, ...]
    columns: tuple[int, ...]
    """Positions among the topic's published columns, ascending."""
    row_ids: bool
    filters: str
    """The client's own text; empty without."""

    def to_json(self) -> dict[str, Any]:
        """The content to seal. Files of a topic lie in one folder, which is named once."""
        folder = self.segments[0].key.rpartition("/")[0] if self.segments else ""
        segments = [
            [item.key.removeprefix(f"{folder}/"), item.first_row_id, item.rows, item.part, item.parts]
            for item in self.segments
        ]
        return {
            "topic": self.topic_id,
            "version": self.version,
            "folder": folder,
            "segments": segments,
            "columns": self.columns,
            "row_ids": self.row_ids,
            "filters": self.filters,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ScanTicket:
        """The inverse of `to_json`; the content was sealed by this server and is trusted."""
        return cls(
            content["topic"],
            content["version"],
            tuple(Segment(f"{content['folder']}/{name}", *rest) for name, *rest in content["segments"]),
            tuple(content["columns"]),
            content["row_ids"],
            content["filters"],
        )


class Reads:
    """Plans and serves the reads of Airport clients."""

    def __init__(self, queries: Queries, capabilities: Capabilities) -> None:
        self._queries = queries
        self._capabilities = capabilities

    def endpoints(self, caller: Caller, request: Request) -> bytes:
        """The answer of the action `endpoints`: where to read the rows that are committed now.

        Filters and columns are hints: the client projects and filters again.
        """
        known = self._known(caller, request.descriptor("descriptor"))
        parameters = request.part("parameters")
        require_no_time_travel(parameters)
        filters = parameters.optional_text("json_filters")
        schema = self._queries.schema_of(caller.identity, known.topic_id, known.version)
        view = published(schema)
        wanted = set(parameters.numbers("column_ids"))
        columns = tuple(sorted(wanted - {ROW_ID_COLUMN}))
        if columns and columns[-1] >= len(view.declared):
            raise InvalidArgument("column_ids names a column that is not there; DETACH and ATTACH again")
        predicate = parse(filters, view) if filters else None
        parts = self._queries.plan_scan(caller.identity, known.topic_id, known.version, predicate)
        if len(filters) > MAX_FILTER_CHARACTERS:
            filters = ""
        row_ids = ROW_ID_COLUMN in wanted
        return pack(
            [
                self._endpoint(
                    caller,
                    ScanTicket(known.topic_id, known.version, part, columns, row_ids, filters),
                )
                for part in parts
            ]
        )

    def _known(self, caller: Caller, descriptor: flight.FlightDescriptor) -> TableVersion:
        """What the client knows of a table; the function airport_take_flight sends just its name."""
        if len(descriptor.path or ()) in (1, 2):
            topic = self._queries.topic(caller.identity, topic_of(descriptor)).topic
            return TableVersion(topic.id, topic.version)
        return table_version(descriptor)

    def _endpoint(self, caller: Caller, ticket: ScanTicket) -> bytes:
        principal = caller.identity.principal
        sealed = SEALED + self._capabilities.seal(TICKET, ticket.to_json(), principal=principal)
        endpoint: bytes = flight.FlightEndpoint(flight.Ticket(sealed), [THIS_SERVER]).serialize()
        return endpoint

    def read(self, caller: Caller, ticket: bytes) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The stream of one ticket: the table's columns by position, as far as they are asked for.

        Columns in between that nobody asked for are null.
        """
        principal = caller.identity.principal
        content = self._capabilities.open(TICKET, ticket.removeprefix(SEALED), principal=principal)
        wanted = ScanTicket.from_json(content)
        schema = self._queries.schema_of(caller.identity, wanted.topic_id, wanted.version)
        view = published(schema)
        names = [view.declared.names[position] for position in wanted.columns]
        batches = self._queries.scan(
            caller.identity,
            wanted.topic_id,
            wanted.version,
            wanted.segments,
            view=view,
            columns=names,
            predicate=parse(wanted.filters, view) if wanted.filters else None,
            row_ids=wanted.row_ids,
        )
        layout = _Layout(view.declared, wanted)
        return layout.schema, _told_to_attach(map(layout.widen, batches))


def _told_to_attach(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches; a value that does not fit a column was written after the column was widened."""
    try:
        yield from batches
    except InvalidArgument as error:
        raise InvalidArgument(
            f"{error.message}; the table was altered by another session: DETACH and ATTACH again"
        ) from None


class _Layout:
    """Where the columns of a scan stand in the stream.

    The client reads by position and touches only what it asked for: the others have the type null, which
    takes no bytes, and those behind the last one are left out.
    """

    def __init__(self, declared: pa.Schema, wanted: ScanTicket) -> None:
        sources = {position: source + wanted.row_ids for source, position in enumerate(wanted.columns)}
        if wanted.row_ids:  # first in what is read, last in the table
            sources[len(declared)] = 0
        width = max(sources, default=0) + 1
        self._sources = [sources.get(position) for position in range(width)]
        self.schema = pa.schema(
            [
                field if position in sources else pa.field(field.name, pa.null())
                for position, field in enumerate(list(with_row_id(declared))[:width])
            ]
        )

    def widen(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The columns of a batch at their positions."""
        nothing = pa.nulls(batch.num_rows)
        return pa.RecordBatch.from_arrays(
            [nothing if source is None else batch.column(source) for source in self._sources],
            schema=self.schema,
        )


def require_no_time_travel(request: Request) -> None:
    """Raise Unimplemented if the members at_unit and at_value name a version in the past."""
    if request.optional_text("at_unit"):
        raise Unimplemented(
            "time travel, AT (VERSION => ...) and AT (TIMESTAMP => ...), is not supported yet: tables have no snapshots"
        )
