"""Session tokens: a short token of this server in exchange for a long one of an identity provider.

A token with 200 groups has about 11,600 characters, and gRPC refuses headers between 8 and 16 KiB. Such a
token travels once in the body of a call; from then on the caller sends the session token, a compact JWS
(RFC 7515) signed with Ed25519 (RFC 8037) that holds who the caller is and those of its groups, roles and
scopes that any rule names. It ends with the original at the latest. It does not end before: neither a key
that the provider withdraws nor a rule that newly names a group reaches a session that was made already.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from boilstream.auth import jws
from boilstream.auth.errors import InvalidToken, shown
from boilstream.auth.identity import Identity
from boilstream.auth.providers.base import (
    Claims,
    Provider,
    TrustedIssuer,
    audiences,
    optional_text,
    required_text,
    text_array,
)
from boilstream.errors import ConfigurationError, InvalidArgument

NAME: Final = "session"

URN: Final = "urn:boilstream:session"
"""Issuer and audience of session tokens; also stands where other issuers have the address of their keys."""

TOKEN_TYPE: Final = "boilstream-session+jwt"  # noqa: S105 - a media type
"""The header typ, so that no other token passes for a session (RFC 8725, 3.11)."""

ALGORITHM: Final = "EdDSA"

MAX_SESSION_CHARACTERS: Final = 6144
"""Longest session token; with the other headers of a call it stays below gRPC's 8 KiB."""

_HOW_TO = "make a key with: openssl genpkey -algorithm ed25519 -out session.key"

_LOGGER = logging.getLogger(f"boilstream.auth.{NAME}")


@dataclass(frozen=True, slots=True)
class Session:
    """A session token and its end."""

    token: str = field(repr=False)
    """The bearer token; left out of `repr`, so that no log line shows it by mistake."""
    expires_at: float
    """Seconds since the epoch, whole."""


class SessionIssuer:
    """Makes session tokens with `key`, and is the provider that vouches for them. Thread safe.

    A session lives at most `max_seconds`; `clock` gives seconds since the epoch. Servers with the same
    key and the same `policy` accept each other's sessions. `policy` stands for the settings under which a token
    was verified and reduced: under others it might be refused, or be allowed less.
    """

    def __init__(
        self,
        key: Ed25519PrivateKey,
        *,
        max_seconds: float,
        policy: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._audience = f"{URN}:{policy}" if policy else URN
        self._policy = policy
        self._key = key
        self._max_seconds = max_seconds
        self._clock = clock
        public = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_key().public_bytes_raw())}
        kid = jws.thumbprint(public)
        self._header = _base64url(_json({"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": kid}))
        self.jwks: dict[str, Any] = {"keys": [public | {"kid": kid, "use": "sig", "alg": ALGORITHM}]}
        """The public key as a JWK set (RFC 7517): what another issuer publishes at its keys_url."""
        self.provider = Provider(
            name=NAME,
            display_name="session",
            issuers=(
                TrustedIssuer(
                    issuer=URN,
                    keys_url=URN,
                    check_audience=self._check_audience,
                    to_identity=to_identity,
                    algorithms=(ALGORITHM,),
                    token_types=frozenset({TOKEN_TYPE}),
                ),
            ),
            issuer_hint=f"session tokens have the issuer {URN}",
            key_hint="the session was made by another node or before a restart: set SESSION_KEY_PATH, and exchange the "
            "identity provider's token again",
            groups_hint="a session holds the groups that rules name; after a change of rules make a new one",
        )
        """The rules for session tokens, for the manager."""

    @classmethod
    def from_key_file(
        cls,
        path: Path | None,
        *,
        max_seconds: float,
        policy: str = "",
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """An issuer with the key of SESSION_KEY_PATH: Ed25519, PEM (PKCS 8), not encrypted.

        None makes a key in memory: sessions then end with the process and hold on this node alone. Raises
        ConfigurationError when the file holds no such key; warns when other users may use it.
        """
        if path is None:
            _LOGGER.info(
                "Session tokens are signed with a key made at this start; "
                "with SESSION_KEY_PATH they outlive it and hold on all nodes"
            )
            key = Ed25519PrivateKey.generate()
        else:
            key = _read_key(path)
        return cls(key, max_seconds=max_seconds, policy=policy, clock=clock)

    def issue(self, identity: Identity, groups: frozenset[str], scopes: frozenset[str]) -> Session:
        """A session for `identity`, with no other of its groups, roles and scopes than those given.

        `groups` (for roles too) and `scopes` are the names that any rule mentions: the others change no
        decision and make a token long. Each call makes another token.

        Raises InvalidToken when `identity` has ended, and InvalidArgument when it is a session's and when the
        token would have more than MAX_SESSION_CHARACTERS.
        """
        if identity.session:
            raise InvalidArgument(
                "a session token cannot be exchanged: exchange the identity provider's token again"
            )
        now = self._clock()
        expires_at = int(min(now + self._max_seconds, identity.expires_at))
        if expires_at <= now:
            raise InvalidToken("Expired: the token has ended, though within the leeway", "get a new one")
        claims = {
            "iss": URN,
            "aud": self._audience,
            "iat": int(now),
            "exp": expires_at,
            "jti": secrets.token_urlsafe(16),
            **reduced_claims(identity, groups, scopes),
        }
        signed = f"{self._header}.{_base64url(_json(claims))}"
        token = f"{signed}.{_base64url(self._key.sign(signed.encode('ascii')))}"
        if len(token) > MAX_SESSION_CHARACTERS:
            listed = {name: len(claims.get(name, ())) for name in ("groups", "roles", "scopes")}
            raise InvalidArgument(
                f"the session token would have {len(token)} characters, at most {MAX_SESSION_CHARACTERS} fit "
                f"into a header: rules name {listed['groups']} groups, {listed['roles']} roles and "
                f"{listed['scopes']} scopes of this caller; name fewer groups in the rules of the server"
            )
        return Session(token, float(expires_at))

    def derived_key(self, purpose: str) -> bytes:
        """32 secret bytes for another `purpose` than sessions, from which the key itself cannot be found.

        HKDF-SHA256 (RFC 5869). As sessions do, they hold on servers with the same key and the same policy.
        """
        info = json.dumps(["boilstream", purpose, self._policy]).encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._key.private_bytes_raw())

    def _check_audience(self, claims: Claims) -> None:
        found = audiences(claims)
        if found != (self._audience,):
            raise InvalidToken(
                f"Invalid audience: the session was made under other settings: {shown(found)}, "
                f"this server's are {self._audience!r}",
                "exchange the identity provider's token again",
            )


