"""The rules for any issuer of OpenID Connect, on claim sets of the standards and of Keycloak."""

from __future__ import annotations

from typing import Any

import pytest

from boilstream.auth import providers
from boilstream.auth.errors import InvalidToken
from boilstream.auth.identity import Identity
from boilstream.auth.providers import oidc
from boilstream.auth.providers.base import Provider, TrustedIssuer
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings
from tests.auth.providers.golden_more import (
    API,
    KEYCLOAK,
    KEYCLOAK_ISSUER,
    OPENID_ID,
    OPENID_ISSUER,
    RFC_9068,
    RFC_9068_ISSUER,
    Claims,
    accept,
    authenticate,
    refusal,
    without,
)
from tests.support.tokens import NOW, ec_key, ed_key


def rfc_9068_with(**options: Any) -> Provider:
    return oidc.provider(issuer=RFC_9068_ISSUER, audience=API, **options)


def keycloak_with(**options: Any) -> TrustedIssuer:
    return oidc.provider(issuer=KEYCLOAK_ISSUER, audience="boilstream", **options).issuers[0]


def openid_with(**options: Any) -> Provider:
    return oidc.provider(issuer=OPENID_ISSUER, audience="s6BhdRkqt3", **options)


def test_an_access_token_as_the_standard_has_it() -> None:
    assert authenticate(rfc_9068_with(), RFC_9068, header={"typ": "at+JWT"}) == Identity(
        provider="oidc",
        subject="5ba552d67",
        client="s6BhdRkqt3",
        scopes=frozenset({"openid", "profile", "reademail"}),
        expires_at=NOW + 3600,
    )


def test_an_access_token_of_keycloak() -> None:
    made = oidc.provider(issuer=KEYCLOAK_ISSUER, audience="boilstream", groups_claim="realm_access.roles")
    assert authenticate(made, KEYCLOAK, header={"typ": "JWT"}) == Identity(
        provider="oidc",
        subject="36fa0f91-f94d-4a0c-afed-6b7d952e47da",
        client="etl-frontend",
        groups=frozenset({"offline_access", "DataEngineers"}),
        scopes=frozenset({"email", "profile", "write:data"}),
        expires_at=NOW + 3600,
    )


def test_addresses() -> None:
    (trusted,) = rfc_9068_with().issuers
    assert trusted.issuer == RFC_9068_ISSUER
    assert trusted.keys_url == ("https://authorization-server.example.com/.well-known/openid-configuration")
    assert trusted.discover
    assert keycloak_with().keys_url == f"{KEYCLOAK_ISSUER}/.well-known/openid-configuration"


def test_the_slash_of_the_issuer_counts() -> None:
    with pytest.raises(InvalidToken) as caught:
        authenticate(rfc_9068_with(), {**RFC_9068, "iss": RFC_9068_ISSUER.removesuffix("/")})
    assert caught.value.reason.startswith("Invalid issuer: ")
    assert "slash" in str(caught.value.fix)


def test_the_algorithms_of_the_settings() -> None:
    signer = ec_key()
    assert authenticate(rfc_9068_with(), RFC_9068, key=signer, alg="ES256").subject
    with pytest.raises(InvalidToken, match="invalid token") as caught:
        authenticate(rfc_9068_with(algorithms=("EdDSA",)), RFC_9068, key=signer, alg="ES256")
    assert caught.value.reason.startswith("Algorithm refused: ")
    assert authenticate(rfc_9068_with(algorithms=("EdDSA",)), RFC_9068, key=ed_key(), alg="EdDSA").subject


@pytest.mark.parametrize("name", ["HS256", "none", "rs256", "ES256K", ""])
def test_an_algorithm_that_is_not_known(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"OIDC_ALGORITHMS: '{name}' is not among .*RS256.*EdDSA"):
        rfc_9068_with(algorithms=("RS256", name))


def test_at_least_one_algorithm() -> None:
    with pytest.raises(ConfigurationError, match=r"OIDC_ALGORITHMS: list at least one of .*RS256"):
        rfc_9068_with(algorithms=())


