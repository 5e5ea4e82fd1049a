"""Okta's rules on Okta's claim sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from boilstream.auth import providers
from boilstream.auth.errors import InvalidToken
from boilstream.auth.identity import Identity
from boilstream.auth.providers import okta
from boilstream.auth.providers.base import Provider, TrustedIssuer
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings
from tests.auth.providers import golden as documented
from tests.auth.providers.golden import Golden
from tests.auth.providers.golden_more import accept, authenticate, without
from tests.auth.providers.golden_more import refusal as objection
from tests.support.tokens import AUDIENCE, CLIENT_ID, ISSUER, NOW, ORG_DOMAIN, ORG_ISSUER, ec_key, golden

GOLDEN = golden()


def okta_with(**options: Any) -> Provider:
    return okta.provider(org_domain=ORG_DOMAIN, audience=AUDIENCE, **options)


def issuer_of(provider: Provider, issuer: str = ISSUER) -> TrustedIssuer:
    return next(trusted for trusted in provider.issuers if trusted.issuer == issuer)


def refusal(trusted: TrustedIssuer, claims: Mapping[str, Any]) -> str:
    """Reason and fix in one line."""
    return objection(trusted, claims).explanation


def documented_okta(**options: Any) -> Provider:
    return okta.provider(org_domain=documented.OKTA_ORG, audience=documented.OKTA_AUDIENCE, **options)


def test_addresses_of_both_servers() -> None:
    made = okta_with(auth_server_id="aus1", client_id=CLIENT_ID, allow_org_server=True)
    assert [(trusted.issuer, trusted.keys_url) for trusted in made.issuers] == [
        (f"{ORG_ISSUER}/oauth2/aus1", f"{ORG_ISSUER}/oauth2/aus1/v1/keys"),
        (ORG_ISSUER, f"{ORG_ISSUER}/oauth2/v1/keys"),
    ]
    assert {trusted.algorithms for trusted in made.issuers} == {("RS256", "ES256")}
    assert made.display_name == "Okta"
    assert made.logger_name == "boilstream.auth.okta"


def test_a_domain_in_capitals_or_with_a_port() -> None:
    made = okta.from_settings(Settings(okta_org_domain="Company.OKTA.com:8443", okta_audience=AUDIENCE))
    assert made.issuers[0].issuer == "https://company.okta.com:8443/oauth2/default"


@pytest.mark.parametrize("example", documented.OKTA.values(), ids=documented.OKTA)
def test_golden_tokens(example: Golden) -> None:
    assert example.identity is not None
    assert accept(issuer_of(documented_okta()), example.claims) == example.identity
    identity = authenticate(documented_okta(), example.claims, header=example.header)
    assert identity == replace(example.identity, expires_at=NOW + 3600)


def test_golden_id_tokens() -> None:
    made = documented_okta(client_id=documented.OKTA_CLIENT_ID, allow_org_server=True)
    for example in (documented.OKTA_ID_TOKEN, documented.OKTA_ORG_ID_TOKEN):
        assert example.identity is not None
        identity = authenticate(made, example.claims, header=example.header)
        assert identity == replace(example.identity, expires_at=NOW + 3600)


@pytest.mark.parametrize("allowed", [True, False])
def test_golden_access_tokens_of_the_org_server_are_refused(allowed: bool) -> None:
    made = documented_okta(client_id=documented.OKTA_CLIENT_ID, allow_org_server=allowed)
    with pytest.raises(InvalidToken) as caught:
        authenticate(made, documented.OKTA_ORG_ACCESS_TOKEN.claims)
    assert caught.value.reason.startswith("Invalid audience: " if allowed else "Invalid issuer: ")
    assert "custom authorization server" in caught.value.explanation
    assert made.issuers[0].issuer in caught.value.explanation


def test_a_compatible_server_may_sign_with_es256() -> None:
    identity = authenticate(
        documented_okta(), documented.OKTA["access token"].claims, key=ec_key(), alg="ES256"
    )
    assert identity.subject == "00ujmkLgagxeRrAg20g3"


def test_the_subject_of_an_access_token_is_the_id_of_the_user() -> None:
    trusted = issuer_of(okta_with(client_id=CLIENT_ID))
    login = {**GOLDEN.user, "sub": "ada@company.com"}
    assert accept(trusted, login).subject == "00u123456789abcdef"
    assert accept(trusted, without(login, "uid")).subject == "ada@company.com"
    assert accept(trusted, {**GOLDEN.id_token, "uid": "ada"}).subject == GOLDEN.id_token["sub"]


def test_an_access_token_of_a_user() -> None:
    assert accept(issuer_of(okta_with()), GOLDEN.user) == Identity(
        provider="okta",
        subject="00u123456789abcdef",
        client=CLIENT_ID,
        groups=frozenset({"DataEngineers", "PlatformUsers"}),
        scopes=frozenset({"openid", "read:data", "write:data"}),
    )


def test_a_token_of_client_credentials_has_scopes_only() -> None:
    assert accept(issuer_of(okta_with()), GOLDEN.client_credentials) == Identity(
        provider="okta", subject=CLIENT_ID, client=CLIENT_ID, scopes=frozenset({"read:data", "write:data"})
    )


def test_the_claim_set_of_the_guide() -> None:
    claims = {
        "sub": "00u123456789abcdef",
        "iss": ISSUER,
        "aud": AUDIENCE,
        "scp": ["read:data", "write:data"],
        "groups": ["DataEngineers", "PlatformUsers"],
    }
    assert accept(issuer_of(okta_with()), claims).groups == {"DataEngineers", "PlatformUsers"}


def test_the_audience_may_be_one_of_several() -> None:
    trusted = issuer_of(okta_with())
    assert accept(trusted, {**GOLDEN.user, "aud": ["api://other", AUDIENCE]}).subject
    assert refusal(trusted, {**GOLDEN.user, "aud": "api://other"}) == (
        "Invalid audience: token has ['api://other'], OKTA_AUDIENCE is 'api://boilstream'; "
        "set OKTA_AUDIENCE to the audience of the authorization server default, or OKTA_AUTH_SERVER_ID to the "
        "server that issues for it"
    )


@pytest.mark.parametrize(
    "audience", [None, [], "", AUDIENCE + "/", AUDIENCE.upper(), f" {AUDIENCE}", [[AUDIENCE]]]
)
def test_other_audiences_are_refused(audience: Any) -> None:
    assert refusal(issuer_of(okta_with()), {**GOLDEN.user, "aud": audience}).startswith("Invalid audience")


def test_no_audience_is_refused() -> None:
    claims = without(GOLDEN.user, "aud")
    assert refusal(issuer_of(okta_with()), claims).startswith("Invalid audience: token has []")


def test_id_tokens_need_the_client_id() -> None:
    identity = accept(issuer_of(okta_with(client_id=CLIENT_ID)), GOLDEN.id_token)
    assert identity.groups == {"DataAnalysts"}
    assert identity.client is None
    assert identity.scopes == frozenset()
    error = objection(issuer_of(okta_with()), GOLDEN.id_token)
    assert error.reason == f"Invalid token type: an ID token for ['{CLIENT_ID}'], OKTA_CLIENT_ID is not set"
    assert error.fix == "send the access token, or set OKTA_CLIENT_ID to accept ID tokens of that client"


def test_id_tokens_of_another_client_are_refused() -> None:
    trusted = issuer_of(okta_with(client_id=CLIENT_ID))
    assert CLIENT_ID in refusal(trusted, {**GOLDEN.id_token, "aud": "0oaOTHER"})
    assert refusal(trusted, {**GOLDEN.id_token, "aud": [CLIENT_ID, "0oaOTHER"]}).startswith(
        "Invalid token type: an ID token"
    )


@pytest.mark.parametrize("mark", [{"nonce": "n"}, {"at_hash": "h"}, {"c_hash": "h"}, {"jti": "ID.1"}])
def test_an_id_token_is_no_access_token_whatever_its_audience(mark: dict[str, str]) -> None:
    claims = {**GOLDEN.user, **mark}
    assert "an ID token" in refusal(issuer_of(okta_with()), claims)
    assert "an ID token" in refusal(issuer_of(okta_with(client_id=CLIENT_ID)), claims)


def test_the_org_server_gives_id_tokens_only() -> None:
    trusted = issuer_of(okta_with(client_id=CLIENT_ID, allow_org_server=True), ORG_ISSUER)
    assert accept(trusted, GOLDEN.org_id_token).groups == {"DataAnalysts"}
    error = objection(trusted, GOLDEN.org_access_token)
    assert error.reason.startswith("Invalid audience: an access token of the org authorization server")
    assert error.fix is not None
    assert f"use a custom authorization server such as {ISSUER} (OKTA_AUTH_SERVER_ID)" in error.fix
    assert "OKTA_CLIENT_ID" in refusal(trusted, {**GOLDEN.org_id_token, "aud": AUDIENCE})
    assert refusal(trusted, {**GOLDEN.org_id_token, "aud": AUDIENCE}).startswith("Invalid audience")
    for audience in ([], [CLIENT_ID, "0oaOTHER"]):
        assert refusal(trusted, {**GOLDEN.org_id_token, "aud": audience}).startswith("Invalid audience")


def test_the_org_server_is_not_trusted_unless_allowed() -> None:
    made = okta_with(client_id=CLIENT_ID)
    assert [trusted.issuer for trusted in made.issuers] == [ISSUER]
    reason = made.refused_issuers[ORG_ISSUER]
    assert "OKTA_ALLOW_ORG_SERVER=true" in reason
    assert ISSUER in reason
    assert okta_with(client_id=CLIENT_ID, allow_org_server=True).refused_issuers == {}


def test_the_org_server_needs_the_client_id() -> None:
    with pytest.raises(ConfigurationError, match="OKTA_CLIENT_ID"):
        okta_with(allow_org_server=True)


@pytest.mark.parametrize("claim", ["groups", "scp"])
@pytest.mark.parametrize("value", [None, "DataEngineers", 1, True, {}, [1], ["a", None], [["a"]]])
def test_lists_of_a_wrong_type_are_refused(claim: str, value: Any) -> None:
    assert refusal(issuer_of(okta_with()), {**GOLDEN.user, claim: value}).startswith(
        f"Invalid claim: {claim} is"
    )


@pytest.mark.parametrize("claim", ["sub", "cid", "uid"])
@pytest.mark.parametrize("value", [None, "", 1, True, [], {}, "a\nb", "\x1b[2J", "x" * 256, "\u202eevil"])
def test_names_of_a_wrong_form_are_refused(claim: str, value: Any) -> None:
    assert refusal(issuer_of(okta_with()), {**GOLDEN.user, claim: value}).startswith(
        f"Invalid claim: {claim} is"
    )


def test_a_subject_is_required() -> None:
    claims = without(GOLDEN.user, "sub")
    assert refusal(issuer_of(okta_with()), claims).startswith("Invalid claim: sub")


def test_what_to_do_about_missing_groups() -> None:
    hint = okta_with(auth_server_id="aus1").groups_hint
    assert f"{ORG_ISSUER}/oauth2/aus1" in hint
    assert "client credentials" in hint


def test_from_settings() -> None:
    settings = Settings(
        auth_providers=("okta",),
        okta_org_domain=ORG_DOMAIN,
        okta_audience=AUDIENCE,
        okta_auth_server_id="aus1",
        okta_client_id=CLIENT_ID,
        okta_allow_org_server=True,
    )
    (made,) = providers.from_settings(settings)
    assert [trusted.issuer for trusted in made.issuers] == [f"{ORG_ISSUER}/oauth2/aus1", ORG_ISSUER]
    with pytest.raises(ConfigurationError, match="OKTA_ORG_DOMAIN"):
        okta.from_settings(Settings())


def test_an_id_token_without_marks_is_no_access_token_either() -> None:
    """A provider with Okta's layout may issue ID tokens with the audience that the client is registered as."""
    claims = {"sub": "00u1", "aud": AUDIENCE, "iss": ISSUER, "iat": NOW, "exp": NOW + 60}
    assert "neither" in refusal(issuer_of(okta_with()), claims)
    assert accept(issuer_of(okta_with()), {**claims, "cid": CLIENT_ID}).client == CLIENT_ID
    assert accept(issuer_of(okta_with()), {**claims, "scp": ["read:data"]}).scopes == {"read:data"}
