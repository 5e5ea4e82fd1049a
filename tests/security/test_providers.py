"""Tokens of one provider held up to the rules and keys of another, in a server that trusts them all."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boilstream.auth.errors import CLIENT_MESSAGE, InvalidToken, KeysUnavailable
from boilstream.auth.identity import Identity
from boilstream.auth.manager import AuthManager
from boilstream.auth.session import NAME as SESSION
from boilstream.auth.session import URN
from tests.auth.providers import golden as documented
from tests.auth.providers.golden_more import (
    COGNITO_ACCESS,
    COGNITO_ID,
    GOOGLE_USER,
    KEYCLOAK,
    KEYCLOAK_ISSUER,
    POOL,
    POOL_ISSUER,
    PROJECT,
    Claims,
    Documents,
    published,
)
from tests.auth.providers.test_properties import JSON, claim_sets
from tests.security.parties import (
    GOLDEN,
    ISSUERS,
    KID,
    NAMES,
    PROVIDERS,
    SESSIONS,
    SIGNERS,
    dead_web,
    manager_of,
    signed,
    web,
)
from tests.support.tokens import FakeClock, jwk, rsa_key, token

AZURE = documented.AZURE["version 2.0"].claims
AZURE_V1 = documented.AZURE["version 1.0"].claims
AUTH0 = documented.AUTH0["auth0 profile"].claims
OKTA = documented.OKTA["access token"].claims
STRANGER = "0f5c1c2e-8c0b-4c8f-9d62-6a5a9d2f7b11"
"""A tenant that no setting names."""


@pytest.fixture
def fetch() -> Documents:
    return web()


@pytest.fixture
def manager(fetch: Documents) -> Iterator[AuthManager]:
    made = manager_of(NAMES, fetch)
    yield made
    made.close()


def refused(manager: AuthManager, made: str) -> str:
    """Assert that the token is refused like every other one; the reason."""
    with pytest.raises(InvalidToken) as caught:
        manager.authenticate(made)
    assert type(caught.value) is InvalidToken
    assert caught.value.message == str(caught.value) == CLIENT_MESSAGE
    assert caught.value.explanation.isprintable()
    return caught.value.reason


@pytest.mark.parametrize("name", NAMES)
def test_a_token_is_accepted_by_its_own_provider_only(name: str) -> None:
    needed = [name, "okta"] if name == SESSION else [name]  # a session was made from a token of a provider
    alone, others = manager_of(needed, web()), web()
    without = manager_of([other for other in NAMES if other != name], others)
    whole_fetch = web()
    whole = manager_of(NAMES, whole_fetch)
    for claims in GOLDEN[name]:
        for alg in SIGNERS[name]:
            made = signed(claims, name, alg)
            for accepting in (alone, whole):
                identity = accepting.authenticate(made)
                assert identity.session == (name == SESSION)
                assert identity.provider == (claims["provider"] if name == SESSION else name)
            assert refused(without, made).startswith("Invalid issuer: ")
    assert others.urls == []
    own = {} if name == SESSION else published(PROVIDERS[name]).documents
    assert set(whole_fetch.urls) <= set(own)


def test_a_session_of_the_server_is_accepted(manager: AuthManager) -> None:
    original = manager.authenticate(signed(OKTA, "okta"))
    made = SESSIONS.issue(original, frozenset(), frozenset()).token
    assert manager.authenticate(made).session
    assert refused(manager_of([SESSION, "gcp"], web()), made).startswith("Invalid issuer: ")


@pytest.mark.parametrize(("name", "signer"), list(itertools.permutations(NAMES, 2)))
def test_the_key_of_one_issuer_does_not_vouch_for_another(
    manager: AuthManager, name: str, signer: str
) -> None:
    for claims, alg in itertools.product(GOLDEN[name], SIGNERS[signer]):
        reason = refused(manager, signed(claims, signer, alg))
        assert reason.startswith("Signature wrong: " if alg in SIGNERS[name] else "Algorithm refused: ")
        assert manager.authenticate(signed(claims, name))


def test_a_provider_that_publishes_the_key_of_sessions_gains_nothing(
    manager: AuthManager, fetch: Documents
) -> None:
    for provider in PROVIDERS.values():
        fetch.documents |= published(provider, *SESSIONS.jwks["keys"]).documents
    for name in PROVIDERS:
        made = signed(GOLDEN[name][0], SESSION)
        if name == "oidc":  # its key, its claims: nobody else's
            assert manager.authenticate(made).provider == "oidc"
            assert not manager.authenticate(made).session
        else:
            assert refused(manager, made).startswith("Algorithm refused: ")
    for signer in PROVIDERS:
        for alg in SIGNERS[signer]:
            assert refused(manager, signed(GOLDEN[SESSION][0], signer, alg))


def test_the_type_of_a_session_opens_nothing_else(manager: AuthManager) -> None:
    for name in PROVIDERS:
        made = signed(GOLDEN[name][0], name, header={"typ": "boilstream-session+jwt"})
        assert refused(manager, made).startswith("Invalid token type: ")
    for typ in ("JWT", "at+jwt", "", "session+jwt", None):
        made = signed(GOLDEN[SESSION][0], SESSION, header={"typ": typ})
        assert refused(manager, made).startswith("Invalid token type: ")


FOREIGN: list[tuple[str, Claims, str]] = [
    (
        "azure-ad",
        {**AZURE, "iss": f"https://login.microsoftonline.com/{tenant}/v2.0", "tid": tenant},
        "Invalid issuer: ",
    )
    for tenant in (STRANGER, "common", "organizations", "{tenantid}", "9188040d-6c67-4c5b-b112-36a304b66dad")
] + [
    (
        "azure-ad",
        {**AZURE_V1, "iss": f"https://sts.windows.net/{STRANGER}/", "tid": STRANGER},
        "Invalid issuer: ",
    ),
    ("azure-ad", {**AZURE, "tid": STRANGER}, "Invalid claim: tid "),
    ("azure-ad", {**AZURE, "tid": documented.AZURE_V1_TENANT}, "Invalid claim: tid "),
    (
        "azure-ad",
        {**AZURE, "iss": f"https://login.microsoftonline.com/{documented.AZURE_V1_TENANT}/v2.0"},
        "Invalid claim: tid ",
    ),
    ("azure-ad", {**AZURE, "ver": "1.0"}, "Invalid claim: ver "),
    ("auth0", {**AUTH0, "iss": "https://another.auth0.com/"}, "Invalid issuer: "),
    ("auth0", {**AUTH0, "iss": "https://my-domain.eu.auth0.com/"}, "Invalid issuer: "),
    ("auth0", {**AUTH0, "iss": "https://my-domain.auth0.com.attacker.example/"}, "Invalid issuer: "),
    *(
        ("cognito", {**claims, "iss": POOL_ISSUER.replace(POOL, pool)}, "Invalid issuer: ")
        for claims in (COGNITO_ACCESS, COGNITO_ID)
        for pool in ("us-west-2_Example", "us-west-2_another", "us-east-1_example", f"{POOL}/../{POOL}")
    ),
    ("cognito", {**COGNITO_ACCESS, "iss": POOL_ISSUER.replace("west", "east")}, "Invalid issuer: "),
    ("okta", {**OKTA, "iss": "https://another.okta.com/oauth2/default"}, "Invalid issuer: "),
    ("okta", {**OKTA, "iss": "https://company.okta.com/oauth2/aus1"}, "Invalid issuer: "),
    ("okta", {**documented.OKTA_ORG_ID_TOKEN.claims}, "Invalid issuer: "),
    ("gcp", {**GOOGLE_USER, "iss": f"https://securetoken.google.com/{PROJECT}"}, "Invalid issuer: "),
    ("gcp", {**GOOGLE_USER, "iss": "https://www.googleapis.com"}, "Invalid issuer: "),
    ("oidc", {**KEYCLOAK, "iss": KEYCLOAK_ISSUER.replace("main", "another")}, "Invalid issuer: "),
    (SESSION, {**GOLDEN[SESSION][0], "iss": "urn:boilstream:sessions"}, "Invalid issuer: "),
]


@pytest.mark.parametrize(("name", "claims", "reason"), FOREIGN, ids=range(len(FOREIGN)))
def test_another_tenant_pool_or_realm_with_a_key_of_the_provider(
    manager: AuthManager, fetch: Documents, name: str, claims: Claims, reason: str
) -> None:
    assert refused(manager, signed(claims, name)).startswith(reason)
    if reason == "Invalid issuer: ":
        assert fetch.urls == []


@pytest.mark.parametrize(
    "issuer",
    [
        f"https://login.microsoftonline.com/{STRANGER}/v2.0",
        f"https://login.microsoftonline.com/{documented.AZURE_V1_TENANT}/v2.0",
        "https://login.microsoftonline.com/{TENANTID}/v2.0",
        f"https://login.microsoftonline.com/{documented.AZURE_TENANT}/v2.0/",
        "https://login.microsoftonline.us/{tenantid}/v2.0",
        "{tenantid}",
        "",
        None,
        True,
        [f"https://login.microsoftonline.com/{documented.AZURE_TENANT}/v2.0"],
    ],
    ids=range(10),
)
def test_an_azure_key_of_another_tenant(manager: AuthManager, fetch: Documents, issuer: Any) -> None:
    made = signed(AZURE, "azure-ad")
    published_key = jwk(rsa_key("azure-ad"), KID)
    fetch.documents |= published(PROVIDERS["azure-ad"], published_key | {"issuer": issuer}).documents
    assert refused(manager, made).startswith("Key not found: ")
    right = published(PROVIDERS["azure-ad"], published_key | {"issuer": AZURE["iss"]})
    assert manager_of(NAMES, right).authenticate(made)


def spellings(issuer: str) -> Iterator[str]:
    """Other ways to write an issuer, which some software takes for the same one, and near misses."""
    scheme, rest = issuer.split("//", 1) if "//" in issuer else ("", issuer)
    host, slash, path = rest.partition("/")
    start = f"{scheme}//" if scheme else ""

    def written(host: str) -> str:
        return f"{start}{host}{slash}{path}"

    yield from (issuer + "/", issuer + "//", issuer.removesuffix("/"), issuer + "/.", issuer + "/../")
    yield from (issuer.upper(), issuer.title(), issuer.swapcase(), written(host.upper()))
    yield from (f"{start.upper()}{rest}", f"http://{rest}", f"//{rest}", f"https:{rest}", f"https:///{rest}")
    yield from (written(host + port) for port in (":443", ":", ":0443", ":80", "."))
    yield from (written(user + host) for user in ("@", "user@", "user:secret@", "attacker.example@"))
    yield from (written(f"{host}{end}") for end in ("@attacker.example", ".attacker.example", "\\@a.example"))
    yield from (
        f"{issuer}{end}" for end in ("?", "#", "?x=y", "#x", "%00", "\x00", ";", "\n", "\t", " ", "\\")
    )
    yield from (f"{begin}{issuer}" for begin in (" ", "\n", "\ufeff", "\u200b", "\x00"))
    for letter, like in (("o", "\u043e"), ("c", "\u0441"), ("a", "\uff41"), ("e", "\u0435"), ("s", "\u017f")):
        yield issuer.replace(letter, like, 1)
        yield issuer.replace(letter, f"%{ord(letter):02x}", 1)
        yield issuer.replace(letter, f"{letter}\u0301", 1)
    yield from (issuer.replace(".", dot, 1) for dot in ("\u3002", "\uff0e", "%2e"))
    yield issuer.replace("/", "\uff0f")
    yield issuer.replace("/", "\\")


@pytest.mark.parametrize("name", NAMES)
def test_issuers_in_other_spellings_are_refused_before_any_fetch(
    manager: AuthManager, fetch: Documents, name: str
) -> None:
    trusted = {issuer for issuers in ISSUERS.values() for issuer in issuers}
    changed = {text for issuer in ISSUERS[name] for text in spellings(issuer)} - trusted
    assert len(changed) > 40
    for issuer in sorted(changed):
        for claims in GOLDEN[name][:1]:
            reason = refused(manager, signed({**claims, "iss": issuer}, name))
            assert reason.startswith("Invalid issuer: ")
    assert fetch.urls == []


@st.composite
def claims_of_anybody(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A name, and claims like those of its tokens."""
    name = draw(st.sampled_from(NAMES))
    if name != SESSION:
        return name, draw(claim_sets(name))
    claims = dict(GOLDEN[SESSION][0])
    names = st.sampled_from(sorted({*claims, "client", "roles", "scopes", "tid", "nonce"}))
    return name, claims | draw(st.dictionaries(names, JSON | st.sampled_from([URN, *PROVIDERS]), max_size=3))


