"""A server with every provider and sessions, whose keys all have one key id, and tokens for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.fetch import FetchFailed
from boilstream.auth.manager import AuthManager
from boilstream.auth.providers import BUILDERS
from boilstream.auth.session import NAME as SESSION
from boilstream.auth.session import TOKEN_TYPE, URN, SessionIssuer
from tests.auth.providers.golden_more import Claims, Documents, published
from tests.auth.providers.test_properties import CASES, SETTINGS
from tests.support.tokens import NOW, FakeClock, PrivateKey, jwk, rsa_key, token

CLOCK = FakeClock()

_SESSION_KEY = Ed25519PrivateKey.generate()
_OIDC_KEY = Ed25519PrivateKey.generate()
SESSIONS = SessionIssuer(_SESSION_KEY, max_seconds=3600, clock=CLOCK)

KID: Final[str] = SESSIONS.jwks["keys"][0]["kid"]
"""The key id of every key: an issuer may give its keys any name, that of another's key too."""

_SETTINGS = SETTINGS.model_copy(update={"oidc_algorithms": ("RS256", "EdDSA")})
PROVIDERS = {name: build(_SETTINGS) for name, build in BUILDERS.items()}
ISSUERS = {
    **{name: [trusted.issuer for trusted in provider.issuers] for name, provider in PROVIDERS.items()},
    SESSION: [URN],
}
NAMES = sorted(ISSUERS)
"""Every provider, and the server itself as the issuer of sessions."""

SIGNERS: Mapping[str, Mapping[str, PrivateKey]] = {
    **{name: {"RS256": rsa_key(name)} for name in PROVIDERS},
    "oidc": {"RS256": rsa_key("oidc"), "EdDSA": _OIDC_KEY},
    SESSION: {"EdDSA": _SESSION_KEY},
}
"""Name -> algorithm -> the key that signs with it."""

GOLDEN: Mapping[str, tuple[Claims, ...]] = {
    **{name: case.golden for name, case in CASES.items()},
    SESSION: (
        {
            "iss": URN,
            "aud": URN,
            "sub": "00u123456789abcdef",
            "iat": NOW,
            "exp": NOW + 3600,
            "jti": "VnJbmxAkQ9w0xP1l6Tj3dQ",
            "provider": "okta",
            "groups": ["DataEngineers"],
        },
    ),
}
"""Name -> claims of tokens that are accepted."""


def signed(
    claims: Claims, signer: str, alg: str | None = None, header: Mapping[str, Any] | None = None
) -> str:
    """A token of these claims with the key of `signer`; its type is that of the issuer that it names."""
    alg = alg or next(iter(SIGNERS[signer]))
    typ = TOKEN_TYPE if claims.get("iss") == URN else "JWT"
    members = {"kid": KID, "typ": typ, **(header or {})}
    return token(claims, header=members, key=SIGNERS[signer][alg], alg=alg)


def web() -> Documents:
    """What all providers publish: discovery documents, and each its own keys under the one key id."""
    documents: dict[str, bytes | Exception] = {}
    for name, provider in PROVIDERS.items():
        keys = [jwk(key, KID, alg=alg) for alg, key in SIGNERS[name].items()]
        documents |= published(provider, *keys).documents
    return Documents(documents)


def dead_web() -> Documents:
    """The same with every key server down."""
    return Documents({url: FetchFailed("no answer") for url in web().documents})


def manager_of(names: list[str], fetch: Documents, clock: FakeClock = CLOCK) -> AuthManager:
    """A manager of these providers; the name `session` adds session tokens."""
    return AuthManager(
        [PROVIDERS[name] for name in names if name != SESSION],
        sessions=SESSIONS if SESSION in names else None,
        fetch=fetch,
        expiry=ExpiryRule(clock=CLOCK),
        monotonic=clock,
    )
