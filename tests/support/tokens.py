"""A mint for tokens, good and broken, that shares no code with the product."""

from __future__ import annotations

import base64
import functools
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PrivateKey = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)

NOW = 1_800_000_000
"""The time of the tests' clock, seconds since the epoch."""

ORG_DOMAIN = "company.okta.com"
ISSUER = f"https://{ORG_DOMAIN}/oauth2/default"
ORG_ISSUER = f"https://{ORG_DOMAIN}"
AUDIENCE = "api://boilstream"
CLIENT_ID = "0oa123456789abcdef"

_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_CURVES: Mapping[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}


@functools.cache
def rsa_key(name: str = "main", bits: int = 2048) -> rsa.RSAPrivateKey:
    """The RSA key of this name, made once per test run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@functools.cache
def ec_key(curve: str = "P-256", name: str = "main") -> ec.EllipticCurvePrivateKey:
    """The key on this curve and of this name, made once per test run."""
    return ec.generate_private_key(_CURVES[curve])


@functools.cache
def ed_key(curve: str = "Ed25519") -> ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey:
    """The Edwards curve key, made once per test run."""
    if curve == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ed448.Ed448PrivateKey.generate()


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64_uint(number: int, length: int | None = None) -> str:
    """A number as in a JWK: big-endian, base64url."""
    return b64(number.to_bytes(length or (number.bit_length() + 7) // 8, "big"))


def jwk(key: PrivateKey, kid: str | None = "kid-1", **members: Any) -> dict[str, Any]:
    """The public half of `key` as a JWK for signatures; `members` add to it, None removes a member."""
    made: dict[str, Any] = {"kid": kid, "use": "sig"}
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        made |= {"kty": "RSA", "alg": "RS256", "n": b64_uint(numbers.n), "e": b64_uint(numbers.e)}
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        point, size = key.public_key().public_numbers(), (key.curve.key_size + 7) // 8
        names = {curve.name: name for name, curve in _CURVES.items()}
        made |= {
            "kty": "EC",
            "crv": names[key.curve.name],
            "x": b64_uint(point.x, size),
            "y": b64_uint(point.y, size),
        }
    else:
        crv = "Ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else "Ed448"
        made |= {
            "kty": "OKP",
            "crv": crv,
            "x": b64(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)),
        }
    made |= members
    return {name: value for name, value in made.items() if value is not None}


def jwks(*keys: dict[str, Any]) -> dict[str, Any]:
    """A key set; without arguments the one that `token` signs for."""
    return {"keys": list(keys) or [jwk(rsa_key())]}


def sign(key: PrivateKey | bytes, alg: str, data: bytes) -> bytes:
    """The signature value of RFC 7518 (RFC 8037 for EdDSA); a `bytes` key makes an HMAC."""
    if isinstance(key, bytes):
        return hmac.digest(key, data, f"sha{alg[2:]}")
    if isinstance(key, rsa.RSAPrivateKey):
        digest = _HASHES[alg[2:]]
        if alg.startswith("PS"):
            return key.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        return key.sign(data, padding.PKCS1v15(), digest)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(_HASHES[alg[2:]])))
        size = (key.curve.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    return key.sign(data)


def raw_token(
    header: str | bytes, payload: str | bytes, key: PrivateKey | bytes | None, alg: str = "RS256"
) -> str:
    """A compact JWS of exactly these bytes; without a key the signature is empty."""
    parts = [b64(part.encode() if isinstance(part, str) else part) for part in (header, payload)]
    signed = ".".join(parts)
    return f"{signed}.{b64(sign(key, alg, signed.encode())) if key is not None else ''}"


def token(
    claims: Mapping[str, Any],
    *,
    header: Mapping[str, Any] | None = None,
    key: PrivateKey | bytes | None = None,
    alg: str = "RS256",
) -> str:
    """A signed token; `header` adds to kid and alg, None as a value takes a member away."""
    members = {"kid": "kid-1", "alg": alg} | dict(header or {})
    members = {name: value for name, value in members.items() if value is not None}
    return raw_token(json.dumps(members), json.dumps(claims), key if key is not None else rsa_key(), alg)


@dataclass(frozen=True)
class Golden:
    """Claim sets as Okta issues them (its documentation's samples with the names of this project)."""

    user: Mapping[str, Any]
    client_credentials: Mapping[str, Any]
    id_token: Mapping[str, Any]
    org_id_token: Mapping[str, Any]
    org_access_token: Mapping[str, Any]


def golden(now: float = NOW, *, issuer: str = ISSUER, org_issuer: str = ORG_ISSUER) -> Golden:
    """The golden claim sets, issued at `now` for one hour."""
    times = {"iat": int(now), "exp": int(now) + 3600}
    identity = {
        "ver": 1,
        "amr": ["pwd"],
        "idp": "00o5rbzsrpRKDqLn10h7",
        "auth_time": int(now) - 10,
        "name": "Ada L.",
    }
    return Golden(
        user={
            "ver": 1,
            "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
            "iss": issuer,
            "aud": AUDIENCE,
            **times,
            "cid": CLIENT_ID,
            "uid": "00u123456789abcdef",
            "scp": ["openid", "read:data", "write:data"],
            "auth_time": int(now) - 10,
            "sub": "00u123456789abcdef",
            "groups": ["DataEngineers", "PlatformUsers"],
        },
        client_credentials={
            "ver": 1,
            "jti": "AT.8ScnQUYZ9sJ5cZ1bPq2TqA1Xb7v3",
            "iss": issuer,
            "aud": AUDIENCE,
            **times,
            "cid": CLIENT_ID,
            "scp": ["read:data", "write:data"],
            "sub": CLIENT_ID,
        },
        id_token={
            "sub": "00u123456789abcdef",
            "iss": issuer,
            "aud": CLIENT_ID,
            **times,
            **identity,
            "jti": "ID.4eAWJOCMB3SX8XewDfVR",
            "nonce": "n-0S6_WzA2Mj",
            "at_hash": "cpqKfdQA5eH891Ff5oJr_Q",
            "groups": ["DataAnalysts"],
        },
        org_id_token={
            "sub": "00u123456789abcdef",
            "iss": org_issuer,
            "aud": CLIENT_ID,
            **times,
            **identity,
            "jti": "ID.xfSt2ZUn2Rt9Nh0yFcCv",
            "preferred_username": "ada@company.com",
            "groups": ["DataAnalysts"],
        },
        org_access_token={
            "ver": 1,
            "jti": "AT.zbVqgTh2zT0wVXpAmKVrWwyeRzA",
            "iss": org_issuer,
            "aud": org_issuer,
            **times,
            "sub": "ada@company.com",
            "cid": CLIENT_ID,
            "uid": "00u123456789abcdef",
            "scp": ["openid", "profile"],
        },
    )


class FakeFetch:
    """A key server without a network: serves `body`, or raises `error`; counts its calls."""

    def __init__(self, keys: Sequence[dict[str, Any]] | None = None) -> None:
        self.body = json.dumps({"keys": list(keys)} if keys is not None else jwks()).encode()
        self.error: Exception | None = None
        self.urls: list[str] = []

    def publish(self, *keys: dict[str, Any]) -> None:
        """Serve these keys from now on."""
        self.body, self.error = json.dumps({"keys": keys}).encode(), None

    def __call__(self, url: str) -> bytes:
        self.urls.append(url)
        if self.error is not None:
            raise self.error
        return self.body


class FakeClock:
    """A clock that stands still until it is told to advance."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        self.now += seconds
