"""Google's rules on Google's claim sets."""

from __future__ import annotations

from typing import Any

import pytest

from boilstream.auth import providers
from boilstream.auth.errors import InvalidToken
from boilstream.auth.identity import Identity
from boilstream.auth.providers import gcp
from boilstream.auth.providers.base import Provider, TrustedIssuer
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings
from tests.auth.providers.golden_more import (
    GOOGLE_CLIENT,
    GOOGLE_ISSUER,
    GOOGLE_SERVICE_ACCOUNT,
    GOOGLE_USER,
    PROJECT,
    SERVICE_ACCOUNT,
    accept,
    authenticate,
    refusal,
    without,
)
from tests.support.tokens import NOW


def google_with(**options: Any) -> Provider:
    return gcp.provider(client_id=GOOGLE_CLIENT, **options)


def trusted_with(**options: Any) -> TrustedIssuer:
    return google_with(**options).issuers[0]


@pytest.mark.parametrize("issuer", [GOOGLE_ISSUER, "accounts.google.com"])
def test_an_id_token_of_a_user(issuer: str) -> None:
    made = google_with(workspace_domains=("example.com",), require_workspace_domain=True)
    assert authenticate(made, {**GOOGLE_USER, "iss": issuer}) == Identity(
        provider="gcp", subject="10769150350006150715113082367", client=GOOGLE_CLIENT, expires_at=NOW + 3600
    )


def test_a_service_account_of_the_project() -> None:
    made = google_with(project_id=PROJECT, workspace_domains=("example.com",), require_workspace_domain=True)
    assert authenticate(made, GOOGLE_SERVICE_ACCOUNT) == Identity(
        provider="gcp", subject=SERVICE_ACCOUNT, client=SERVICE_ACCOUNT, expires_at=NOW + 3600
    )


def test_a_token_of_a_compute_engine_instance() -> None:
    google = {"compute_engine": {"project_id": PROJECT, "instance_id": "152986662232938449"}}
    claims = {**GOOGLE_SERVICE_ACCOUNT, "google": google}
    assert accept(trusted_with(project_id=PROJECT), claims).subject == SERVICE_ACCOUNT
    foreign = {**claims, "email": "1-compute@developer.gserviceaccount.com"}
    assert "default account" in str(refusal(trusted_with(project_id=PROJECT), foreign).fix)


def test_addresses() -> None:
    made = google_with()
    assert [trusted.issuer for trusted in made.issuers] == [GOOGLE_ISSUER, "accounts.google.com"]
    assert {trusted.keys_url for trusted in made.issuers} == {"https://www.googleapis.com/oauth2/v3/certs"}
    assert {trusted.algorithms for trusted in made.issuers} == {("RS256",)}
    other = google_with(accounts_host="localhost:1", keys_host="localhost:2")
    assert [trusted.issuer for trusted in other.issuers] == ["https://localhost:1", "localhost:1"]
    assert other.issuers[0].keys_url == "https://localhost:2/oauth2/v3/certs"


