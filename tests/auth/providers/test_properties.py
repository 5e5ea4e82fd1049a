"""Every provider, whatever claims come: accepted by its rule alone, refused in a form that fits the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boilstream.auth.errors import InvalidToken
from boilstream.auth.identity import Identity
from boilstream.auth.providers import BUILDERS
from boilstream.auth.providers.base import TrustedIssuer
from boilstream.settings import Settings
from tests.auth.providers import golden as documented
from tests.auth.providers.golden_more import (
    APP_CLIENT,
    COGNITO_ACCESS,
    COGNITO_ID,
    COGNITO_MACHINE,
    GOOGLE_CLIENT,
    GOOGLE_SERVICE_ACCOUNT,
    GOOGLE_USER,
    ID_APP_CLIENT,
    KEYCLOAK,
    KEYCLOAK_ISSUER,
    POOL,
    PROJECT,
    RESOURCE,
    Claims,
    accept,
)

KINDS = (
    "Invalid audience: ",
    "Invalid claim: ",
    "Invalid token type: ",
)
MAX_TEXT = 2000

COGNITO_LISTED = (APP_CLIENT, ID_APP_CLIENT, RESOURCE)

SETTINGS = Settings(
    okta_org_domain=documented.OKTA_ORG,
    okta_audience=documented.OKTA_AUDIENCE,
    okta_client_id=documented.OKTA_CLIENT_ID,
    auth0_tenant=documented.AUTH0_TENANT,
    auth0_audience=documented.AUTH0_AUDIENCE,
    auth0_groups_namespace=documented.AUTH0_GROUPS,
    azure_tenant_id=documented.AZURE_TENANT,
    azure_client_id=documented.AZURE_CLIENT_ID,
    azure_allow_multi_tenant=True,
    azure_allowed_tenants=(documented.AZURE_V1_TENANT,),
    cognito_user_pool_id=POOL,
    cognito_audience=COGNITO_LISTED,
    gcp_client_id=GOOGLE_CLIENT,
    gcp_project_id=PROJECT,
    gcp_workspace_domains=("example.com",),
    oidc_issuer=KEYCLOAK_ISSUER,
    oidc_audience="boilstream",
    oidc_groups_claim="realm_access.roles",
)


def aud(claims: Claims) -> list[Any]:
    """The audience as a list, as RFC 7519 means it."""
    value = claims.get("aud", [])
    return value if isinstance(value, list) else [value]


def is_id_token(claims: Claims) -> bool:
    return any(name in claims for name in ("nonce", "at_hash", "c_hash"))


def okta_rule(claims: Claims) -> bool:
    if aud(claims) == [documented.OKTA_CLIENT_ID]:
        return True
    return documented.OKTA_AUDIENCE in aud(claims) and not is_id_token(claims)


def auth0_rule(claims: Claims) -> bool:
    return documented.AUTH0_AUDIENCE in aud(claims) and not is_id_token(claims)


def azure_rule(claims: Claims) -> bool:
    ours = [documented.AZURE_CLIENT_ID]
    if claims["ver"] == "1.0":
        ours.append(f"api://{documented.AZURE_CLIENT_ID}")
    granted = bool(claims.get("scp")) or bool(claims.get("roles"))
    tenants = (documented.AZURE_TENANT, documented.AZURE_V1_TENANT)
    meant = len(aud(claims)) == 1 and aud(claims)[0] in ours
    return meant and claims["tid"] in tenants and granted and not is_id_token(claims)


def cognito_rule(claims: Claims) -> bool:
    listed = COGNITO_LISTED
    if claims["token_use"] == "access":
        bound = "aud" not in claims or any(item in listed for item in aud(claims))
        return claims["client_id"] in listed and bound
    return claims["token_use"] == "id" and len(aud(claims)) == 1 and aud(claims)[0] in listed


def google_rule(claims: Claims) -> bool:
    email = claims.get("email", "")
    ours = email.lower().endswith("@company-data.iam.gserviceaccount.com")
    named = "email" not in claims or claims.get("email_verified") is True
    person = not email.lower().endswith("gserviceaccount.com") and (
        claims["azp"].endswith(".apps.googleusercontent.com") if "azp" in claims else "email" in claims
    )
    return (
        aud(claims) == [GOOGLE_CLIENT] and named and (ours or (person and claims.get("hd") == "example.com"))
    )


def oidc_rule(claims: Claims) -> bool:
    bearer = claims.get("typ") == "Bearer" and "at_hash" not in claims and "c_hash" not in claims
    access = claims.get("typ") != "ID" and (bearer or not is_id_token(claims))
    return "boilstream" in aud(claims) and access and "events" not in claims


@dataclass(frozen=True)
class Case:
    """A provider's claim sets that are accepted, its audience rule in other words, and its subject."""

    golden: tuple[Claims, ...]
    rule: Callable[[Claims], bool]
    subject: Callable[[Claims], str] = lambda claims: str(claims["sub"])


