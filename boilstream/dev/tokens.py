"""Access tokens as an Okta custom authorization server makes them, and the files behind them.

The folder of the development issuer holds `signing-key.pem` and `client-secret` (both readable by
their owner only), and `issuer.json`, the addresses of the issuer that was started last. So tokens
survive a restart, and `mint` works in another process without a running server.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from boilstream.auth.jws import thumbprint
from boilstream.dev.files import PRIVATE, PUBLIC, read_if_there, write_atomically
from boilstream.errors import ConfigurationError, InvalidArgument

CLIENT_ID = "0oadevclient"
"""The one OAuth client of the development issuer."""

SCOPES = ("read:data", "write:data", "admin:system")
"""The scopes that the authorization server knows."""

DEFAULT_SUBJECT = "00udeveloper"
"""The user of tokens that are made without naming one."""

LIFETIME_SECONDS = 3600
"""Okta's default lifetime of an access token."""

_LONGEST_LIFETIME_SECONDS = 86_400  # Okta's own limit for access tokens
_KEY_FILE, _SECRET_FILE, _STATE_FILE = "signing-key.pem", "client-secret", "issuer.json"


@dataclass(frozen=True, slots=True)
class IssuerState:
    """What tokens say about the issuer that made them."""

    issuer: str
    """Address of the authorization server, the claim `iss`."""
    audience: str
    """The API that the tokens are for, the claim `aud`."""
    client_id: str = CLIENT_ID


class TokenSigner:
    """Signs access tokens for one issuer; `clock` gives seconds since the epoch."""

    def __init__(
        self, key: rsa.RSAPrivateKey, state: IssuerState, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.state = state
        self._key = key
        self._clock = clock
        public: dict[str, Any] = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        members = {"e": public["e"], "kty": "RSA", "n": public["n"]}
        self._kid = thumbprint(members)
        self.jwks = {"keys": [members | {"kid": self._kid, "use": "sig", "alg": "RS256"}]}
        """The public key as a JWK set (RFC 7517)."""

    def sign(
        self, *, groups: Iterable[str], scopes: Iterable[str], subject: str, lifetime_seconds: int
    ) -> str:
        """An access token with the claims that Okta gives one.

        The client id as `subject` makes the token of the client itself, which has no `uid`; any
        other subject is a user. `groups` become a claim only if there are any. Raises
        InvalidArgument for an unknown scope, a blank or unprintable subject or group, and a lifetime
        outside of 1 second to 24 hours.
        """
        groups, scopes = tuple(dict.fromkeys(groups)), tuple(dict.fromkeys(scopes))
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown:
            raise InvalidArgument(f"scope {unknown[0]!r} is unknown; known are {', '.join(SCOPES)}")
        if not all(text.strip() and text.isprintable() for text in (subject, *groups)):
            raise InvalidArgument("subject and groups must be printable text and not blank")
        if not 1 <= lifetime_seconds <= _LONGEST_LIFETIME_SECONDS:
            raise InvalidArgument(
                f"a token lives 1 to {_LONGEST_LIFETIME_SECONDS} seconds, not {lifetime_seconds}"
            )
        issued_at = int(self._clock())
        claims: dict[str, Any] = {
            "ver": 1,
            "jti": f"AT.{secrets.token_urlsafe(32)}",
            "iss": self.state.issuer,
            "aud": self.state.audience,
            "iat": issued_at,
            "exp": issued_at + lifetime_seconds,
            "cid": self.state.client_id,
        }
        if subject != self.state.client_id:
            claims["uid"] = _user_id(subject)
        claims |= {"scp": list(scopes), "sub": subject}
        if groups:
            claims["groups"] = list(groups)
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self._kid, "typ": None})


def mint(
    folder: Path,
    *,
    groups: Iterable[str] = (),
    scopes: Iterable[str] = (),
    subject: str = DEFAULT_SUBJECT,
    lifetime_seconds: int = LIFETIME_SECONDS,
    clock: Callable[[], float] = time.time,
) -> str:
    """An access token from the files of the issuer in `folder`, without talking to its server.

    Raises ConfigurationError when no issuer has started with this folder yet, and what
    `TokenSigner.sign` raises.
    """
    pem, state = read_if_there(folder / _KEY_FILE), read_if_there(folder / _STATE_FILE)
    if pem is None or state is None:
        raise ConfigurationError(
            f"`boilstream dev` has not run in this data folder yet: {folder} has no issuer; "
            "start `boilstream dev`, or set DATA_DIR to the folder that it uses"
        )
    signer = TokenSigner(_parse_key(folder, pem), _parse_state(folder, state), clock=clock)
    return signer.sign(groups=groups, scopes=scopes, subject=subject, lifetime_seconds=lifetime_seconds)


def load_or_create_key(folder: Path) -> rsa.RSAPrivateKey:
    """The signing key of the issuer in `folder`; raises ConfigurationError if its file is damaged."""
    path = folder / _KEY_FILE
    pem = read_if_there(path)
    if pem is not None:
        return _parse_key(folder, pem)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomically(path, pem, mode=PRIVATE)
    return key


def load_or_create_secret(folder: Path) -> str:
    """The random secret of the client `CLIENT_ID`, made once per folder."""
    path = folder / _SECRET_FILE
    stored = read_if_there(path)
    if stored is not None:
        secret = stored.decode("ascii", errors="replace").strip()
        if not secret.isascii() or len(secret) < 32:
            raise _damaged(path)
        return secret
    secret = secrets.token_urlsafe(32)
    write_atomically(path, f"{secret}\n".encode(), mode=PRIVATE)
    return secret


def save_state(folder: Path, state: IssuerState) -> None:
    """Note the addresses of the issuer that runs now, for `mint`."""
    write_atomically(folder / _STATE_FILE, json.dumps(asdict(state), indent=2).encode() + b"\n", mode=PUBLIC)


def _parse_key(folder: Path, pem: bytes) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise _damaged(folder / _KEY_FILE)
    return key


def _parse_state(folder: Path, text: bytes) -> IssuerState:
    try:
        fields = json.loads(text)
        state = IssuerState(**fields)
    except (ValueError, TypeError):
        raise _damaged(folder / _STATE_FILE) from None
    if not all(isinstance(value, str) for value in fields.values()):
        raise _damaged(folder / _STATE_FILE)
    return state


def _damaged(path: Path) -> ConfigurationError:
    return ConfigurationError(f"{path} is damaged; delete it and start `boilstream dev` again")


def _user_id(subject: str) -> str:
    """The Okta id of a user: the subject itself, or one made of it when the subject is a login."""
    return subject if subject.startswith("00u") else f"00u{hashlib.sha256(subject.encode()).hexdigest()[:17]}"
