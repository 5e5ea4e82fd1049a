"""Claim sets that copy those in the documentation of Auth0, Azure AD and Okta, and what is to come of them.

Names and types of the claims are the documents'. Times are those of the tests' clock, audiences and tenants are the
same all through, and claims that a document describes one by one are joined to its sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boilstream.auth.identity import Identity
from tests.support.tokens import NOW

TIMES = {"iat": NOW, "exp": NOW + 3600}


@dataclass(frozen=True)
class Golden:
    """A token of a provider's documentation."""

    source: str
    """Address of the document."""
    claims: Mapping[str, Any]
    header: Mapping[str, Any] = field(default_factory=lambda: {"typ": "JWT"})
    identity: Identity | None = None
    """The caller that it describes, but for the expiry; None for tokens that are refused."""


AUTH0_TENANT = "my-domain.auth0.com"
AUTH0_AUDIENCE = "https://example.com/health-api"
AUTH0_GROUPS = "https://example.com/groups"

_AUTH0_PROFILES = "https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles"
_AUTH0_USER: Mapping[str, Any] = {
    "iss": "https://my-domain.auth0.com/",
    "sub": "auth0|123456",
    "aud": ["https://example.com/health-api", "https://my-domain.auth0.com/userinfo"],
    **TIMES,
    "scope": "openid profile read:patients read:admin",
}
_AUTH0_SCOPES = frozenset({"openid", "profile", "read:patients", "read:admin"})

AUTH0 = {
    "auth0 profile": Golden(
        _AUTH0_PROFILES,
        {**_AUTH0_USER, "azp": "my_client_id", "my_custom_claim": "my_custom_value"},
        identity=Identity("auth0", "auth0|123456", "my_client_id", scopes=_AUTH0_SCOPES),
    ),
    "rfc 9068 profile": Golden(
        _AUTH0_PROFILES,
        {**_AUTH0_USER, "client_id": "my_client_id", "jti": "73WakrfVbNJBaAmhQtEeDv"},
        {"typ": "at+jwt"},
        Identity("auth0", "auth0|123456", "my_client_id", scopes=_AUTH0_SCOPES),
    ),
    "auth0 profile with permissions (access_token_authz)": Golden(
        "https://auth0.com/docs/get-started/apis/enable-role-based-access-control-for-apis",
        {
            **_AUTH0_USER,
            "azp": "my_client_id",
            "scope": "openid",
            "permissions": ["read:data", "write:data"],
            AUTH0_GROUPS: ["DataEngineers"],
        },
        identity=Identity(
            "auth0",
            "auth0|123456",
            "my_client_id",
            groups=frozenset({"DataEngineers"}),
            scopes=frozenset({"openid", "read:data", "write:data"}),
        ),
    ),
    "client credentials": Golden(
        "https://auth0.com/docs/get-started/authentication-and-authorization-flow/client-credentials-flow",
        {
            "iss": "https://my-domain.auth0.com/",
            "sub": "OOZH6s5sgOORoVKBMNRu0xRd4I3dl5T7@clients",
            "aud": "https://example.com/health-api",
            **TIMES,
            "scope": "read:data",
            "gty": "client-credentials",
            "azp": "OOZH6s5sgOORoVKBMNRu0xRd4I3dl5T7",
        },
        identity=Identity(
            "auth0",
            "OOZH6s5sgOORoVKBMNRu0xRd4I3dl5T7@clients",
            "OOZH6s5sgOORoVKBMNRu0xRd4I3dl5T7",
            scopes=frozenset({"read:data"}),
        ),
    ),
}
AUTH0_ID_TOKEN = Golden(
    "https://auth0.com/docs/secure/tokens/id-tokens/id-token-structure",
    {
        "iss": "https://my-domain.auth0.com/",
        "sub": "auth0|123456",
        "aud": "my_client_id",
        **TIMES,
        "name": "Jane Doe",
        "given_name": "Jane",
        "family_name": "Doe",
        "nonce": "n-0S6_WzA2Mj",
    },
)

AZURE_TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
AZURE_V1_TENANT = "fa15d692-e9c7-4460-a743-29f2956fd429"
AZURE_CLIENT_ID = "6e74172b-be56-4843-9ff4-e66a39bb12e3"
AZURE_DAEMON = "75dbe77f-10a3-4e59-85fd-8c127544f17c"