@pytest.mark.parametrize(
    "audience", [None, [], "", "boilstream2", ["account"], "BOILSTREAM", [["boilstream"]]]
)
def test_other_audiences_are_refused(audience: Any) -> None:
    refused = refusal(keycloak_with(), {**KEYCLOAK, "aud": audience})
    assert refused.reason.startswith("Invalid audience: ")


def test_no_audience_is_refused() -> None:
    # Keycloak leaves the claim out unless a mapper or a role puts an audience there.
    refused = refusal(keycloak_with(), without(KEYCLOAK, "aud"))
    assert refused.reason == "Invalid audience: token has [], OIDC_AUDIENCE is 'boilstream'"
    assert "audience mapper" in str(refused.fix)


@pytest.mark.parametrize(
    "mark", [{"nonce": "n"}, {"at_hash": "h"}, {"c_hash": "h"}, {"typ": "ID"}, {"nonce": None}]
)
def test_an_id_token_is_no_access_token(mark: dict[str, Any]) -> None:
    (trusted,) = rfc_9068_with().issuers
    refused = refusal(trusted, {**RFC_9068, **mark})
    assert refused.reason == f"Invalid token type: an ID token, which the claim {next(iter(mark))} tells"
    assert "OIDC_ALLOW_ID_TOKENS" in str(refused.fix)


def test_id_tokens_by_choice() -> None:
    with pytest.raises(InvalidToken):
        authenticate(openid_with(), OPENID_ID)
    identity = authenticate(openid_with(allow_id_tokens=True), OPENID_ID)
    assert (identity.subject, identity.client) == ("24400320", None)


def test_an_id_token_is_for_one_audience() -> None:
    (trusted,) = openid_with(allow_id_tokens=True).issuers
    several = {**OPENID_ID, "aud": ["s6BhdRkqt3", "other"]}
    assert refusal(trusted, several).reason.startswith("Invalid audience: ")
    assert accept(trusted, without(several, "nonce")).subject == "24400320"


def test_a_nonce_in_keycloaks_access_tokens() -> None:
    trusted = keycloak_with()
    assert accept(trusted, {**KEYCLOAK, "nonce": "n"}).client == "etl-frontend"
    for mark in ("at_hash", "c_hash"):
        assert refusal(trusted, {**KEYCLOAK, mark: "h"}).reason.startswith("Invalid token type: ")


@pytest.mark.parametrize("proof", [{"client_id": "etl"}, {"scope": ""}, {"scp": []}, {"typ": "Bearer"}])
def test_a_token_must_show_that_it_is_an_access_token(proof: dict[str, Any]) -> None:
    plain = {"iss": OPENID_ISSUER, "sub": "248289761001", "aud": OPENID_ID["aud"], "azp": "etl"}
    refused = refusal(openid_with(allow_id_tokens=False).issuers[0], plain)
    assert refused.reason.startswith("Invalid token type: it may be an ID token")
    assert "OIDC_ALLOW_ID_TOKENS" in (refused.fix or "")
    for allow in (False, True):
        assert (
            accept(openid_with(allow_id_tokens=allow).issuers[0], {**plain, **proof}).subject == plain["sub"]
        )
    assert accept(openid_with(allow_id_tokens=True).issuers[0], plain).subject == plain["sub"]


@pytest.mark.parametrize("allow", [False, True])
def test_logout_tokens_are_refused(allow: bool) -> None:
    # https://openid.net/specs/openid-connect-backchannel-1_0.html#LogoutToken
    events: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}
    claims = {**without(OPENID_ID, "nonce"), "events": events}
    refused = refusal(openid_with(allow_id_tokens=allow).issuers[0], claims)
    assert refused.reason.startswith("Invalid token type: a security event token")
    assert refused.fix


