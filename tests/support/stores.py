"""Object stores for tests: in memory, with faults on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pyarrow as pa

from boilstream.storage.base import (
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    StoreUnavailable,
    validate_key,
)

Fault = Callable[[str, str], None]
"""Called with method and key; raises what the store shall raise."""


class MemoryStore(ObjectStore):
    """A store in memory that calls `before` ahead of each operation and `after` behind each put."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.before: Fault = lambda method, key: None
        self.after: Fault = lambda method, key: None
        self.puts: list[str] = []
        self._lock = threading.Lock()

    def url(self, key: str) -> str:
        return f"memory://{key}"

    def put(self, key: str, data: pa.Buffer | bytes, *, if_absent: bool = False) -> None:
        validate_key(key)
        self.before("put", key)
        with self._lock:
            if if_absent and key in self.objects:
                raise ObjectExists(f"{key} exists")
            self.objects[key] = bytes(memoryview(data))
            self.puts.append(key)
        self.after("put", key)

    def get(self, key: str) -> bytes:
        self.before("get", key)
        with self._lock:
            if key not in self.objects:
                raise ObjectMissing(f"{key} is missing")
            return self.objects[key]

    def open(self, key: str) -> pa.NativeFile:
        return pa.BufferReader(self.get(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.before("list", prefix)
        with self._lock:
            found = sorted((key, len(data)) for key, data in self.objects.items() if key.startswith(prefix))
        return iter([ObjectInfo(key, size, 0.0) for key, size in found])

    def delete(self, key: str) -> None:
        self.before("delete", key)
        with self._lock:
            self.objects.pop(key, None)

    def check(self) -> None:
        return None

    def close(self) -> None:
        return None


def failing(times: int, *, method: str = "put", contains: str = "") -> Fault:
    """A fault that raises StoreUnavailable for the next `times` matching calls."""
    left = [times]

    def fault(called: str, key: str) -> None:
        if called == method and contains in key and left[0] > 0:
            left[0] -= 1
            raise StoreUnavailable(f"injected: {method} {key}")

    return fault
