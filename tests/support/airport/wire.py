"""Reading what the server answers, as strictly as the extension depends on it.

Section numbers are those of the wire reference of the Airport protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.flight as flight

from tests.support.airport.errors import ClientWouldCrash, ProtocolBroken

ROWID = 2**64 - 1
"""Index of the row id column in `column_ids` (6.1)."""

REUSE = "arrow-flight-reuse-connection"
"""Scheme of the location that means the server which was asked (6.1)."""


def unpack(body: bytes, where: str) -> Any:
    """One msgpack value that fills the body; text is left as bytes."""
    try:
        return msgpack.unpackb(body, raw=True, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolBroken(f"{where}: not one msgpack value: {error}") from None


class Fields:
    """A msgpack map; reading a key that is absent, nil or of another type ends the client."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise ClientWouldCrash(f"{where}: a map is expected, not {type(value).__name__}")
        self._value = value
        self._where = where

    def _get(self, key: str, kind: type | tuple[type, ...], *, optional: bool = False) -> Any:
        if key.encode() not in self._value:
            raise ClientWouldCrash(f"{self._where}: the key {key!r} is missing, its value is left to chance")
        value = self._value[key.encode()]
        if value is None and optional:
            return None
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
            raise ClientWouldCrash(f"{self._where}: std::bad_cast of {key!r}: {value!r:.80}")
        return value

    def data(self, key: str) -> bytes:
        return bytes(self._get(key, bytes))

    def optional_data(self, key: str) -> bytes | None:
        return self._get(key, bytes, optional=True)  # type: ignore[no-any-return]  # checked there

    def text(self, key: str) -> str:
        return self.data(key).decode()

    def optional_text(self, key: str) -> str | None:
        value = self.optional_data(key)
        return None if value is None else value.decode()

    def natural(self, key: str) -> int:
        value = int(self._get(key, int))
        if not 0 <= value < 2**64:
            raise ClientWouldCrash(f"{self._where}: std::bad_cast of {key!r}: {value}")
        return value

    def flag(self, key: str) -> bool:
        return bool(self._get(key, bool))

    def optional_flag(self, key: str) -> bool | None:
        return self._get(key, bool, optional=True)  # type: ignore[no-any-return]  # checked there

    def map(self, key: str) -> Mapping[bytes, Any]:
        return self._get(key, dict)  # type: ignore[no-any-return]  # checked there

    def array(self, key: str) -> list[Any]:
        return self._get(key, list)  # type: ignore[no-any-return]  # checked there


def inflate(packed: bytes, where: str) -> bytes:
    """The bytes of "zstd content" (1.4): [length, frame]."""
    pair = unpack(packed, where)
    if not (
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], int) and isinstance(pair[1], bytes)
    ):
        raise ClientWouldCrash(f"{where}: not [length, zstd frame]")
    try:
        data: bytes = pa.CompressedInputStream(pa.BufferReader(pair[1]), "zstd").read()
    except OSError as error:
        raise ProtocolBroken(f"{where}: {error}") from None
    if len(data) != pair[0]:
        raise ClientWouldCrash(f"{where}: {len(data)} bytes where the length says {pair[0]}")
    return data


@dataclass(frozen=True)
class Contents:
    """Where the objects of one schema are (3.2)."""

    sha256: str
    url: str | None
    serialized: bytes | None

    @classmethod
    def parse(cls, value: Any, where: str) -> Contents:
        fields = Fields(value, where)
        return cls(fields.text("sha256"), fields.optional_text("url"), fields.optional_data("serialized"))

    def items(self, where: str, list_flights: Callable[[], list[bytes]]) -> list[bytes]:
        """The serialized FlightInfos; `list_flights` fetches them if nothing is inline."""
        if self.serialized is None:
            if self.sha256 and self.url is None:
                raise ClientWouldCrash(f"{where}: a hash without contents and url: bad optional access")
            if self.sha256 or self.url:
                raise ProtocolBroken(f"{where}: contents at an url fill the disk of users (3.3)")
            return list_flights()
        if self.sha256 and self.sha256 != hashlib.sha256(self.serialized).hexdigest():
            raise ProtocolBroken(f"{where}: the contents do not have their sha256")
        items = unpack(inflate(self.serialized, where), where)
        if not isinstance(items, list) or not all(isinstance(item, bytes) for item in items):
            raise ClientWouldCrash(f"{where}: not an array of serialized FlightInfos")
        return items


