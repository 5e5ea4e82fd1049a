"""What a provider declares, and how its module reads claims.

A provider is data: the issuers it vouches for and, for each, where the keys are, which tokens are
meant for this server, and how claims become an Identity. A check is a function of the verified claims
that raises InvalidToken with a reason that helps the operator; it never returns a verdict to forget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from boilstream.auth.errors import InvalidToken, shown
from boilstream.auth.identity import Identity

Claims = Mapping[str, Any]

MAX_SUBJECT_CHARACTERS = 255  # OpenID Connect Core 1.0, section 2

ID_TOKEN_CLAIMS = ("nonce", "at_hash", "c_hash")
"""Claims that only ID tokens have (OpenID Connect Core 1.0, sections 2 and 3.3.2.11)."""


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """One issuer whose tokens are accepted, and the rules for them."""

    issuer: str
    """The exact value of the claim `iss`; nothing is normalised, a trailing slash counts."""
    keys_url: str
    """Address of the key set, https; with `discover` that of the discovery document."""
    check_audience: Callable[[Claims], None]
    """Raises InvalidToken for a token that is not meant for this server (audience, kind of token)."""
    to_identity: Callable[[Claims], Identity]
    """The caller that the claims describe; raises InvalidToken for claims of a wrong type. The manager
    sets the expiry."""
    algorithms: tuple[str, ...] = ("RS256",)
    token_types: frozenset[str] = frozenset({"", "jwt", "at+jwt"})
    """Accepted values of the header `typ`, in lower case and without `application/`; "" means none."""
    discover: bool = False
    """Whether the address of the key set is to be read from the issuer's discovery document
    (OpenID Connect Discovery 1.0, section 4)."""
    accepts_key: Callable[[Mapping[str, Any]], bool] | None = None
    """Whether a published key (a JWK) may sign for this issuer, where one key set serves several; None: all may."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An identity provider as configured."""

    name: str
    """As in AUTH_PROVIDERS and in `Identity.provider`; its logger is `boilstream.auth.<name>`."""
    display_name: str
    """As in log lines, such as `Okta`."""
    issuers: tuple[TrustedIssuer, ...]
    issuer_hint: str
    """What to check when tokens come from an unknown issuer; names the settings."""
    groups_hint: str
    """What to change when tokens carry no groups; names the settings or what to do at the provider."""
    refused_issuers: Mapping[str, str] = field(default_factory=dict)
    """Issuers that users mistake for a trusted one, each with the reason for the log."""
    opaque_hint: str | None = None
    """What to do to get a signed token where the provider may hand out opaque or encrypted ones."""
    key_hint: str = (
        "get a new token; if new ones are refused too, compare the issuer's settings with those of the server "
        "that made the token"
    )
    """What to do when the issuer publishes no key for a token."""
    warnings: tuple[str, ...] = ()
    """What an operator should know about these settings, logged at the start."""

    @property
    def logger_name(self) -> str:
        """Name of the logger for what concerns this provider alone."""
        return f"boilstream.auth.{self.name}"


def audiences(claims: Claims) -> tuple[str, ...]:
    """The claim `aud`, which is a string or an array of strings (RFC 7519, 4.1.3); empty without it."""
    value = claims.get("aud", [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise InvalidToken(
            f"Invalid audience: the claim aud is {shown(value)}, not a string or array of strings"
        )
    return tuple(values)


def required_text(claims: Claims, name: str) -> str:
    """A claim that must be a printable string of 1 to 255 characters, such as `sub`."""
    value = claims.get(name)
    if (
        not isinstance(value, str)
        or not value
        or len(value) > MAX_SUBJECT_CHARACTERS
        or not value.isprintable()
    ):
        raise InvalidToken(
            f"Invalid claim: {name} is {shown(value)}, not a printable string of 1 to "
            f"{MAX_SUBJECT_CHARACTERS} characters"
        )
    return value


def optional_text(claims: Claims, name: str) -> str | None:
    """A claim that is absent or like `required_text`."""
    return required_text(claims, name) if name in claims else None


def text_array(claims: Claims, name: str) -> frozenset[str]:
    """A claim that is absent (then empty) or an array of strings."""
    value = claims.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidToken(f"Invalid claim: {name} is {shown(value)}, not an array of strings")
    return frozenset(value)


def words(claims: Claims, name: str) -> frozenset[str]:
    """A claim that is absent (then empty) or a string of words with single blanks between (RFC 6749, 3.3)."""
    value = claims.get(name, "")
    if not isinstance(value, str):
        raise InvalidToken(f"Invalid claim: {name} is {shown(value)}, not a string")
    return frozenset(value.split(" ")) - {""}
