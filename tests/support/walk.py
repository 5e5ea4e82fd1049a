"""Every call of the server, made by hand: how to send it, and what its answer says when it is served."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.flight as flight

from tests.support.airport.calls import USER_AGENT
from tests.support.airport.wire import parse_endpoints, parse_schemas, parse_table, unpack
from tests.support.issuer import IssuerProcess
from tests.support.poll import polling
from tests.support.server import Client, ServerProcess

ROWS = pa.table({"a": [1, 2], "b": ["x", "y"]})
CATALOG = "boilstream"

AIRPORT: list[tuple[bytes, bytes]] = [
    (b"airport-user-agent", USER_AGENT.encode()),
    (b"airport-client-session-id", b"5d3f1c9a-walk"),
    (b"airport-catalog", CATALOG.encode()),
]
"""Headers by which the server knows DuckDB's extension."""


def _schema_message(schema: pa.Schema) -> bytes:
    return bytes(schema.serialize().to_pybytes())


@dataclass(frozen=True, slots=True)
class Target:
    """A topic with ROWS, as its callers know it."""

    path: list[str]
    descriptor: flight.FlightDescriptor
    """That of Airport clients, with id and version."""
    sealed: bytes
    """A ticket of Airport for all rows. Principals other than the tests' usual one cannot use it."""

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def new_path(self) -> list[str]:
        """A topic that is not there."""
        return [*self.path[:-1], f"{self.path[-1]}_new"]

    @property
    def empty_schema(self) -> str:
        """A schema without topics that is there."""
        return f"{self.path[-1]}_schema"


def make_target(server: ServerProcess, issuer: IssuerProcess, path: list[str]) -> Target:
    """Create the topic `path`, and a schema without topics beside it."""
    admin = Client(server.location, issuer.token(groups="Admins"))
    admin.put(path, ROWS)
    target = Target(path, _listing(admin)[".".join(path)], b"")
    _airport(admin, "create_schema", {"catalog_name": CATALOG, "schema": target.empty_schema})
    (endpoint,) = parse_endpoints(_airport(admin, "endpoints", BODIES["endpoints"](target)))
    admin.close()
    return replace(target, sealed=endpoint.ticket.ticket)


# How calls are made


def _airport(client: Client, name: str, body: Mapping[str, Any]) -> bytes:
    """The one result of an action of Airport."""
    action = flight.Action(name, msgpack.packb({**body}))
    (result,) = client.connection.do_action(action, client.options)
    return bytes(result.body.to_pybytes())


def _listing(client: Client) -> dict[str, flight.FlightDescriptor]:
    """Topics of list_schemas by their dotted name."""
    found = {}
    for item in parse_schemas(_airport(client, "list_schemas", {"catalog_name": CATALOG})):
        for data in item.contents.items(item.name, list):
            table = parse_table(data, catalog=CATALOG, schema_name=item.name)
            assert table is not None
            found[f"{item.name}.{table.name}"] = table.descriptor
    return found


def _exchange(client: Client, target: Target) -> Any:
    """ROWS through DoExchange; the answer is its last message."""
    headers = [*client.headers, (b"airport-operation", b"insert"), (b"return-chunks", b"0")]
    inserting = replace(client, headers=headers, connection=None)
    try:
        writer, reader = inserting.connection.do_exchange(target.descriptor, inserting.options)
        with writer:
            writer.begin(ROWS.schema)
            writer.write_table(ROWS)
            writer.done_writing()
            return unpack(reader.read_chunk().app_metadata.to_pybytes(), "DoExchange")
    finally:
        inserting.close()


def _schema(client: Client, target: Target) -> pa.Schema:
    return client.connection.get_schema(flight.FlightDescriptor.for_path(*target.path), client.options).schema


def _poll(client: Client, target: Target) -> object:
    with polling(client.location) as location:
        polled = replace(client, location=location, connection=None)
        try:
            return polled.info(target.path)
        finally:
            polled.close()


def _create_topic(client: Client, target: Target) -> Any:
    schema = base64.b64encode(_schema_message(ROWS.schema)).decode()
    return client.action("create_topic", {"topic": target.new_path, "schema": schema})


# Bodies of Airport's actions


def _catalog(_target: Target) -> Mapping[str, Any]:
    return {"catalog_name": CATALOG}


def _alter(**members: Any) -> Callable[[Target], Mapping[str, Any]]:
    return lambda target: {
        "catalog": CATALOG,
        "schema": target.path[0],
        "name": target.path[1],
        "ignore_not_found": False,
        **members,
    }


