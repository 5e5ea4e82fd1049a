"""The signing keys of one issuer, cached: never a fetch in the way of a key that is at hand."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from boilstream.auth import jws
from boilstream.auth.errors import InvalidToken, KeysUnavailable
from boilstream.auth.fetch import TIMEOUT_SECONDS, FetchFailed
from boilstream.errors import ConfigurationError
from boilstream.observe.metrics import KeyMetrics, KeySetState

Fetch = Callable[[str], bytes]
"""Gets the body of an address or raises FetchFailed; see `HttpsFetcher`."""

UNKNOWN_KID_SECONDS: Final = 30.0
"""Least time between two fetches for key ids that the cache does not hold (an attacker can invent them)."""

RETRY_SECONDS: Final = 30.0
"""Time between attempts while the key server fails and cached keys serve."""

EMPTY_RETRY_SECONDS: Final = 5.0
"""Time between attempts while the key server fails and there is no key at all."""

MAX_STALE_SECONDS: Final = 24 * 3600.0
"""How long expired keys serve on while the key server fails."""

REFRESH_FROM: Final = 0.6
REFRESH_UNTIL: Final = 0.8
"""Parts of the lifetime between which a refresh falls due; where, is drawn by lot for each key set."""

IN_FLIGHT_SECONDS: Final = 1.0
"""Time until the next question while a fetch is under way."""

_RETRY_JITTER: Final = 0.2  # part of the time to the next attempt that lots add, so that nodes spread out
_WAIT_SECONDS: Final = (
    2 * TIMEOUT_SECONDS + 2
)  # a fetch, with discovery two, ends itself before; this guards against one that does not


@dataclass(frozen=True, slots=True)
class _Keys:
    """One fetched key set; immutable, so that it is read without a lock."""

    jwks: dict[str, Any]
    kids: frozenset[str]
    fetched_at: float
    due_at: float


@dataclass(slots=True)
class _Flight:
    """One running fetch and the key ids that callers wait for."""

    for_unknown_kid: bool
    wanted: set[str] = field(default_factory=set)
    done: threading.Event = field(default_factory=threading.Event)


class KeyCache:
    """Caches the key set at one address.

    Keys serve for `cache_seconds`. Between REFRESH_FROM and REFRESH_UNTIL of that time a refresh falls
    due; `refresh_if_due` or a use, whichever comes first, starts it in the background. An answer replaces
    the whole set, so a key that the issuer withdraws is gone. While refreshes fail, keys serve for
    another MAX_STALE_SECONDS. An unknown key id starts a refresh at most every UNKNOWN_KID_SECONDS.
    Concurrent callers share one fetch. `clock` gives monotonic seconds, `lot` a number from 0 up to 1.
    Making a cache does no I/O; an address without https is a ConfigurationError.
    """

    def __init__(
        self,
        url: str,
        *,
        fetch: Fetch,
        display_name: str,
        logger_name: str,
        cache_seconds: float = 3600,
        max_keys: int = 100,
        clock: Callable[[], float] = time.monotonic,
        lot: Callable[[], float] = random.random,
        metrics: KeyMetrics | None = None,
    ) -> None:
        if not url.startswith("https://"):
            raise ConfigurationError(f"keys of {display_name} must come over https, not from {url!r}")
        self.url = url
        self._fetch = fetch
        self._display_name = display_name
        self._logger = logging.getLogger(logger_name)
        self._cache_seconds = cache_seconds
        self._max_keys = max_keys
        self._clock = clock
        self._lot = lot
        self._metrics = metrics
        self._lock = threading.Lock()  # guards what follows; never held during I/O
        self._keys: _Keys | None = None
        self._flight: _Flight | None = None
        self._failing = False
        self._retry_at = float("-inf")
        self._unknown_kid_at = float("-inf")
        self._closed = False
        if metrics is not None:
            metrics.watch(self.state)

    def jwks_for(self, kid: str | None) -> dict[str, Any]:
        """The key set to verify a token with this key id against, fetched anew where that may help.

        The set may still lack the key: then the issuer answered and does not publish it. It stays the
        same object for as long as the issuer publishes the same keys. Blocks at most for one fetch, and
        never when the key is at hand. Raises KeysUnavailable.
        """
        keys, now = self._keys, self._clock()
        age = float("inf") if keys is None else now - keys.fetched_at
        if keys is not None and (kid is None or kid in keys.kids):
            if now < keys.due_at:
                return keys.jwks
            if age < self._cache_seconds or (self._failing and age < self._cache_seconds + MAX_STALE_SECONDS):
                self._take_off(keys, now)
                return keys.jwks
        flight = self._take_off(keys, now, wanted=kid, for_unknown_kid=age < self._cache_seconds)
        if flight is not None:
            flight.done.wait(_WAIT_SECONDS)
        keys = self._keys
        if (
            keys is not None
            and self._clock() - keys.fetched_at < self._cache_seconds + MAX_STALE_SECONDS
            and (kid is None or kid in keys.kids or not self._failing)
        ):
            return keys.jwks
        raise KeysUnavailable(
            f"the signing keys of {self._display_name} cannot be fetched now, so the token cannot be "
            "checked; try again in some seconds"
        )

    def preload(self, wait_seconds: float = 0) -> bool:
        """Start a fetch if there are no keys, wait at most so long, and tell whether there are some now."""
        if self._keys is None:
            flight = self._take_off(None, self._clock())
            if flight is not None:
                flight.done.wait(wait_seconds)
        return self._keys is not None

    def refresh_if_due(self) -> float:
        """Start a refresh in the background if one is due; never waits for it.

        Returns the seconds after which to ask again: infinite once the cache is closed.
        """
        keys, now = self._keys, self._clock()
        if keys is None or now >= keys.due_at:
            self._take_off(keys, now)
        with self._lock:
            if self._closed:
                return float("inf")
            if self._flight is not None:
                return IN_FLIGHT_SECONDS
            due_at = self._retry_at if self._keys is None else max(self._retry_at, self._keys.due_at)
            spread = 1 + _RETRY_JITTER * self._lot() if due_at == self._retry_at else 1.0
        return max(0.0, due_at - now) * spread

    def state(self) -> KeySetState:
        """How many keys are at hand, and their age."""
        keys = self._keys
        if keys is None:
            return KeySetState(0, None)
        return KeySetState(len(keys.jwks["keys"]), self._clock() - keys.fetched_at)

    def close(self) -> None:
        """Start no more fetches and let waiting callers go; a running fetch ends by its own limit."""
        with self._lock:
            self._closed = True
            if self._flight is not None:
                self._flight.done.set()

    def _take_off(
        self, seen: _Keys | None, now: float, *, wanted: str | None = None, for_unknown_kid: bool = False
    ) -> _Flight | None:
        """Join the running fetch or start one; None when it is too early or others have just refreshed."""
        with self._lock:
            if self._closed or self._keys is not seen:
                return None
            flight = self._flight
            if is_new := flight is None:
                if now < self._retry_at or (for_unknown_kid and now < self._unknown_kid_at):
                    return None
                flight = self._flight = _Flight(for_unknown_kid)
            if wanted is not None:
                flight.wanted.add(wanted)
        if is_new:
            self._start(flight)
        return flight

    def _start(self, flight: _Flight) -> None:
        """Fetch on a thread; on a machine that is out of threads the fetch has failed, keys at hand serve."""
        try:
            threading.Thread(
                target=self._fly, args=(flight,), name=f"jwks-{self._display_name}", daemon=True
            ).start()
        except RuntimeError as error:
            self._warn(str(error))
            self._land(flight, None)

    def _fly(self, flight: _Flight) -> None:
        keys: _Keys | None = None
        started_at = self._clock()
        try:
            self._logger.debug("Fetching JWKS from %s: %s", self._display_name, self.url)
            keys = self._read(self._fetch(self.url))
        except FetchFailed as error:
            self._warn(str(error))
        except Exception as error:  # noqa: BLE001 - a defect in a fetch must not end all later ones
            self._warn(f"defect: {type(error).__name__}")
        finally:
            if self._metrics is not None:
                self._metrics.fetched(ok=keys is not None, seconds=self._clock() - started_at)
            self._land(flight, keys)

    def _land(self, flight: _Flight, keys: _Keys | None) -> None:
        now = self._clock()
        with self._lock:
            self._failing = keys is None
            if keys is not None:
                self._keys = keys
                self._retry_at = float("-inf")
            else:
                self._retry_at = now + (EMPTY_RETRY_SECONDS if self._keys is None else RETRY_SECONDS)
            if flight.for_unknown_kid or (keys is not None and not flight.wanted <= keys.kids):
                self._unknown_kid_at = now + UNKNOWN_KID_SECONDS
            self._flight = None
        flight.done.set()

    def _read(self, body: bytes) -> _Keys:
        """The keys of a document; `jws.verify` judges each when a token names it, so none spoils others."""
        try:
            listed = jws.json_object(body, "key set").get("keys")
        except InvalidToken:
            raise FetchFailed("the answer is not a JSON object") from None
        if not isinstance(listed, list):
            raise FetchFailed("the answer holds no key set")
        keys = [key for key in listed if isinstance(key, dict) and isinstance(key.get("kid", ""), str)]
        if not keys and listed:
            raise FetchFailed("the answer holds no key of a known form")
        if not keys:  # an issuer may withdraw all its keys, to stop the use of stolen ones
            self._logger.warning(
                "%s publishes no key: all its tokens are refused; look at the signing keys of the provider",
                self._display_name,
            )
        if len(keys) > self._max_keys:
            self._logger.warning(
                "%s publishes %d keys, only the first %d are used: see JWKS_MAX_KEYS",
                self._display_name,
                len(keys),
                self._max_keys,
            )
            del keys[self._max_keys :]
        jwks, now = {"keys": keys}, self._clock()
        if self._keys is not None and self._keys.jwks == jwks:
            jwks = self._keys.jwks  # the same object: what was verified against it need not be verified again
        part = REFRESH_UNTIL - (REFRESH_UNTIL - REFRESH_FROM) * self._lot()
        kids = frozenset(key["kid"] for key in keys if "kid" in key)
        return _Keys(jwks, kids, now, now + self._cache_seconds * part)

    def _warn(self, problem: str) -> None:
        keys = self._keys
        state = "no keys yet" if keys is None else f"last fetched {self._clock() - keys.fetched_at:.0f} s ago"
        self._logger.warning(
            "Cannot fetch JWKS from %s: %s: %s (%s)", self._display_name, self.url, problem, state
        )