@pytest.mark.parametrize("issuer", ["http://accounts.google.com", GOOGLE_ISSUER + "/", "google.com"])
def test_other_issuers_are_refused(issuer: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        authenticate(google_with(), {**GOOGLE_USER, "iss": issuer})
    assert caught.value.reason.startswith("Invalid issuer: ")
    assert "GCP_ACCOUNTS_HOST" in str(caught.value.fix)


@pytest.mark.parametrize(
    "audience",
    [None, "", [], "32555940559.apps.googleusercontent.com", [GOOGLE_CLIENT, "other"], GOOGLE_CLIENT + "/"],
)
def test_the_audience_is_the_client_and_nothing_else(audience: Any) -> None:
    refused = refusal(trusted_with(), {**GOOGLE_USER, "aud": audience})
    assert refused.reason.startswith("Invalid audience: ")


def test_a_wrong_audience_says_how_to_ask() -> None:
    refused = refusal(trusted_with(), {**GOOGLE_USER, "aud": "https://svc.run.app"})
    assert "GCP_CLIENT_ID" in refused.reason
    assert "--audiences" in str(refused.fix)


@pytest.mark.parametrize("verified", [False, None, "true", "false", 1, [True]])
def test_an_address_that_is_not_verified(verified: Any) -> None:
    for options, claims in (({}, GOOGLE_USER), ({"project_id": PROJECT}, GOOGLE_SERVICE_ACCOUNT)):
        refused = refusal(trusted_with(**options), {**claims, "email_verified": verified})
        assert refused.reason.startswith("Invalid claim: email_verified is ")
        assert refused.fix
        assert "@" not in refused.explanation


def test_an_address_without_a_word_on_its_verification() -> None:
    refused = refusal(trusted_with(), without(GOOGLE_USER, "email_verified"))
    assert refused.reason.startswith("Invalid claim: email_verified is None")


def test_a_user_need_not_show_an_address() -> None:
    assert accept(trusted_with(), without(GOOGLE_USER, "email", "email_verified")).client == GOOGLE_CLIENT


def test_the_presenter_may_be_absent_or_another_client() -> None:
    assert accept(trusted_with(), without(GOOGLE_USER, "azp")).client is None
    android = "5678-android.apps.googleusercontent.com"
    assert accept(trusted_with(), {**GOOGLE_USER, "azp": android}).client == android


@pytest.mark.parametrize("domain", ["evil.com", "sub.example.com", "example.com.evil.com", "EXAMPLE.COM", ""])
def test_another_workspace_domain(domain: str) -> None:
    trusted = trusted_with(workspace_domains=("Example.com", "example.org"))
    assert accept(trusted, GOOGLE_USER).subject
    refused = refusal(trusted, {**GOOGLE_USER, "hd": domain})
    assert refused.reason.startswith("Invalid claim: hd is ")


def test_a_private_account() -> None:
    private = {**without(GOOGLE_USER, "hd"), "email": "someone@gmail.com"}
    assert accept(trusted_with(), private).subject
    refused = refusal(trusted_with(workspace_domains=("example.com",)), private)
    assert refused.reason == "Invalid claim: hd is None, GCP_WORKSPACE_DOMAINS is ['example.com']"
    assert "GCP_WORKSPACE_DOMAINS" in str(refused.fix)
    refused = refusal(trusted_with(require_workspace_domain=True), private)
    assert refused.reason.startswith("Invalid claim: hd is missing")
    assert "GCP_REQUIRE_WORKSPACE_DOMAIN" in str(refused.fix)


def test_an_address_in_the_domain_does_not_replace_it() -> None:
    # Anybody may make a Google account with an address at a company that uses no Workspace.
    claims = without(GOOGLE_USER, "hd")
    assert refusal(trusted_with(workspace_domains=("example.com",)), claims).reason.startswith(
        "Invalid claim: hd is None"
    )


def test_service_accounts_need_the_project() -> None:
    refused = refusal(trusted_with(), GOOGLE_SERVICE_ACCOUNT)
    assert refused.reason == (
        "Invalid token type: an ID token of a service account, GCP_PROJECT_ID is not set"
    )
    assert "GCP_PROJECT_ID" in str(refused.fix)


@pytest.mark.parametrize(
    "email",
    [
        "ingest@evil.iam.gserviceaccount.com",
        "ingest@company-data.evil.iam.gserviceaccount.com",
        "company-data.iam.gserviceaccount.com@evil.iam.gserviceaccount.com",
        "ingest@evil-company-data.iam.gserviceaccount.com",
        "company-data@appspot.gserviceaccount.com",
        "company-data.iam.gserviceaccount.com",
        "ada@example.com",
    ],
)
def test_service_accounts_of_others(email: str) -> None:
    trusted = trusted_with(project_id=PROJECT)
    refused = refusal(trusted, {**GOOGLE_SERVICE_ACCOUNT, "email": email})
    assert refused.reason.startswith("Invalid claim: email is ")
    assert "GCP_PROJECT_ID" in str(refused.fix)


def test_a_service_account_must_show_its_address() -> None:
    hidden = without(GOOGLE_SERVICE_ACCOUNT, "email", "email_verified")
    refused = refusal(trusted_with(project_id=PROJECT), hidden)
    assert refused.reason.startswith("Invalid claim: email is missing")
    assert "--include-email" in str(refused.fix)


@pytest.mark.parametrize(
    "claims",
    [
        {**GOOGLE_SERVICE_ACCOUNT, "azp": GOOGLE_CLIENT},
        {**GOOGLE_SERVICE_ACCOUNT, "hd": "example.com"},
        {**GOOGLE_SERVICE_ACCOUNT, "azp": GOOGLE_SERVICE_ACCOUNT["email"]},
        {**GOOGLE_USER, "email": "X@EVIL.IAM.GSERVICEACCOUNT.COM"},
        {**GOOGLE_USER, "azp": SERVICE_ACCOUNT},
        without(GOOGLE_USER, "azp", "email", "email_verified"),
        without(GOOGLE_SERVICE_ACCOUNT, "azp"),
    ],
)
def test_one_sign_of_a_service_account_is_enough(claims: dict[str, Any]) -> None:
    trusted = trusted_with(workspace_domains=("example.com",))
    assert refusal(trusted, claims).reason.startswith("Invalid token type: an ID token of a service account")


def test_a_domain_scoped_project() -> None:
    trusted = trusted_with(project_id="google.com:skia-buildbots")
    email = "autoroll@skia-buildbots.google.com.iam.gserviceaccount.com"
    assert accept(trusted, {**GOOGLE_SERVICE_ACCOUNT, "email": email}).subject == SERVICE_ACCOUNT
    email = "autoroll@skia-buildbots.iam.gserviceaccount.com"
    assert refusal(trusted, {**GOOGLE_SERVICE_ACCOUNT, "email": email})


def test_an_open_door_is_warned_about() -> None:
    (warning,) = google_with(project_id=PROJECT).warnings
    assert "GCP_WORKSPACE_DOMAINS" in warning
    assert google_with(workspace_domains=("example.com",)).warnings == ()
    assert google_with(require_workspace_domain=True).warnings == ()


def test_no_claim_gives_groups_or_scopes() -> None:
    claims = {**GOOGLE_USER, "groups": ["admins"], "scope": "admin:system", "roles": ["admins"]}
    identity = accept(trusted_with(), claims)
    assert (identity.groups, identity.scopes, identity.roles) == (frozenset(), frozenset(), frozenset())
    assert "AUTHORIZATION_RULES_FILE" in google_with().groups_hint
    assert "ID token" in str(google_with().opaque_hint)


@pytest.mark.parametrize("claim", ["sub", "azp", "hd", "email"])
@pytest.mark.parametrize("value", [None, "", 1, True, [], {}, "a\nb", "x" * 256])
def test_claims_of_a_wrong_form_are_refused(claim: str, value: Any) -> None:
    refused = refusal(trusted_with(), {**GOOGLE_USER, claim: value})
    assert refused.reason.startswith(f"Invalid claim: {claim} is ")


def test_from_settings() -> None:
    settings = Settings(
        auth_providers=("google",),
        gcp_client_id=GOOGLE_CLIENT,
        gcp_project_id=PROJECT,
        gcp_workspace_domains=("example.com",),
        gcp_require_workspace_domain=True,
        gcp_accounts_host="accounts.internal",
        gcp_keys_host="keys.internal",
    )
    (made,) = providers.from_settings(settings)
    trusted = made.issuers[0]
    assert (trusted.issuer, trusted.keys_url) == (
        "https://accounts.internal",
        "https://keys.internal/oauth2/v3/certs",
    )
    assert accept(trusted, GOOGLE_SERVICE_ACCOUNT).subject == SERVICE_ACCOUNT
    assert refusal(trusted, {**GOOGLE_USER, "hd": "example.org"})
    required = gcp.from_settings(Settings(gcp_client_id=GOOGLE_CLIENT, gcp_require_workspace_domain=True))
    assert refusal(required.issuers[0], without(GOOGLE_USER, "hd"))
    with pytest.raises(ConfigurationError, match="GCP_CLIENT_ID"):
        gcp.from_settings(Settings())