BODIES: dict[str, Callable[[Target], Mapping[str, Any]]] = {
    "create_transaction": _catalog,
    "catalog_version": _catalog,
    "list_schemas": _catalog,
    "endpoints": lambda target: {
        "descriptor": target.descriptor.serialize(),
        "parameters": {"json_filters": "", "column_ids": [0, 1], "at_unit": "", "at_value": ""},
    },
    "flight_info": lambda target: {
        "descriptor": target.descriptor.serialize(),
        "at_unit": "",
        "at_value": "",
    },
    "create_schema": lambda target: {"catalog_name": CATALOG, "schema": target.new_path[-1]},
    "drop_schema": lambda target: {"type": "schema", "catalog_name": CATALOG, "name": target.empty_schema},
    "create_table": lambda target: {
        "catalog_name": CATALOG,
        "schema_name": target.new_path[0],
        "table_name": target.new_path[1],
        "arrow_schema": _schema_message(ROWS.schema),
        "on_conflict": "error",
    },
    "drop_table": lambda target: {
        "type": "table",
        "catalog_name": CATALOG,
        "schema_name": target.path[0],
        "name": target.path[1],
    },
    "add_column": _alter(column_schema=_schema_message(pa.schema({"c": pa.int64()}))),
    "remove_column": _alter(removed_column="b"),
    "rename_column": _alter(old_name="b", new_name="c"),
    "rename_table": lambda target: _alter(new_table_name=target.new_path[1])(target),
    "change_column_type": _alter(
        column_schema=_schema_message(pa.schema({"a": pa.int64()})), expression="CAST(a AS BIGINT)"
    ),
    "set_default": _alter(column_name="a", expression="5"),
    "set_not_null": _alter(column_name="a"),
    "drop_not_null": _alter(column_name="a"),
    "add_field": _alter(column_path=["a"]),
    "rename_field": _alter(column_path=["a", "x"], new_name="y"),
    "remove_field": _alter(column_path=["a", "x"]),
    "add_constraint": _alter(constraint="CHECK (a > 0)"),
    "column_statistics": lambda target: {"flight_descriptor": target.descriptor.serialize()},
    "table_function_flight_info": lambda target: {"descriptor": target.descriptor.serialize()},
}
"""By action. No body has a member that the extension leaves out."""


def _action(name: str) -> Callable[[Client, Target], Any]:
    return lambda client, target: _airport(client, name, BODIES[name](target))


CALLS: dict[str, Callable[[Client, Target], Any]] = {
    "ListFlights": lambda client, target: client.topics(),
    "GetFlightInfo": lambda client, target: client.info(target.path),
    "GetSchema": _schema,
    "DoGet": lambda client, target: client.read(json.dumps({"topic": target.path}).encode()),
    "DoGet (sealed ticket)": lambda client, target: client.read(target.sealed),
    "DoPut": lambda client, target: client.put(target.path, ROWS),
    "DoExchange": _exchange,
    "PollFlightInfo": _poll,
    "ListActions": lambda client, target: client.connection.list_actions(client.options),
    "action health": lambda client, target: client.action("health"),
    "action whoami": lambda client, target: client.action("whoami"),
    "action flush": lambda client, target: client.action("flush"),
    "action create_topic": _create_topic,
    "action drop_topic": lambda client, target: client.action("drop_topic", {"topic": target.path}),
    "action session": lambda client, target: replace(client, token=None).action(
        "session", {"token": client.token or "none"}
    ),
    "action no_such_action": lambda client, target: client.action("no_such_action"),
    **{f"action {name}": _action(name) for name in BODIES},
    "action list_schemas": lambda client, target: list(_listing(client)),
}
"""How to make every call, with a topic that exists; what stands in brackets tells two ways of one call apart."""


def _altered(name: str, columns: list[str], answer: bytes, target: Target) -> bool:
    table = parse_table(answer, catalog=CATALOG, schema_name=target.path[0])
    assert table is not None
    return table.name == name and [item.name for item in table.columns] == columns


def _is_table(*columns: str) -> Callable[[bytes, Target], bool]:
    """The answer is the topic with these columns."""
    return lambda answer, target: _altered(target.path[1], list(columns), answer, target)


SERVED: dict[str, Callable[[Any, Target], bool]] = {
    "ListFlights": lambda answer, target: target.name in answer,
    "GetFlightInfo": lambda answer, target: answer.total_records == 2,
    "GetSchema": lambda answer, target: answer.equals(ROWS.schema),
    "DoGet": lambda answer, target: answer.equals(ROWS),
    "DoGet (sealed ticket)": lambda answer, target: answer.equals(ROWS),
    "DoPut": lambda answer, target: answer["rows"] == 2,
    "DoExchange": lambda answer, target: answer == {b"total_changed": 2},
    "ListActions": lambda answer, target: {"health", "endpoints"} <= {action.type for action in answer},
    "action health": lambda answer, target: answer["status"] == "ok",
    "action whoami": lambda answer, target: answer["provider"] == "okta",
    "action flush": lambda answer, target: answer == {"flushed": True},
    "action create_topic": lambda answer, target: answer == {"topic": target.new_path},
    "action drop_topic": lambda answer, target: answer == {"dropped": target.path},
    "action session": lambda answer, target: answer["token_type"] == "Bearer",
    "action create_transaction": lambda answer, target: set(unpack(answer, "")) == {b"identifier"},
    "action catalog_version": lambda answer, target: unpack(answer, "")[b"catalog_version"] > 0,
    "action list_schemas": lambda answer, target: target.name in answer,
    "action endpoints": lambda answer, target: len(parse_endpoints(answer)) == 1,
    "action flight_info": _is_table("a", "b"),
    "action create_schema": lambda answer, target: (
        set(unpack(answer, "")) == {b"sha256", b"url", b"serialized"}
    ),
    "action drop_schema": lambda answer, target: unpack(answer, "") == {},
    "action create_table": lambda answer, target: _altered(target.new_path[1], ["a", "b"], answer, target),
    "action drop_table": lambda answer, target: unpack(answer, "") == {},
    "action add_column": _is_table("a", "b", "c"),
    "action remove_column": _is_table("a"),
    "action rename_column": _is_table("a", "c"),
    "action rename_table": lambda answer, target: _altered(target.new_path[1], ["a", "b"], answer, target),
    "action change_column_type": _is_table("a", "b"),
    "action set_default": _is_table("a", "b"),
    "action set_not_null": _is_table("a", "b"),
    "action drop_not_null": _is_table("a", "b"),
}
"""What the answer to a served call says."""
