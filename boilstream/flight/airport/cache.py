"""Keeps bytes that are dear to make, up to a total size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class BytesCache:
    """The values that were used last. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` is how much the values take together at most."""
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, bytes] = OrderedDict()
        self.size = 0
        """Bytes of all values."""

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """The value of `key`; made if it is not kept, perhaps by several threads at once."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
                return value
        value = make()
        with self._lock:
            self.size += len(value) - len(self._values.pop(key, b""))
            self._values[key] = value
            while self.size > self._max_bytes:
                self.size -= len(self._values.popitem(last=False)[1])
        return value
