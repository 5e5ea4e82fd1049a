"""Places that many callers share: no key may take all of them, and waiting keys get them in turn."""

from __future__ import annotations

from collections import Counter, deque
from threading import Event, Lock


class Turns:
    """A semaphore that is fair among keys. Thread-safe.

    One key holds all but one of the places at most, so that the others can always get on; where
    there is only one place, it goes to the waiting keys in turn.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._most = max(1, places - 1)
        self._lock = Lock()
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[Event]] = {}
        """By key, the one whose turn comes first in front."""

    def acquire(self, key: str, seconds: float) -> bool:
        """Wait that long for a place; whether there was one."""
        turn = Event()
        with self._lock:
            self._waiting.setdefault(key, deque()).append(turn)
            self._hand_out()
        if turn.wait(seconds):
            return True
        with self._lock:
            if turn.is_set():
                return True
            queue = self._waiting[key]
            queue.remove(turn)
            if not queue:
                del self._waiting[key]
            return False

    def release(self, key: str) -> None:
        """Give back a place that the key has."""
        with self._lock:
            self._free += 1
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
            self._hand_out()

    def _hand_out(self) -> None:
        """Give free places to those who may have them. The lock is held."""
        while self._free:
            key = next((key for key in self._waiting if self._held[key] < self._most), None)
            if key is None:
                return
            queue = self._waiting.pop(key)
            queue.popleft().set()
            if queue:
                self._waiting[key] = queue  # behind the others
            self._held[key] += 1
            self._free -= 1
