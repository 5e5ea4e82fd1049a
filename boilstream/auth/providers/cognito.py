"""AWS Cognito: access tokens and ID tokens of one user pool.

Rules: https://docs.aws.amazon.com/cognito/latest/developerguide/ with the pages
amazon-cognito-user-pools-using-tokens-verifying-a-jwt.html, -using-the-access-token.html and
-using-the-id-token.html. Access tokens name the app client in `client_id` and have an `aud` only when
they are bound to a resource (RFC 8707); ID tokens name the app client in `aud`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from boilstream.auth.errors import InvalidToken, shown
from boilstream.auth.identity import Identity
from boilstream.auth.providers.base import (
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

NAME = "cognito"

_HOSTS: Final = ("cognito-idp", "issuer-cognito-idp")
"""First labels of the hosts in the issuer of a user pool, by its issuer type: "original" and "updated".

Both name the same pool and have the same keys; see "user pools as an OIDC issuer" in
https://docs.aws.amazon.com/cognito/latest/developerguide/federation-endpoints.html.
"""


def from_settings(settings: Settings) -> Provider:
    """The provider of the COGNITO_ settings. Raises ConfigurationError when a required one is missing."""
    pool = settings.cognito_user_pool_id
    if pool is None:
        raise ConfigurationError("COGNITO_USER_POOL_ID must be set for AUTH_PROVIDERS=cognito")
    region = settings.cognito_region or (pool.partition("_")[0] if "_" in pool else "")
    if not region and settings.cognito_host is None:
        raise ConfigurationError(
            "COGNITO_REGION must be set: COGNITO_USER_POOL_ID does not begin with a region"
        )
    return provider(
        user_pool_id=pool, region=region, app_clients=settings.cognito_audience, host=settings.cognito_host
    )


def provider(
    *, user_pool_id: str, region: str, app_clients: Sequence[str] = (), host: str | None = None
) -> Provider:
    """Cognito as a provider.

    `app_clients` are the ids of the app clients whose tokens are accepted, all of the pool when empty; an
    access token that is bound to a resource needs the resource in that list too. Without a `host`, tokens
    with either issuer that a pool can be set to ("original" and "updated") are accepted.
    """
    accepted = frozenset(app_clients)
    setting = f"COGNITO_AUDIENCE is {shown([*app_clients])}" if accepted else "COGNITO_AUDIENCE is not set"

    def check(claims: Claims) -> None:
        use = claims.get("token_use")
        if use == "access":
            check_access(claims)
        elif use == "id":
            check_id(claims)
        else:
            raise InvalidToken(
                f"Invalid token type: token_use is {shown(use)}, not 'access' or 'id'",
                "send the access token or the ID token of the user pool",
            )

    def check_access(claims: Claims) -> None:
        client = required_text(claims, "client_id")
        if accepted and client not in accepted:
            raise InvalidToken(
                f"Invalid audience: the token was issued to app client {shown(client)}, {setting}",
                "add the app client to COGNITO_AUDIENCE, or get the token with one that is listed",
            )
        if "aud" not in claims:
            return
        bound = audiences(claims)
        if accepted.isdisjoint(bound):
            raise InvalidToken(
                f"Invalid audience: the token is bound to {shown(bound)}, {setting}",
                "request the token without a resource, or list the resource beside the app clients in "
                "COGNITO_AUDIENCE",
            )

    def check_id(claims: Claims) -> None:
        found = audiences(claims)
        if len(found) != 1 or (accepted and found[0] not in accepted):
            raise InvalidToken(
                f"Invalid audience: the ID token was issued to {shown(found)}, {setting}",
                "add the app client to COGNITO_AUDIENCE, or sign in with one that is listed",
            )

    hosts = [host] if host else [f"{name}.{region}.amazonaws.com" for name in _HOSTS]
    keys_url = f"https://{hosts[0]}/{user_pool_id}/.well-known/jwks.json"
    return Provider(
        name=NAME,
        display_name="AWS Cognito",
        issuers=tuple(
            TrustedIssuer(f"https://{name}/{user_pool_id}", keys_url, check, _to_identity) for name in hosts
        ),
        issuer_hint="check COGNITO_USER_POOL_ID, COGNITO_REGION and COGNITO_HOST",
        groups_hint=(
            "add the user to a group of the user pool; tokens of client credentials have no groups: list their "
            "scopes with the full name, such as https://api.company.com/write:data, in WRITE_SCOPES"
        ),
        opaque_hint="send the access token or the ID token; Cognito's refresh tokens are encrypted",
        warnings=()
        if accepted
        else (
            "COGNITO_AUDIENCE is not set: tokens of every app client of the user pool are accepted; list the "
            "ids of the app clients that may call",
        ),
    )


def _to_identity(claims: Claims) -> Identity:
    """The caller; scopes keep their full name, `<identifier of the resource server>/<scope>`.

    The subject of client credentials is the id of the app client.
    """
    is_access = claims.get("token_use") == "access"
    return Identity(
        provider=NAME,
        subject=required_text(claims, "sub"),
        client=required_text(claims, "client_id" if is_access else "aud"),
        groups=text_array(claims, "cognito:groups"),
        scopes=words(claims, "scope") if is_access else frozenset(),
    )
