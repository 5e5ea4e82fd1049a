"""Any issuer of OpenID Connect that publishes a discovery document, such as Keycloak.

Rules: JWT access tokens after RFC 9068, read with some tolerance, since few issuers follow it to the
letter; discovery after https://openid.net/specs/openid-connect-discovery-1_0.html, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from boilstream.auth import jws
from boilstream.auth.errors import InvalidToken, shown
from boilstream.auth.identity import Identity
from boilstream.auth.providers.base import (
    ID_TOKEN_CLAIMS,
    Claims,
    Provider,
    TrustedIssuer,
    audiences,
    required_text,
    text_array,
    words,
)
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings

NAME = "oidc"

_CLIENT_CLAIMS: Final = ("client_id", "azp", "cid")
"""Names of the claim with the client's id: RFC 9068, OpenID Connect, Okta's habit. The first one counts."""

_MISSING: Final = object()


def from_settings(settings: Settings) -> Provider:
    """The provider of the OIDC_ settings. Raises ConfigurationError for missing or unknown values."""
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        raise ConfigurationError("OIDC_ISSUER and OIDC_AUDIENCE must be set for AUTH_PROVIDERS=oidc")
    return provider(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        groups_claim=settings.oidc_groups_claim,
        scopes_claim=settings.oidc_scopes_claim,
        algorithms=settings.oidc_algorithms,
        allow_id_tokens=settings.oidc_allow_id_tokens,
    )


def provider(
    *,
    issuer: str,
    audience: str,
    groups_claim: str = "groups",
    scopes_claim: str = "scope",
    algorithms: Sequence[str] = ("RS256", "ES256"),
    allow_id_tokens: bool = False,
) -> Provider:
    """An issuer with discovery as a provider.

    `issuer` is taken to the letter, https. `groups_claim` names a claim or, with dots, the way through
    objects to it, as `realm_access.roles`. `scopes_claim` holds an array or words. `allow_id_tokens` accepts ID
    tokens whose only audience is `audience`; without it an ID token is refused where it can be told.

    Raises ConfigurationError for algorithms that are not in `jws.ALGORITHMS`.
    """
    unknown = [name for name in algorithms if name not in jws.ALGORITHMS]
    if unknown or not algorithms:
        raise ConfigurationError(
            f"OIDC_ALGORITHMS: {repr(unknown[0]) + ' is not among' if unknown else 'list at least one of'} "
            f"the accepted algorithms {', '.join(jws.ALGORITHMS)}"
        )

    def check(claims: Claims) -> None:
        found = audiences(claims)
        mark = _id_token_mark(claims)
        if mark is not None and not allow_id_tokens:
            raise InvalidToken(
                f"Invalid token type: an ID token, which the claim {mark} tells",
                "send the access token; set OIDC_ALLOW_ID_TOKENS=true only if the provider issues no JWT as such",
            )
        if "events" in claims:
            raise InvalidToken(
                "Invalid token type: a security event token (RFC 8417), such as a logout token",
                "send the access token",
            )
        if audience not in found or (mark is not None and found != (audience,)):
            raise InvalidToken(
                f"Invalid audience: token has {shown(found)}, OIDC_AUDIENCE is {shown(audience)}",
                "let the provider put that audience into the token (Keycloak: an audience mapper), or correct "
                "OIDC_AUDIENCE",
            )
        if mark is None and not allow_id_tokens and not _is_access_token(claims, scopes_claim):
            raise InvalidToken(
                "Invalid token type: it may be an ID token, as nothing tells that it is an access token: no client_id, "
                "scope or scp, and no typ Bearer",
                "send the access token, and let the provider put one of these claims into it; "
                "or set OIDC_ALLOW_ID_TOKENS=true",
            )

    def to_identity(claims: Claims) -> Identity:
        client = next((name for name in _CLIENT_CLAIMS if name in claims), None)
        groups = _claim_at(claims, groups_claim)
        return Identity(
            provider=NAME,
            subject=required_text(claims, "sub"),
            client=required_text(claims, client) if client else None,
            groups=frozenset() if groups is _MISSING else text_array({groups_claim: groups}, groups_claim),
            scopes=_scopes(claims, scopes_claim),
        )

    return Provider(
        name=NAME,
        display_name="OIDC",
        issuers=(
            TrustedIssuer(
                issuer,
                f"{issuer.removesuffix('/')}/.well-known/openid-configuration",
                check,
                to_identity,
                algorithms=tuple(algorithms),
                discover=True,
            ),
        ),
        issuer_hint="check OIDC_ISSUER: it must equal the claim iss to the letter, a slash at its end included",
        groups_hint=(
            f"let the provider put groups into access tokens as an array of strings, and name the claim in "
            f"OIDC_GROUPS_CLAIM (now {shown(groups_claim)}; Keycloak: realm_access.roles or a group mapper)"
        ),
        opaque_hint=(
            f"the provider gave an opaque or encrypted access token: request one for the audience (or resource) "
            f"{shown(audience)}, and set it to JWT, signed, at the provider"
        ),
    )


def _id_token_mark(claims: Claims) -> str | None:
    """The claim that shows an ID token, or None (OpenID Connect Core 1.0, 2 and 3.3.2.11; `typ` is Keycloak's).

    Before version 25, and later by a mapper, Keycloak copies the nonce into access tokens, which it marks
    with the type Bearer. Access tokens of Dex have all marks of ID tokens and count as such.
    """
    if claims.get("typ") == "ID":
        return "typ"
    is_bearer = claims.get("typ") == "Bearer"
    return next(
        (name for name in ID_TOKEN_CLAIMS if name in claims and not (is_bearer and name == "nonce")), None
    )


def _is_access_token(claims: Claims, scopes_claim: str) -> bool:
    """Whether a claim is there that access tokens have (RFC 9068, 2.2 and 2.2.3; `typ` is Keycloak's).

    A plain ID token has no mark of its own, and its audience equals ours if the client is registered so.
    """
    names = ("client_id", "scope", "scp", scopes_claim)
    return claims.get("typ") == "Bearer" or any(name in claims for name in names)


def _claim_at(claims: Claims, path: str) -> Any:
    """The claim of this name or, where there is none, at the end of a path with dots; _MISSING without one."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return _MISSING
        value = value[name]
    return value


def _scopes(claims: Claims, name: str) -> frozenset[str]:
    return text_array(claims, name) if isinstance(claims.get(name), list) else words(claims, name)
