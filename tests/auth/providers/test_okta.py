"""Okta's rules on Okta's claim sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from boilstream.auth import providers
from boilstream.auth.errors import InvalidToken
from boilstream.auth.identity import Identity
from boilstream.auth.providers import okta
from boilstream.auth.providers.base import Provider, TrustedIssuer
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings
from tests.support.tokens import AUDIENCE, CLIENT_ID, ISSUER, ORG_DOMAIN, ORG_ISSUER, golden

GOLDEN = golden()


def okta_with(**options: Any) -> Provider:
    return okta.provider(org_domain=ORG_DOMAIN, audience=AUDIENCE, **options)


def issuer_of(provider: Provider, issuer: str = ISSUER) -> TrustedIssuer:
    return next(trusted for trusted in provider.issuers if trusted.issuer == issuer)


def accept(trusted: TrustedIssuer, claims: Mapping[str, Any]) -> Identity:
    trusted.check_audience(claims)
    return trusted.to_identity(claims)


def refusal(trusted: TrustedIssuer, claims: Mapping[str, Any]) -> str:
    with pytest.raises(InvalidToken) as caught:
        accept(trusted, claims)
    return caught.value.reason


def test_addresses_of_both_servers() -> None:
    made = okta_with(auth_server_id="aus1", client_id=CLIENT_ID, allow_org_server=True)
    assert [(trusted.issuer, trusted.keys_url) for trusted in made.issuers] == [
        (f"{ORG_ISSUER}/oauth2/aus1", f"{ORG_ISSUER}/oauth2/aus1/v1/keys"),
        (ORG_ISSUER, f"{ORG_ISSUER}/oauth2/v1/keys"),
    ]
    assert {trusted.algorithms for trusted in made.issuers} == {("RS256",)}
    assert made.display_name == "Okta"
    assert made.logger_name == "boilstream.auth.okta"


def test_a_domain_in_capitals_or_with_a_port() -> None:
    made = okta.provider(org_domain="Company.OKTA.com:8443", audience=AUDIENCE)
    assert made.issuers[0].issuer == "https://company.okta.com:8443/oauth2/default"


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
        "Invalid audience: token has ['api://other'], OKTA_AUDIENCE is 'api://boilstream'"
    )


@pytest.mark.parametrize(
    "audience", [None, [], "", AUDIENCE + "/", AUDIENCE.upper(), f" {AUDIENCE}", [[AUDIENCE]]]
)
def test_other_audiences_are_refused(audience: Any) -> None:
    assert refusal(issuer_of(okta_with()), {**GOLDEN.user, "aud": audience}).startswith("Invalid audience")


def test_no_audience_is_refused() -> None:
    claims = {name: value for name, value in GOLDEN.user.items() if name != "aud"}
    assert refusal(issuer_of(okta_with()), claims).startswith("Invalid audience: token has []")


def test_id_tokens_need_the_client_id() -> None:
    identity = accept(issuer_of(okta_with(client_id=CLIENT_ID)), GOLDEN.id_token)
    assert identity.groups == {"DataAnalysts"}
    assert identity.client is None
    assert identity.scopes == frozenset()
    reason = refusal(issuer_of(okta_with()), GOLDEN.id_token)
    assert "OKTA_CLIENT_ID is not set" in reason
    assert "access token" in reason


def test_id_tokens_of_another_client_are_refused() -> None:
    trusted = issuer_of(okta_with(client_id=CLIENT_ID))
    assert CLIENT_ID in refusal(trusted, {**GOLDEN.id_token, "aud": "0oaOTHER"})
    assert refusal(trusted, {**GOLDEN.id_token, "aud": [CLIENT_ID, "0oaOTHER"]}).startswith(
        "Invalid audience"
    )


@pytest.mark.parametrize("mark", [{"nonce": "n"}, {"at_hash": "h"}, {"c_hash": "h"}, {"jti": "ID.1"}])
def test_an_id_token_is_no_access_token_whatever_its_audience(mark: dict[str, str]) -> None:
    claims = {**GOLDEN.user, **mark}
    assert "an ID token" in refusal(issuer_of(okta_with()), claims)
    assert "an ID token" in refusal(issuer_of(okta_with(client_id=CLIENT_ID)), claims)


def test_the_org_server_gives_id_tokens_only() -> None:
    trusted = issuer_of(okta_with(client_id=CLIENT_ID, allow_org_server=True), ORG_ISSUER)
    assert accept(trusted, GOLDEN.org_id_token).groups == {"DataAnalysts"}
    reason = refusal(trusted, GOLDEN.org_access_token)
    assert "custom authorization server" in reason
    assert ISSUER in reason
    assert refusal(trusted, {**GOLDEN.org_id_token, "aud": AUDIENCE}).startswith("Invalid audience")
    assert refusal(trusted, {**GOLDEN.org_id_token, "aud": []}).startswith("Invalid audience")


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


@pytest.mark.parametrize("claim", ["sub", "cid"])
@pytest.mark.parametrize("value", [None, "", 1, True, [], {}, "a\nb", "\x1b[2J", "x" * 256, "\u202eevil"])
def test_names_of_a_wrong_form_are_refused(claim: str, value: Any) -> None:
    assert refusal(issuer_of(okta_with()), {**GOLDEN.user, claim: value}).startswith(
        f"Invalid claim: {claim} is"
    )


def test_a_subject_is_required() -> None:
    claims = {name: value for name, value in GOLDEN.user.items() if name != "sub"}
    assert refusal(issuer_of(okta_with()), claims).startswith("Invalid claim: sub")


def test_missing_groups_are_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "boilstream.auth.okta"):
        accept(issuer_of(okta_with()), GOLDEN.user)
        assert caplog.messages == []
        accept(issuer_of(okta_with()), GOLDEN.client_credentials)
    assert caplog.messages[0].startswith("Groups not extracted")


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
