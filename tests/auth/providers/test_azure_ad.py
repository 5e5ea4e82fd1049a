"""The rules for Azure AD on its claim sets and key documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.auth.errors import InvalidToken
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.manager import AuthManager
from boilstream.auth.providers import azure_ad
from boilstream.auth.providers.azure_ad import PERSONAL_ACCOUNTS
from boilstream.auth.providers.base import Provider, TrustedIssuer
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings
from tests.auth.providers import golden
from tests.auth.providers.golden import (
    AZURE_CLIENT_ID,
    AZURE_COMMON_KEY_ISSUERS,
    AZURE_DAEMON,
    AZURE_TENANT,
    AZURE_V1_TENANT,
    Golden,
)
from tests.auth.providers.golden_more import accept, authenticate, published, refusal, without
from tests.support.tokens import NOW, FakeClock, jwk, rsa_key, token

LOGIN, STS = "https://login.microsoftonline.com", "https://sts.windows.net"
SCOPE = f"api://{AZURE_CLIENT_ID}/.default"
BOTH = azure_ad.provider(tenants=(AZURE_TENANT, AZURE_V1_TENANT), client_id=AZURE_CLIENT_ID)
V2, V1 = golden.AZURE["version 2.0"].claims, golden.AZURE["version 1.0"].claims
DAEMON = golden.AZURE["daemon, version 2.0"].claims


def trusted_for(claims: Mapping[str, Any], provider: Provider = BOTH) -> TrustedIssuer:
    return next(trusted for trusted in provider.issuers if trusted.issuer == claims["iss"])


V2_ISSUER, V1_ISSUER = trusted_for(V2), trusted_for(V1)


def accepts(trusted: TrustedIssuer, **members: Any) -> bool:
    assert trusted.accepts_key is not None
    return trusted.accepts_key(jwk(rsa_key(), **members))


def test_addresses_of_one_tenant() -> None:
    made = azure_ad.provider(tenants=(AZURE_TENANT,), client_id=AZURE_CLIENT_ID)
    assert [(trusted.issuer, trusted.keys_url) for trusted in made.issuers] == [
        (f"{LOGIN}/{AZURE_TENANT}/v2.0", f"{LOGIN}/{AZURE_TENANT}/discovery/v2.0/keys"),
        (f"{STS}/{AZURE_TENANT}/", f"{LOGIN}/{AZURE_TENANT}/discovery/keys"),
    ]
    assert {trusted.algorithms for trusted in made.issuers} == {("RS256",)}
    assert (made.name, made.display_name, made.logger_name) == (
        "azure-ad",
        "Azure AD",
        "boilstream.auth.azure-ad",
    )
    assert made.warnings == ()


def test_several_tenants_share_two_key_sets() -> None:
    assert [trusted.issuer for trusted in BOTH.issuers] == [
        f"{LOGIN}/{AZURE_TENANT}/v2.0",
        f"{STS}/{AZURE_TENANT}/",
        f"{LOGIN}/{AZURE_V1_TENANT}/v2.0",
        f"{STS}/{AZURE_V1_TENANT}/",
    ]
    assert {trusted.keys_url for trusted in BOTH.issuers} == {
        f"{LOGIN}/common/discovery/v2.0/keys",
        f"{LOGIN}/common/discovery/keys",
    }
    assert "AZURE_ALLOWED_TENANTS" in BOTH.warnings[0]


def test_a_tenant_named_twice_is_one_tenant() -> None:
    made = azure_ad.provider(tenants=(AZURE_TENANT, AZURE_TENANT), client_id=AZURE_CLIENT_ID)
    assert len(made.issuers) == 2
    assert "common" not in made.issuers[0].keys_url


def test_a_private_cloud() -> None:
    made = azure_ad.provider(
        tenants=(AZURE_TENANT,),
        client_id=AZURE_CLIENT_ID,
        authority_host="login.example.com:8443",
        sts_host="sts.example.com",
    )
    assert [(trusted.issuer, trusted.keys_url) for trusted in made.issuers] == [
        (
            f"https://login.example.com:8443/{AZURE_TENANT}/v2.0",
            f"https://login.example.com:8443/{AZURE_TENANT}/discovery/v2.0/keys",
        ),
        (
            f"https://sts.example.com/{AZURE_TENANT}/",
            f"https://login.example.com:8443/{AZURE_TENANT}/discovery/keys",
        ),
    ]
    v2, v1 = made.issuers
    template = "https://login.example.com:8443/{tenantid}/v2.0"
    assert accepts(v2, issuer=template)
    assert accepts(v1, issuer=template)
    assert not accepts(v2, issuer=f"{LOGIN}/{{tenantid}}/v2.0")


@pytest.mark.parametrize("example", golden.AZURE.values(), ids=golden.AZURE)
def test_golden_tokens(example: Golden) -> None:
    assert accept(trusted_for(example.claims), example.claims) == example.identity


@pytest.mark.parametrize("example", golden.AZURE.values(), ids=golden.AZURE)
def test_golden_tokens_with_signatures(example: Golden) -> None:
    assert example.identity is not None
    identity = authenticate(BOTH, example.claims, header=example.header)
    assert identity == replace(example.identity, expires_at=NOW + 3600)


@pytest.mark.parametrize(
    ("trusted", "claims", "audience"),
    [
        (V2_ISSUER, V2, AZURE_CLIENT_ID),
        (V1_ISSUER, V1, AZURE_CLIENT_ID),
        (V1_ISSUER, V1, f"api://{AZURE_CLIENT_ID}"),
    ],
)
def test_audiences(trusted: TrustedIssuer, claims: Mapping[str, Any], audience: str) -> None:
    assert accept(trusted, {**claims, "aud": audience})


def test_the_application_id_uri_is_an_audience_of_version_1_only() -> None:
    uri = "api://boilstream.company.com"
    made = azure_ad.provider(
        tenants=(AZURE_TENANT, AZURE_V1_TENANT), client_id=AZURE_CLIENT_ID, app_id_uri=uri
    )
    assert accept(trusted_for(V1, made), {**V1, "aud": uri})
    assert accept(trusted_for(V1, made), {**V1, "aud": f"api://{AZURE_CLIENT_ID}"})
    assert refusal(trusted_for(V2, made), {**V2, "aud": uri}).reason.startswith("Invalid audience: ")
    error = refusal(V1_ISSUER, {**V1, "aud": uri})
    assert error.reason.startswith(
        f"Invalid audience: token has ['{uri}'], accepted in version 1.0 is one of"
    )
    assert error.fix == f"request the scope {SCOPE}, or set AZURE_APP_ID_URI to the application ID URI"


@pytest.mark.parametrize(
    "audience",
    [
        None,
        "",
        [],
        AZURE_CLIENT_ID.upper(),
        f"api://{AZURE_CLIENT_ID}/",
        f"spn:{AZURE_CLIENT_ID}",
        [AZURE_CLIENT_ID, AZURE_DAEMON],
        AZURE_DAEMON,
        [[AZURE_CLIENT_ID]],
    ],
)
def test_other_audiences_are_refused(audience: Any) -> None:
    for trusted, claims in ((V2_ISSUER, V2), (V1_ISSUER, V1)):
        assert refusal(trusted, {**claims, "aud": audience}).reason.startswith("Invalid audience: ")


def test_version_2_has_the_client_id_as_audience_and_nothing_else() -> None:
    error = refusal(V2_ISSUER, {**V2, "aud": f"api://{AZURE_CLIENT_ID}"})
    assert error.reason.endswith(f"accepted in version 2.0 is one of ['{AZURE_CLIENT_ID}']")
    assert error.fix == f"request the scope {SCOPE}, or set AZURE_CLIENT_ID to the API's client id"


@pytest.mark.parametrize(
    ("audience", "name"),
    [
        ("00000003-0000-0000-c000-000000000000", "Microsoft Graph"),
        ("https://graph.microsoft.com", "Microsoft Graph"),
        ("https://graph.microsoft.com/", "Microsoft Graph"),
        ("https://management.core.windows.net/", "Azure Resource Manager"),
        ("https://management.azure.com", "Azure Resource Manager"),
    ],
)
def test_tokens_for_microsofts_own_interfaces_are_named(audience: str, name: str) -> None:
    error = refusal(V1_ISSUER, {**golden.AZURE_GRAPH.claims, "aud": audience})
    assert error.reason == f"Invalid audience: this is a token for {name}"
    assert error.fix == f"request the scope {SCOPE}"


@pytest.mark.parametrize(
    "tenant", [None, "", AZURE_V1_TENANT, AZURE_TENANT.upper(), "common", [AZURE_TENANT], 1]
)
def test_the_tenant_must_be_that_of_the_issuer(tenant: Any) -> None:
    error = refusal(V2_ISSUER, {**V2, "tid": tenant})
    assert error.reason.startswith("Invalid claim: tid is ")
    assert error.reason.endswith(f"the issuer's tenant is {AZURE_TENANT}")


@pytest.mark.parametrize("ver", [None, "1.0", 2.0, "2"])
def test_the_version_must_be_that_of_the_issuer(ver: Any) -> None:
    assert refusal(V2_ISSUER, {**V2, "ver": ver}).reason.startswith("Invalid claim: ver is ")
    assert refusal(V1_ISSUER, {**V1, "ver": "2.0"}).reason.startswith("Invalid claim: ver is '2.0'")


def test_tenants_that_are_not_listed_are_refused() -> None:
    tenant = "11111111-2222-3333-4444-555555555555"
    with pytest.raises(InvalidToken) as caught:
        authenticate(BOTH, {**V2, "tid": tenant, "iss": f"{LOGIN}/{tenant}/v2.0"})
    assert caught.value.reason.startswith("Invalid issuer: ")
    assert "AZURE_ALLOWED_TENANTS" in caught.value.explanation


@pytest.mark.parametrize("name", ["common", "organizations", "{tenantid}"])
def test_names_for_all_tenants_are_no_issuers(name: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        authenticate(BOTH, {**V2, "tid": name, "iss": f"{LOGIN}/{name}/v2.0"})
    assert caught.value.reason.startswith("Invalid issuer: ")


@pytest.mark.parametrize(
    "claims",
    [
        golden.AZURE_ID_TOKEN.claims,
        without(golden.AZURE_ID_TOKEN.claims, "nonce"),
        without(golden.AZURE_ID_TOKEN.claims, "nonce", "roles"),
        {**golden.AZURE_ID_TOKEN.claims, "aud": AZURE_DAEMON},
        {**V2, "nonce": "123523"},
        {**V2, "at_hash": "x"},
        {**V2, "c_hash": "x"},
    ],
)
def test_id_tokens_are_refused(claims: Mapping[str, Any]) -> None:
    error = refusal(V2_ISSUER, claims)
    assert error.reason.startswith("Invalid token type: an ID token for ")
    assert error.fix == f"send the access token; request it with the scope {SCOPE}"


def test_id_tokens_of_version_1_are_refused() -> None:
    assert refusal(V1_ISSUER, without(V1, "appid", "scp")).reason.startswith(
        "Invalid token type: an ID token"
    )


@pytest.mark.parametrize(
    "claims", [without(DAEMON, "roles"), {**DAEMON, "roles": []}, {**DAEMON, "scp": "", "roles": []}]
)
def test_a_client_that_was_granted_nothing_is_refused(claims: Mapping[str, Any]) -> None:
    error = refusal(V2_ISSUER, claims)
    assert error.reason.startswith("Invalid claim: the token has neither scp nor roles")
    assert error.fix is not None
    assert "app role" in error.fix


def test_the_client_is_named_by_the_claim_of_the_version() -> None:
    assert refusal(V2_ISSUER, {**without(V2, "azp"), "appid": AZURE_DAEMON}).reason.startswith(
        "Invalid claim: azp is None"
    )
    assert refusal(V1_ISSUER, {**without(V1, "appid"), "azp": AZURE_DAEMON}).reason.startswith(
        "Invalid claim: appid is None"
    )


@pytest.mark.parametrize(
    "overage",
    [
        golden.AZURE_OVERAGE.claims,
        {**golden.AZURE_OVERAGE.claims, "groups": ["99a8bf2d-f4c6-4f46-9d0c-0ac3a4b1e7d5"]},
        {**golden.AZURE_OVERAGE.claims, "roles": ["Data.Engineer"]},
        {**V2, "hasgroups": True},
        {**V2, "hasgroups": "true"},
        {**V2, "groups": "src1", "_claim_sources": {"src1": {}}},
        {**V2, "groups:src1": {"endpoint": "https://graph.windows.net/"}},
        {**V2, "_claim_names": ["groups"]},
        {**V2, "_claim_names": None},
    ],
)
def test_groups_overage_fails_closed(overage: Mapping[str, Any]) -> None:
    error = refusal(V2_ISSUER, overage)
    assert error.reason.startswith("Invalid claim: groups are left out")
    assert error.fix is not None
    assert "app roles in ADMIN_GROUPS" in error.fix
    assert "groups assigned to the application" in error.fix


def test_groups_overage_is_refused_by_the_server_too() -> None:
    with pytest.raises(InvalidToken, match="invalid token") as caught:
        authenticate(BOTH, golden.AZURE_OVERAGE.claims)
    assert "groups overage" in caught.value.reason


def test_other_distributed_claims_are_no_overage() -> None:
    assert accept(V2_ISSUER, {**V2, "_claim_names": {"wids": "src1"}, "_claim_sources": {"src1": {}}})


@given(
    groups=st.none() | st.lists(st.uuids().map(str)),
    roles=st.none() | st.lists(st.sampled_from(["Data.Read", "Data.Write"])),
    scopes=st.lists(st.sampled_from(["data.read", "data.write"]), min_size=1),
)
def test_groups_roles_and_scopes(
    groups: list[str] | None, roles: list[str] | None, scopes: list[str]
) -> None:
    claims = {**V2, "scp": " ".join(scopes)}
    claims |= {name: value for name, value in {"groups": groups, "roles": roles}.items() if value is not None}
    identity = accept(V2_ISSUER, claims)
    assert identity.groups == {*(groups or [])}
    assert identity.roles == {*(roles or [])}
    assert identity.scopes == {*scopes}


@pytest.mark.parametrize(
    ("claim", "values"),
    [
        ("scp", [None, 1, ["access_as_user"], {}]),
        ("roles", [None, "Data.Engineer", {}, [1]]),
        ("groups", [None, {}, [1], [["a"]]]),
        ("oid", [None, "", 1, [], "a\nb", "x" * 256]),
        ("azp", [None, "", 1, []]),
    ],
)
def test_claims_of_a_wrong_type_are_refused(claim: str, values: list[Any]) -> None:
    for value in values:
        error = refusal(V2_ISSUER, {**V2, "scp": "", "roles": ["a"], claim: value})
        assert error.reason.startswith(f"Invalid claim: {claim} is")


def test_the_subject_is_the_object_in_its_tenant() -> None:
    assert accept(V2_ISSUER, without(V2, "sub", "name", "preferred_username")).subject == (
        f"690222be-ff1a-4d56-abd1-7e4f7d38e474@{AZURE_TENANT}"
    )
    assert refusal(V2_ISSUER, without(V2, "oid")).reason.startswith("Invalid claim: oid is None")


@pytest.mark.parametrize(
    ("issuer", "v2", "v1"),
    [
        (f"{LOGIN}/{{tenantid}}/v2.0", True, True),
        (f"{LOGIN}/{AZURE_TENANT}/v2.0", True, True),
        (f"{STS}/{AZURE_TENANT}/", False, True),
        (f"{STS}/{{tenantid}}/", False, True),
        (f"{LOGIN}/{AZURE_V1_TENANT}/v2.0", False, False),
        (f"{LOGIN}/{PERSONAL_ACCOUNTS}/v2.0", False, False),
        (f"{LOGIN}/{{tenantid}}/v2.0/", False, False),
        (f"{LOGIN}/{{TENANTID}}/v2.0", False, False),
        ("https://login.microsoftonline.us/{tenantid}/v2.0", False, False),
        ("{tenantid}", False, False),
        ("", False, False),
        ([f"{LOGIN}/{{tenantid}}/v2.0"], False, False),
        (1, False, False),
    ],
)
def test_keys_sign_for_the_issuer_that_is_published_with_them(issuer: Any, v2: bool, v1: bool) -> None:
    of_tenant = [trusted for trusted in BOTH.issuers if AZURE_TENANT in trusted.issuer]
    assert [accepts(trusted, issuer=issuer) for trusted in of_tenant] == [v2, v1]


def test_a_key_without_issuer_signs_for_all() -> None:
    assert all(accepts(trusted) for trusted in BOTH.issuers)


def test_a_key_whose_issuer_is_null_signs_for_none() -> None:
    key = {**jwk(rsa_key()), "issuer": None}
    assert not any(trusted.accepts_key(key) for trusted in BOTH.issuers if trusted.accepts_key)


def test_the_key_of_personal_accounts_cannot_sign_for_a_tenant() -> None:
    made = azure_ad.provider(tenants=(AZURE_TENANT, PERSONAL_ACCOUNTS), client_id=AZURE_CLIENT_ID)
    of_tenants, of_personal_accounts = AZURE_COMMON_KEY_ISSUERS
    clock = FakeClock()
    manager = AuthManager(
        [made],
        fetch=published(
            made, *(jwk(rsa_key(kid), kid, issuer=issuer) for kid, issuer in AZURE_COMMON_KEY_ISSUERS.items())
        ),
        expiry=ExpiryRule(clock=clock),
        monotonic=clock,
    )
    personal = {**V2, "tid": PERSONAL_ACCOUNTS, "iss": f"{LOGIN}/{PERSONAL_ACCOUNTS}/v2.0"}
    v1 = {**V1, "tid": AZURE_TENANT, "iss": f"{STS}/{AZURE_TENANT}/"}

    def signed_by(kid: str, claims: Mapping[str, Any]) -> str:
        return token(claims, header={"kid": kid}, key=rsa_key(kid))

    assert manager.authenticate(signed_by(of_tenants, V2)).subject.endswith(AZURE_TENANT)
    assert manager.authenticate(signed_by(of_tenants, v1)).subject.endswith(AZURE_TENANT)
    assert manager.authenticate(signed_by(of_personal_accounts, personal)).subject.endswith(PERSONAL_ACCOUNTS)
    for claims in (V2, v1):
        with pytest.raises(InvalidToken) as caught:
            manager.authenticate(signed_by(of_personal_accounts, claims))
        assert caught.value.reason.startswith("Key not found: ")
    manager.close()


def test_personal_accounts_get_tokens_of_version_2_only() -> None:
    made = azure_ad.provider(tenants=(PERSONAL_ACCOUNTS,), client_id=AZURE_CLIENT_ID)
    assert [trusted.issuer for trusted in made.issuers] == [f"{LOGIN}/{PERSONAL_ACCOUNTS}/v2.0"]
    assert f"{LOGIN}/{PERSONAL_ACCOUNTS}/v2.0" not in made.refused_issuers
    reason = BOTH.refused_issuers[f"{LOGIN}/{PERSONAL_ACCOUNTS}/v2.0"]
    assert "personal Microsoft account" in reason
    assert "AZURE_ALLOWED_TENANTS" in reason


@pytest.mark.parametrize(
    ("issuer", "authority", "sts"),
    [
        ("https://login.microsoftonline.us/{}/v2.0", "login.microsoftonline.us", "sts.windows.net"),
        (
            "https://login.partner.microsoftonline.cn/{}/v2.0",
            "login.partner.microsoftonline.cn",
            "sts.chinacloudapi.cn",
        ),
        ("https://sts.chinacloudapi.cn/{}/", "login.partner.microsoftonline.cn", "sts.chinacloudapi.cn"),
    ],
)
def test_a_tenant_of_another_cloud_gets_the_settings_for_it(issuer: str, authority: str, sts: str) -> None:
    reason = BOTH.refused_issuers[issuer.format(AZURE_TENANT)]
    assert f"AZURE_AUTHORITY_HOST={authority} and AZURE_STS_HOST={sts}" in reason
    there = azure_ad.provider(
        tenants=(AZURE_TENANT,), client_id=AZURE_CLIENT_ID, authority_host=authority, sts_host=sts
    )
    assert issuer.format(AZURE_TENANT) in [trusted.issuer for trusted in there.issuers]
    assert (
        "AZURE_AUTHORITY_HOST=login.microsoftonline.com"
        in there.refused_issuers[f"{LOGIN}/{AZURE_TENANT}/v2.0"]
    )


def test_no_issuer_is_both_trusted_and_refused() -> None:
    assert not {trusted.issuer for trusted in BOTH.issuers} & set(BOTH.refused_issuers)


def test_hints_name_the_request_and_the_place() -> None:
    assert BOTH.opaque_hint is not None
    assert SCOPE in BOTH.opaque_hint
    assert "Token configuration" in BOTH.groups_hint
    made = azure_ad.provider(
        tenants=(AZURE_TENANT,), client_id=AZURE_CLIENT_ID, app_id_uri="api://boilstream.company.com"
    )
    assert made.opaque_hint is not None
    assert "api://boilstream.company.com/.default" in made.opaque_hint


def settings_with(**options: Any) -> Settings:
    return Settings(auth_providers=("azure-ad",), azure_client_id=AZURE_CLIENT_ID.upper(), **options)


@pytest.mark.parametrize(
    ("options", "tenants"),
    [
        ({"azure_tenant_id": AZURE_TENANT.upper()}, [AZURE_TENANT]),
        (
            {
                "azure_tenant_id": AZURE_TENANT,
                "azure_allow_multi_tenant": True,
                "azure_allowed_tenants": (AZURE_V1_TENANT, AZURE_TENANT),
            },
            [AZURE_TENANT, AZURE_V1_TENANT],
        ),
        (
            {
                "azure_tenant_id": "common",
                "azure_allow_multi_tenant": True,
                "azure_allowed_tenants": (AZURE_V1_TENANT,),
            },
            [AZURE_V1_TENANT],
        ),
    ],
)
def test_tenants_from_settings(options: dict[str, Any], tenants: list[str]) -> None:
    made = azure_ad.from_settings(settings_with(**options))
    assert [trusted.issuer for trusted in made.issuers[::2]] == [f"{LOGIN}/{tid}/v2.0" for tid in tenants]
    assert [trusted.issuer for trusted in made.issuers[1::2]] == [f"{STS}/{tid}/" for tid in tenants]


def test_other_settings() -> None:
    made = azure_ad.from_settings(
        settings_with(
            azure_tenant_id=AZURE_TENANT,
            azure_app_id_uri="api://boilstream",
            azure_authority_host="login.example.com",
            azure_sts_host="sts.example.com",
        )
    )
    v2, v1 = made.issuers
    assert v2.issuer == f"https://login.example.com/{AZURE_TENANT}/v2.0"
    claims = {**V1, "tid": AZURE_TENANT, "iss": v1.issuer, "aud": "api://boilstream"}
    assert accept(v1, claims).client == AZURE_DAEMON


def test_settings_that_name_no_tenant_or_client() -> None:
    for settings in (Settings(azure_tenant_id=AZURE_TENANT), Settings(azure_client_id=AZURE_CLIENT_ID)):
        with pytest.raises(ConfigurationError, match="AZURE_TENANT_ID and AZURE_CLIENT_ID"):
            azure_ad.from_settings(settings)
    for settings in (
        Settings(azure_tenant_id="common", azure_client_id=AZURE_CLIENT_ID),
        Settings(
            azure_tenant_id="common",
            azure_client_id=AZURE_CLIENT_ID,
            azure_allowed_tenants=(AZURE_TENANT,),
        ),
    ):
        with pytest.raises(ConfigurationError, match="AZURE_ALLOWED_TENANTS"):
            azure_ad.from_settings(settings)
