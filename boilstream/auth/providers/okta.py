"""Okta: access tokens of a custom authorization server and, by choice, ID tokens.

Rules: https://developer.okta.com/docs/guides/validate-access-tokens/ and
https://developer.okta.com/docs/guides/validate-id-tokens/. Access tokens of the org authorization server
are meant for Okta's own interfaces and must not be validated by others.
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
)
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings

NAME: Final = "okta"

ALGORITHMS: Final = ("RS256", "ES256")
"""Okta signs with RS256. ES256 is for servers with Okta's layout; a key works with its own algorithm only."""


def from_settings(settings: Settings) -> Provider:
    """The provider of the OKTA_ settings. Raises ConfigurationError when a required one is missing."""
    if settings.okta_org_domain is None or settings.okta_audience is None:
        raise ConfigurationError("OKTA_ORG_DOMAIN and OKTA_AUDIENCE must be set for AUTH_PROVIDERS=okta")
    return provider(
        org_domain=settings.okta_org_domain,
        audience=settings.okta_audience,
        auth_server_id=settings.okta_auth_server_id,
        client_id=settings.okta_client_id,
        allow_org_server=settings.okta_allow_org_server,
    )


def provider(
    *,
    org_domain: str,
    audience: str,
    auth_server_id: str = "default",
    client_id: str | None = None,
    allow_org_server: bool = False,
) -> Provider:
    """Okta as a provider.

    `org_domain` is a host in lower case, as in issuers, with a port if need be; `audience` that of the
    custom authorization server `auth_server_id`. With `client_id`, ID tokens issued to that client count
    too. `allow_org_server` adds the ID tokens of the org authorization server and needs `client_id`.
    """
    org = f"https://{org_domain}"
    custom = f"{org}/oauth2/{auth_server_id}"

    def check_custom(claims: Claims) -> None:
        found = audiences(claims)
        if client_id is not None and found == (client_id,):
            return
        if _is_id_token(claims):
            raise InvalidToken(
                f"Invalid token type: an ID token for {shown(found)}, OKTA_CLIENT_ID is {client_id or 'not set'}",
                "send the access token, or set OKTA_CLIENT_ID to accept ID tokens of that client",
            )
        if audience not in found:
            raise InvalidToken(
                f"Invalid audience: token has {shown(found)}, OKTA_AUDIENCE is {audience!r}",
                f"set OKTA_AUDIENCE to the audience of the authorization server {auth_server_id}, "
                "or OKTA_AUTH_SERVER_ID to the server that issues for it",
            )
        if "cid" not in claims and "scp" not in claims:
            # An ID token without marks, whose client is registered under the API's own name.
            raise InvalidToken(
                "Invalid token type: access tokens have the claims cid and scp, this one has neither",
                "send the access token",
            )

    def check_org(claims: Claims) -> None:
        found = audiences(claims)
        if found == (org,):
            raise InvalidToken(
                "Invalid audience: an access token of the org authorization server is meant for Okta itself",
                f"use a custom authorization server such as {custom} (OKTA_AUTH_SERVER_ID), or send the ID token",
            )
        if found != (client_id,):
            raise InvalidToken(
                f"Invalid audience: token has {shown(found)}, OKTA_CLIENT_ID is {client_id!r}",
                "set OKTA_CLIENT_ID to the client that signs users in, or use a custom authorization server",
            )

    issuers = [TrustedIssuer(custom, f"{custom}/v1/keys", check_custom, _to_identity, ALGORITHMS)]
    refused = {}
    if allow_org_server:
        if client_id is None:
            raise ConfigurationError(
                "OKTA_ALLOW_ORG_SERVER=true needs OKTA_CLIENT_ID, the audience of ID tokens"
            )
        issuers.append(TrustedIssuer(org, f"{org}/oauth2/v1/keys", check_org, _to_identity, ALGORITHMS))
    else:
        refused[org] = (
            f"{org} is the org authorization server; get the token from the custom authorization server "
            f"{custom}, or set OKTA_ALLOW_ORG_SERVER=true and OKTA_CLIENT_ID to accept its ID tokens"
        )
    return Provider(
        name=NAME,
        display_name="Okta",
        issuers=tuple(issuers),
        issuer_hint="check OKTA_ORG_DOMAIN and OKTA_AUTH_SERVER_ID",
        groups_hint=f"add a claim groups to the access tokens of the authorization server {custom}; "
        "tokens of client credentials have no groups and go by scope",
        refused_issuers=refused,
    )


def _is_id_token(claims: Claims) -> bool:
    """Whether claims occur that only ID tokens have; Okta also marks them in the token's own id."""
    token_id = claims.get("jti")
    return any(name in claims for name in ID_TOKEN_CLAIMS) or (
        isinstance(token_id, str) and token_id.startswith("ID.")
    )


def _to_identity(claims: Claims) -> Identity:
    subject, client = required_text(claims, "sub"), optional_text(claims, "cid")
    if client is not None:
        # In access tokens (ID tokens have no cid) sub may be the login, which changes hands; uid is the
        # user's id, as sub is in ID tokens. Tokens of client credentials have no uid.
        subject = optional_text(claims, "uid") or subject
    return Identity(
        provider=NAME,
        subject=subject,
        client=client,
        groups=text_array(claims, "groups"),
        scopes=text_array(claims, "scp"),
    )
