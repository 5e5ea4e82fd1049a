"""The actions of Airport: from a msgpack body to a service, and its answer back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from boilstream.auth.authorizer import Authorizer
from boilstream.auth.capability import Capabilities
from boilstream.auth.identity import Caller
from boilstream.catalog.changes import Change
from boilstream.catalog.names import fold, topic_name
from boilstream.catalog.topics import TopicCatalog
from boilstream.errors import AlreadyExists, InvalidArgument, NotFound, Unimplemented
from boilstream.flight.airport.catalog import (
    CATALOG,
    UNREACHABLE_SCHEMAS,
    catalog_listing,
    require_catalog,
    schema_contents,
    table_info,
    table_version,
    version_info,
)
from boilstream.flight.airport.codec import Request, pack
from boilstream.flight.airport.ddl import CHANGES, REFUSED, declared_schema
from boilstream.flight.airport.reads import Reads, require_no_time_travel
from boilstream.ingest.service import Ingestion
from boilstream.query.service import Queries

TRANSACTION_SUFFICES: Final = frozenset({"endpoints", "flight_info"})
"""Actions that a transaction id opens: the client sends them as it sends reads, without the token of ATTACH."""

Handler = Callable[["AirportCall", Request], bytes]

_DONE: Final = pack({})
"""The result of an action that has nothing to say: without a result the client would end its process."""


@dataclass(frozen=True, slots=True)
class AirportCall:
    """Who calls, and what the headers say."""

    caller: Caller
    client_session: str | None
    """Names the client's process."""
    bearer_characters: int
    """Length of the token, which travels beside a transaction id."""


class AirportActions:
    """The actions that DuckDB's Airport extension calls, by name. Each has exactly one result."""

    def __init__(
        self,
        catalog: TopicCatalog,
        ingestion: Ingestion,
        queries: Queries,
        reads: Reads,
        authorizer: Authorizer,
        capabilities: Capabilities,
    ) -> None:
        self._catalog = catalog
        self._ingestion = ingestion
        self._queries = queries
        self._authorizer = authorizer
        self._capabilities = capabilities
        self._handlers: Mapping[str, Handler] = {
            "create_transaction": self._create_transaction,
            "catalog_version": self._catalog_version,
            "list_schemas": self._list_schemas,
            "endpoints": lambda call, request: reads.endpoints(call.caller, request),
            "flight_info": self._flight_info,
            "create_schema": self._create_schema,
            "drop_schema": self._drop_schema,
            "create_table": self._create_table,
            "drop_table": self._drop_table,
            **{name: partial(self._alter, change) for name, change in CHANGES.items()},
            **{name: partial(_refuse, reason) for name, reason in REFUSED.items()},
        }

    def list(self) -> list[tuple[str, str]]:
        """Name and description of every action."""
        return [(name, "part of DuckDB's Airport protocol; msgpack body") for name in self._handlers]

    def __contains__(self, name: str) -> bool:
        return name in self._handlers

    def run(self, call: AirportCall, name: str, body: bytes | memoryview) -> bytes:
        """The one result of an action that is in this set."""
        return self._handlers[name](call, Request.parse(name, body))

    # Transactions and listing

    def _create_transaction(self, call: AirportCall, request: Request) -> bytes:
        """There are no transactions; the id lets a client whose token is known to ATTACH alone read and write."""
        groups, scopes = self._authorizer.names()
        identifier = self._capabilities.issue(
            call.caller.identity,
            catalog=require_catalog(request.text("catalog_name")),
            client_session=call.client_session,
            groups=groups,
            scopes=scopes,
            bearer_characters=call.bearer_characters,
        )
        return pack({"identifier": identifier})

    def _catalog_version(self, _call: AirportCall, request: Request) -> bytes:
        require_catalog(request.text("catalog_name"))
        return pack(version_info(self._catalog.version))

    def _list_schemas(self, call: AirportCall, request: Request) -> bytes:
        catalog = require_catalog(request.text("catalog_name"))
        version = self._catalog.version  # before the listing: a change meanwhile must show as one
        schemas = self._queries.schemas(call.caller.identity)
        reachable = {
            name: topics for name, topics in schemas.items() if fold(name) not in UNREACHABLE_SCHEMAS
        }
        return catalog_listing(reachable, catalog, version)

    def _flight_info(self, call: AirportCall, request: Request) -> bytes:
        require_no_time_travel(request)
        descriptor = request.descriptor("descriptor")
        topic = self._queries.topic_by_id(call.caller.identity, table_version(descriptor).topic_id)
        return table_info(topic, CATALOG, topic.name.schema)

    # Definitions

    def _create_schema(self, call: AirportCall, request: Request) -> bytes:
        catalog = require_catalog(request.text("catalog_name"))
        name = request.text("schema")
        if fold(name) in UNREACHABLE_SCHEMAS:
            raise InvalidArgument(f"DuckDB cannot reach a schema {name!r} here; choose another name")
        self._ingestion.create_schema(call.caller, name)
        # The real contents: the client takes them for the schema's from now on.
        schemas = self._queries.schemas(call.caller.identity)
        known = next((topics for known, topics in schemas.items() if fold(known) == fold(name)), [])
        return pack(schema_contents(known, catalog, name))

    def _drop_schema(self, call: AirportCall, request: Request) -> bytes:
        require_catalog(request.text("catalog_name"))
        try:
            self._ingestion.drop_schema(call.caller, request.text("name"))
        except NotFound:
            if not request.flag("ignore_not_found"):
                raise
        return _DONE

    def _create_table(self, call: AirportCall, request: Request) -> bytes:
        catalog = require_catalog(request.text("catalog_name"))
        name = topic_name(request.text("schema_name"), request.text("table_name"))
        on_conflict = request.text("on_conflict")
        if on_conflict not in ("error", "ignore"):
            raise Unimplemented("CREATE OR REPLACE TABLE is not supported; DROP the table first")
        if fold(name.schema) in UNREACHABLE_SCHEMAS:
            raise InvalidArgument(f"DuckDB cannot reach a schema {name.schema!r} here; choose another")
        if fold(name.schema) not in map(fold, self._catalog.schemas()):
            raise NotFound(f"schema {ascii(name.schema)[:80]} does not exist; CREATE SCHEMA makes it")
        try:
            topic = self._ingestion.create_topic(
                call.caller, name, declared_schema(request), tuple(request.texts("check_constraints"))
            )
        except AlreadyExists:
            if on_conflict == "error":
                raise
            topic = self._queries.topic(call.caller.identity, name).topic
        return table_info(topic, catalog, name.schema)

    def _drop_table(self, call: AirportCall, request: Request) -> bytes:
        require_catalog(request.text("catalog_name"))
        name = topic_name(request.text("schema_name"), request.text("name"))
        try:
            self._ingestion.drop_topic(call.caller, name)
        except NotFound:
            if not request.flag("ignore_not_found"):
                raise
        return _DONE

    def _alter(self, change: Callable[[Request], Change], call: AirportCall, request: Request) -> bytes:
        catalog = require_catalog(request.text("catalog"))
        name = topic_name(request.text("schema"), request.text("name"))
        topic = self._ingestion.alter_topic(call.caller, name, change(request))
        return table_info(topic, catalog, name.schema)


def _refuse(reason: str, _call: AirportCall, _request: Request) -> bytes:
    raise Unimplemented(reason)
