"""Commit records: their content, their form as JSON, and their keys. Pure."""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boilstream.log.statistics import (
    MAX_BOUND_CHARACTERS,
    MAX_BOUND_INTEGER,
    ColumnStatistics,
    FileStatistics,
)

LOG_PREFIX = "_log/"
FORMAT_VERSION = 1

_MAX_FIELD_ID = 2**31 - 1

_KEY = re.compile(r"_log/([0-9a-f]{13}-[0-9a-f]{8})/([0-9]{20})\.json")
_FIELD_ID = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)


class DamagedRecord(ValueError):
    """An object in the log that is not a record; the message says why."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """One immutable Parquet file of a topic."""

    key: str
    rows: int
    bytes: int
    statistics: Mapping[int, ColumnStatistics] = field(default_factory=dict, hash=False)
    """By field id of the top-level columns, packed; a column that is not in it is not known."""

    def __post_init__(self) -> None:
        if not isinstance(self.statistics, FileStatistics):
            object.__setattr__(self, "statistics", FileStatistics(self.statistics))


@dataclass(frozen=True, slots=True)
class TopicCommit:
    """What one record adds to one topic."""

    topic: str
    """Id of the topic (Iceberg table UUID)."""
    name: str
    """Name when the record was written; for people who read the log."""
    location: str
    """Key prefix of the topic's objects, from which its definition can be found again."""
    files: tuple[DataFile, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One commit: all its files become visible together."""

    writer: str
    sequence: int
    time_ms: int
    """When the record was made, milliseconds since the epoch."""
    topics: tuple[TopicCommit, ...] = ()
    dropped: tuple[str, ...] = ()
    """Ids of topics that end with this record, whatever other records say of them."""

    @property
    def key(self) -> str:
        """Object key of the record."""
        return record_key(self.writer, self.sequence)

    @property
    def commit_id(self) -> str:
        """`<writer>/<sequence>`, the name of the commit on the wire."""
        return f"{self.writer}/{self.sequence}"


def new_writer_id(time_ms: int) -> str:
    """A writer id that no other process start has; ids sort by start time."""
    return f"{time_ms:013x}-{secrets.token_hex(4)}"


def record_key(writer: str, sequence: int) -> str:
    """Object key of the record with that writer and sequence."""
    return f"{LOG_PREFIX}{writer}/{sequence:020d}.json"


def parse_key(key: str) -> tuple[str, int] | None:
    """Writer and sequence of a record's key; None if the key is not one of a record."""
    match = _KEY.fullmatch(key)
    return (match[1], int(match[2])) if match else None


def encode(record: Record) -> bytes:
    """The record as JSON."""
    return json.dumps(
        {
            "version": FORMAT_VERSION,
            "writer": record.writer,
            "sequence": record.sequence,
            "time_ms": record.time_ms,
            "topics": [
                {
                    "topic": commit.topic,
                    "name": commit.name,
                    "location": commit.location,
                    "files": [_file_json(file) for file in commit.files],
                }
                for commit in record.topics
            ],
            "dropped": list(record.dropped),
        },
        separators=(",", ":"),
    ).encode()


def _file_json(file: DataFile) -> dict[str, Any]:
    return {
        "key": file.key,
        "rows": file.rows,
        "bytes": file.bytes,
        "statistics": {str(i): [s.nulls, s.lower, s.upper] for i, s in file.statistics.items()},
    }


def decode(key: str, data: bytes) -> Record:
    """The record stored as `data` under `key`; raises DamagedRecord."""
    place = parse_key(key)
    try:
        body = _Fields(json.loads(data))
        if (version := body.integer("version")) != FORMAT_VERSION:
            raise DamagedRecord(f"format version {version} is not known to this release")
        record = Record(
            body.text("writer"),
            body.integer("sequence"),
            body.integer("time_ms"),
            tuple(_topic(_Fields(item)) for item in body.list("topics")),
            tuple(str(item) for item in body.list("dropped")),
        )
    except (ValueError, RecursionError) as error:
        raise DamagedRecord(str(error) or type(error).__name__) from error
    if place != (record.writer, record.sequence):
        raise DamagedRecord(f"it names itself {record.commit_id[:60]!r}")
    return record


def _topic(fields: _Fields) -> TopicCommit:
    return TopicCommit(
        fields.text("topic"),
        fields.text("name"),
        fields.text("location"),
        tuple(_file(_Fields(item)) for item in fields.list("files")),
    )


def _file(fields: _Fields) -> DataFile:
    rows = fields.integer("rows")
    # Records of earlier releases have no statistics.
    statistics = fields.object("statistics") if fields.has("statistics") else {}
    return DataFile(
        fields.text("key"),
        rows,
        fields.integer("bytes"),
        {_field_id(name): _statistics(value, rows) for name, value in statistics.items()},
    )


def _field_id(text: str) -> int:
    if not _FIELD_ID.fullmatch(text) or int(text) > _MAX_FIELD_ID:
        raise DamagedRecord(f"{text[:20]!r} is not a field id")
    return int(text)


def _statistics(value: object, rows: int) -> ColumnStatistics:
    if not isinstance(value, list) or len(value) != 3:
        raise DamagedRecord("statistics are not [nulls, lower, upper]")
    nulls, lower, upper = value
    if type(nulls) is not int or not 0 <= nulls <= rows:
        raise DamagedRecord("statistics count nulls that cannot be")
    for bound in (lower, upper):
        _require_bound(bound)
    if lower is not None and upper is not None and type(lower) is not type(upper):
        raise DamagedRecord("the bounds of a column have different types")
    return ColumnStatistics(nulls, lower, upper)


def _require_bound(value: object) -> None:
    if isinstance(value, str):
        value.encode()  # a lone surrogate is a ValueError
        good = len(value) <= MAX_BOUND_CHARACTERS
    elif isinstance(value, float):
        good = math.isfinite(value)
    elif isinstance(value, int):
        good = abs(value) < MAX_BOUND_INTEGER
    else:
        good = value is None
    if not good:
        raise DamagedRecord("a bound is not a number, a short text, true, false or null")


class _Fields:
    """Typed access to a JSON object."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, Mapping):
            raise DamagedRecord("an object is expected")
        self._value: Mapping[str, Any] = value

    def has(self, name: str) -> bool:
        return name in self._value

    def object(self, name: str) -> Mapping[str, Any]:
        return _Fields(self._value.get(name))._value

    def text(self, name: str) -> str:
        value = self._value.get(name)
        if not isinstance(value, str):
            raise DamagedRecord(f"{name} is not a text")
        return value

    def integer(self, name: str) -> int:
        value = self._value.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise DamagedRecord(f"{name} is not a whole number")
        return value

    def list(self, name: str) -> list[Any]:
        value = self._value.get(name)
        if not isinstance(value, list):
            raise DamagedRecord(f"{name} is not a list")
        return value
