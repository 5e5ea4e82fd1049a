"""Signatures, key binding and strict reading."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.auth import jws
from boilstream.auth.errors import InvalidToken
from tests.support.tokens import b64, ec_key, ed_key, jwk, jwks, raw_token, rsa_key, token

ALL = tuple(jws.ALGORITHMS)


def refusal(made: str, keys: dict[str, Any] | None = None, algorithms: tuple[str, ...] = ALL) -> str:
    with pytest.raises(InvalidToken) as caught:
        jws.verify(made, keys if keys is not None else jwks(), algorithms)
    return caught.value.reason


@pytest.mark.parametrize(
    ("alg", "key"),
    [(f"{family}{size}", rsa_key()) for family in ("RS", "PS") for size in (256, 384, 512)]
    + [("ES256", ec_key("P-256")), ("ES384", ec_key("P-384")), ("ES512", ec_key("P-521"))]
    + [("EdDSA", ed_key("Ed25519")), ("EdDSA", ed_key("Ed448"))],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_algorithm_verifies_its_signatures_and_no_others(alg: str, key: Any) -> None:
    keys = jwks(jwk(key, alg=None))
    made = raw_token(json.dumps({"alg": alg, "kid": "kid-1"}), b"any bytes \xff", key, alg)
    assert jws.verify(made, keys, [alg]) == ({"alg": alg, "kid": "kid-1"}, b"any bytes \xff")
    head, payload, signature = made.split(".")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    assert refusal(f"{head}.{payload}.{flipped}", keys).startswith("Signature wrong")
    assert refusal(f"{head}.{payload}.", keys).startswith("Signature wrong")
    assert refusal(f"{head}.{payload}.{signature[:20]}", keys).startswith("Signature wrong")
    assert refusal(f"{head}.{b64(b'other')}.{signature}", keys).startswith("Signature wrong")
    other = next(name for name in ALL if name != alg)
    assert refusal(made, keys, (other,)).startswith("Algorithm refused")


def test_the_key_is_chosen_by_kid() -> None:
    keys = jwks(jwk(rsa_key("other"), "a"), jwk(rsa_key(), "b"), jwk(rsa_key("other"), "c"))
    assert jws.verify(token({"n": 1}, header={"kid": "b"}), keys, ["RS256"])[1] == b'{"n": 1}'
    assert refusal(token({}, header={"kid": "a"}), keys).startswith("Signature wrong")
    assert refusal(token({}, header={"kid": "d"}), keys).startswith("Key not found")


def test_without_a_kid_exactly_one_key_must_fit() -> None:
    made = token({}, header={"kid": None})
    misfit = jwk(ec_key(), "ec")
    assert jws.verify(made, jwks(jwk(rsa_key()), misfit), ["RS256"])[1] == b"{}"
    assert jws.verify(made, jwks(jwk(rsa_key(), None), misfit), ["RS256"])[1] == b"{}"
    assert refusal(made, jwks(jwk(rsa_key(), "a"), jwk(rsa_key("other"), "b"))).startswith(
        "Key not found: 2 keys"
    )
    assert refusal(made, jwks(misfit)).startswith("Key refused")


def test_a_kid_that_fits_two_keys_is_ambiguous() -> None:
    assert refusal(token({}), jwks(jwk(rsa_key()), jwk(rsa_key("other")))).startswith("Key not found: 2 keys")
    both = jwks(jwk(rsa_key()), jwk(ec_key()))
    assert jws.verify(token({}), both, ["RS256"])[1] == b"{}"


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"use": "enc"}, "use is 'enc'"),
        ({"key_ops": ["encrypt"]}, "operations"),
        ({"key_ops": "verify"}, "operations"),
        ({"alg": "RS384"}, "is for 'RS384'"),
        ({"alg": None, "kty": "EC"}, "key type 'EC'"),
        ({"kty": "oct", "k": b64(b"secret")}, "key type 'oct'"),
        ({"n": None}, "lacks one of n, e"),
        ({"n": 5}, "lacks one of n, e"),
        ({"n": "AQ=="}, "member 'n'"),
        ({"n": "A"}, "member 'n'"),
        ({"e": "AA"}, "cannot be used"),
        ({"e": "Ag"}, "cannot be used"),
        ({"e": "A"}, "cannot be used"),
    ],
)
def test_a_key_that_is_not_for_this_is_refused(members: dict[str, Any], problem: str) -> None:
    assert problem in refusal(token({}), jwks(jwk(rsa_key(), **members)))


@pytest.mark.parametrize("members", [{"use": None}, {"key_ops": ["verify", "sign"]}, {"alg": None}])
def test_members_that_do_not_forbid_it_allow_it(members: dict[str, Any]) -> None:
    assert jws.verify(token({}), jwks(jwk(rsa_key(), **members)), ["RS256"])[1] == b"{}"


def test_private_members_of_a_key_are_not_looked_at() -> None:
    assert jws.verify(token({}), jwks(jwk(rsa_key(), d="AQ", p="AQ")), ["RS256"])[1] == b"{}"


def test_rsa_keys_have_2048_to_8192_bits() -> None:
    small = rsa_key("small", 1024)
    assert "1024 bits" in refusal(token({}, key=small), jwks(jwk(small)))
    assert "8200 bits" in refusal(token({}), jwks(jwk(rsa_key(), n=b64(b"\xff" * 1025))))


def test_the_curve_belongs_to_the_algorithm() -> None:
    key = ec_key("P-256")
    made = raw_token('{"alg": "ES384", "kid": "kid-1"}', "{}", key, "ES384")
    assert "curve 'P-256' is not for ES384" in refusal(made, jwks(jwk(key)))
    off_curve = jwk(key, x=b64(b"\x01" * 32))
    made = token({}, key=key, alg="ES256")
    assert "cannot be used" in refusal(made, jwks(off_curve))
    assert "cannot be used" in refusal(made, jwks(jwk(key, x=b64(b"\x01" * 31))))
    assert "cannot be used" in refusal(
        raw_token('{"alg": "EdDSA", "kid": "kid-1"}', "{}", ed_key()), jwks(jwk(ed_key(), x=b64(b"short")))
    )


@pytest.mark.parametrize("keys", [{}, {"keys": None}, {"keys": {}}, {"keys": ["x", None, 3]}, {"keys": []}])
def test_a_broken_key_set_has_no_key(keys: dict[str, Any]) -> None:
    assert refusal(token({}), keys).startswith("Key not found")


def test_symmetric_algorithms_are_refused_even_when_listed() -> None:
    keys = jwks({"kty": "oct", "k": b64(b"secret"), "kid": "kid-1", "alg": "HS256"})
    assert refusal(token({}, key=b"secret", alg="HS256"), keys, ("HS256", "none")).startswith(
        "Algorithm refused"
    )
    unsigned = raw_token('{"alg": "none", "kid": "kid-1"}', "{}", None)
    assert refusal(unsigned, keys, ("HS256", "none")).startswith("Algorithm refused")


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"alg": "RS256", "alg": "RS256"}', "not strict JSON"),
        ('{"alg": "RS256", "x": {"a": 1, "a": 1}}', "not strict JSON"),
        ('{"alg": "RS256", "x": NaN}', "not strict JSON"),
        ('{"alg": "RS256", "kid": "\\ud800"}', "not strict JSON"),
        ('{"alg": "RS256", "n": ' + "1" * 5000 + "}", "not strict JSON"),
        ("[" * 20_000, "not strict JSON"),
        (b"\xff{}", "not strict JSON"),
        (b"\xef\xbb\xbf{}", "not strict JSON"),
        ("{} {}", "not strict JSON"),
        ("", "not strict JSON"),
        ("{}", "Algorithm refused"),
        ('{"alg": ["RS256"]}', "Algorithm refused"),
        ('{"alg": "rs256"}', "Algorithm refused"),
        ('{"alg": "RS256", "kid": 1}', "kid must be a string"),
        ('{"alg": "RS256", "kid": null}', "kid must be a string"),
        *((f'{{"alg": "RS256", "kid": "kid-1", "{name}": []}}', repr(name))
          for name in ("crit", "b64", "jku", "x5u", "jwk", "x5c", "zip", "enc")),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_headers_are_read_strictly(header: str | bytes, problem: str) -> None:
    assert problem in refusal(raw_token(header, "{}", rsa_key()))


def test_white_space_and_harmless_headers_are_fine() -> None:
    header = '{ "alg" :\n"RS256", "typ": "JWT", "x5t": "abc", "kid": "kid-1", "x": "\\ud83d\\ude00" }'
    assert jws.verify(raw_token(header, "", rsa_key()), jwks(), ["RS256"])[1] == b""


def test_only_the_one_canonical_base64url_form_is_read() -> None:
    made = token({"a": 1})
    head, payload, signature = made.split(".")
    # a 256-byte signature ends in a character of which four bits are unused
    last = signature[:-1] + chr(ord(signature[-1]) + 1)
    for broken in (
        last,
        signature + "=",
        signature + "==",
        " " + signature,
        signature + "\n",
        signature + "AAA",
    ):
        assert "base64url" in refusal(f"{head}.{payload}.{broken}")
    for broken in (
        f"{head}=.{payload}.{signature}",
        f"{head}.{payload}=.{signature}",
    ):
        assert "base64url" in refusal(broken)
    assert "beyond ASCII" in refusal(made.replace(".", "é.", 1))


@given(st.text("ABCwxyz0123456789-_+/=. \n", max_size=9))
def test_a_part_is_read_only_as_the_library_would_write_it(text: str) -> None:
    """The payload may be any bytes, so only its form decides."""
    made = f"{b64(b'{}')}.{text}.AAAA"
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        canonical = b64(data) == text
    except ValueError:
        canonical = False
    if canonical:
        assert jws.parse(made).payload == data
    else:
        refusal(made)


@pytest.mark.parametrize("made", ["", ".", "a", "a.b", "..", "a.b.c.d", "a.b.c.d.e", "." * 70_000, "{}"])
def test_other_forms_are_refused(made: str) -> None:
    assert refusal(made).startswith("Malformed token")


def test_encrypted_and_oversized_tokens_are_named() -> None:
    assert "JWE" in refusal("a.b.c.d.e")
    assert "opaque" in refusal("00Oa1b2c3opaque")
    assert "100000 characters" in refusal("a" * 100_000)


def test_parse_reads_the_parts_without_a_key() -> None:
    made = token({"iss": "x"})
    parsed = jws.parse(made)
    assert parsed.header == {"kid": "kid-1", "alg": "RS256"}
    assert parsed.payload == b'{"iss": "x"}'
    assert parsed.signed.decode() == made.rpartition(".")[0]


def test_a_caller_cannot_change_the_header_of_the_next_token() -> None:
    made = token({})
    jws.verify(made, jwks(), ["RS256"])[0]["kid"] = "another"
    assert jws.verify(made, jwks(), ["RS256"])[0] == {"kid": "kid-1", "alg": "RS256"}


def test_json_is_read_strictly() -> None:
    assert jws.json_object(b' {"a": "\\ud83d\\ude00"}\n', "payload") == {"a": "\U0001f600"}
    for data in (
        b'{"iss": "a", "iss": "b"}',
        b'{"a": {"b": 1, "b": 2}}',
        b"[]",
        b"",
        b"x",
        b"{} {}",
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"[" * 20_000,
        b'{"a":' * 20_000,
    ):
        with pytest.raises(InvalidToken) as caught:
            jws.json_object(data, "payload")
        assert caught.value.reason.startswith("Malformed token: the payload is not")


@given(st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from(".={}"), max_size=200))
def test_any_text_is_refused_and_nothing_else(text: str) -> None:
    refusal(text)
    with pytest.raises(InvalidToken):
        jws.parse(text)


@given(st.dictionaries(st.sampled_from(["kty", "n", "e", "crv", "x", "y", "use", "key_ops", "alg"]),
                       st.none() | st.integers() | st.text(max_size=9) | st.lists(st.text(max_size=9))),
       st.sampled_from(ALL))  # fmt: skip
def test_any_key_is_refused_and_nothing_else(members: dict[str, Any], alg: str) -> None:
    made = raw_token(json.dumps({"alg": alg, "kid": "kid-1"}), "{}", None)
    refusal(made, jwks({"kid": "kid-1"} | members))
    refusal(made, jwks({"kid": "kid-1"} | members | {"kty": jws.ALGORITHMS[alg].kty}))
