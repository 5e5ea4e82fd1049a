"""Auth0: access tokens of one API, in both of Auth0's token profiles.

Rules: https://auth0.com/docs/secure/tokens/access-tokens/validate-access-tokens and, for the claims,
https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles. ID tokens are for the
application that asked for them and are always refused.
"""

from __future__ import annotations

from typing import Final

from boilstream.auth.errors import InvalidToken, shown
from boilstream.auth.identity import Identity
from boilstream.auth.providers.base import (
    ID_TOKEN_CLAIMS,
    Claims,
    Provider,
    TrustedIssuer,
    audiences,
    optional_text,
    required_text,
    text_array,
    words,
)
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings

NAME: Final = "auth0"

ALGORITHMS: Final = ("RS256", "RS512", "PS256")
"""What an API can be set to sign with, without the symmetric HS256
(https://auth0.github.io/node-auth0/, SigningAlgorithmEnum of the Management API)."""


def from_settings(settings: Settings) -> Provider:
    """The provider of the AUTH0_ settings. Raises ConfigurationError when a required one is missing."""
    if settings.auth0_tenant is None or settings.auth0_audience is None:
        raise ConfigurationError("AUTH0_TENANT and AUTH0_AUDIENCE must be set for AUTH_PROVIDERS=auth0")
    return provider(
        tenant=settings.auth0_tenant,
        audience=settings.auth0_audience,
        groups_namespace=settings.auth0_groups_namespace,
    )


def provider(*, tenant: str, audience: str, groups_namespace: str | None = None) -> Provider:
    """Auth0 as a provider.

    `tenant` is a host in lower case, that of the tenant or its custom domain, with a port if need be; `audience` the
    identifier of the API; `groups_namespace` the full name of the claim that holds groups, such as
    `https://company.com/groups`, without which no token has groups.
    """
    base = f"https://{tenant}/"  # the issuer ends with this slash

    def check_audience(claims: Claims) -> None:
        found = audiences(claims)
        marks = [name for name in ID_TOKEN_CLAIMS if name in claims]
        if marks:
            raise InvalidToken(
                f"Invalid token type: an ID token for {shown(found)}, it has the claim {marks[0]}",
                f"send the access token; request it with audience {audience}, as in AUTH0_AUDIENCE",
            )
        if f"{base}api/v2/" in found and audience not in found:
            raise InvalidToken(
                "Invalid audience: a token for Auth0's Management API",
                f"request the token with audience {audience}, as in AUTH0_AUDIENCE",
            )
        if audience not in found:
            raise InvalidToken(
                f"Invalid audience: token has {shown(found)}, AUTH0_AUDIENCE is {audience!r}",
                f"request the token with audience {audience}, or set AUTH0_AUDIENCE to the API's identifier",
            )

    def to_identity(claims: Claims) -> Identity:
        client, client_id = (optional_text(claims, name) for name in ("azp", "client_id"))
        return Identity(
            provider=NAME,
            subject=required_text(claims, "sub"),
            client=client or client_id,
            groups=text_array(claims, groups_namespace) if groups_namespace else frozenset(),
            scopes=words(claims, "scope") | text_array(claims, "permissions"),
        )

    return Provider(
        name=NAME,
        display_name="Auth0",
        issuers=(
            TrustedIssuer(
                base,
                f"{base}.well-known/jwks.json",
                check_audience,
                to_identity,
                algorithms=ALGORITHMS,
            ),
        ),
        issuer_hint="check AUTH0_TENANT; tokens name the domain that they were requested from, "
        "which is the custom domain or the tenant's own",
        groups_hint=(
            f"set the claim {groups_namespace} on access tokens in a post-login Action"
            if groups_namespace
            else "set AUTH0_GROUPS_NAMESPACE to the claim that a post-login Action sets on access tokens"
        )
        + "; tokens of client credentials have no groups and go by scope",
        opaque_hint=(
            f"request the token with audience {audience}; without it Auth0 issues an opaque or encrypted token"
        ),
    )
