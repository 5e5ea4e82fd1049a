"""Attacks on tokens: each is refused as an invalid token, with one and the same line for the client."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boilstream.auth import jws
from boilstream.auth.errors import CLIENT_MESSAGE, InvalidToken
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.manager import AuthManager
from boilstream.auth.providers import okta
from tests.support.tokens import (
    AUDIENCE,
    CLIENT_ID,
    ISSUER,
    NOW,
    ORG_DOMAIN,
    ORG_ISSUER,
    FakeClock,
    FakeFetch,
    b64,
    ec_key,
    golden,
    jwk,
    jwks,
    raw_token,
    rsa_key,
    token,
)

USER = dict(golden().user)
HEADER = {"kid": "kid-1", "alg": "RS256"}
ATTACKER = rsa_key("attacker")

per_example = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def fetch() -> FakeFetch:
    return FakeFetch()


@pytest.fixture
def manager(fetch: FakeFetch) -> Iterator[AuthManager]:
    clock = FakeClock()
    provider = okta.provider(
        org_domain=ORG_DOMAIN, audience=AUDIENCE, client_id=CLIENT_ID, allow_org_server=True
    )
    made = AuthManager([provider], fetch=fetch, expiry=ExpiryRule(clock=clock), monotonic=clock)
    yield made
    made.close()


def refused(manager: AuthManager, made: str) -> str:
    """Assert that the token is refused like every other one; the reason."""
    with pytest.raises(InvalidToken) as caught:
        manager.authenticate(made)
    assert type(caught.value) is InvalidToken
    assert caught.value.message == str(caught.value) == CLIENT_MESSAGE
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) < 1000
    return caught.value.reason


def test_the_token_that_the_attacks_change_is_good(manager: AuthManager) -> None:
    assert manager.authenticate(token(USER)).subject == USER["sub"]


@pytest.mark.parametrize(
    "alg", sorted({"".join(letters) for letters in itertools.product(*zip("none", "NONE", strict=True))})
)
def test_alg_none_in_every_spelling(manager: AuthManager, alg: str) -> None:
    header, payload = json.dumps({**HEADER, "alg": alg}), json.dumps(USER)
    for made in (raw_token(header, payload, None), raw_token(header, payload, rsa_key())):
        assert refused(manager, made).startswith("Algorithm refused")


@pytest.mark.parametrize(
    "alg", ["", " none", "none ", "n\u043ene", "RS256 ", "rs256", "RS256\u0000", "null", "HS256,RS256"]
)
def test_odd_algorithm_names(manager: AuthManager, alg: str) -> None:
    assert refused(manager, raw_token(json.dumps({**HEADER, "alg": alg}), json.dumps(USER), rsa_key()))


@pytest.mark.parametrize("alg", [None, True, 0, [], ["RS256"], {"RS256": 1}])
def test_algorithms_of_a_wrong_type(manager: AuthManager, alg: Any) -> None:
    assert refused(manager, raw_token(json.dumps({**HEADER, "alg": alg}), json.dumps(USER), rsa_key()))


def test_unsigned_tokens(manager: AuthManager) -> None:
    head, payload, _ = token(USER).split(".")
    for made in (
        f"{head}.{payload}.",
        f"{head}.{payload}",
        f"{head}..",
        f".{payload}.",
        f"{head}.{payload}.AA",
    ):
        refused(manager, made)


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_the_public_key_as_a_shared_secret(manager: AuthManager, alg: str) -> None:
    public = rsa_key().public_key()
    secrets = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk(rsa_key())).encode(),
        jwk(rsa_key())["n"].encode(),
        b"",
    ]
    for secret in secrets:
        assert refused(manager, token(USER, key=secret, alg=alg)).startswith("Algorithm refused")


KIDS = [
    "../../../../dev/null",
    "/etc/passwd",
    "file:///etc/passwd",
    "https://attacker.example/key",
    "' OR '1'='1",
    "x' UNION SELECT 'secret'; --",
    "kid-1\x00",
    "kid-1 ",
    "KID-1",
    "",
    "\r\nINFO forged log line",
    "\u202e\x1b[2J",
    "%s%n{0}",
    "$(id)",
]


@pytest.mark.parametrize("kid", KIDS, ids=range(len(KIDS)))
def test_hostile_key_ids(manager: AuthManager, kid: str, caplog: pytest.LogCaptureFixture) -> None:
    for key in (rsa_key(), ATTACKER):
        assert refused(manager, token(USER, header={"kid": kid}, key=key)).startswith("Key not found")
    assert len(caplog.messages) == 2
    assert all(message.isprintable() for message in caplog.messages)


@pytest.mark.parametrize("kid", [None, 1, True, ["kid-1"], {"kid": "kid-1"}])
def test_key_ids_of_a_wrong_type(manager: AuthManager, kid: Any) -> None:
    assert "kid" in refused(
        manager, raw_token(json.dumps({**HEADER, "kid": kid}), json.dumps(USER), rsa_key())
    )


def test_a_key_id_of_a_megabyte(manager: AuthManager, caplog: pytest.LogCaptureFixture) -> None:
    refused(manager, token(USER, header={"kid": "k" * 1_000_000}))
    assert refused(manager, token(USER, header={"kid": "k" * 40_000})).startswith("Key not found")
    assert len(caplog.text) < 2000


def test_many_unknown_key_ids_cause_one_fetch(manager: AuthManager, fetch: FakeFetch) -> None:
    for number in range(200):
        refused(manager, token(USER, header={"kid": f"kid-{number + 2}"}))
    assert len(fetch.urls) == 1


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": jwk(ATTACKER)},
        {"jku": "https://attacker.example/keys"},
        {"jku": f"{ISSUER}/v1/keys"},
        {"x5u": "https://attacker.example/cert.pem"},
        {"x5c": [b64(b"certificate")]},
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"zip": "GZIP"},
        {"enc": "A256GCM"},
    ],
    ids=lambda header: next(iter(header)),
)
def test_headers_that_bring_their_own_rules(
    manager: AuthManager, fetch: FakeFetch, header: dict[str, Any]
) -> None:
    for key in (rsa_key(), ATTACKER):
        assert refused(manager, token(USER, header=header, key=key)).startswith("Header refused")
    assert fetch.urls == []


def test_a_thumbprint_in_the_header_selects_nothing(manager: AuthManager) -> None:
    header = {"x5t": b64(b"\x01" * 20), "x5t#S256": b64(b"\x01" * 32)}
    assert refused(manager, token(USER, header=header, key=ATTACKER)).startswith("Signature wrong")


def test_another_key_under_the_same_key_id(manager: AuthManager) -> None:
    assert refused(manager, token(USER, key=ATTACKER)).startswith("Signature wrong")


@pytest.mark.parametrize("size", [0, 32, 64, 96, 132])
def test_psychic_signatures(size: int) -> None:
    """CVE-2022-21449: a signature of zeros was good for any message."""
    keys = jwks(jwk(ec_key()))
    head = f"{b64(json.dumps({'alg': 'ES256', 'kid': 'kid-1'}).encode())}.{b64(json.dumps(USER).encode())}"
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signatures = [bytes(size)] + [
        r.to_bytes(32, "big") + s.to_bytes(32, "big") for r in (0, 1, order) for s in (0, 1, order)
    ]
    for signature in signatures:
        with pytest.raises(InvalidToken) as caught:
            jws.verify(f"{head}.{b64(signature)}", keys, ["ES256"])
        assert caught.value.reason.startswith("Signature wrong")


def test_an_algorithm_that_the_provider_does_not_use(manager: AuthManager, fetch: FakeFetch) -> None:
    fetch.publish(jwk(ec_key("P-384")), jwk(rsa_key(), "kid-2"))
    assert refused(manager, token(USER, key=ec_key("P-384"), alg="ES384")).startswith("Algorithm refused")


@pytest.mark.parametrize("bits", [512, 1024])
def test_short_rsa_keys(manager: AuthManager, fetch: FakeFetch, bits: int) -> None:
    if bits == 1024:
        key = rsa_key("short", 1024)
        made, published = token(USER, key=key), jwk(key)
    else:  # no library makes one of 512 bits any more
        made, published = token(USER), jwk(rsa_key(), n=b64(b"\xc5" * 64))
    fetch.publish(published)
    assert f"{bits} bits" in refused(manager, made)


@pytest.mark.parametrize(
    "key",
    [
        jwk(rsa_key(), use="enc"),
        jwk(rsa_key(), key_ops=["encrypt"]),
        jwk(rsa_key(), alg="RS512"),
        jwk(rsa_key(), kty="oct", k=b64(b"x")),
        jwk(rsa_key(), e=b64(b"\x01")),
    ],
    ids=["use", "key_ops", "alg", "kty", "e"],
)
def test_keys_that_are_not_for_signatures(
    manager: AuthManager, fetch: FakeFetch, key: dict[str, Any]
) -> None:
    fetch.publish(key)
    assert refused(manager, token(USER)).startswith("Key refused")


@pytest.mark.parametrize(
    "audience",
    ["", "api://boilstream/", "api://boilstrea", "API://BOILSTREAM", "api://other", CLIENT_ID + "x",
     [CLIENT_ID, "x"], ["api://boilstream "], [], None, 1, {"aud": AUDIENCE}, [[AUDIENCE]], ISSUER],
    ids=repr,
)  # fmt: skip
def test_wrong_audiences(manager: AuthManager, audience: Any) -> None:
    assert refused(manager, token({**USER, "aud": audience})).startswith("Invalid audience")


@pytest.mark.parametrize(
    "issuer",
    [ISSUER + "/", ISSUER + "/x", ISSUER[:-1], ISSUER.upper(), ISSUER.replace("https", "http"), " " + ISSUER,
     ISSUER + "\x00", ISSUER + "#", ISSUER + "?x", ISSUER.replace("okta.com", "okta.com.attacker.example"),
     ISSUER.replace("company", "company@attacker.example"), ISSUER.replace("default", "DEFAULT"),
     ISSUER.replace("com/", "com//"), ISSUER.replace("com/", "com:443/"), ORG_ISSUER + "/",
     ORG_ISSUER + "/oauth2", ORG_ISSUER + "/oauth2/other", "", None, 1, True, [ISSUER], {"iss": ISSUER}],
    ids=repr,
)  # fmt: skip
def test_wrong_issuers(manager: AuthManager, fetch: FakeFetch, issuer: Any) -> None:
    assert refused(manager, token({**USER, "iss": issuer})).startswith("Invalid issuer")
    assert fetch.urls == []


def test_the_keys_of_one_issuer_do_not_vouch_for_another(fetch: FakeFetch) -> None:
    org_keys, custom_keys = jwks(jwk(ATTACKER)), jwks()

    def by_url(url: str) -> bytes:
        fetch.urls.append(url)
        return json.dumps(custom_keys if url.startswith(ISSUER) else org_keys).encode()

    clock = FakeClock()
    provider = okta.provider(
        org_domain=ORG_DOMAIN, audience=AUDIENCE, client_id=CLIENT_ID, allow_org_server=True
    )
    manager = AuthManager([provider], fetch=by_url, expiry=ExpiryRule(clock=clock), monotonic=clock)
    manager.authenticate(token(USER))
    manager.authenticate(token(golden().org_id_token, key=ATTACKER))
    assert refused(manager, token({**USER, "jti": "AT.1"}, key=ATTACKER)).startswith("Signature wrong")
    assert refused(manager, token(golden().org_id_token)).startswith("Signature wrong")


def test_claims_of_one_kind_of_token_in_another(manager: AuthManager) -> None:
    assert refused(manager, token({**golden().org_id_token, "aud": AUDIENCE}))
    assert refused(manager, token({**golden().id_token, "aud": AUDIENCE}))
    assert refused(manager, token(golden().org_access_token))


@pytest.mark.parametrize("name", ["iss", "aud", "exp", "sub", "groups"])
@pytest.mark.parametrize("first", [True, False])
def test_claims_that_are_there_twice(manager: AuthManager, name: str, first: bool) -> None:
    members = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in USER.items()]
    second = f'"{name}": {json.dumps(USER[name])}'
    escaped = f'"\\u{ord(name[0]):04x}{name[1:]}": {json.dumps(USER[name])}'
    for extra in (second, escaped):
        payload = "{" + ", ".join([extra, *members] if first else [*members, extra]) + "}"
        assert "strict JSON" in refused(manager, raw_token(json.dumps(HEADER), payload, rsa_key()))


def test_headers_that_are_there_twice(manager: AuthManager) -> None:
    for header in (
        '{"alg": "none", "alg": "RS256", "kid": "kid-1"}',
        '{"kid": "x", "alg": "RS256", "kid": "kid-1"}',
    ):
        assert "strict JSON" in refused(manager, raw_token(header, json.dumps(USER), rsa_key()))


def test_tokens_inside_tokens(manager: AuthManager) -> None:
    inner = token(USER)
    assert "JSON" in refused(manager, raw_token(json.dumps({**HEADER, "cty": "JWT"}), inner, rsa_key()))
    assert "JWE" in refused(
        manager, ".".join([b64(b'{"alg": "RSA-OAEP", "enc": "A256GCM", "cty": "JWT"}'), *"abcd"])
    )
    assert "JWE" in refused(
        manager, ".".join([b64(b'{"alg": "PBES2-HS256+A128KW", "p2c": 2147483647}'), *"abcd"])
    )
    refused(manager, json.dumps({"payload": inner.split(".")[1], "signatures": [{"signature": "x"}]}))


def test_large_tokens(manager: AuthManager) -> None:
    assert "characters" in refused(manager, token({**USER, "x": "y" * 100_000}))
    assert "characters" in refused(manager, "a" * 10_000_000)
    assert manager.authenticate(token({**USER, "x": "y" * 20_000}))


@pytest.mark.parametrize(
    "payload", ["[" * 30_000, '{"a":' * 9_000, '{"exp": ' + "9" * 5_000 + "}", '{"exp": NaN}']
)
def test_payloads_that_hurt_parsers(manager: AuthManager, payload: str) -> None:
    assert "strict JSON" in refused(manager, raw_token(json.dumps(HEADER), payload, rsa_key()))


@pytest.mark.parametrize("depth", range(300, 1000, 50))
def test_nesting_just_below_what_the_parser_takes(manager: AuthManager, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    for claim in ("iss", "aud", "exp", "nbf", "sub", "groups", "scp"):
        members = {key: json.dumps(value) for key, value in USER.items()} | {claim: deep}
        payload = "{" + ", ".join(f'"{key}": {value}' for key, value in members.items()) + "}"
        refused(manager, raw_token(json.dumps(HEADER), payload, rsa_key()))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": NOW - 31}, "Expired"),
        ({"exp": 0}, "Expired"),
        ({"nbf": NOW + 31}, "Not yet valid"),
        ({"iat": NOW + 31}, "Not yet valid"),
        ({"exp": float("inf")}, "Malformed"),
        ({"exp": 10**400}, "Invalid claim"),
        ({"exp": -1}, "Invalid claim"),
    ],
)
def test_times(manager: AuthManager, claims: dict[str, Any], reason: str) -> None:
    assert refused(manager, token({**USER, **claims})).startswith(reason)


def test_an_exponent_beyond_all_floats(manager: AuthManager) -> None:
    payload = json.dumps(USER).replace(str(USER["exp"]), "1e999")
    assert refused(manager, raw_token(json.dumps(HEADER), payload, rsa_key())).startswith(
        "Invalid claim: exp"
    )


def test_no_claims_at_all(manager: AuthManager) -> None:
    for payload in ("{}", "[]", "null", "1", '""', ""):
        refused(manager, raw_token(json.dumps(HEADER), payload, rsa_key()))
    for missing in ("iss", "aud", "exp", "sub"):
        refused(manager, token({name: value for name, value in USER.items() if name != missing}))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def is_right(name: str, value: Any) -> bool:
    """Whether a value that hypothesis invented would be right for this claim by chance."""
    if name in ("exp", "nbf", "iat"):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if name in ("sub", "cid"):
        return isinstance(value, str)
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


@per_example
@given(
    name=st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "cid", "groups", "scp"]),
    value=json_values,
)
def test_claims_of_any_wrong_type(manager: AuthManager, name: str, value: Any) -> None:
    made = token({**USER, name: value})
    if not is_right(name, value):
        refused(manager, made)


@per_example
@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda data: data.decode("latin-1")))
def test_random_text(manager: AuthManager, text: str) -> None:
    refused(manager, text)


@per_example
@given(st.lists(st.binary(max_size=60), min_size=3, max_size=3))
def test_random_bytes_in_the_right_form(manager: AuthManager, parts: list[bytes]) -> None:
    refused(manager, ".".join(b64(part) for part in parts))


@per_example
@given(header=json_values, payload=json_values)
def test_random_json_signed_by_the_issuer(manager: AuthManager, header: Any, payload: Any) -> None:
    refused(manager, raw_token(json.dumps(header), json.dumps(USER), rsa_key()))
    refused(manager, raw_token(json.dumps(HEADER), json.dumps(payload), rsa_key()))


@per_example
@given(data=st.data())
def test_mutated_tokens(manager: AuthManager, data: st.DataObject) -> None:
    good = token(USER)
    at = data.draw(st.integers(0, len(good) - 1))
    change = data.draw(st.sampled_from(["replace", "delete", "insert", "swap", "cut", "double"]))
    character = data.draw(st.sampled_from("AZaz09-_.=+/ \n\x00é") | st.characters(codec="utf-8"))
    made = {
        "replace": good[:at] + character + good[at + 1 :],
        "delete": good[:at] + good[at + 1 :],
        "insert": good[:at] + character + good[at:],
        "swap": good[:at] + good[at : at + 2][::-1] + good[at + 2 :],
        "cut": good[:at],
        "double": good[:at] + good,
    }[change]
    if made == good:
        assert manager.authenticate(made)
    else:
        refused(manager, made)


def test_halves_of_surrogate_pairs(manager: AuthManager) -> None:
    refused(manager, "\ud800")
    refused(manager, token({**USER, "sub": "\ud800"}))
    refused(manager, token({**USER, "groups": ["\udfff"]}))


def test_parts_of_two_good_tokens_do_not_combine(manager: AuthManager) -> None:
    one, other = token(USER).split("."), token({**USER, "sub": "root"}).split(".")
    for parts in itertools.product(*zip(one, other, strict=True)):
        made = ".".join(parts)
        if parts in (tuple(one), tuple(other)) or parts[1:] in (tuple(one[1:]), tuple(other[1:])):
            assert manager.authenticate(made)
        else:
            assert refused(manager, made).startswith("Signature wrong")
