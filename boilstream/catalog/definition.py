"""What a topic is, and how its Iceberg table keeps that: schema, name, constraints, earlier versions.

Iceberg keeps the schemas of a table with their ids. What only this server knows is in table
properties, which one commit changes together with the schema. A table that another engine has
altered or renamed counts as a later version: the table decides.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata

from boilstream.catalog.constraints import MAX_CHECKS, Constraints
from boilstream.catalog.names import TopicName, iceberg_identifier
from boilstream.catalog.types import MAX_DECLARED_BYTES, TopicSchema, parse_declared, serialize_declared
from boilstream.errors import InvalidArgument

SCHEMA_PROPERTY = "boilstream.schema-name"
TABLE_PROPERTY = "boilstream.table-name"
DECLARED_PROPERTY = "boilstream.declared-schema"
VERSION_PROPERTY = "boilstream.version"
SCHEMA_ID_PROPERTY = "boilstream.schema-id"
CONSTRAINTS_PROPERTY = "boilstream.constraints"
HISTORY_PROPERTY = "boilstream.history"
RENAME_PROPERTY = "boilstream.rename-to"
"""The name that the table is about to get; it means nothing until the catalog knows the table by it."""

MAX_VERSIONS: Final = 8
"""Versions of a topic that are kept, the current one included."""

MAX_CONSTRAINTS_BYTES: Final = 256 * 1024
"""Longest form in which the constraints of a topic are kept."""

KEPT: Final = frozenset(
    {SCHEMA_PROPERTY, TABLE_PROPERTY, DECLARED_PROPERTY, VERSION_PROPERTY, SCHEMA_ID_PROPERTY}
    | {CONSTRAINTS_PROPERTY, HISTORY_PROPERTY, RENAME_PROPERTY}
)
"""All properties that keep a definition."""


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """What changes of a topic change. Immutable; `changed` makes the next version."""

    name: TopicName
    schema: TopicSchema
    constraints: Constraints = field(default_factory=Constraints)
    version: int = 1
    """Grows by 1 with each change here, and by 1 or more with changes by other engines."""
    history: Mapping[int, TopicSchema] = field(default_factory=dict)
    """Schemas of the last versions, without the current one."""
    last_column_id: int = 0
    """Highest field id that the table ever had; 0 if it is not made yet."""

    @property
    def versions(self) -> Mapping[int, TopicSchema]:
        """Schemas of the last MAX_VERSIONS versions, with the current one."""
        return {**_last(self.history, MAX_VERSIONS - 1), self.version: self.schema}

    def changed(
        self,
        *,
        name: TopicName | None = None,
        schema: TopicSchema | None = None,
        constraints: Constraints | None = None,
    ) -> Definition:
        """The next version, which differs in what is given."""
        after = schema or self.schema
        return Definition(
            name or self.name,
            after,
            self.constraints if constraints is None else constraints,
            self.version + 1,
            _last(self.versions, MAX_VERSIONS - 1),
            max(self.last_column_id, self.schema.iceberg.highest_field_id, after.iceberg.highest_field_id),
        )


def properties(definition: Definition) -> dict[str, str]:
    """The table properties that keep a definition; raises InvalidArgument if its constraints are too long."""
    return {
        SCHEMA_PROPERTY: definition.name.schema,
        TABLE_PROPERTY: definition.name.table,
        DECLARED_PROPERTY: serialize_declared(definition.schema.declared),
        VERSION_PROPERTY: str(definition.version),
        SCHEMA_ID_PROPERTY: str(definition.schema.iceberg.schema_id),
        CONSTRAINTS_PROPERTY: _serialize_constraints(definition.constraints),
        HISTORY_PROPERTY: _pack(definition.history),
    }


def read(identifier: tuple[str, ...], metadata: TableMetadata) -> Definition:
    """The definition that a table keeps; raises KeyError or ValueError if it is none of ours, or damaged."""
    kept = metadata.properties
    schemas = {schema.schema_id: schema for schema in metadata.schemas}
    version = _number(kept.get(VERSION_PROPERTY, "1"))  # a table made before there were versions has none
    schema_id = _number(kept.get(SCHEMA_ID_PROPERTY, "0"))
    declared = parse_declared(kept[DECLARED_PROPERTY])
    history = {
        number: TopicSchema.load(before, schemas[used])
        for number, used, before in _unpack(kept.get(HISTORY_PROPERTY))
        if used in schemas  # other engines remove schemas that no snapshot uses
    }
    ours, current = schemas.get(schema_id), metadata.schema()
    name, is_renamed = _name(kept, identifier)
    missed = int(is_renamed)
    if current.schema_id != schema_id:
        missed += max(1, max(schemas) - schema_id)
    if missed and ours is not None:
        history[version] = TopicSchema.load(declared, ours)
    return Definition(
        name,
        TopicSchema.load(_followed(declared, ours, current), current),
        _parse_constraints(kept.get(CONSTRAINTS_PROPERTY)),
        version + missed,
        _last(history, MAX_VERSIONS - 1),
        metadata.last_column_id,
    )


def _name(kept: Mapping[str, str], identifier: tuple[str, ...]) -> tuple[TopicName, bool]:
    """The name of the topic, and whether the table was renamed since its definition was kept."""
    written = TopicName(kept[SCHEMA_PROPERTY], kept[TABLE_PROPERTY])
    if iceberg_identifier(written) == identifier:
        return written, False
    found = [TopicName(written.schema, kept[RENAME_PROPERTY])] if RENAME_PROPERTY in kept else []
    if len(identifier) == 2:
        found.append(TopicName(unquote(identifier[0]), unquote(identifier[1])))
    for name in found:
        if iceberg_identifier(name) == identifier:
            return name, True
    raise ValueError(f"it was renamed from {written} to a name that no topic can have")


def _followed(declared: pa.Schema, ours: Schema | None, current: Schema) -> pa.Schema:
    """Declared columns under the names that another engine has given to their Iceberg fields."""
    if ours is None or ours is current:
        return declared
    by_name = {column.name: column for column in declared}
    known = {field.field_id: by_name[field.name] for field in ours.fields if field.name in by_name}
    return pa.schema(
        [known[field.field_id].with_name(field.name) for field in current.fields if field.field_id in known]
    )


def _last(versions: Mapping[int, TopicSchema], count: int) -> dict[int, TopicSchema]:
    return {version: versions[version] for version in sorted(versions)[-count:]}


def _number(text: object) -> int:
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError("a version or schema id is no number")
    return int(text)


def _serialize_constraints(constraints: Constraints) -> str:
    defaults = {str(number): sql for number, sql in constraints.defaults.items()}
    text = json.dumps({"defaults": defaults, "checks": constraints.checks})
    if len(text) > MAX_CONSTRAINTS_BYTES:
        raise InvalidArgument(
            f"the defaults and checks of the topic take more than {MAX_CONSTRAINTS_BYTES} bytes; use shorter ones"
        )
    return text


def _parse_constraints(text: str | None) -> Constraints:
    if text is None:
        return Constraints()
    match json.loads(text):
        case {"defaults": dict(defaults), "checks": list(checks)}:
            if (
                all(isinstance(sql, str) for sql in [*defaults.values(), *checks])
                and len(checks) <= MAX_CHECKS
            ):
                return Constraints({_number(key): sql for key, sql in defaults.items()}, tuple(checks))
    raise ValueError("its constraints are not readable")


def _pack(history: Mapping[int, TopicSchema]) -> str:
    """Earlier versions as text: base64 of compressed JSON, a list of version, schema id and declared schema."""
    entries = [
        [str(version), str(schema.iceberg.schema_id), serialize_declared(schema.declared)]
        for version, schema in sorted(history.items())
    ]
    return base64.b64encode(zlib.compress(json.dumps(entries).encode())).decode()


def _unpack(text: str | None) -> Iterator[tuple[int, int, pa.Schema]]:
    if text is None:
        return
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(
            base64.b64decode(text, validate=True), MAX_VERSIONS * MAX_DECLARED_BYTES * 2
        )
        entries = json.loads(data)
        for version, schema_id, declared in entries[-MAX_VERSIONS:]:
            yield _number(version), _number(schema_id), parse_declared(declared)
    except (zlib.error, binascii.Error, TypeError, KeyError) as error:
        raise ValueError(f"its earlier versions are not readable: {error}") from None
