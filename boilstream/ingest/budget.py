"""The memory ceiling of the write path."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from boilstream.errors import InvalidArgument, ResourceExhausted


class MemoryBudget:
    """Bytes that the write path may hold at once. Thread-safe.

    Who cannot get its bytes waits, which stops the reading of its stream and so, through HTTP/2
    flow control, the client.
    """

    def __init__(self, limit: int, *, on_pressure: Callable[[], None] = lambda: None) -> None:
        self._limit = limit
        self._on_pressure = on_pressure
        self._used = 0
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """Bytes held now."""
        return self._used

    @property
    def is_tight(self) -> bool:
        """Whether more than half is held: then nobody should hold bytes that nobody else can relieve."""
        return self._used * 2 > self._limit

    def reserve(self, size: int, *, deadline: float) -> None:
        """Take `size` bytes, waiting for others to release theirs until `deadline` (`time.monotonic`).

        Calls `on_pressure` (without a lock held) while it waits, so that idle buffers can be
        written out. Raises ResourceExhausted at the deadline and InvalidArgument for a size that
        can never fit.
        """
        if size > self._limit:
            raise InvalidArgument(
                f"a batch of {size} bytes is larger than MEMORY_LIMIT_MB allows ({self._limit} bytes); "
                "send smaller batches"
            )
        while not self.try_reserve(size):
            self._on_pressure()
            with self._changed:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ResourceExhausted("the server has no memory for more rows now; try again later")
                if self._used + size > self._limit:
                    self._changed.wait(min(left, 0.1))

    def try_reserve(self, size: int) -> bool:
        """Take `size` bytes if they are free now."""
        with self._changed:
            if self._used + size > self._limit:
                return False
            self._used += size
            return True

    def release(self, size: int) -> None:
        """Give back `size` bytes."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()