_ENTRA_FORMATS = "https://learn.microsoft.com/entra/identity-platform/access-tokens#token-formats"
_ENTRA_CLAIMS = "https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference"

_AZURE_V2_USER: Mapping[str, Any] = {
    "aud": AZURE_CLIENT_ID,
    "iss": f"https://login.microsoftonline.com/{AZURE_TENANT}/v2.0",
    **TIMES,
    "nbf": NOW,
    "aio": "AXQAi/8IAAAAtAaZLo3ChMif6KOnttRB7eBq4/DccQzjcJGxPYy/C3jDaNGxXd6wNIIVGRghNRnwJ1lOcA==",
    "azp": AZURE_CLIENT_ID,
    "azpacr": "0",
    "name": "Abe Lincoln",
    "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
    "preferred_username": "abeli@microsoft.com",
    "rh": "I",
    "scp": "access_as_user",
    "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
    "tid": AZURE_TENANT,
    "uti": "fqiBqXLPj0eQa82S-IYFAA",
    "ver": "2.0",
}
_AZURE_V1_USER: Mapping[str, Any] = {
    "aud": AZURE_CLIENT_ID,
    "iss": f"https://sts.windows.net/{AZURE_V1_TENANT}/",
    **TIMES,
    "nbf": NOW,
    "acr": "1",
    "aio": "AXQAi/8IAAAAFm+E/QTG+gFnVxLjWdw8K+61AGrSOuMMF6ebaMj7XO3IbmD3fGmrOyD+NvZyGn2VaT/kDKXw4A==",
    "amr": ["wia"],
    "appid": AZURE_DAEMON,
    "appidacr": "0",
    "email": "AbeLi@microsoft.com",
    "family_name": "Lincoln",
    "given_name": "Abe (MSFT)",
    "idp": "https://sts.windows.net/72f988bf-86f1-41af-91ab-2d7cd0122247/",
    "ipaddr": "222.222.222.22",
    "name": "abeli",
    "oid": "02223b6b-aa1d-42d4-9ec0-1b2bb9194438",
    "rh": "I",
    "scp": "user_impersonation",
    "sub": "l3_roISQU222bULS9yi2k0XpqpOiMz5H3ZACo1GeXA",
    "tid": AZURE_V1_TENANT,
    "unique_name": "abeli@microsoft.com",
    "uti": "FVsGxYXI30-TuikuuUoFAA",
    "ver": "1.0",
}
_AZURE_GROUPS = ["99a8bf2d-f4c6-4f46-9d0c-0ac3a4b1e7d5", "5b9c3a8e-6b1f-4f3b-8a52-5d8f2f3f9a10"]

