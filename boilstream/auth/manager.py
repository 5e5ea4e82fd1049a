"""From a bearer token to an Identity, by the rules of the configured providers."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from boilstream.auth import jws, providers
from boilstream.auth.errors import InvalidToken, shown
from boilstream.auth.fetch import HttpsFetcher
from boilstream.auth.identity import Identity
from boilstream.auth.jwks import Fetch, KeyCache
from boilstream.auth.providers.base import Claims, Provider, TrustedIssuer
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings

LEEWAY_SECONDS: Final = 30.0
"""Difference between the clocks of provider and server that is tolerated, for every time claim alike."""

MAX_CACHED_TOKENS: Final = 4096

_MAX_SECONDS: Final = 1e12

_LOGGER = logging.getLogger("boilstream.auth.manager")


class AuthManager:
    """Verifies tokens of the given providers. Thread safe.

    The provider is chosen by the exact issuer before any key is looked at. A verified token is
    remembered, by its SHA-256 digest, until it expires. `fetch` gets key sets, `clock` gives seconds since
    the epoch, `monotonic` seconds for the key caches. Construction does no I/O.

    Raises ConfigurationError when two providers claim one issuer.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        leeway_seconds: float = LEEWAY_SECONDS,
        jwks_cache_seconds: float = 3600,
        jwks_max_keys: int = 100,
        max_cached_tokens: int = MAX_CACHED_TOKENS,
    ) -> None:
        fetch = fetch or HttpsFetcher()
        self._providers = tuple(providers)
        self._clock = clock
        self._leeway = leeway_seconds
        self._issuers: dict[str, tuple[Provider, TrustedIssuer]] = {}
        self._caches: dict[str, KeyCache] = {}
        self._verified = _VerifiedTokens(max_cached_tokens)
        for provider in self._providers:
            for trusted in provider.issuers:
                if trusted.issuer in self._issuers:
                    raise ConfigurationError(
                        f"AUTH_PROVIDERS: two providers have the issuer {trusted.issuer}"
                    )
                self._issuers[trusted.issuer] = provider, trusted
                if trusted.keys_url not in self._caches:
                    self._caches[trusted.keys_url] = KeyCache(
                        trusted.keys_url,
                        fetch=fetch,
                        display_name=provider.display_name,
                        logger_name=provider.logger_name,
                        cache_seconds=jwks_cache_seconds,
                        max_keys=jwks_max_keys,
                        clock=monotonic,
                    )
            _LOGGER.info("Added %s authentication provider", provider.display_name)
        _LOGGER.info("Authentication enabled with %d provider(s)", len(self._providers))

    def authenticate(self, token: str) -> Identity:
        """The verified caller behind a bearer token (without the word Bearer).

        Raises InvalidToken, whose reason is in the log already, or KeysUnavailable (retryable). May block
        for one fetch of keys, at most some seconds.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        try:
            verified = self._verified.get(digest)
            if verified is not None and verified.is_current():
                self._check_expiry(verified.identity.expires_at)
                return verified.identity
            verified = self._verify(token)
        except InvalidToken as error:
            self._verified.drop(digest)
            _LOGGER.warning("Refused a token (sha256 %s...): %s", digest[:4].hex(), error.reason)
            raise
        self._verified.put(digest, verified)
        return verified.identity

    def preload(self, wait_seconds: float = 0) -> bool:
        """Start fetching all keys at once, wait at most so long, and tell whether all are there.

        A provider that does not answer is no error: its keys are fetched when a token needs them.
        """
        end = time.monotonic() + wait_seconds
        for cache in self._caches.values():
            cache.preload()
        ready = [cache.preload(max(0.0, end - time.monotonic())) for cache in self._caches.values()]
        return all(ready)

    def close(self) -> None:
        """Start no more fetches; tokens whose keys are cached still verify."""
        for cache in self._caches.values():
            cache.close()

    def _verify(self, token: str) -> _Verified:
        header, unverified = jws.parse(token)
        provider, trusted = self._issuer(unverified.get("iss"))
        jws.check_header(header, trusted.algorithms)
        keys = self._caches[trusted.keys_url]
        jwks = keys.jwks_for(header.get("kid"))
        header, payload = jws.verify(token, jwks, trusted.algorithms)
        claims = jws.json_object(payload, "payload")
        _check_type(header, trusted.token_types)
        expires_at = self._check_times(claims)
        trusted.check_audience(claims)
        identity = replace(trusted.to_identity(claims), expires_at=expires_at)
        logging.getLogger(provider.logger_name).debug(
            "Successfully validated %s token for user: %s", provider.display_name, identity.subject
        )
        return _Verified(identity, keys, header.get("kid"), jwks)

    def _issuer(self, issuer: object) -> tuple[Provider, TrustedIssuer]:
        if not isinstance(issuer, str):
            raise InvalidToken(f"Invalid issuer: the claim iss is {shown(issuer)}, not a string")
        known = self._issuers.get(issuer)
        if known is not None:
            return known
        for provider in self._providers:
            if issuer in provider.refused_issuers:
                raise InvalidToken(f"Invalid issuer: {provider.refused_issuers[issuer]}")
        hints = "; ".join(provider.issuer_hint for provider in self._providers)
        raise InvalidToken(
            f"Invalid issuer: token has {shown(issuer)}, trusted are {shown([*self._issuers])}; {hints}"
        )

    def _check_times(self, claims: Claims) -> float:
        """Check exp (required), nbf and iat (RFC 7519, 4.1) and return exp."""
        now = self._clock()
        expires_at = _seconds(claims, "exp")
        if expires_at is None:
            raise InvalidToken("Invalid claim: exp is missing")
        self._check_expiry(expires_at)
        for name in ("nbf", "iat"):
            starts_at = _seconds(claims, name)
            if starts_at is not None and starts_at > now + self._leeway:
                raise InvalidToken(
                    f"Not yet valid: {name} is {starts_at - now:.0f} s ahead; check the clocks"
                )
        return expires_at

    def _check_expiry(self, expires_at: float) -> None:
        late = self._clock() - expires_at
        if late >= self._leeway:
            raise InvalidToken(f"Expired: the token ended {late:.0f} s ago")


@dataclass(frozen=True, slots=True)
class _Verified:
    """What came of verifying one token, and against which keys."""

    identity: Identity
    keys: KeyCache
    kid: str | None
    jwks: dict[str, Any]

    def is_current(self) -> bool:
        """Whether the issuer's keys are still those: a key that it withdraws ends the tokens signed with it."""
        return self.keys.jwks_for(self.kid) is self.jwks


