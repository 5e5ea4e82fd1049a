"""Signed tokens (JWS, RFC 7515) in compact form, read strictly and verified against a key set.

The rules are those of RFC 8725 (JWT Best Current Practices) and its successor draft: compact
serialization only, a mandatory list of asymmetric algorithms, no encryption, no compression, and
keys from nowhere but the key set that the caller passes.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm
from jwt.exceptions import InvalidKeyError

from boilstream.auth.errors import InvalidToken, shown

MAX_TOKEN_CHARACTERS: Final = 64 * 1024
"""Longest token that is looked at; 200 group ids make about 12,000 characters."""

MIN_RSA_BITS: Final = 2048  # RFC 7518, 3.3
MAX_RSA_BITS: Final = 8192  # above it one verification takes milliseconds

_REFUSED_HEADERS: Final = ("crit", "b64", "jku", "x5u", "jwk", "x5c", "zip", "enc")
"""Extensions, keys brought along by the token, compression and encryption: none has a use here."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class _Algorithm:
    """One signature algorithm of RFC 7518 or RFC 8037 and the keys that it may be used with."""

    kty: str
    primitive: RSAAlgorithm | ECAlgorithm | OKPAlgorithm
    curves: tuple[str, ...] = ()

    @property
    def key_members(self) -> tuple[str, ...]:
        """The public members of a key; anything else in it is never handed on."""
        return {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}[self.kty]


ALGORITHMS: Final[dict[str, _Algorithm]] = {
    "RS256": _Algorithm("RSA", RSAAlgorithm(RSAAlgorithm.SHA256)),
    "RS384": _Algorithm("RSA", RSAAlgorithm(RSAAlgorithm.SHA384)),
    "RS512": _Algorithm("RSA", RSAAlgorithm(RSAAlgorithm.SHA512)),
    "PS256": _Algorithm("RSA", RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256)),
    "PS384": _Algorithm("RSA", RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384)),
    "PS512": _Algorithm("RSA", RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512)),
    "ES256": _Algorithm("EC", ECAlgorithm(ECAlgorithm.SHA256), ("P-256",)),
    "ES384": _Algorithm("EC", ECAlgorithm(ECAlgorithm.SHA384), ("P-384",)),
    "ES512": _Algorithm("EC", ECAlgorithm(ECAlgorithm.SHA512), ("P-521",)),
    "EdDSA": _Algorithm("OKP", OKPAlgorithm(), ("Ed25519", "Ed448")),
}
"""All that `verify` can do. Symmetric algorithms and `none` are not in it, so no list can allow them."""


def parse(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token, nothing of it verified: good for finding the issuer's name only.

    Raises InvalidToken when the token is not a compact JWS whose header and payload are JSON objects.
    """
    header, payload, _ = _split(token)
    return _header(header), json_object(_decode(payload, "payload"), "payload")


def check_header(header: dict[str, Any], algorithms: Sequence[str]) -> None:
    """Refuse a header that asks for anything but one of `algorithms` and a key by its kid.

    Raises InvalidToken. Callers use it before they look for keys; `verify` repeats it.
    """
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in algorithms or alg not in ALGORITHMS:
        raise InvalidToken(f"Algorithm refused: token has {shown(alg)}, accepted are {', '.join(algorithms)}")
    for name in _REFUSED_HEADERS:
        if name in header:
            raise InvalidToken(f"Header refused: a token must not carry the header {name!r}")
    if "kid" in header and not isinstance(header["kid"], str):
        raise InvalidToken(f"Header refused: kid must be a string, not {shown(header['kid'])}")


def verify(token: str, jwks: dict[str, Any], algorithms: Sequence[str]) -> tuple[dict[str, Any], bytes]:
    """Check the signature of a compact JWS and return its header and its payload as bytes.

    `jwks` is a JSON Web Key Set (RFC 7517); the key is chosen by the token's kid among its keys, or
    without a kid when exactly one key fits. `algorithms` lists the names of RFC 7518 that are
    accepted; of these only the asymmetric ones ever are. The payload may be any bytes.

    Raises InvalidToken for every token that does not verify.
    """
    header_part, payload_part, signature_part = _split(token)
    header = _header(header_part)
    check_header(header, algorithms)
    payload = _decode(payload_part, "payload")
    signature = _decode(signature_part, "signature")
    algorithm = ALGORITHMS[header["alg"]]
    key = _public_key(_choose(header, jwks), algorithm)
    signed = f"{header_part}.{payload_part}".encode("ascii")
    if not algorithm.primitive.verify(signed, key, signature):
        raise InvalidToken(f"Signature wrong: it was not made by the issuer's key {shown(header.get('kid'))}")
    return header, payload


def json_object(data: bytes, what: str) -> dict[str, Any]:
    """`data` as a JSON object: UTF-8, no member twice, no NaN, no half of a surrogate pair.

    Raises InvalidToken, which calls the data `what`.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_members, parse_constant=_no_constant)
        if b"\\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise InvalidToken(f"Malformed token: the {what} is not strict JSON") from None
    if not isinstance(value, dict):
        raise InvalidToken(f"Malformed token: the {what} is not a JSON object")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _split(token: str) -> tuple[str, str, str]:
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise InvalidToken(
            f"Malformed token: {len(token)} characters, at most {MAX_TOKEN_CHARACTERS} are read"
        )
    parts = token.split(".")
    if len(parts) == 5:
        raise InvalidToken("Malformed token: an encrypted token (JWE); only signed ones are accepted")
    if len(parts) != 3:
        raise InvalidToken(
            f"Malformed token: {len(parts)} parts instead of 3; an opaque token cannot be checked here, "
            "ask the provider for a JWT"
        )
    return parts[0], parts[1], parts[2]