@pytest.mark.slow
@settings(
    max_examples=600,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(made=claims_of_anybody(), down=st.booleans())
def test_any_claims_with_a_good_signature(
    manager: AuthManager, made: tuple[str, dict[str, Any]], down: bool
) -> None:
    name, claims = made
    asked = manager_of(NAMES, dead_web()) if down else manager
    try:
        identity = asked.authenticate(signed(claims, name))
    except InvalidToken as error:
        assert error.message == str(error) == CLIENT_MESSAGE
        assert error.explanation.isprintable()
        assert len(error.reason) < 1000
    except KeysUnavailable as error:
        assert down
        assert CLIENT_MESSAGE not in error.message
        assert "signing keys" in error.message
    else:
        assert type(identity) is Identity
        assert claims["iss"] in ISSUERS[name]
        assert identity.session == (name == SESSION)
        assert identity.provider == (claims["provider"] if name == SESSION else name)
        assert name == SESSION or not down


def test_a_key_server_that_is_down_harms_its_own_provider_only(
    manager: AuthManager, fetch: Documents
) -> None:
    fetch.documents |= {url: dead_web().documents[url] for url in published(PROVIDERS["okta"]).documents}
    for name in NAMES:
        made = signed(GOLDEN[name][0], name)
        if name == "okta":
            with pytest.raises(KeysUnavailable):
                manager.authenticate(made)
        else:
            assert manager.authenticate(made)


@pytest.mark.parametrize("threads", [1, 8])
def test_many_unknown_key_ids_in_a_second_cause_one_fetch_per_address(threads: int) -> None:
    clock, fetch = FakeClock(), web()
    manager = manager_of(NAMES, fetch, clock)
    forged = [
        token({**claims, "iss": issuer}, header={"kid": f"{kid}-{number}"}, key=b"no key")
        for number in range(20)
        for kid in ("kid", KID, "../keys")
        for name, provider in PROVIDERS.items()
        for issuer in (trusted.issuer for trusted in provider.issuers)
        for claims in GOLDEN[name][:1]
    ]

    def present(made: str) -> str:
        reason = refused(manager, made)
        clock.advance(1 / len(forged))
        return reason

    with ThreadPoolExecutor(threads) as pool:
        assert all(reason.startswith("Key not found: ") for reason in pool.map(present, forged))
    assert Counter(fetch.urls) == Counter(set(web().documents))
    for name in NAMES:
        assert manager.authenticate(signed(GOLDEN[name][0], name))
    assert Counter(fetch.urls) == Counter(set(web().documents))