@dataclass(frozen=True)
class SchemaItem:
    """One schema of list_schemas (3.1)."""

    name: str
    comment: str
    tags: Mapping[str, str]
    contents: Contents


def parse_schemas(body: bytes) -> list[SchemaItem]:
    """The schemas that list_schemas answers."""
    root = Fields(unpack(inflate(body, "list_schemas"), "list_schemas"), "list_schemas")
    whole = Contents.parse(root.map("contents"), "list_schemas contents")
    if whole.serialized is not None or whole.url is not None:
        raise ProtocolBroken("contents of the whole catalog fill the disk of users (3.3)")
    parse_version(root.map("version_info"))
    items = []
    for value in root.array("schemas"):
        fields = Fields(value, "schema")
        fields.optional_flag("is_default")
        tags = {bytes(key).decode(): bytes(text).decode() for key, text in fields.map("tags").items()}
        contents = Contents.parse(fields.map("contents"), f"contents of {fields.text('name')}")
        items.append(SchemaItem(fields.text("name"), fields.text("description"), tags, contents))
    names = [item.name for item in items]
    if "" in names or len({name.lower() for name in names}) < len(names):
        raise ProtocolBroken(f"names of schemas must be unique and not empty: {names}")
    if "main" in {name.lower() for name in names}:
        raise ProtocolBroken("a schema called main is unreachable (3.1)")
    return items


def parse_version(value: Any) -> tuple[int, bool]:
    """Catalog version, and whether it is fixed for the life of the attachment."""
    fields = Fields(value, "catalog_version")
    return fields.natural("catalog_version"), fields.flag("is_fixed")


@dataclass(frozen=True)
class Table:
    """A table as an attachment knows it: it never learns of later changes."""

    schema_name: str
    name: str
    comment: str | None
    descriptor: flight.FlightDescriptor
    schema: pa.Schema
    """As sent: with the row id column."""
    checks: tuple[str, ...] = field(default=())

    @cached_property
    def rowid(self) -> int | None:
        """Position of the row id column in `schema`."""
        found = [index for index, item in enumerate(self.schema) if (item.metadata or {}).get(b"is_rowid")]
        return found[0] if found else None

    @cached_property
    def columns(self) -> list[pa.Field]:
        """All columns but the row id."""
        return [item for index, item in enumerate(self.schema) if index != self.rowid]

    def position(self, column_id: int) -> int:
        """Where a column of `column_ids` stands in streams (6.1)."""
        if column_id == ROWID:
            assert self.rowid is not None
            return self.rowid
        return column_id + (self.rowid is not None and column_id >= self.rowid)

    @property
    def path(self) -> str:
        """Elements of the descriptor, as header and error texts show them."""
        return "/".join(part.decode("ascii") for part in self.descriptor.path or [])

    def metadata(self, column: str, key: bytes) -> str | None:
        """A text of the metadata of a column."""
        value = (self.schema.field(column).metadata or {}).get(key)
        return None if value is None else value.decode()


def parse_table(data: bytes, *, catalog: str, schema_name: str) -> Table | None:
    """The table that a serialized FlightInfo describes (3.2); None for one that the client skips."""
    try:
        info = flight.FlightInfo.deserialize(data)
        schema = info.schema
    except (pa.ArrowException, OSError) as error:
        raise ProtocolBroken(f"not a FlightInfo: {error}") from None
    if not info.app_metadata:
        return None
    fields = Fields(unpack(info.app_metadata, "app_metadata"), "app_metadata")
    if fields.text("type") != "table":
        raise ProtocolBroken(f"app_metadata: objects of type {fields.text('type')!r} are not expected here")
    if fields.text("catalog") != catalog:
        raise ClientWouldCrash(f"Flight metadata catalog name does not match: {fields.text('catalog')!r}")
    if fields.text("schema") != schema_name:
        raise ClientWouldCrash(f"Flight metadata schema name does not match: {fields.text('schema')!r}")
    for key in ("input_schema", "action_name", "description", "extra_data"):
        fields.optional_data(key)
    table = Table(
        schema_name,
        fields.text("name"),
        fields.optional_text("comment"),
        info.descriptor,
        schema,
        _checks(schema),
    )
    _check_descriptor(info.descriptor, table.name)
    _check_columns(table)
    return table