def reduced_claims(identity: Identity, groups: frozenset[str], scopes: frozenset[str]) -> dict[str, Any]:
    """Who `identity` is, as claims, with no other of its groups, roles and scopes than those given.

    `groups` (for roles too) and `scopes` are the names that any rule mentions; see `Authorizer.names`.
    """
    named = {
        "groups": sorted(identity.groups & groups),
        "roles": sorted(identity.roles & groups),
        "scopes": sorted(identity.scopes & scopes),
    }
    return {
        "sub": identity.subject,
        "provider": identity.provider,
        **({} if identity.client is None else {"client": identity.client}),
        **{name: values for name, values in named.items() if values},
    }


def to_identity(claims: Claims) -> Identity:
    """The caller of `reduced_claims`, without an end; raises InvalidToken for claims of a wrong form."""
    return Identity(
        provider=required_text(claims, "provider"),
        subject=required_text(claims, "sub"),
        client=optional_text(claims, "client"),
        groups=text_array(claims, "groups"),
        scopes=text_array(claims, "scopes"),
        roles=text_array(claims, "roles"),
        session=True,
    )


def _read_key(path: Path) -> Ed25519PrivateKey:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            data = file.read()
    except OSError as error:
        raise ConfigurationError(
            f"SESSION_KEY_PATH: cannot read {path}: {error.strerror}; {_HOW_TO}"
        ) from None
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:  # what cryptography raises for a key that needs a password
        raise ConfigurationError(
            f"SESSION_KEY_PATH: the key in {path} is encrypted; decrypt it, or {_HOW_TO}"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"SESSION_KEY_PATH: {path} is no private key in PEM; {_HOW_TO}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"SESSION_KEY_PATH: the key in {path} is not of type Ed25519; {_HOW_TO}")
    if mode & 0o077:
        _LOGGER.warning(
            "SESSION_KEY_PATH: %s has mode %03o: whoever reads it can pass for any caller; run: chmod 600 %s",
            path,
            mode,
            path,
        )
    return key


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _base64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