CASES = {
    "auth0": Case(tuple(golden.claims for golden in documented.AUTH0.values()), auth0_rule),
    "azure-ad": Case(
        tuple(golden.claims for golden in documented.AZURE.values()),
        azure_rule,
        lambda claims: f"{claims['oid']}@{claims['iss'].split('/')[3]}",
    ),
    "cognito": Case((COGNITO_ACCESS, COGNITO_MACHINE, COGNITO_ID), cognito_rule),
    "gcp": Case((GOOGLE_USER, GOOGLE_SERVICE_ACCOUNT), google_rule),
    "oidc": Case((KEYCLOAK, {**KEYCLOAK, "aud": "boilstream"}), oidc_rule),
    "okta": Case(
        (*(golden.claims for golden in documented.OKTA.values()), documented.OKTA_ID_TOKEN.claims),
        okta_rule,
        lambda claims: str(claims["uid"] if "cid" in claims and "uid" in claims else claims["sub"]),
    ),
}
PROVIDERS = {name: build(SETTINGS) for name, build in BUILDERS.items()}

MARKS = [
    "at_hash",
    "c_hash",
    "nonce",
    "events",
    "typ",
    "azp",
    "cid",
    "client_id",
    "_claim_names",
    "hasgroups",
]
CLAIM_NAMES = sorted(
    {name for case in CASES.values() for claims in case.golden for name in claims} | set(MARKS)
)


def texts(value: Any) -> Iterator[str]:
    """All strings in a JSON value, and the words of each."""
    if isinstance(value, str):
        yield value
        yield from value.split(" ")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(item)


GOLDEN_TEXTS = sorted(
    {text for case in CASES.values() for claims in case.golden for text in texts(dict(claims))}
)

CHANGES: tuple[Callable[[str], Any], ...] = (
    str.upper,
    str.split,
    lambda text: text + "\n",
    lambda text: text[:-1],
    lambda text: f"evil{text}",
)
NEAR_MISSES = [change(text) for text in GOLDEN_TEXTS for change in CHANGES]
DEEP: Any = "x"
for _ in range(200):
    DEEP = {"a": [DEEP]}

LEAVES: st.SearchStrategy[Any] = (
    st.sampled_from([None, True, False, DEEP, "", " ", "x" * 5000])
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(GOLDEN_TEXTS)
    | st.sampled_from(NEAR_MISSES)
)
JSON = LEAVES | st.lists(LEAVES, max_size=6) | st.dictionaries(st.sampled_from(["roles", "groups"]), LEAVES)


@st.composite
def claim_sets(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Golden claims of the provider with some of them gone, replaced, or swapped for others' claims."""
    golden = CASES[name].golden
    claims = dict(draw(st.sampled_from(golden)))
    for gone in draw(st.sets(st.sampled_from(sorted(claims)), max_size=2)):
        del claims[gone]
    own = [value for other in golden for value in other.values()]
    own_texts = sorted({text for value in own for text in texts(value)})
    values = JSON | st.sampled_from(own) | st.lists(st.sampled_from(own_texts), max_size=3)
    names = st.sampled_from(sorted({name for other in golden for name in other}))
    names |= st.just("aud") | st.sampled_from(MARKS) | st.sampled_from(CLAIM_NAMES) | st.text(max_size=12)
    changes = st.dictionaries(names, values, max_size=3)
    return claims | draw(changes)


def trusted_for(name: str, claims: Claims) -> TrustedIssuer:
    """The issuer that the manager would choose; the first where a change has hit the claim."""
    issuers = PROVIDERS[name].issuers
    return next((trusted for trusted in issuers if trusted.issuer == claims.get("iss")), issuers[0])


def outcome(check: Callable[[Claims], Identity | None], claims: Claims) -> bool:
    """Whether the check passes; its refusal must fit the log."""
    try:
        check(claims)
    except InvalidToken as refused:
        assert refused.reason.startswith(KINDS)
        for text in (refused.reason, refused.explanation):
            assert len(text) < MAX_TEXT
            assert text.isprintable()
        return False
    return True


def check_origin(name: str, identity: Identity, claims: Claims) -> None:
    """Nothing in the identity but the provider's name comes from elsewhere than the claims."""
    said = set(texts(claims))
    assert identity.subject == CASES[name].subject(claims)
    assert identity.client is None or identity.client in said
    for names in (identity.groups, identity.roles, identity.scopes):
        assert names <= said
    assert identity.provider == name
    assert identity.expires_at == float("inf")
    assert not identity.session


def test_every_provider_is_here() -> None:
    assert set(CASES) == set(BUILDERS)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_golden_claims_are_accepted_by_rule(name: str) -> None:
    for claims in CASES[name].golden:
        assert CASES[name].rule(claims)
        assert accept(trusted_for(name, claims), claims).provider == name


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BUILDERS))
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_claims_are_accepted_by_rule_or_refused_in_form(name: str, data: st.DataObject) -> None:
    claims = data.draw(claim_sets(name))
    trusted = trusted_for(name, claims)
    if outcome(trusted.check_audience, claims):
        assert CASES[name].rule(claims)
    # The explanation of a token reads the claims of refused ones too.
    if outcome(trusted.to_identity, claims):
        check_origin(name, trusted.to_identity(claims), {**claims, "iss": trusted.issuer})


@pytest.mark.parametrize("name", sorted(BUILDERS))
@given(claims=st.dictionaries(st.sampled_from(CLAIM_NAMES), JSON, max_size=8))
@settings(deadline=None)
def test_wild_claims_are_accepted_by_rule_or_refused_in_form(name: str, claims: dict[str, Any]) -> None:
    for trusted in PROVIDERS[name].issuers:
        if outcome(trusted.check_audience, claims):
            assert CASES[name].rule(claims)
        outcome(trusted.to_identity, claims)
