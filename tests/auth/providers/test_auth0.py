"""Auth0's rules on Auth0's claim sets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.auth.errors import InvalidToken
from boilstream.auth.manager import AuthManager
from boilstream.auth.providers import auth0
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings
from tests.auth.providers import golden
from tests.auth.providers.golden import AUTH0_AUDIENCE, AUTH0_GROUPS, AUTH0_TENANT, Golden
from tests.auth.providers.golden_more import accept, authenticate, refusal, without
from tests.support.tokens import NOW

ISSUER = f"https://{AUTH0_TENANT}/"
AUTH0 = auth0.provider(tenant=AUTH0_TENANT, audience=AUTH0_AUDIENCE, groups_namespace=AUTH0_GROUPS)
(TRUSTED,) = AUTH0.issuers
USER = golden.AUTH0["auth0 profile"].claims


def test_addresses() -> None:
    assert (TRUSTED.issuer, TRUSTED.keys_url) == (ISSUER, f"{ISSUER}.well-known/jwks.json")
    assert TRUSTED.algorithms == ("RS256", "RS512", "PS256")
    assert (AUTH0.name, AUTH0.display_name, AUTH0.logger_name) == ("auth0", "Auth0", "boilstream.auth.auth0")
    made = auth0.provider(tenant="login.company.com:8443", audience=AUTH0_AUDIENCE)
    assert made.issuers[0].issuer == "https://login.company.com:8443/"


@pytest.mark.parametrize("example", golden.AUTH0.values(), ids=golden.AUTH0)
def test_golden_tokens(example: Golden) -> None:
    assert accept(TRUSTED, example.claims) == example.identity


@pytest.mark.parametrize("example", golden.AUTH0.values(), ids=golden.AUTH0)
def test_golden_tokens_with_signatures(example: Golden) -> None:
    assert example.identity is not None
    identity = authenticate(AUTH0, example.claims, header=example.header)
    assert identity == replace(example.identity, expires_at=NOW + 3600)


@pytest.mark.parametrize("alg", ["RS256", "RS512", "PS256"])
def test_algorithms_that_an_api_can_be_set_to(alg: str) -> None:
    assert authenticate(AUTH0, USER, alg=alg).subject == "auth0|123456"


def test_other_algorithms_are_refused() -> None:
    with pytest.raises(InvalidToken) as caught:
        authenticate(AUTH0, USER, alg="RS384")
    assert caught.value.reason.startswith("Algorithm refused: ")


@pytest.mark.parametrize(
    "issuer", [ISSUER[:-1], ISSUER + "/", "http" + ISSUER[5:], "https://other.auth0.com/"]
)
def test_the_slash_is_part_of_the_issuer(issuer: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        authenticate(AUTH0, {**USER, "iss": issuer})
    assert caught.value.reason.startswith("Invalid issuer: ")
    assert "AUTH0_TENANT" in caught.value.explanation


@pytest.mark.parametrize(
    "audience",
    [
        None,
        "",
        [],
        AUTH0_AUDIENCE + "/",
        AUTH0_AUDIENCE.upper(),
        f"{AUTH0_AUDIENCE} {ISSUER}userinfo",
        [f"{ISSUER}userinfo"],
        [[AUTH0_AUDIENCE]],
        {AUTH0_AUDIENCE: 1},
    ],
)
def test_other_audiences_are_refused(audience: Any) -> None:
    assert refusal(TRUSTED, {**USER, "aud": audience}).reason.startswith("Invalid audience: ")


def test_a_wrong_audience_tells_the_setting_and_the_request() -> None:
    error = refusal(TRUSTED, {**USER, "aud": "https://other.example.com"})
    assert error.reason == (
        f"Invalid audience: token has ['https://other.example.com'], AUTH0_AUDIENCE is {AUTH0_AUDIENCE!r}"
    )
    assert error.fix is not None
    assert error.fix.startswith(f"request the token with audience {AUTH0_AUDIENCE}, or set AUTH0_AUDIENCE")


def test_a_token_without_audience_is_refused() -> None:
    claims = without(USER, "aud")
    assert refusal(TRUSTED, claims).reason.startswith("Invalid audience: token has []")


def test_a_token_for_the_management_api_is_named() -> None:
    error = refusal(TRUSTED, {**USER, "aud": f"{ISSUER}api/v2/"})
    assert error.reason == "Invalid audience: a token for Auth0's Management API"
    assert AUTH0_AUDIENCE in error.explanation
    made = auth0.provider(tenant=AUTH0_TENANT, audience=f"{ISSUER}api/v2/")
    assert accept(made.issuers[0], {**USER, "aud": f"{ISSUER}api/v2/"})


def test_id_tokens_are_refused() -> None:
    error = refusal(TRUSTED, golden.AUTH0_ID_TOKEN.claims)
    assert error.reason.startswith("Invalid token type: an ID token for ['my_client_id']")
    assert "AUTH0_AUDIENCE" in error.explanation
    plain = without(golden.AUTH0_ID_TOKEN.claims, "nonce")
    assert refusal(TRUSTED, plain).reason.startswith("Invalid audience: ")


@pytest.mark.parametrize("mark", ["nonce", "at_hash", "c_hash"])
def test_an_id_token_is_no_access_token_whatever_its_audience(mark: str) -> None:
    error = refusal(TRUSTED, {**USER, mark: "x"})
    assert error.reason.startswith("Invalid token type: an ID token")
    assert error.reason.endswith(f"it has the claim {mark}")


def test_groups_come_from_the_named_claim_only() -> None:
    claims = {**USER, "groups": ["a"], "roles": ["b"], "https://example.com/roles": ["c"]}
    assert accept(TRUSTED, claims).groups == frozenset()
    assert accept(TRUSTED, {**claims, AUTH0_GROUPS: ["d", "e"]}).groups == {"d", "e"}
    unset = auth0.provider(tenant=AUTH0_TENANT, audience=AUTH0_AUDIENCE)
    assert accept(unset.issuers[0], {**claims, AUTH0_GROUPS: ["d"]}).groups == frozenset()
    assert AUTH0_GROUPS in AUTH0.groups_hint
    assert "AUTH0_GROUPS_NAMESPACE" in unset.groups_hint


@given(scope=st.lists(st.sampled_from("abcd")), permissions=st.none() | st.lists(st.sampled_from("cdef")))
def test_scopes_are_those_of_scope_and_of_permissions(
    scope: list[str], permissions: list[str] | None
) -> None:
    claims = {**USER, "scope": " ".join(scope)}
    if permissions is not None:
        claims["permissions"] = permissions
    assert accept(TRUSTED, claims).scopes == {*scope, *(permissions or [])}


def test_neither_scope_nor_permissions() -> None:
    claims = without(USER, "scope")
    assert accept(TRUSTED, claims).scopes == frozenset()


@pytest.mark.parametrize(
    ("claim", "values"),
    [
        ("scope", [None, 1, ["read:data"], {}]),
        ("permissions", [None, "read:data", {}, [1], [["read:data"]]]),
        (AUTH0_GROUPS, [None, "DataEngineers", {}, [1], [None]]),
        ("sub", [None, "", 1, [], "a\nb", "x" * 256]),
        ("azp", [None, "", 1, []]),
        ("client_id", [None, "", 1, []]),
    ],
)
def test_claims_of_a_wrong_type_are_refused(claim: str, values: list[Any]) -> None:
    for value in values:
        assert refusal(TRUSTED, {**USER, claim: value}).reason.startswith(f"Invalid claim: {claim} is")


def test_a_subject_is_required() -> None:
    claims = without(USER, "sub")
    assert refusal(TRUSTED, claims).reason.startswith("Invalid claim: sub is None")


@pytest.mark.parametrize("made", ["0pAqUeT0kEn_31h", "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..aa.bb.cc"])
def test_opaque_and_encrypted_tokens_get_the_audience_as_advice(made: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        AuthManager([AUTH0]).authenticate(made)
    assert caught.value.reason.startswith("Malformed token: ")
    assert caught.value.fix is not None
    assert f"request the token with audience {AUTH0_AUDIENCE}" in caught.value.fix


def test_from_settings() -> None:
    made = auth0.from_settings(
        Settings(
            auth_providers=("auth0",),
            auth0_tenant="My-Domain.auth0.com",
            auth0_audience=AUTH0_AUDIENCE,
            auth0_groups_namespace=AUTH0_GROUPS,
        )
    )
    assert made.issuers[0].issuer == ISSUER
    example = golden.AUTH0["auth0 profile with permissions (access_token_authz)"]
    assert accept(made.issuers[0], example.claims) == example.identity
    for settings in (Settings(auth0_tenant=AUTH0_TENANT), Settings(auth0_audience=AUTH0_AUDIENCE)):
        with pytest.raises(ConfigurationError, match="AUTH0_TENANT and AUTH0_AUDIENCE"):
            auth0.from_settings(settings)
