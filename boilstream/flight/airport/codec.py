"""The form of the bodies of Airport's actions: msgpack in both directions, answers partly as zstd. Pure.

The client packs every text and every binary as msgpack str, and reads either of its types. Nothing that a
client sends is decompressed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgpack
import pyarrow as pa
import pyarrow.flight as flight

from boilstream.errors import InvalidArgument

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""Longest body of an action; the filters of a query are the only long part."""

_MAX_ITEMS: Final = 100_000


class Request:
    """The body of one action: a map, whose members are checked when they are asked for."""

    def __init__(self, action: str, members: Mapping[bytes, Any]) -> None:
        """`action` names it in messages."""
        self._action = action
        self._members = members

    @classmethod
    def parse(cls, action: str, body: bytes | memoryview) -> Request:
        """Decode the body; raises InvalidArgument."""
        if len(body) > MAX_BODY_BYTES:
            raise InvalidArgument(
                f"the body of action {action} has {len(body)} bytes; at most {MAX_BODY_BYTES} are read"
            )
        try:
            members = msgpack.unpackb(
                body,
                raw=True,
                max_map_len=_MAX_ITEMS,
                max_array_len=_MAX_ITEMS,
                max_ext_len=0,
            )
        except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
            raise InvalidArgument(f"the body of action {action} is not a whole msgpack object") from None
        return cls(action, _map(members, action))

    def text(self, name: str) -> str:
        """A member that is text."""
        return self._text(self.binary(name), name)

    def optional_text(self, name: str) -> str:
        """A member that is text; empty if it is nil or absent."""
        return "" if self._get(name) is None else self.text(name)

    def binary(self, name: str) -> bytes:
        """A member that is bytes."""
        value = self._get(name)
        if not isinstance(value, bytes):
            raise self._wrong(name, "a text")
        return value

    def flag(self, name: str) -> bool:
        """A member that is true or false; false if it is nil or absent."""
        value = self._get(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return bool(value)

    def numbers(self, name: str) -> list[int]:
        """A member that is an array of whole numbers from 0; empty if it is nil or absent."""
        values = self._array(name)
        if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
            raise self._wrong(name, "an array of whole numbers")
        return values

    def texts(self, name: str) -> list[str]:
        """A member that is an array of texts; empty if it is nil or absent."""
        values = self._array(name)
        if not all(isinstance(value, bytes) for value in values):
            raise self._wrong(name, "an array of texts")
        return [self._text(value, name) for value in values]

    def part(self, name: str) -> Request:
        """A member that is a map."""
        return Request(self._action, _map(self._get(name), f"{self._action}, member {name!r},"))

    def schema(self, name: str) -> pa.Schema:
        """A member that is an Arrow IPC schema message."""
        try:
            return pa.ipc.read_schema(pa.py_buffer(self.binary(name)))
        except (pa.ArrowException, OSError, EOFError, ValueError):
            raise self._wrong(name, "an Arrow IPC schema message") from None

    def field(self, name: str) -> pa.Field:
        """The only field of a member that is an Arrow IPC schema message."""
        schema = self.schema(name)
        if len(schema) != 1:
            raise self._wrong(name, "an Arrow schema with one field")
        return schema.field(0)

    def descriptor(self, name: str) -> flight.FlightDescriptor:
        """A member that is a serialized flight descriptor."""
        try:
            return flight.FlightDescriptor.deserialize(self.binary(name))
        except (pa.ArrowException, ValueError, OSError):
            raise self._wrong(name, "a serialized flight descriptor") from None

    def _get(self, name: str) -> Any:
        return self._members.get(name.encode())

    def _array(self, name: str) -> list[Any]:
        value = self._get(name)
        if value is not None and not isinstance(value, list):
            raise self._wrong(name, "an array")
        return value or []

    def _text(self, value: bytes, name: str) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise self._wrong(name, "UTF-8 text") from None

    def _wrong(self, name: str, expected: str) -> InvalidArgument:
        return InvalidArgument(f"the body of action {self._action} needs {name!r}: {expected}")


def pack(value: Any) -> bytes:
    """`value` as msgpack."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def pack_compressed(value: Any) -> bytes:
    """`value` as msgpack inside a zstd frame, with the length that it has without: `[length, frame]`."""
    data = pack(value)
    return pack([len(data), pa.compress(data, codec="zstd", asbytes=True)])


def _map(value: Any, where: str) -> Mapping[bytes, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"the body of action {where} is not a msgpack map")
    return value
