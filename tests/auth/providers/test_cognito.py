"""Cognito's rules on Cognito's claim sets."""

from __future__ import annotations

from typing import Any

import pytest

from boilstream.auth import providers
from boilstream.auth.errors import InvalidToken
from boilstream.auth.identity import Identity
from boilstream.auth.providers import cognito
from boilstream.auth.providers.base import Provider, TrustedIssuer
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings
from tests.auth.providers.golden_more import (
    APP_CLIENT,
    COGNITO_ACCESS,
    COGNITO_ID,
    COGNITO_MACHINE,
    ID_APP_CLIENT,
    POOL,
    POOL_ISSUER,
    RESOURCE,
    UPDATED_POOL_ISSUER,
    UUID,
    accept,
    authenticate,
    refusal,
    without,
)
from tests.support.tokens import NOW


def pool_with(*app_clients: str, host: str | None = None) -> Provider:
    return cognito.provider(user_pool_id=POOL, region="us-west-2", app_clients=app_clients, host=host)


def trusted_with(*app_clients: str) -> TrustedIssuer:
    return pool_with(*app_clients).issuers[0]


def test_an_access_token_of_a_user() -> None:
    assert authenticate(pool_with(APP_CLIENT), COGNITO_ACCESS) == Identity(
        provider="cognito",
        subject=UUID,
        client=APP_CLIENT,
        groups=frozenset({"admin"}),
        scopes=frozenset({"aws.cognito.signin.user.admin"}),
        expires_at=NOW + 3600,
    )


def test_client_credentials_have_the_client_as_subject_and_scopes_in_full() -> None:
    identity = authenticate(pool_with(APP_CLIENT), COGNITO_MACHINE)
    assert identity.subject == identity.client == APP_CLIENT
    assert identity.scopes == {"https://api.company.com/write:data", "https://api.company.com/read:data"}
    assert identity.groups == frozenset()


def test_an_id_token_has_groups_and_no_scopes() -> None:
    identity = authenticate(pool_with(APP_CLIENT, ID_APP_CLIENT), {**COGNITO_ID, "scope": "write:data"})
    assert identity.client == ID_APP_CLIENT
    assert identity.groups == {"test-group-a", "test-group-b", "test-group-c"}
    assert identity.scopes == frozenset()
    assert identity.roles == frozenset()


@pytest.mark.parametrize("issuer", [POOL_ISSUER, UPDATED_POOL_ISSUER])
def test_a_pool_may_use_either_issuer(issuer: str) -> None:
    assert authenticate(pool_with(APP_CLIENT), {**COGNITO_ACCESS, "iss": issuer}).subject == UUID


def test_addresses() -> None:
    made = pool_with()
    assert [trusted.issuer for trusted in made.issuers] == [POOL_ISSUER, UPDATED_POOL_ISSUER]
    assert {trusted.keys_url for trusted in made.issuers} == {f"{POOL_ISSUER}/.well-known/jwks.json"}
    assert {trusted.algorithms for trusted in made.issuers} == {("RS256",)}
    assert made.logger_name == "boilstream.auth.cognito"


def test_a_host_of_its_own_is_the_only_one() -> None:
    (trusted,) = pool_with(host="localhost:9229").issuers
    assert trusted.issuer == f"https://localhost:9229/{POOL}"
    assert trusted.keys_url == f"https://localhost:9229/{POOL}/.well-known/jwks.json"


def test_another_pool_is_refused() -> None:
    with pytest.raises(InvalidToken) as caught:
        authenticate(pool_with(), {**COGNITO_ACCESS, "iss": POOL_ISSUER + "2"})
    assert caught.value.reason.startswith("Invalid issuer: ")
    assert "COGNITO_USER_POOL_ID" in str(caught.value.fix)


def test_all_app_clients_unless_listed() -> None:
    assert accept(trusted_with(), COGNITO_ACCESS).client == APP_CLIENT
    assert accept(trusted_with(), COGNITO_ID).client == ID_APP_CLIENT
    (warning,) = pool_with().warnings
    assert "COGNITO_AUDIENCE" in warning
    assert pool_with(APP_CLIENT).warnings == ()


def test_an_access_token_of_another_app_client() -> None:
    refused = refusal(trusted_with("other"), COGNITO_ACCESS)
    assert refused.reason == (
        f"Invalid audience: the token was issued to app client '{APP_CLIENT}', COGNITO_AUDIENCE is ['other']"
    )
    assert "COGNITO_AUDIENCE" in str(refused.fix)