def _header(part: str) -> dict[str, Any]:
    return json_object(_decode(part, "header"), "header")


def _decode(part: str, what: str) -> bytes:
    """Decode base64url without padding (RFC 7515, 2), in its one canonical form."""
    if _BASE64URL.fullmatch(part):
        try:
            data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        except binascii.Error:
            pass  # a length that no data has
        else:
            if base64.urlsafe_b64encode(data).rstrip(b"=") == part.encode("ascii"):
                return data
    raise InvalidToken(f"Malformed token: the {what} is not base64url without padding")


def _choose(header: dict[str, Any], jwks: dict[str, Any]) -> dict[str, Any]:
    """The one key of the set that the header names and that may verify its algorithm."""
    listed = jwks.get("keys")
    keys = [key for key in listed if isinstance(key, dict)] if isinstance(listed, list) else []
    kid = header.get("kid")
    if kid is not None:
        keys = [key for key in keys if key.get("kid") == kid]
    if not keys:
        raise InvalidToken(f"Key not found: the issuer publishes no key with kid {shown(kid)}")
    misfits = [_misfit(key, header["alg"]) for key in keys]
    fitting = [key for key, misfit in zip(keys, misfits, strict=True) if misfit is None]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise InvalidToken(f"Key not found: {len(fitting)} keys of the issuer fit kid {shown(kid)}, one must")
    raise InvalidToken(f"Key refused: kid {shown(kid)}: {misfits[0]}")


def _misfit(key: dict[str, Any], alg: str) -> str | None:
    """Why `key` must not verify `alg` (RFC 7517, 4), or None when it may."""
    algorithm = ALGORITHMS[alg]
    if key.get("kty") != algorithm.kty:
        return f"key type {shown(key.get('kty'))} is not for {alg}"
    if "use" in key and key["use"] != "sig":
        return f"the key's use is {shown(key['use'])}, not 'sig'"
    if "key_ops" in key and not (isinstance(key["key_ops"], list) and "verify" in key["key_ops"]):
        return "the key's operations do not include verify"
    if "alg" in key and key["alg"] != alg:
        return f"the key is for {shown(key['alg'])}, the token says {alg}"
    if algorithm.curves and key.get("crv") not in algorithm.curves:
        return f"curve {shown(key.get('crv'))} is not for {alg}"
    return None


def _public_key(jwk: dict[str, Any], algorithm: _Algorithm) -> Any:
    members: dict[str, Any] = {"kty": algorithm.kty, "crv": jwk.get("crv")}
    for name in algorithm.key_members:
        value = jwk.get(name)
        if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
            raise InvalidToken(
                f"Key refused: member {name!r} of key {shown(jwk.get('kid'))} is not base64url"
            )
        members[name] = value
    if algorithm.kty == "RSA":
        bits = int.from_bytes(_decode(members["n"], "modulus of the key"), "big").bit_length()
        if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
            raise InvalidToken(f"Key refused: {bits} bits, accepted are {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    try:
        return algorithm.primitive.from_jwk(members)
    except (InvalidKeyError, ValueError) as error:
        raise InvalidToken(
            f"Key refused: key {shown(jwk.get('kid'))} cannot be used: {shown(str(error))}"
        ) from None