class _VerifiedTokens:
    """The tokens lately verified, by digest; the least used one goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._tokens: OrderedDict[bytes, _Verified] = OrderedDict()

    def get(self, digest: bytes) -> _Verified | None:
        with self._lock:
            verified = self._tokens.get(digest)
            if verified is not None:
                self._tokens.move_to_end(digest)
            return verified

    def put(self, digest: bytes, verified: _Verified) -> None:
        with self._lock:
            self._tokens[digest] = verified
            self._tokens.move_to_end(digest)
            while len(self._tokens) > self._limit:
                self._tokens.popitem(last=False)

    def drop(self, digest: bytes) -> None:
        with self._lock:
            self._tokens.pop(digest, None)


def build_manager(settings: Settings) -> AuthManager | None:
    """The manager that the settings describe, or None when AUTH_PROVIDERS names none.

    Raises ConfigurationError for settings that do not fit.
    """
    configured = providers.from_settings(settings)
    if not configured:
        return None
    return AuthManager(
        configured,
        fetch=HttpsFetcher(settings.auth_ca_file),
        jwks_cache_seconds=settings.jwks_cache_seconds,
        jwks_max_keys=settings.jwks_max_keys,
    )


def _check_type(header: Mapping[str, Any], accepted: frozenset[str]) -> None:
    """Check the header typ (RFC 8725, 3.11); RFC 7515 lets writers leave out `application/`."""
    value = header.get("typ", "")
    if not isinstance(value, str) or value.lower().removeprefix("application/") not in accepted:
        raise InvalidToken(f"Invalid token type: the header typ is {shown(value)}")


def _seconds(claims: Claims, name: str) -> float | None:
    """A claim that is absent or a NumericDate (RFC 7519, 2): seconds since the epoch."""
    if name not in claims:
        return None
    value = claims[name]
    # bool is an int to Python; the bound keeps out infinity and numbers that no float holds
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _MAX_SECONDS:
        raise InvalidToken(f"Invalid claim: {name} is {shown(value)}, not a time in seconds since the epoch")
    return float(value)
