"""How topics appear in DuckDB: the catalog, its schemas, and tables as FlightInfo. Pure.

One catalog, `boilstream`. A table's descriptor says which topic the client means and which version of its
definition it knows, because a client never asks again for what it has listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.flight as flight

from boilstream.catalog.duckdb_types import published
from boilstream.catalog.names import DEFAULT_SCHEMA, fold
from boilstream.catalog.topics import Topic
from boilstream.errors import InvalidArgument, NotFound
from boilstream.flight.airport.cache import BytesCache
from boilstream.flight.airport.codec import pack, pack_compressed

CATALOG: Final = "boilstream"
"""The name to attach: ATTACH 'boilstream' (TYPE AIRPORT, ...)."""

ROW_ID: Final = "rowid"
"""The pseudo column behind every table's own. In front, the client would take each column for the one before it
when it looks for statistics, which ends in an internal error for fields of a STRUCT."""

UNREACHABLE_SCHEMAS: Final = frozenset({"main", "information_schema"})
"""Schemas that the client never looks up, or hides."""

_ROW_ID_FIELD: Final = pa.field(ROW_ID, pa.int64(), metadata={"is_rowid": "1"})

_UNKNOWN: Final = b"\xff" * 9 + b"\x01"
"""-1 as a number in Protocol Buffers."""

_schemas: Final = BytesCache(128 * 1024 * 1024)
"""Schema messages by topic id and version; that many bytes are of some 50,000 topics with 50 columns."""


@dataclass(frozen=True, slots=True)
class TableVersion:
    """A topic as a client knows it."""

    topic_id: str
    version: int


def require_catalog(name: str) -> str:
    """`name` if it is the catalog's, in any letter case: answers repeat it as the client wrote it."""
    if fold(name) != CATALOG:
        raise NotFound(
            f"there is no catalog {ascii(name)[:80]}; write ATTACH '{CATALOG}' (TYPE AIRPORT, ...)"
        )
    return name


def with_row_id(declared: pa.Schema) -> pa.Schema:
    """Published columns and, behind them, the pseudo column: called otherwise where its name is taken.

    Without one the client fails with an internal error when it plans UPDATE or DELETE.
    """
    taken = set(map(fold, declared.names))
    name = ROW_ID
    while name in taken:
        name = f"_{name}"
    return pa.schema([*declared, _ROW_ID_FIELD.with_name(name)])


def table_info(topic: Topic, catalog: str, schema_name: str) -> bytes:
    """The table of a topic: columns with their defaults and checks, name, and the descriptor of this version.

    `schema_name` is the name of its schema as the client knows it, in the same letter case. The answer is
    a serialized FlightInfo.
    """
    # Without the names: clients write them in any letter case.
    schema = _schemas.get((topic.id, topic.version), partial(_table_schema, topic))
    path = [catalog, schema_name, topic.name.table, f"{topic.id}.{topic.version}"]
    return flight_info(schema, path, catalog, schema_name, topic.name.table)


def _table_schema(topic: Topic) -> bytes:
    columns = published(topic.schema)
    fields = []
    for field, ice in zip(columns.declared, columns.iceberg.fields, strict=True):
        default = topic.constraints.defaults.get(ice.field_id)
        fields.append(field if default is None else field.with_metadata({"default": default}))
    schema = with_row_id(pa.schema(fields))
    if topic.constraints.checks:
        checks = pack({"constraints": list(topic.constraints.checks)})
        schema = schema.with_metadata({"check_constraints": checks})
    serialized: bytes = schema.serialize().to_pybytes()
    return serialized


def flight_info(schema: bytes, path: Sequence[str], catalog: str, schema_name: str, table: str) -> bytes:
    """A table in the form that the client expects: descriptor and application metadata, no endpoints.

    `schema` is the message of Arrow IPC. The elements of `path` are percent-encoded: they also travel as a
    header, where the client allows ASCII alone. The answer is the message FlightInfo of Flight.proto, made
    by hand so that a listing need not parse the schemas it has kept.
    """
    metadata = {
        "type": "table",
        "schema": schema_name,
        "catalog": catalog,
        "name": table,
        "comment": None,
        "input_schema": None,
        "action_name": None,
        "description": None,
        "extra_data": None,
    }
    descriptor = flight.FlightDescriptor.for_path(*(quote(part, safe="") for part in path)).serialize()
    packed = pack(metadata)
    return b"".join(
        [
            *(b"\x0a", _varint(len(schema)), schema),
            *(b"\x12", _varint(len(descriptor)), descriptor),
            *(b"\x20", _UNKNOWN, b"\x28", _UNKNOWN),  # numbers of records and bytes
            *(b"\x3a", _varint(len(packed)), packed),
        ]
    )


def _varint(number: int) -> bytes:
    """A length in Protocol Buffers: groups of 7 bits, the lowest first."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def table_version(descriptor: flight.FlightDescriptor) -> TableVersion:
    """What a descriptor made by `table_info` says; raises InvalidArgument for any other."""
    path = descriptor.path if descriptor.descriptor_type == flight.DescriptorType.PATH else []
    try:
        _, _, _, version = path
        topic_id, _, number = version.decode("ascii").rpartition(".")
        return TableVersion(topic_id, int(number))
    except (ValueError, AttributeError):
        raise InvalidArgument(
            "the descriptor is not one of this server's tables; DETACH and ATTACH again"
        ) from None


def schema_contents(topics: Sequence[Topic], catalog: str, schema_name: str) -> dict[str, Any]:
    """The tables of one schema, inline."""
    infos = [table_info(topic, catalog, schema_name) for topic in topics]
    return {"sha256": "", "url": None, "serialized": pack_compressed(infos)}


def catalog_listing(schemas: Mapping[str, Sequence[Topic]], catalog: str, version: int) -> bytes:
    """The answer of list_schemas: all schemas with their tables."""
    return pack_compressed(
        {
            "contents": {"sha256": "", "url": None, "serialized": None},
            "schemas": [
                {
                    "name": name,
                    "description": "",
                    "tags": {},
                    "contents": schema_contents(topics, catalog, name),
                    "is_default": name == DEFAULT_SCHEMA,
                }
                for name, topics in schemas.items()
            ],
            "version_info": version_info(version),
        }
    )


def version_info(version: int) -> dict[str, Any]:
    """The version of the catalog; a client binds prepared statements again when it has changed."""
    return {"catalog_version": version, "is_fixed": False}
