"""The object store seam: what the rest of BoilStream may ask of durable storage.

A store is a flat map from keys to immutable byte strings. Keys are relative ASCII paths such as
`_log/5f3a/00000000000000000001.json`: segments of `A-Z a-z 0-9 . _ - % =` joined with `/`, none
of them empty, `.` or `..`. Implementations check that (`validate_key`), so that no name from a
client can leave the store.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from boilstream.errors import AlreadyExists, ConfigurationError, NotFound, Unavailable

_KEY = re.compile(r"(?!\.{1,2}(/|$))[A-Za-z0-9._%=-]+(/(?!\.{1,2}(/|$))[A-Za-z0-9._%=-]+)*")


class ObjectExists(AlreadyExists):
    """A conditional create found an object under the key."""


class ObjectMissing(NotFound):
    """No object has the key."""


class StoreUnavailable(Unavailable):
    """The store did not answer, or answered that it cannot serve now; the outcome is not known."""


class StoreMisconfigured(ConfigurationError):
    """The store answered that the request can never work: wrong key, missing bucket, no permission."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object of a listing."""

    key: str
    size: int
    """Bytes."""
    modified_at: float
    """Seconds since the epoch."""


def validate_key(key: str) -> str:
    """Return `key` if it is a legal key; raise ValueError otherwise (a defect of the caller)."""
    if len(key) > 1000 or not _KEY.fullmatch(key):
        raise ValueError(f"illegal object key {key[:120]!r}")
    return key


class ObjectStore(ABC):
    """Durable storage of immutable objects. All methods are thread-safe and block.

    A method raises StoreUnavailable when a retry may help and StoreMisconfigured when it cannot;
    no other exception of a library leaves a store. One call is one attempt with its own time
    limit: retrying is the caller's (`boilstream.storage.retry`), who knows the deadline.
    """

    is_remote: ClassVar[bool] = False
    """Whether each request costs a round trip, so that few large ones are better than many small ones."""

    @abstractmethod
    def url(self, key: str) -> str:
        """Absolute address of a key as Iceberg metadata names it: `file:///...` or `s3://bucket/...`."""

    @abstractmethod
    def put(self, key: str, data: pa.Buffer | bytes, *, if_absent: bool = False) -> None:
        """Store `data` whole under `key`; when this returns, the object is durable and visible.

        With `if_absent` exactly one of several concurrent creators wins and the others get
        ObjectExists. After StoreUnavailable the object may or may not be there.
        """

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The whole object; raises ObjectMissing."""

    @abstractmethod
    def open(self, key: str) -> pa.NativeFile:
        """The object for random access, for Parquet readers; raises ObjectMissing. The caller closes it."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix`, sorted by key in byte order."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; no error if there is none."""

    @abstractmethod
    def check(self) -> None:
        """Prove at start that the store can be written, read and conditionally created.

        Writes, reads back, conditionally re-creates (expecting ObjectExists) and deletes a small
        probe object. Raises StoreMisconfigured with a message for the operator, or StoreUnavailable.
        """

    @abstractmethod
    def close(self) -> None:
        """Release connections."""
