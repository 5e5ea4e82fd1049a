"""How topics appear in DuckDB: the catalog, its schemas, and tables as FlightInfo. Pure.

One catalog, `boilstream`. A table's descriptor says which topic the client means and which version of its
definition it knows, because a client never asks again for what it has listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.flight as flight

from boilstream.catalog.duckdb_types import published
from boilstream.catalog.names import DEFAULT_SCHEMA, fold
from boilstream.catalog.topics import Topic
from boilstream.errors import InvalidArgument, NotFound
from boilstream.flight.airport.codec import pack, pack_compressed

CATALOG: Final = "boilstream"
"""The name to attach: ATTACH 'boilstream' (TYPE AIRPORT, ...)."""

ROW_ID: Final = "rowid"
"""The pseudo column behind every table's own. In front, the client would take each column for the one before it
when it looks for statistics, which ends in an internal error for fields of a STRUCT."""

UNREACHABLE_SCHEMAS: Final = frozenset({"main", "information_schema"})
"""Schemas that the client never looks up, or hides."""

_ROW_ID_FIELD: Final = pa.field(ROW_ID, pa.int64(), metadata={"is_rowid": "1"})

_UNKNOWN: Final = -1


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


@lru_cache(4096)
def table_info(topic: Topic, catalog: str, schema_name: str) -> flight.FlightInfo:
    """The table of a topic: columns with their defaults and checks, name, and the descriptor of this version.

    `schema_name` is the name of its schema as the client knows it, in the same letter case.
    """
    columns = published(topic.schema)
    fields = []
    for field, ice in zip(columns.declared, columns.iceberg.fields, strict=True):
        default = topic.constraints.defaults.get(ice.field_id)
        fields.append(field if default is None else field.with_metadata({"default": default}))
    schema = with_row_id(pa.schema(fields))
    if topic.constraints.checks:
        checks = pack({"constraints": list(topic.constraints.checks)})
        schema = schema.with_metadata({"check_constraints": checks})
    path = [catalog, schema_name, topic.name.table, f"{topic.id}.{topic.version}"]
    return flight_info(schema, path, catalog, schema_name, topic.name.table)


def flight_info(
    schema: pa.Schema, path: Sequence[str], catalog: str, schema_name: str, table: str
) -> flight.FlightInfo:
    """A table in the form that the client expects: descriptor and application metadata, no endpoints.

    The elements of `path` are percent-encoded: they also travel as a header, where the client allows ASCII
    alone.
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
    descriptor = flight.FlightDescriptor.for_path(*(quote(part, safe="") for part in path))
    return flight.FlightInfo(schema, descriptor, [], _UNKNOWN, _UNKNOWN, app_metadata=pack(metadata))


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
    infos = [table_info(topic, catalog, schema_name).serialize() for topic in topics]
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
