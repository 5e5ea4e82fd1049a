"""What a token must pass, check by check: the one list that verification and explanation share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from boilstream.auth import jws
from boilstream.auth.errors import InvalidToken, shown
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.identity import Identity
from boilstream.auth.providers.base import Claims, Provider, TrustedIssuer

_MAX_SECONDS: Final = 1e12


class KeySource(Protocol):
    """Where the key set of an issuer comes from; see `KeyCache.jwks_for`."""

    def jwks_for(self, kid: str | None) -> dict[str, Any]:
        """The key set to verify a token with this key id against; may raise KeysUnavailable."""
        ...


@dataclass(slots=True)
class Candidate:
    """A token whose issuer is trusted, on its way through the checks."""

    token: jws.Jws
    claims: Claims
    provider: Provider
    trusted: TrustedIssuer
    keys: KeySource
    expiry: ExpiryRule
    jwks: dict[str, Any] = field(default_factory=dict)
    """The key set that the signature was checked against."""
    expires_at: float = 0.0

    @property
    def kid(self) -> str | None:
        """The key id of the header, which `check_header` has found to be text or absent."""
        return self.token.header.get("kid")


def check_header(candidate: Candidate) -> None:
    """Algorithm, key id, and no header that brings keys or extensions along."""
    jws.check_header(candidate.token.header, candidate.trusted.algorithms)


def check_signature(candidate: Candidate) -> None:
    """Made by a key that the issuer publishes, for itself. May raise KeysUnavailable."""
    trusted = candidate.trusted
    candidate.jwks = candidate.keys.jwks_for(candidate.kid)
    jwks = candidate.jwks
    if trusted.accepts_key is not None:
        jwks = {"keys": [key for key in jwks["keys"] if trusted.accepts_key(key)]}
    try:
        jws.check_signature(candidate.token, jwks, trusted.algorithms)
    except jws.KeyNotFound as error:
        raise InvalidToken(error.reason, candidate.provider.key_hint) from None
    except InvalidToken as error:
        raise InvalidToken(error.reason, _audience_objection(candidate) or error.fix) from None


def check_type(candidate: Candidate) -> None:
    """The header typ (RFC 8725, 3.11; writers may leave out `application/`), and no proof of possession."""
    if "cnf" in candidate.claims:  # RFC 7800: DPoP and mutual TLS
        raise InvalidToken(
            "Invalid token type: bound to a key of its client (claim cnf), which is not checked here",
            "request a plain bearer token",
        )
    value = candidate.token.header.get("typ", "")
    accepted = candidate.trusted.token_types
    if not isinstance(value, str) or value.lower().removeprefix("application/") not in accepted:
        raise InvalidToken(f"Invalid token type: the header typ is {shown(value)}", "send an access token")


def check_times(candidate: Candidate) -> None:
    """The claims exp (required), nbf and iat (RFC 7519, 4.1), all with one leeway."""
    expiry = candidate.expiry
    expires_at = _seconds(candidate.claims, "exp")
    if expires_at is None:
        raise InvalidToken("Invalid claim: exp is missing")
    if expiry.is_over(expires_at):
        raise expired(expiry, expires_at)
    now = expiry.clock()
    for name in ("nbf", "iat"):
        starts_at = _seconds(candidate.claims, name)
        if starts_at is not None and starts_at > now + expiry.leeway_seconds:
            raise InvalidToken(
                f"Not yet valid: {name} is {starts_at - now:.0f} s ahead",
                "compare the clock of this server with the provider's (NTP), see AUTH_LEEWAY_SECONDS",
            )
    candidate.expires_at = expires_at


def check_audience(candidate: Candidate) -> None:
    """Meant for this server, by the provider's own rule."""
    candidate.trusted.check_audience(candidate.claims)


CHECKS: Final[Mapping[str, Callable[[Candidate], None]]] = {
    "header": check_header,
    "signature": check_signature,
    "type": check_type,
    "times": check_times,
    "audience": check_audience,
}
"""In their order; each raises InvalidToken. Reading the token and finding its issuer come before."""


def identity_of(candidate: Candidate) -> Identity:
    """The caller that the claims describe; raises InvalidToken for claims of a wrong form."""
    return replace(candidate.trusted.to_identity(candidate.claims), expires_at=candidate.expires_at)


def expired(rule: ExpiryRule, expires_at: float) -> InvalidToken:
    """The refusal of a token that ended at `expires_at`."""
    return InvalidToken(
        f"Expired: the token ended {rule.clock() - expires_at:.0f} s ago",
        "get a new one from the identity provider; if it is new, compare the clocks (NTP)",
    )


def _audience_objection(candidate: Candidate) -> str | None:
    """What would be wrong with the audience: some tokens for others, Microsoft Graph's, cannot be verified."""
    try:
        check_audience(candidate)
    except InvalidToken as error:
        return f"the token is also not meant for this server: {error.explanation}"
    return None


def _seconds(claims: Claims, name: str) -> float | None:
    """A claim that is absent or a NumericDate (RFC 7519, 2): seconds since the epoch."""
    if name not in claims:
        return None
    value = claims[name]
    # bool is an int to Python; the bound keeps out infinity and numbers that no float holds
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _MAX_SECONDS:
        raise InvalidToken(f"Invalid claim: {name} is {shown(value)}, not a time in seconds since the epoch")
    return float(value)
