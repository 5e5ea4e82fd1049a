"""Signed tokens (JWS, RFC 7515) in compact form, read strictly and verified against a key set.

The rules are those of RFC 8725 (JWT Best Current Practices) and its successor draft: compact
serialization only, a mandatory list of asymmetric algorithms, no encryption, no compression, and
keys from nowhere but the key set that the caller passes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm
from jwt.exceptions import InvalidKeyError

from boilstream.auth.errors import InvalidToken, shown

MAX_TOKEN_CHARACTERS: Final = 64 * 1024
"""Longest token that is looked at; 200 group ids make about 12,000 characters."""

MIN_RSA_BITS: Final = 2048  # RFC 7518, 3.3
MAX_RSA_BITS: Final = 8192  # above it one verification takes milliseconds

_REFUSED_HEADERS: Final = frozenset({"crit", "b64", "jku", "x5u", "jwk", "x5c", "zip", "enc"})
"""Extensions, keys brought along by the token, compression and encryption: none has a use here."""

_BASE64URL: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TO_BASE64: Final = bytes.maketrans(b"-_", b"+/")

_MAX_KNOWN_HEADERS: Final = 256
_MAX_KNOWN_HEADER: Final = 1024
"""How many headers are remembered, and the longest of them in characters."""

_MAX_PUBLIC_KEYS: Final = 1024
"""Public keys kept in the form that signatures are checked with; building one takes as long as a check."""


@dataclass(frozen=True, slots=True)
class _Algorithm:
    """One signature algorithm of RFC 7518 or RFC 8037 and the keys that it may be used with."""

    kty: str
    primitive: RSAAlgorithm | ECAlgorithm | OKPAlgorithm
    key_members: tuple[str, ...]
    """The public members of a key; anything else in it is never handed on."""
    curves: tuple[str, ...] = ()


ALGORITHMS: Final[dict[str, _Algorithm]] = {
    "RS256": _Algorithm("RSA", RSAAlgorithm(RSAAlgorithm.SHA256), ("n", "e")),
    "RS384": _Algorithm("RSA", RSAAlgorithm(RSAAlgorithm.SHA384), ("n", "e")),
    "RS512": _Algorithm("RSA", RSAAlgorithm(RSAAlgorithm.SHA512), ("n", "e")),
    "PS256": _Algorithm("RSA", RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256), ("n", "e")),
    "PS384": _Algorithm("RSA", RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384), ("n", "e")),
    "PS512": _Algorithm("RSA", RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512), ("n", "e")),
    "ES256": _Algorithm("EC", ECAlgorithm(ECAlgorithm.SHA256), ("x", "y"), ("P-256",)),
    "ES384": _Algorithm("EC", ECAlgorithm(ECAlgorithm.SHA384), ("x", "y"), ("P-384",)),
    "ES512": _Algorithm("EC", ECAlgorithm(ECAlgorithm.SHA512), ("x", "y"), ("P-521",)),
    "EdDSA": _Algorithm("OKP", OKPAlgorithm(), ("x",), ("Ed25519", "Ed448")),
}
"""All that `verify` can do. Symmetric algorithms and `none` are not in it, so no list can allow them."""


class NotSigned(InvalidToken):
    """The token is no signed one at all: opaque, or encrypted."""


class KeyNotFound(InvalidToken):
    """The key set has no key, or not exactly one, that the token could be verified with."""


class Jws(NamedTuple):
    """A token in its parts. Nothing of it is verified."""

    header: dict[str, Any]
    payload: bytes
    signature: bytes
    signed: bytes
    """What the signature is over: header and payload as sent."""


def parse(token: str) -> Jws:
    """The parts of a compact JWS; raises InvalidToken for anything else."""
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise InvalidToken(
            f"Malformed token: {len(token)} characters, at most {MAX_TOKEN_CHARACTERS} are read"
        )
    try:
        text = token.encode("ascii")
    except UnicodeEncodeError:
        raise InvalidToken("Malformed token: it has characters beyond ASCII") from None
    parts = text.split(b".")
    if len(parts) == 5:
        raise NotSigned("Malformed token: an encrypted token (JWE); only signed ones are accepted")
    if len(parts) != 3:
        raise NotSigned(
            f"Malformed token: {len(parts)} parts instead of 3; an opaque token cannot be checked here",
            "ask the provider for a JWT",
        )
    header = _known_header(parts[0]) if len(parts[0]) <= _MAX_KNOWN_HEADER else _read_header(parts[0])
    payload, signature = _decode(parts[1], "payload"), _decode(parts[2], "signature")
    return Jws(header, payload, signature, text[: text.rindex(b".")])


def _read_header(part: bytes) -> dict[str, Any]:
    return json_object(_decode(part, "header"), "header")


_known_header = lru_cache(maxsize=_MAX_KNOWN_HEADERS)(_read_header)
"""Tokens of one key have one header; nobody may change what this returns."""


def check_header(header: dict[str, Any], algorithms: Sequence[str]) -> None:
    """Refuse a header that asks for anything but one of `algorithms` and a key by its kid.

    Raises InvalidToken. Callers use it before they look for keys; `verify` repeats it.
    """
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in algorithms or alg not in ALGORITHMS:
        raise InvalidToken(f"Algorithm refused: token has {shown(alg)}, accepted are {', '.join(algorithms)}")
    if not _REFUSED_HEADERS.isdisjoint(header):
        name = min(_REFUSED_HEADERS.intersection(header))
        raise InvalidToken(f"Header refused: a token must not carry the header {name!r}")
    if "kid" in header and not isinstance(header["kid"], str):
        raise InvalidToken(f"Header refused: kid must be a string, not {shown(header['kid'])}")


def check_signature(token: Jws, jwks: dict[str, Any], algorithms: Sequence[str]) -> None:
    """Raise InvalidToken unless a key of `jwks` made the signature; see `verify`."""
    check_header(token.header, algorithms)
    alg: str = token.header["alg"]
    key = _public_key(_choose(token.header, jwks), alg)
    if not ALGORITHMS[alg].primitive.verify(token.signed, key, token.signature):
        raise InvalidToken(
            f"Signature wrong: it was not made by the issuer's key {shown(token.header.get('kid'))}"
        )


def verify(token: str, jwks: dict[str, Any], algorithms: Sequence[str]) -> tuple[dict[str, Any], bytes]:
    """Check the signature of a compact JWS and return its header and its payload as bytes.

    `jwks` is a JSON Web Key Set (RFC 7517); the key is chosen by the token's kid among its keys, or
    without a kid when exactly one key fits. `algorithms` lists the names of RFC 7518 that are
    accepted; of these only the asymmetric ones ever are. The payload may be any bytes.

    Raises InvalidToken for every token that does not verify.
    """
    parsed = parse(token)
    check_signature(parsed, jwks, algorithms)
    return dict(parsed.header), parsed.payload


def json_object(data: bytes, what: str) -> dict[str, Any]:
    """`data` as a JSON object: UTF-8, no member twice, no NaN, no half of a surrogate pair.

    Raises InvalidToken, which calls the data `what`.
    """
    try:
        text = data.decode("utf-8").strip(" \t\r\n")
        value, end = _STRICT_JSON.raw_decode(text)
        if end != len(text):
            raise ValueError("something follows")
        if b"\\u" in data:  # an escape may be half of a surrogate pair, which no UTF-8 holds
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise InvalidToken(f"Malformed token: the {what} is not strict JSON") from None
    if not isinstance(value, dict):
        raise InvalidToken(f"Malformed token: the {what} is not a JSON object")
    return value


def thumbprint(members: Mapping[str, str]) -> str:
    """The thumbprint of a key (RFC 7638), from the public members that the RFC (or RFC 8037) names for it."""
    text = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


_STRICT_JSON: Final = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_constant)


def _decode(text: bytes, what: str) -> bytes:
    """Decode base64url without padding (RFC 7515, 2), in its one canonical form."""
    if not text.translate(None, delete=_BASE64URL):
        pads = -len(text) % 4
        standard = text.translate(_TO_BASE64)
        try:
            data = binascii.a2b_base64(standard + b"=" * pads)
        except binascii.Error:
            pass  # a length that no data has
        else:
            # Some bits of the last character may carry nothing; they must be zero.
            if not pads or binascii.b2a_base64(data[pads - 3 :])[3 - pads] == standard[-1]:
                return data
    raise InvalidToken(f"Malformed token: the {what} is not base64url without padding")


def _choose(header: dict[str, Any], jwks: dict[str, Any]) -> dict[str, Any]:
    """The one key of the set that the header names and that may verify its algorithm."""
    kid = header.get("kid")
    listed = jwks.get("keys")
    keys = [
        key
        for key in (listed if isinstance(listed, list) else ())
        if isinstance(key, dict) and (kid is None or key.get("kid") == kid)
    ]
    if not keys:
        raise KeyNotFound(f"Key not found: the issuer publishes no key with kid {shown(kid)}")
    if len(keys) == 1 and _misfit(keys[0], header["alg"]) is None:
        return keys[0]
    misfits = [_misfit(key, header["alg"]) for key in keys]
    fitting = [key for key, misfit in zip(keys, misfits, strict=True) if misfit is None]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise KeyNotFound(f"Key not found: {len(fitting)} keys of the issuer fit kid {shown(kid)}, one must")
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


def _public_key(jwk: dict[str, Any], alg: str) -> Any:
    """The key of a JWK that fits `alg`."""
    algorithm = ALGORITHMS[alg]
    members = tuple([jwk.get(name) for name in algorithm.key_members])
    for value in members:
        if not isinstance(value, str):
            names = ", ".join(algorithm.key_members)
            raise InvalidToken(f"Key refused: key {shown(jwk.get('kid'))} lacks one of {names}")
    try:
        return _build_public_key(alg, jwk.get("crv") if algorithm.curves else None, members)
    except InvalidToken as error:
        raise InvalidToken(
            f"Key refused: key {shown(jwk.get('kid'))} cannot be used: {error.reason}"
        ) from None


@lru_cache(maxsize=_MAX_PUBLIC_KEYS)
def _build_public_key(alg: str, crv: str | None, members: tuple[str, ...]) -> Any:
    algorithm = ALGORITHMS[alg]
    for name, value in zip(algorithm.key_members, members, strict=True):
        data = _decode(value.encode(), f"member {name!r}")
        if name == "n":
            bits = int.from_bytes(data, "big").bit_length()
            if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
                raise InvalidToken(f"{bits} bits, accepted are {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    try:
        return algorithm.primitive.from_jwk(
            {"kty": algorithm.kty, "crv": crv, **dict(zip(algorithm.key_members, members, strict=True))}
        )
    except (InvalidKeyError, ValueError) as error:
        raise InvalidToken(shown(str(error))) from None