@pytest.mark.parametrize(
    ("path", "groups"),
    [
        ("groups", {"/platform", "/etl"}),
        ("realm_access.roles", {"offline_access", "DataEngineers"}),
        ("resource_access.boilstream.roles", {"writer"}),
        ("https://company.com/groups", {"namespaced"}),
        ("realm_access.groups", set()),
        ("absent.roles", set()),
        ("sub.roles", set()),
        ("realm_access.roles.0", set()),
        ("", set()),
    ],
)
def test_where_groups_are(path: str, groups: set[str]) -> None:
    claims = {**KEYCLOAK, "groups": ["/platform", "/etl"], "https://company.com/groups": ["namespaced"]}
    assert accept(keycloak_with(groups_claim=path), claims).groups == groups


def test_a_claim_of_the_whole_name_comes_before_a_path() -> None:
    claims = {**KEYCLOAK, "realm_access.roles": ["Viewers"]}
    assert accept(keycloak_with(groups_claim="realm_access.roles"), claims).groups == {"Viewers"}


@pytest.mark.parametrize("value", [None, "DataEngineers", 1, {}, [1], ["a", None], {"roles": ["a"]}])
def test_groups_of_a_wrong_form_are_refused(value: Any) -> None:
    refused = refusal(keycloak_with(), {**KEYCLOAK, "groups": value})
    assert refused.reason.startswith("Invalid claim: groups is ")
    nested = {**KEYCLOAK, "realm_access": {"roles": value}}
    refused = refusal(keycloak_with(groups_claim="realm_access.roles"), nested)
    assert refused.reason.startswith("Invalid claim: realm_access.roles is ")


@pytest.mark.parametrize("value", ["read:data write:data", ["read:data", "write:data"]])
def test_scopes_are_words_or_an_array(value: Any) -> None:
    claims = {**KEYCLOAK, "scp": value}
    assert accept(keycloak_with(scopes_claim="scp"), claims).scopes == {"read:data", "write:data"}


@pytest.mark.parametrize("value", [None, 1, {}, [1], [["a"]]])
def test_scopes_of_a_wrong_form_are_refused(value: Any) -> None:
    refused = refusal(keycloak_with(), {**KEYCLOAK, "scope": value})
    assert refused.reason.startswith("Invalid claim: scope is ")


@pytest.mark.parametrize(
    ("claims", "client"),
    [
        ({"client_id": "a", "azp": "b", "cid": "c"}, "a"),
        ({"azp": "b", "cid": "c"}, "b"),
        ({"cid": "c"}, "c"),
        ({}, None),
    ],
)
def test_the_client_has_several_names(claims: Claims, client: str | None) -> None:
    assert accept(keycloak_with(), {**without(KEYCLOAK, "azp"), **claims}).client == client


@pytest.mark.parametrize("claim", ["sub", "client_id", "azp"])
@pytest.mark.parametrize("value", [None, "", 1, [], {}, "a\nb", "x" * 256])
def test_names_of_a_wrong_form_are_refused(claim: str, value: Any) -> None:
    refused = refusal(keycloak_with(), {**KEYCLOAK, claim: value})
    assert refused.reason.startswith(f"Invalid claim: {claim} is ")


def test_hints_name_the_settings() -> None:
    made = rfc_9068_with(groups_claim="roles")
    assert "OIDC_GROUPS_CLAIM (now 'roles'" in made.groups_hint
    assert API in str(made.opaque_hint)
    assert made.warnings == ()


def test_from_settings() -> None:
    settings = Settings(
        auth_providers=("oidc",),
        oidc_issuer=KEYCLOAK_ISSUER,
        oidc_audience="boilstream",
        oidc_groups_claim="resource_access.boilstream.roles",
        oidc_scopes_claim="scp",
        oidc_algorithms=("ES256",),
        oidc_allow_id_tokens=True,
    )
    (made,) = providers.from_settings(settings)
    (trusted,) = made.issuers
    assert trusted.issuer == KEYCLOAK_ISSUER
    assert trusted.algorithms == ("ES256",)
    identity = accept(trusted, {**KEYCLOAK, "aud": "boilstream", "typ": "ID", "scp": "read:data"})
    assert identity.groups == {"writer"}
    assert identity.scopes == {"read:data"}
    for name in ("oidc_issuer", "oidc_audience"):
        with pytest.raises(ConfigurationError, match=name.upper()):
            oidc.from_settings(settings.model_copy(update={name: None}))
