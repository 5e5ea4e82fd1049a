"""Claim sets as Cognito, Google and OpenID Connect issuers document them, and a way to have them verified.

Names and ids are those of the documentation, or of this project where a setting must fit; only the times
are those of the tests' clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from boilstream.auth.errors import InvalidToken
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.fetch import FetchFailed
from boilstream.auth.identity import Identity
from boilstream.auth.manager import AuthManager
from boilstream.auth.providers.base import Provider, TrustedIssuer
from tests.support.tokens import NOW, FakeClock, PrivateKey, jwk, rsa_key, token

Claims = Mapping[str, Any]

TIMES = {"iat": NOW, "exp": NOW + 3600}
UUID = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

# Cognito

POOL = "us-west-2_example"
POOL_ISSUER = f"https://cognito-idp.us-west-2.amazonaws.com/{POOL}"
UPDATED_POOL_ISSUER = f"https://issuer-cognito-idp.us-west-2.amazonaws.com/{POOL}"
APP_CLIENT = "57cbishk4j24pabc1234567890"
ID_APP_CLIENT = "xxxxxxxxxxxxexample"
RESOURCE = "https://api.company.com"

COGNITO_ACCESS: Claims = {
    # https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html
    "sub": UUID,
    "device_key": UUID,
    "cognito:groups": ["admin"],
    "token_use": "access",
    "scope": "aws.cognito.signin.user.admin",
    "auth_time": NOW,
    "iss": POOL_ISSUER,
    **TIMES,
    "origin_jti": UUID,
    "jti": UUID,
    "client_id": APP_CLIENT,
    "username": "janedoe@example.com",
}

COGNITO_MACHINE: Claims = {
    # The same page: what is left without a user. Custom scopes are <resource server identifier>/<scope>:
    # https://docs.aws.amazon.com/cognito/latest/developerguide/cognito-user-pools-define-resource-servers.html
    "sub": APP_CLIENT,
    "token_use": "access",
    "scope": f"{RESOURCE}/write:data {RESOURCE}/read:data",
    "auth_time": NOW,
    "iss": POOL_ISSUER,
    **TIMES,
    "version": 2,
    "jti": UUID,
    "client_id": APP_CLIENT,
}

COGNITO_ID: Claims = {
    # https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-id-token.html
    "sub": UUID,
    "cognito:groups": ["test-group-a", "test-group-b", "test-group-c"],
    "email_verified": True,
    "cognito:preferred_role": "arn:aws:iam::111122223333:role/my-test-role",
    "iss": POOL_ISSUER,
    "cognito:username": "my-test-user",
    "middle_name": "Jane",
    "nonce": "abcdefg",
    "origin_jti": UUID,
    "cognito:roles": ["arn:aws:iam::111122223333:role/my-test-role"],
    "aud": ID_APP_CLIENT,
    "identities": [
        {
            "userId": "amzn1.account.EXAMPLE",
            "providerName": "LoginWithAmazon",
            "providerType": "LoginWithAmazon",
            "issuer": None,
            "primary": "true",
            "dateCreated": "1642699117273",
        }
    ],
    "event_id": "64f513be-32db-42b0-b78e-b02127b4f463",
    "token_use": "id",
    "auth_time": NOW,
    **TIMES,
    "jti": UUID,
    "email": "my-test-user@example.com",
}

# Google

GOOGLE_ISSUER = "https://accounts.google.com"
GOOGLE_CLIENT = "1234987819200.apps.googleusercontent.com"
PROJECT = "company-data"
SERVICE_ACCOUNT = "107145139691231222712"

GOOGLE_USER: Claims = {
    # https://developers.google.com/identity/openid-connect/openid-connect#an-id-tokens-payload; the page quotes
    # the value of email_verified, real tokens have a JSON boolean
    "iss": GOOGLE_ISSUER,
    "azp": GOOGLE_CLIENT,
    "aud": GOOGLE_CLIENT,
    "sub": "10769150350006150715113082367",
    "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
    "hd": "example.com",
    "email": "jsmith@example.com",
    "email_verified": True,
    **TIMES,
    "nonce": "0394852-3190485-2490358",
}

GOOGLE_SERVICE_ACCOUNT: Claims = {
    # https://cloud.google.com/docs/authentication/get-id-token and
    # https://cloud.google.com/compute/docs/instances/verifying-instance-identity#payload
    "aud": GOOGLE_CLIENT,
    "azp": SERVICE_ACCOUNT,
    "email": f"ingest@{PROJECT}.iam.gserviceaccount.com",
    "email_verified": True,
    **TIMES,
    "iss": GOOGLE_ISSUER,
    "sub": SERVICE_ACCOUNT,
}

# OpenID Connect

API = "https://rs.example.com/"

RFC_9068_ISSUER = "https://authorization-server.example.com/"
RFC_9068: Claims = {
    # https://www.rfc-editor.org/rfc/rfc9068#section-3
    "iss": RFC_9068_ISSUER,
    "sub": "5ba552d67",
    "aud": API,
    **TIMES,
    "jti": "dbe39bf3a3ba4238a513f51d6e1691c4",
    "client_id": "s6BhdRkqt3",
    "scope": "openid profile reademail",
}

KEYCLOAK_ISSUER = "https://id.company.com/realms/main"
KEYCLOAK: Claims = {
    # Claims of https://www.keycloak.org/docs-api/latest/javadocs/org/keycloak/representations/AccessToken.html,
    # with an audience mapper for this server
    **TIMES,
    "auth_time": NOW - 10,
    "jti": "d58f5dc8-fd8f-462b-8a19-716f8f83985b",
    "iss": KEYCLOAK_ISSUER,
    "aud": ["boilstream", "account"],
    "sub": "36fa0f91-f94d-4a0c-afed-6b7d952e47da",
    "typ": "Bearer",
    "azp": "etl-frontend",
    "sid": "2a88c258-f73a-4103-b862-e1fbd8f4e04e",
    "acr": "1",
    "allowed-origins": ["https://etl.company.com"],
    "realm_access": {"roles": ["offline_access", "DataEngineers"]},
    "resource_access": {"boilstream": {"roles": ["writer"]}, "account": {"roles": ["view-profile"]}},
    "scope": "email profile write:data",
    "email_verified": True,
    "preferred_username": "ada",
    "email": "ada@company.com",
}

OPENID_ISSUER = "https://server.example.com"
OPENID_ID: Claims = {
    # https://openid.net/specs/openid-connect-core-1_0.html#IDToken
    "iss": OPENID_ISSUER,
    "sub": "24400320",
    "aud": "s6BhdRkqt3",
    "nonce": "n-0S6_WzA2Mj",
    **TIMES,
    "auth_time": NOW - 10,
    "acr": "urn:mace:incommon:iap:silver",
}


class Documents:
    """A web without a network: address -> body, or what to raise; all else is not found."""

    def __init__(self, documents: Mapping[str, bytes | Exception]) -> None:
        self.documents = dict(documents)
        self.urls: list[str] = []

    def __call__(self, url: str) -> bytes:
        self.urls.append(url)
        found = self.documents.get(url, FetchFailed("HTTP status 404 instead of 200"))
        if isinstance(found, Exception):
            raise found
        return found


def published(provider: Provider, *keys: dict[str, Any]) -> Documents:
    """What the issuers of `provider` publish: their keys, and the discovery document that names them."""
    key_set = json.dumps({"keys": keys}).encode()
    documents: dict[str, bytes | Exception] = {}
    for trusted in provider.issuers:
        documents[trusted.keys_url] = key_set
        if trusted.discover:
            jwks_uri = f"{trusted.issuer.rstrip('/')}/certs"
            documents[jwks_uri] = key_set
            documents[trusted.keys_url] = json.dumps(
                {"issuer": trusted.issuer, "jwks_uri": jwks_uri}
            ).encode()
    return Documents(documents)


def authenticate(
    provider: Provider,
    claims: Claims,
    *,
    header: Mapping[str, Any] | None = None,
    key: PrivateKey | None = None,
    alg: str = "RS256",
) -> Identity:
    """What the server makes of these claims in a token with a real signature."""
    clock = FakeClock()
    signer = key or rsa_key()
    manager = AuthManager(
        [provider],
        fetch=published(provider, jwk(signer, alg=alg)),
        expiry=ExpiryRule(clock=clock),
        monotonic=clock,
    )
    try:
        return manager.authenticate(token(claims, header=header, key=signer, alg=alg))
    finally:
        manager.close()


def accept(trusted: TrustedIssuer, claims: Claims) -> Identity:
    """The identity that the provider's rules make of the claims."""
    trusted.check_audience(claims)
    return trusted.to_identity(claims)


def refusal(trusted: TrustedIssuer, claims: Claims) -> InvalidToken:
    """The objection of the provider's rules to the claims."""
    with pytest.raises(InvalidToken) as caught:
        accept(trusted, claims)
    return caught.value


def without(claims: Claims, *names: str) -> Claims:
    """The claims less these."""
    return {name: value for name, value in claims.items() if name not in names}
