"""From a bearer token to an Identity, by the rules of the configured providers."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from boilstream.auth import checks, jws, providers
from boilstream.auth.checks import Candidate, KeySource
from boilstream.auth.discovery import discovering
from boilstream.auth.errors import InvalidToken, KeysUnavailable, defect, shown
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.fetch import HttpsFetcher
from boilstream.auth.identity import Identity
from boilstream.auth.jwks import Fetch, KeyCache
from boilstream.auth.providers.base import Claims, Provider, TrustedIssuer
from boilstream.auth.refresh import KeyRefresher
from boilstream.auth.session import SessionIssuer
from boilstream.errors import ConfigurationError
from boilstream.observe.metrics import Metrics
from boilstream.settings import Settings
from boilstream.settings.identity import AuthorizationSettings, IdentitySettings

MAX_CACHED_TOKENS: Final = 4096

_LOGGER = logging.getLogger("boilstream.auth.manager")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What every check says of one token, for people who look for the reason of a refusal."""

    findings: Mapping[str, InvalidToken | KeysUnavailable | None]
    """Check -> its objection, in the order of the checks; the names are those of `CHECKS`, `form` and
    `issuer` before them and `identity` after. What an earlier objection makes impossible is not in it."""
    candidate: Candidate | None
    """The token in its parts, if it has a form and a trusted issuer."""
    identity: Identity | None
    """The caller that the claims describe, verified or not."""

    @property
    def accepted(self) -> bool:
        """Whether the server would let the token's holder in."""
        return self.identity is not None and not any(self.findings.values())


class AuthManager:
    """Verifies tokens of the given providers, and its own sessions. Thread safe.

    The provider is chosen by the exact issuer before any key is looked at. A verified token is
    remembered, by its SHA-256 digest, until it expires. `sessions` makes session tokens, and vouches
    for them; `fetch` gets documents of providers, `expiry` says when a token ends, `monotonic` gives
    seconds for the key caches. Construction does no I/O.

    Raises ConfigurationError when two providers claim one issuer.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        sessions: SessionIssuer | None = None,
        fetch: Fetch | None = None,
        expiry: ExpiryRule | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        jwks_cache_seconds: float = 3600,
        jwks_max_keys: int = 100,
        max_cached_tokens: int = MAX_CACHED_TOKENS,
        metrics: Metrics | None = None,
    ) -> None:
        fetch = fetch or HttpsFetcher()
        self.sessions = sessions
        self.expiry = expiry or ExpiryRule()
        self._providers = tuple(providers)
        self._metrics = metrics or Metrics()
        self._issuers: dict[str, tuple[Provider, TrustedIssuer, KeySource]] = {}
        self._verified = _VerifiedTokens(max_cached_tokens)
        caches: dict[str, KeyCache] = {}
        for provider in self._providers:
            for trusted in provider.issuers:
                if trusted.keys_url not in caches:
                    caches[trusted.keys_url] = KeyCache(
                        trusted.keys_url,
                        fetch=discovering(fetch, trusted.issuer) if trusted.discover else fetch,
                        display_name=provider.display_name,
                        logger_name=provider.logger_name,
                        cache_seconds=jwks_cache_seconds,
                        max_keys=jwks_max_keys,
                        clock=monotonic,
                        metrics=self._metrics.for_keys(provider.name, trusted.keys_url),
                    )
                self._trust(provider, trusted, caches[trusted.keys_url])
            _LOGGER.info("Added %s authentication provider", provider.display_name)
            for warning in provider.warnings:
                _LOGGER.warning("%s: %s", provider.display_name, warning)
        if sessions is not None:
            self._trust(sessions.provider, sessions.provider.issuers[0], _OwnKeys(sessions.jwks))
        self._caches = tuple(caches.values())
        self._refresher = KeyRefresher(self._caches)
        _LOGGER.info("Authentication enabled with %d provider(s)", len(self._providers))

    @property
    def providers(self) -> tuple[Provider, ...]:
        """The configured providers, sessions not among them."""
        return self._providers

    def authenticate(self, token: str) -> Identity:
        """The verified caller behind a bearer token (without the word Bearer).

        Raises InvalidToken, whose reason is in the log already, KeysUnavailable (retryable), and Internal for
        a defect, without its text. May block for one fetch of keys, at most some seconds.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        try:
            verified = self._verified.get(digest)
            if verified is not None and verified.is_current():
                if self.expiry.is_over(verified.identity.expires_at):
                    raise checks.expired(self.expiry, verified.identity.expires_at)
                self._metrics.tokens_cached.inc()
                return verified.identity
            verified = self._verify(token)
        except InvalidToken as error:
            self._verified.drop(digest)
            self._metrics.tokens_refused.inc()
            _LOGGER.warning("Refused a token (sha256 %s...): %s", digest[:4].hex(), error.explanation)
            raise
        except KeysUnavailable:
            self._metrics.tokens_unavailable.inc()
            raise
        except Exception as error:  # noqa: BLE001 - a message or a traceback could quote the token
            raise defect(error) from None
        self._verified.put(digest, verified)
        self._metrics.tokens_verified.inc()
        return verified.identity

    def explain(self, token: str) -> Explanation:
        """Put a token through all checks, also those after the first objection.

        It is neither remembered nor logged. May block as `authenticate` does.
        """
        findings: dict[str, InvalidToken | KeysUnavailable | None] = {}
        try:
            parsed, claims = self._parse(token)
            findings["form"] = None
            candidate = self._candidate(parsed, claims)
            findings["issuer"] = None
        except InvalidToken as error:
            findings["issuer" if "form" in findings else "form"] = error
            return Explanation(findings, None, None)
        for name, check in checks.CHECKS.items():
            if name == "signature" and findings["header"] is not None:
                continue  # it would repeat the objection
            try:
                check(candidate)
                findings[name] = None
            except (InvalidToken, KeysUnavailable) as error:
                findings[name] = error
        identity = None
        try:
            identity = self._identity(candidate)
            findings["identity"] = None
        except InvalidToken as error:
            findings["identity"] = error
        return Explanation(findings, candidate, identity)

    def preload(self, wait_seconds: float = 0) -> bool:
        """Start fetching all keys at once, wait at most so long, and tell whether all are there.

        A provider that does not answer is no error: its keys are fetched when a token needs them.
        """
        end = time.monotonic() + wait_seconds
        for cache in self._caches:
            cache.preload()
        ready = [cache.preload(max(0.0, end - time.monotonic())) for cache in self._caches]
        return all(ready)

    def start_refreshing(self) -> None:
        """From now on fetch keys anew before they expire, also when no token comes."""
        self._refresher.start()

    def close(self) -> None:
        """Start no more fetches; tokens whose keys are cached still verify."""
        self._refresher.stop()
        for cache in self._caches:
            cache.close()

    def _trust(self, provider: Provider, trusted: TrustedIssuer, keys: KeySource) -> None:
        if trusted.issuer in self._issuers:
            raise ConfigurationError(f"AUTH_PROVIDERS: two providers have the issuer {trusted.issuer}")
        self._issuers[trusted.issuer] = provider, trusted, keys

    def _verify(self, token: str) -> _Verified:
        candidate = self._candidate(*self._parse(token))
        for check in checks.CHECKS.values():
            check(candidate)
        identity = self._identity(candidate)
        provider = candidate.provider
        logger = logging.getLogger(provider.logger_name)
        logger.debug("Successfully validated %s token for user: %s", provider.display_name, identity.subject)
        if not (identity.groups or identity.roles):
            logger.debug("Groups not extracted: %s", provider.groups_hint)
        return _Verified(identity, candidate.keys, candidate.kid, candidate.jwks)

    def _identity(self, candidate: Candidate) -> Identity:
        identity = checks.identity_of(candidate)
        if identity.session and all(identity.provider != provider.name for provider in self._providers):
            raise InvalidToken(
                f"Invalid issuer: the session was made from a token of {shown(identity.provider)}, "
                "which AUTH_PROVIDERS does not name"
            )
        return identity

    def _parse(self, token: str) -> tuple[jws.Jws, Claims]:
        try:
            parsed = jws.parse(token)
            return parsed, jws.json_object(parsed.payload, "payload")
        except jws.NotSigned as error:
            hints = [provider.opaque_hint for provider in self._providers if provider.opaque_hint]
            raise InvalidToken(error.reason, "; ".join(hints) or error.fix) from None

    def _candidate(self, token: jws.Jws, claims: Claims) -> Candidate:
        issuer = claims.get("iss")
        if not isinstance(issuer, str):
            raise InvalidToken(f"Invalid issuer: the claim iss is {shown(issuer)}, not a string")
        known = self._issuers.get(issuer)
        if known is not None:
            return Candidate(token, claims, *known, expiry=self.expiry)
        for provider in self._providers:
            if issuer in provider.refused_issuers:
                raise InvalidToken(f"Invalid issuer: {provider.refused_issuers[issuer]}")
        trusted = [trusted.issuer for provider in self._providers for trusted in provider.issuers]
        raise InvalidToken(
            f"Invalid issuer: token has {shown(issuer)}, trusted are {shown(trusted)}",
            "; ".join(provider.issuer_hint for provider in self._providers),
        )


