"""An S3 object as a file for random access, read by ranges."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

FetchRange = Callable[[int, int], bytes]
"""Returns exactly the bytes from the first to the second position (the latter is not included)."""


class RangeFile(io.RawIOBase):
    """`size` bytes that `fetch` delivers range by range; `tail` is the end of them, already at hand.

    Every thread has its own position. Arrow needs that: it reads as a seek and a read under a lock, but
    asks for the size by moving the position without that lock, which would misplace another thread's read.
    """

    def __init__(self, size: int, tail: bytes, fetch: FetchRange) -> None:
        super().__init__()
        self._size = size
        self._tail = tail
        self._tail_start = size - len(tail)
        self._fetch = fetch
        self._local = threading.local()

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Position of this thread."""
        position: int = getattr(self._local, "position", 0)
        return position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position of this thread; ValueError in front of the start."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        if position < 0:
            raise ValueError("the position is in front of the start of the file")
        self._local.position = position
        return position

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes from the position, fewer only at the end; all that are left if negative."""
        if self.closed:
            raise ValueError("the file is closed")
        start = min(self.tell(), self._size)
        end = self._size if size is None or size < 0 else min(start + size, self._size)
        if start >= self._tail_start:
            data = self._tail[start - self._tail_start : end - self._tail_start]
        else:
            data = self._fetch(start, end) if end > start else b""
        self._local.position = start + len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position; the number of bytes."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)