def test_an_id_token_of_another_app_client() -> None:
    refused = refusal(trusted_with("other"), COGNITO_ID)
    assert refused.reason.startswith("Invalid audience: the ID token was issued to ['xxxxxxxxxxxxexample']")
    assert "COGNITO_AUDIENCE" in str(refused.fix)


def test_the_kinds_do_not_lend_each_other_their_audience() -> None:
    trusted = trusted_with(APP_CLIENT)
    mixed = {**COGNITO_ACCESS, "client_id": "other", "aud": APP_CLIENT}
    assert refusal(trusted, mixed).reason.startswith("Invalid audience: the token was issued to app client")
    assert refusal(trusted, {**COGNITO_ID, "client_id": APP_CLIENT}).reason.startswith("Invalid audience: ")


def test_a_token_bound_to_a_resource_is_for_that_resource() -> None:
    bound = {**COGNITO_ACCESS, "aud": RESOURCE}
    assert accept(trusted_with(APP_CLIENT, RESOURCE), bound).client == APP_CLIENT
    for trusted in (trusted_with(), trusted_with(APP_CLIENT)):
        refused = refusal(trusted, bound)
        assert refused.reason.startswith(f"Invalid audience: the token is bound to ['{RESOURCE}']")
        assert "list the resource" in str(refused.fix)
    assert refusal(trusted_with(RESOURCE), bound).reason.startswith("Invalid audience: the token was issued")


@pytest.mark.parametrize("use", [None, "", "refresh", "ID", "Access", 1, True, ["access"], {"access": 1}])
def test_other_uses_are_refused(use: Any) -> None:
    refused = refusal(trusted_with(), {**COGNITO_ACCESS, "token_use": use})
    assert refused.reason.startswith("Invalid token type: token_use is ")
    assert "access token" in str(refused.fix)


def test_a_use_is_required() -> None:
    assert refusal(trusted_with(), without(COGNITO_ACCESS, "token_use")).reason.startswith(
        "Invalid token type: token_use is None"
    )


@pytest.mark.parametrize("value", [None, [], "", 5, {}, ["a", "b"], [ID_APP_CLIENT], [1]])
def test_id_tokens_have_one_app_client(value: Any) -> None:
    assert refusal(trusted_with(), {**COGNITO_ID, "aud": value}).reason.startswith("Invalid ")


def test_app_clients_that_are_all_listed_are_still_too_many() -> None:
    several = {**COGNITO_ID, "aud": [ID_APP_CLIENT, APP_CLIENT]}
    refused = refusal(trusted_with(ID_APP_CLIENT, APP_CLIENT), several)
    assert refused.reason.startswith("Invalid audience: ")


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("sub", None),
        ("sub", ""),
        ("client_id", 1),
        ("client_id", "a\nb"),
        ("cognito:groups", "admin"),
        ("cognito:groups", [1]),
        ("scope", ["write:data"]),
        ("scope", None),
    ],
)
def test_claims_of_a_wrong_form_are_refused(claim: str, value: Any) -> None:
    refused = refusal(trusted_with(), {**COGNITO_ACCESS, claim: value})
    assert refused.reason.startswith(f"Invalid claim: {claim} is ")


@pytest.mark.parametrize("claim", ["sub", "client_id"])
def test_required_claims(claim: str) -> None:
    refused = refusal(trusted_with(), without(COGNITO_ACCESS, claim))
    assert refused.reason.startswith(f"Invalid claim: {claim} is None")


def test_hints_name_what_to_do() -> None:
    made = pool_with()
    assert "WRITE_SCOPES" in made.groups_hint
    assert "ID token" in str(made.opaque_hint)


def test_from_settings() -> None:
    settings = Settings(
        auth_providers=("cognito",), cognito_user_pool_id=POOL, cognito_audience=(APP_CLIENT,)
    )
    (made,) = providers.from_settings(settings)
    assert made.issuers[0].issuer == POOL_ISSUER
    assert made.warnings == ()
    settings = Settings(cognito_user_pool_id="pool", cognito_region="eu-west-1")
    assert cognito.from_settings(settings).issuers[0].issuer == (
        "https://cognito-idp.eu-west-1.amazonaws.com/pool"
    )
    settings = Settings(cognito_user_pool_id=POOL, cognito_host="cognito.internal:8443")
    assert cognito.from_settings(settings).issuers[0].issuer == f"https://cognito.internal:8443/{POOL}"


def test_settings_that_are_missing() -> None:
    with pytest.raises(ConfigurationError, match="COGNITO_USER_POOL_ID"):
        cognito.from_settings(Settings())
    with pytest.raises(ConfigurationError, match="COGNITO_REGION"):
        cognito.from_settings(Settings(cognito_user_pool_id="pool"))
