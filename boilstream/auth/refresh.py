"""Keys are fetched anew before they expire, whether or not anybody uses them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Final, Protocol

_LEAST_SECONDS: Final = 0.1
"""Shortest sleep: whatever a cache answers, the thread does not spin."""

_AFTER_DEFECT_SECONDS: Final = 30.0

_LOGGER = logging.getLogger("boilstream.auth.refresh")


class Refreshable(Protocol):
    """What the refresher asks of a cache; see `KeyCache.refresh_if_due`."""

    url: str

    def refresh_if_due(self) -> float:
        """Start a refresh if one is due and return the seconds until the next question."""
        ...


class KeyRefresher:
    """One daemon thread that starts the refreshes of all `caches` when they fall due.

    It never fetches itself, so a key server that hangs holds up no other. Also a cache without keys is
    due: an issuer that was down at the start is asked until it answers. `start` may be called once.
    """

    def __init__(self, caches: Iterable[Refreshable]) -> None:
        self._caches = tuple(caches)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jwks-refresher", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for fetches that run; also fine if it never started."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(min(max(self._ask(), _LEAST_SECONDS), threading.TIMEOUT_MAX)):
            pass

    def _ask(self) -> float:
        """Ask every cache; the least of their answers."""
        soonest = float("inf")
        for cache in self._caches:
            try:
                soonest = min(soonest, cache.refresh_if_due())
            except Exception as error:  # noqa: BLE001 - a defect in one cache must not end the others' refreshes
                _LOGGER.error("Cannot refresh the keys of %s: defect: %s", cache.url, type(error).__name__)
                soonest = min(soonest, _AFTER_DEFECT_SECONDS)
        return soonest