AZURE = {
    "version 2.0": Golden(
        _ENTRA_FORMATS,
        _AZURE_V2_USER,
        identity=Identity(
            "azure-ad",
            f"690222be-ff1a-4d56-abd1-7e4f7d38e474@{AZURE_TENANT}",
            AZURE_CLIENT_ID,
            scopes=frozenset({"access_as_user"}),
        ),
    ),
    "version 1.0": Golden(
        _ENTRA_FORMATS,
        _AZURE_V1_USER,
        identity=Identity(
            "azure-ad",
            f"02223b6b-aa1d-42d4-9ec0-1b2bb9194438@{AZURE_V1_TENANT}",
            AZURE_DAEMON,
            scopes=frozenset({"user_impersonation"}),
        ),
    ),
    "groups and app roles of a user": Golden(
        _ENTRA_CLAIMS,
        {
            **_AZURE_V2_USER,
            "scp": "data.read data.write",
            "groups": _AZURE_GROUPS,
            "roles": ["Data.Engineer"],
            "wids": ["b79fbf4d-3ef9-4689-8143-76b194e85509"],
        },
        identity=Identity(
            "azure-ad",
            f"690222be-ff1a-4d56-abd1-7e4f7d38e474@{AZURE_TENANT}",
            AZURE_CLIENT_ID,
            groups=frozenset(_AZURE_GROUPS),
            scopes=frozenset({"data.read", "data.write"}),
            roles=frozenset({"Data.Engineer"}),
        ),
    ),
    "daemon, version 2.0": Golden(
        _ENTRA_CLAIMS,
        {
            "aud": AZURE_CLIENT_ID,
            "iss": f"https://login.microsoftonline.com/{AZURE_TENANT}/v2.0",
            **TIMES,
            "nbf": NOW,
            "aio": "E2ZgYDibr+cbN0dR",
            "azp": AZURE_DAEMON,
            "azpacr": "1",
            "idtyp": "app",
            "oid": "6b2b3a35-1d5b-4b06-a2c6-9d6a3a3f4a11",
            "rh": "0.ARoAv4j5cvGGr0GRqy180BHbR",
            "roles": ["Data.Write.All"],
            "sub": "6b2b3a35-1d5b-4b06-a2c6-9d6a3a3f4a11",
            "tid": AZURE_TENANT,
            "uti": "KHLFmE4wQkGm8FzZ2yEXAA",
            "ver": "2.0",
        },
        identity=Identity(
            "azure-ad",
            f"6b2b3a35-1d5b-4b06-a2c6-9d6a3a3f4a11@{AZURE_TENANT}",
            AZURE_DAEMON,
            roles=frozenset({"Data.Write.All"}),
        ),
    ),
    "daemon, version 1.0": Golden(
        _ENTRA_CLAIMS,
        {
            "aud": f"api://{AZURE_CLIENT_ID}",
            "iss": f"https://sts.windows.net/{AZURE_V1_TENANT}/",
            **TIMES,
            "nbf": NOW,
            "aio": "E2ZgYDibr+cbN0dR",
            "appid": AZURE_DAEMON,
            "appidacr": "1",
            "idp": f"https://sts.windows.net/{AZURE_V1_TENANT}/",
            "oid": "6b2b3a35-1d5b-4b06-a2c6-9d6a3a3f4a11",
            "rh": "0.ARoAv4j5cvGGr0GRqy180BHbR",
            "roles": ["Data.Read.All"],
            "sub": "6b2b3a35-1d5b-4b06-a2c6-9d6a3a3f4a11",
            "tid": AZURE_V1_TENANT,
            "uti": "KHLFmE4wQkGm8FzZ2yEXAA",
            "ver": "1.0",
        },
        {"typ": "JWT", "x5t": "i6lGk3FZzxRcUb2C3nEQ7syHJlY"},
        Identity(
            "azure-ad",
            f"6b2b3a35-1d5b-4b06-a2c6-9d6a3a3f4a11@{AZURE_V1_TENANT}",
            AZURE_DAEMON,
            roles=frozenset({"Data.Read.All"}),
        ),
    ),
}
AZURE_ID_TOKEN = Golden(
    "https://learn.microsoft.com/entra/identity-platform/id-tokens",
    {
        "ver": "2.0",
        "iss": f"https://login.microsoftonline.com/{AZURE_TENANT}/v2.0",
        "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
        "aud": AZURE_CLIENT_ID,
        **TIMES,
        "nbf": NOW,
        "name": "Abe Lincoln",
        "preferred_username": "AbeLi@microsoft.com",
        "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
        "tid": AZURE_TENANT,
        "roles": ["Data.Engineer"],
        "nonce": "123523",
        "aio": "Df2UVXL1ix!lMCWMSOJBcFatzcGfvFGhjKv8q5g0x732dR5MB5BisvGQO7YWByjd8iQDLq!eGbIDakyp5mnOrcdqHeYS",
    },
)
AZURE_OVERAGE = Golden(
    f"{_ENTRA_CLAIMS}#groups-overage-claim",
    {
        **_AZURE_V2_USER,
        "_claim_names": {"groups": "src1"},
        "_claim_sources": {
            "src1": {
                "endpoint": f"https://graph.windows.net/{AZURE_TENANT}/users/"
                "690222be-ff1a-4d56-abd1-7e4f7d38e474/getMemberObjects"
            }
        },
    },
)
AZURE_GRAPH = Golden(
    "https://learn.microsoft.com/entra/identity-platform/access-tokens#validate-tokens",
    {**_AZURE_V1_USER, "aud": "00000003-0000-0000-c000-000000000000", "scp": "openid profile User.Read"},
    {"typ": "JWT", "nonce": "tGQbJ-5E2dHcRDdL3Ec6nM2mJ0GkzwG3", "x5t": "i6lGk3FZzxRcUb2C3nEQ7syHJlY"},
)
AZURE_COMMON_KEY_ISSUERS = {
    "jS1Xo1OWDj_52vbwGNgvQO2VzMc": "https://login.microsoftonline.com/{tenantid}/v2.0",
    "yreX2PsLi-qkbR8QDOmB_ySxp8Q": "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
}
"""Key ids of https://login.microsoftonline.com/common/discovery/v2.0/keys, and the issuer at each
(https://learn.microsoft.com/entra/identity-platform/access-tokens#validate-the-signing-key-issuer)."""