class _OwnKeys:
    """The keys of sessions: at hand, and the same for the life of the process."""

    def __init__(self, jwks: dict[str, Any]) -> None:
        self._jwks = jwks

    def jwks_for(self, _kid: str | None) -> dict[str, Any]:
        return self._jwks


@dataclass(frozen=True, slots=True)
class _Verified:
    """What came of verifying one token, and against which keys."""

    identity: Identity
    keys: KeySource
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


def _policy(settings: Settings) -> str:
    """A digest of all that decides who gets a session and what is left out of it."""
    fields = IdentitySettings.model_fields | AuthorizationSettings.model_fields
    # Paths, set or not, differ from node to node; the rules file, whose content may change, only adds rights to names.
    relevant = {
        name: getattr(settings, name)
        for name, field in fields.items()
        if Path not in get_args(field.annotation)
    }
    return hashlib.sha256(repr(sorted(relevant.items())).encode()).hexdigest()[:16]


def build_manager(settings: Settings, metrics: Metrics | None = None) -> AuthManager | None:
    """The manager that the settings describe, or None when AUTH_PROVIDERS names none.

    Raises ConfigurationError for settings that do not fit.
    """
    configured = providers.from_settings(settings)
    if not configured:
        return None
    return AuthManager(
        configured,
        sessions=SessionIssuer.from_key_file(
            settings.session_key_path, max_seconds=settings.session_seconds, policy=_policy(settings)
        ),
        fetch=HttpsFetcher(settings.auth_ca_file),
        expiry=ExpiryRule(settings.auth_leeway_seconds),
        jwks_cache_seconds=settings.jwks_cache_seconds,
        jwks_max_keys=settings.jwks_max_keys,
        metrics=metrics,
    )
