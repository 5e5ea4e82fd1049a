"""Topic names: what is legal, how they compare, and where their objects live."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from boilstream.errors import InvalidArgument

DEFAULT_SCHEMA = "s3"
"""Schema of a topic that is named without one, as the documentation's examples do."""

MAX_NAME_BYTES = 255
"""Longest schema or table name in bytes of UTF-8."""

_FORBIDDEN_CATEGORIES = {
    "Cc",
    "Cs",
    "Zl",
    "Zp",
}  # control characters, surrogates, line and paragraph separators


@dataclass(frozen=True, slots=True)
class TopicName:
    """Schema and table name as the creator wrote them. Build it with `topic_name` or `from_path`."""

    schema: str
    table: str

    @property
    def key(self) -> tuple[str, str]:
        """The name in the form that is compared: names differ only if their keys do."""
        return fold(self.schema), fold(self.table)

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"


def topic_name(schema: str, table: str) -> TopicName:
    """A checked topic name; raises InvalidArgument that says which part is wrong and why."""
    schema_name(schema)
    _check("table", table)
    return TopicName(schema, table)


def schema_name(name: str) -> str:
    """A checked schema name; raises InvalidArgument that says what is wrong with it."""
    _check("schema", name)
    return name


def from_path(path: Sequence[bytes | str]) -> TopicName:
    """The topic that a descriptor path names.

    `["s3", "user_events"]`, `["s3.user_events"]` and `["user_events"]` (in schema `s3`) are the same
    topic. A single element is split at its first dot. Raises InvalidArgument.
    """
    parts = [_text(part) for part in path]
    match parts:
        case [schema, table]:
            return topic_name(schema, table)
        case [single]:
            schema, dot, table = single.partition(".")
            if not dot or not single.strip("."):
                return topic_name(DEFAULT_SCHEMA, single)
            return topic_name(schema, table)
    raise InvalidArgument(
        f"a topic is a path of one or two elements, such as ['s3', 'user_events']; this path has {len(parts)}"
    )


def iceberg_identifier(name: TopicName) -> tuple[str, str]:
    """Namespace and table name in the Iceberg catalog: the folded names.

    pyiceberg joins namespaces with dots and refuses blank parts, so dots, percent characters and
    blanks at the ends are percent-encoded; other names stay readable.
    """
    schema, table = name.key
    return _identifier_part(schema), _identifier_part(table)


def namespace(schema: str) -> tuple[str]:
    """The Iceberg namespace of a schema: the first part of its topics' identifiers."""
    return (_identifier_part(fold(schema)),)


def fold(name: str) -> str:
    """`name` in the form for comparison: NFC and case-folded."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def key_segment(name: str) -> str:
    """`name` as a readable part of an object key: percent-encoded UTF-8, cut to 80 characters.

    It names nothing by itself (keys carry a unique id beside it), so cutting is harmless.
    """
    return quote(name, safe="").replace("~", "%7E")[:80]


def _identifier_part(name: str) -> str:
    return re.sub(r"[.%]|^\s+|\s+$", lambda match: quote(match[0], safe="").replace(".", "%2E"), name)


def _text(part: bytes | str) -> str:
    if isinstance(part, str):
        return part
    try:
        return part.decode()
    except UnicodeDecodeError:
        raise InvalidArgument("a topic name must be UTF-8 text") from None


def _check(kind: str, name: str) -> None:
    if not name:
        problem = "is empty"
    elif len(name) > MAX_NAME_BYTES:  # before anything that looks at each character
        problem = f"has {len(name)} characters"
    elif not name.strip("."):
        problem = "consists of dots alone"
    elif any(unicodedata.category(char) in _FORBIDDEN_CATEGORIES for char in name):
        problem = "has a control character or line separator"
    elif len(name.encode()) > MAX_NAME_BYTES:
        problem = f"has {len(name.encode())} bytes in UTF-8"
    else:
        return
    raise InvalidArgument(
        f"the {kind} name {_excerpt(name)} {problem}; a name is 1 to {MAX_NAME_BYTES} bytes of UTF-8 text "
        "without control characters and not dots alone"
    )


def _excerpt(name: str) -> str:
    shown = ascii(name)
    return shown if len(shown) <= 40 else f"{shown[:37]}...'"