def _checks(schema: pa.Schema) -> tuple[str, ...]:
    packed = (schema.metadata or {}).get(b"check_constraints")
    if packed is None:
        return ()
    texts = Fields(unpack(packed, "check_constraints"), "check_constraints").array("constraints")
    return tuple(bytes(text).decode() for text in texts)


def _check_descriptor(descriptor: flight.FlightDescriptor, name: str) -> None:
    parts = descriptor.path or [descriptor.command]
    if not all(part.isascii() and part.isprintable() for part in (part.decode("latin-1") for part in parts)):
        raise ClientWouldCrash(f"table {name!r}: the descriptor {parts} is not ASCII: Illegal header value")


def _check_columns(table: Table) -> None:
    names = [item.name.lower() for item in table.schema]
    if len(set(names)) < len(names):
        raise ClientWouldCrash(f"table {table.name!r}: column names are not unique ignoring case: {names}")
    if not table.columns:
        raise ClientWouldCrash(f"table {table.name!r} has no columns")
    for item in table.schema:
        metadata = item.metadata or {}
        is_named = item.name.lstrip("_") == "rowid"  # underscores where a column has the name
        if b"is_rowid" in metadata and not (is_named and metadata[b"is_rowid"]):
            raise ProtocolBroken(f"table {table.name!r}: the row id column is called {item.name!r}")
        if problem := unusable(item.type):
            raise ClientWouldCrash(
                f"table {table.name!r}, column {item.name!r}: {problem}: its schema is poisoned"
            )
    if sum(b"is_rowid" in (item.metadata or {}) for item in table.schema) > 1:
        raise ClientWouldCrash(f"table {table.name!r} has two row id columns")
    if b"can_produce_statistics" in (table.schema.metadata or {}):
        raise ProtocolBroken(f"table {table.name!r} advertises statistics, whose failures fail queries (8.3)")


def unusable(kind: pa.DataType) -> str:
    """Why the extension cannot read a type (10.2); empty if it can."""
    t: Any = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return unusable(kind.storage_type)
    if t.is_float16(kind) or t.is_decimal256(kind) or (t.is_decimal(kind) and kind.precision > 38):
        return f"{kind} is not supported"
    if t.is_union(kind) and kind.mode == "dense":
        return "a dense union is not supported"
    if t.is_struct(kind) and not kind.num_fields:
        return "a struct without fields is not supported"
    if t.is_dictionary(kind):
        return "dictionaries turn into their index type when nested"
    return next(filter(None, (unusable(kind.field(index).type) for index in range(kind.num_fields))), "")


def same_layout(left: pa.DataType, right: pa.DataType) -> bool:
    """Whether arrays of both types have the same buffers, so that one may be read as the other."""
    if isinstance(left, pa.BaseExtensionType):
        left = left.storage_type
    if isinstance(right, pa.BaseExtensionType):
        right = right.storage_type
    t: Any = pa.types
    if t.is_timestamp(left) and t.is_timestamp(right):
        return bool(left.unit == right.unit and (left.tz is None) == (right.tz is None))
    if left.id != right.id or left.num_fields != right.num_fields:
        return False
    if t.is_fixed_size_list(left) and left.list_size != right.list_size:
        return False
    if left.num_fields:
        return all(
            same_layout(left.field(index).type, right.field(index).type) for index in range(left.num_fields)
        )
    return bool(left == right)


def parse_endpoints(body: bytes) -> list[flight.FlightEndpoint]:
    """The endpoints of one scan; all of them are on this server."""
    items = unpack(body, "endpoints")
    if not isinstance(items, list) or not all(isinstance(item, bytes) for item in items):
        raise ClientWouldCrash("endpoints: not an array of serialized FlightEndpoints")
    endpoints = [flight.FlightEndpoint.deserialize(item) for item in items]
    for endpoint in endpoints:
        if not endpoint.locations:
            raise ProtocolBroken("endpoints: one has no location")
        uri = endpoint.locations[0].uri.decode()
        if not uri.startswith(f"{REUSE}:"):
            raise ProtocolBroken(f"endpoints: {uri} is not on this server")
    return endpoints