OKTA_ORG = "company.okta.com"
OKTA_AUDIENCE = "https://api.example.com"
OKTA_CLIENT_ID = "nmdP1fcyvdVO11AL7ECm"

_OKTA_TOKENS = "https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/"
_OKTA_USER: Mapping[str, Any] = {
    "ver": 1,
    "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
    "iss": "https://company.okta.com/oauth2/default",
    "aud": OKTA_AUDIENCE,
    "sub": "00ujmkLgagxeRrAg20g3",
    **TIMES,
    "cid": OKTA_CLIENT_ID,
    "uid": "00ujmkLgagxeRrAg20g3",
    "scp": ["openid", "email", "flights", "custom"],
    "auth_time": NOW - 3073,
    "custom_claim": "CustomValue",
}
_OKTA_SCOPES = frozenset({"openid", "email", "flights", "custom"})
_OKTA_ID_TOKEN: Mapping[str, Any] = {
    "ver": 1,
    "sub": "00ujmkLgagxeRrAg20g3",
    "iss": "https://company.okta.com/oauth2/default",
    "aud": OKTA_CLIENT_ID,
    **TIMES,
    "amr": ["pwd"],
    "jti": "ID.4eAWJOCMB3SX8XewDfVR",
    "auth_time": NOW - 3073,
    "at_hash": "cpqKfdQA5eH891Ff5oJr_Q",
    "name": "John Doe",
    "nickname": "Jimmy",
    "preferred_username": "john.doe@example.com",
    "email": "john.doe@example.com",
    "email_verified": True,
    "zoneinfo": "America/Los_Angeles",
}

OKTA = {
    "access token": Golden(
        f"{_OKTA_TOKENS}#access-token-payload",
        _OKTA_USER,
        {},
        Identity("okta", "00ujmkLgagxeRrAg20g3", OKTA_CLIENT_ID, scopes=_OKTA_SCOPES),
    ),
    "access token whose subject is the login": Golden(
        "https://developer.okta.com/docs/guides/customize-tokens-groups-claim/main/",
        {**_OKTA_USER, "sub": "john.doe@example.com", "groups": ["Everyone", "IT"]},
        {},
        Identity(
            "okta",
            "00ujmkLgagxeRrAg20g3",
            OKTA_CLIENT_ID,
            groups=frozenset({"Everyone", "IT"}),
            scopes=_OKTA_SCOPES,
        ),
    ),
    "client credentials": Golden(
        "https://developer.okta.com/docs/guides/implement-grant-type/clientcreds/main/",
        {
            "ver": 1,
            "jti": "AT.8ScnQUYZ9sJ5cZ1bPq2TqA1Xb7v3",
            "iss": "https://company.okta.com/oauth2/default",
            "aud": OKTA_AUDIENCE,
            **TIMES,
            "cid": "0oa1b2c3d4E5f6G7h8i9",
            "scp": ["write:data"],
            "sub": "0oa1b2c3d4E5f6G7h8i9",
        },
        {},
        Identity("okta", "0oa1b2c3d4E5f6G7h8i9", "0oa1b2c3d4E5f6G7h8i9", scopes=frozenset({"write:data"})),
    ),
}
OKTA_ID_TOKEN = Golden(
    f"{_OKTA_TOKENS}#id-token-payload",
    _OKTA_ID_TOKEN,
    {},
    Identity("okta", "00ujmkLgagxeRrAg20g3"),
)
OKTA_ORG_ID_TOKEN = Golden(
    f"{_OKTA_TOKENS}#id-token-payload",
    {**_OKTA_ID_TOKEN, "iss": "https://company.okta.com", "groups": ["IT"]},
    {},
    Identity("okta", "00ujmkLgagxeRrAg20g3", groups=frozenset({"IT"})),
)
OKTA_ORG_ACCESS_TOKEN = Golden(
    "https://support.okta.com/help/s/article/Signature-Validation-Failed-on-Access-Token",
    {
        **_OKTA_USER,
        "iss": "https://company.okta.com",
        "aud": "https://company.okta.com",
        "sub": "john.doe@example.com",
    },
    {},
)
