from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.auth.fetch import Answer, FetchFailed, HttpsFetcher
from boilstream.auth.providers import azure_ad, gcp, oidc, okta
from boilstream.auth.providers.base import Provider
from boilstream.doctor.findings import Finding, Level, render
from boilstream.doctor.providers import check_clock, check_provider
from tests.support.keyserver import KeyServer
from tests.support.tokens import AUDIENCE, ISSUER, NOW, ORG_DOMAIN, FakeClock, ec_key, jwk, jwks, rsa_key

OKTA = okta.provider(org_domain=ORG_DOMAIN, audience=AUDIENCE)
KEYS_URL = f"{ISSUER}/v1/keys"
OIDC_ISSUER = "https://id.company.com/realms/main"
OIDC_URL = f"{OIDC_ISSUER}/.well-known/openid-configuration"
OIDC = oidc.provider(issuer=OIDC_ISSUER, audience=AUDIENCE)


class Provided:
    """Documents by address, each after 80 ms, with the time of `date`."""

    def __init__(self, documents: Mapping[str, Any], date: float | None = NOW) -> None:
        self.documents = documents
        self.date = date

    def __call__(self, url: str) -> Answer:
        if url not in self.documents:
            raise FetchFailed("HTTP status 404 instead of 200")
        document = self.documents[url]
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return Answer(body, self.date, 0.08)


def found(provider: Provider, get: Any, *, max_keys: int = 100, leeway: float = 30) -> list[Finding]:
    return list(check_provider(provider, get, max_keys=max_keys, leeway_seconds=leeway, clock=FakeClock()))


def test_a_provider_that_is_fine() -> None:
    keys, clock = found(OKTA, Provided({KEYS_URL: jwks(jwk(rsa_key()), jwk(ec_key(), "kid-2"))}))
    assert render(keys) == (
        f"ok okta keys: {KEYS_URL} answers in 80 ms, 2 keys (EC, RSA RS256), 2 for RS256, ES256"
    )
    assert render(clock) == "ok okta clock: this machine and the provider agree"


def test_discovery_comes_first() -> None:
    keys_url = "https://keys.company.com/all"
    document = {
        "issuer": OIDC_ISSUER,
        "jwks_uri": keys_url,
        "id_token_signing_alg_values_supported": ["RS256", "EdDSA"],
    }
    findings = found(OIDC, Provided({OIDC_URL: document, keys_url: jwks()}))
    assert [render(finding) for finding in findings[:2]] == [
        f"ok oidc discovery: {OIDC_URL} answers in 80 ms, algorithms RS256, EdDSA",
        f"ok oidc keys: {keys_url} answers in 80 ms, 1 key (RSA RS256), 1 for RS256, ES256",
    ]


@pytest.mark.parametrize(
    ("documents", "what", "says"),
    [
        ({}, "oidc discovery", "404"),
        ({OIDC_URL: b"<html>"}, "oidc discovery", "not strict JSON"),
        ({OIDC_URL: {"issuer": OIDC_ISSUER + "/"}}, "oidc discovery", "is of the issuer"),
        ({OIDC_URL: {"issuer": OIDC_ISSUER, "jwks_uri": "http://x/"}}, "oidc discovery", "not an https address"),
        ({OIDC_URL: {"issuer": OIDC_ISSUER, "jwks_uri": "https://x/"}}, "oidc keys", "404"),
    ],
)  # fmt: skip
def test_a_discovery_that_fails(documents: dict[str, Any], what: str, says: str) -> None:
    (finding,) = [item for item in found(OIDC, Provided(documents)) if item.level is Level.FAIL]
    assert finding.what == what
    assert says in render(finding)
    assert "OIDC_" in str(finding.fix)


@pytest.mark.parametrize("body", [b"<html>", b"[]", {"keys": [1, {"kid": 7}]}, {}])
def test_an_answer_without_keys(body: Any) -> None:
    keys, clock = found(OKTA, Provided({KEYS_URL: body}))
    assert keys.level is Level.FAIL
    assert "RFC 7517" in keys.detail
    assert "OKTA_" in str(keys.fix)
    assert clock.level is Level.OK


def test_a_set_without_keys() -> None:
    told, keys, _ = found(OKTA, Provided({KEYS_URL: {"keys": []}}))
    assert (told.level, keys.level) == (Level.WARN, Level.FAIL)
    assert "publishes no key" in told.detail
    assert "0 keys" in keys.detail


@pytest.mark.parametrize(
    "key",
    [
        jwk(rsa_key(), use="enc"),
        jwk(rsa_key(), alg="RS512"),
        jwk(rsa_key("small", 1024)),
        jwk(ec_key("P-384")),
        jwk(rsa_key(), n=None),
        {"kid": "kid-1"},
    ],
)
def test_keys_that_fit_no_token(key: dict[str, Any]) -> None:
    finding, _ = found(OKTA, Provided({KEYS_URL: {"keys": [key]}}))
    assert finding.level is Level.FAIL
    assert "1 key (" in finding.detail
    assert finding.detail.endswith("0 for RS256, ES256")
    assert "sign with one of RS256" in str(finding.fix)


def test_more_keys_than_are_used() -> None:
    published = [jwk(rsa_key(), f"kid-{number}") for number in range(5)]
    warned, keys, _ = found(OKTA, Provided({KEYS_URL: jwks(*published)}), max_keys=3)
    assert warned.level is Level.WARN
    assert "JWKS_MAX_KEYS" in warned.detail
    assert "3 keys (RSA RS256 x3)" in keys.detail


def test_an_address_of_several_issuers_is_asked_once() -> None:
    google = gcp.provider(client_id="1-a.apps.googleusercontent.com", workspace_domains=("company.com",))
    assert [finding.what for finding in found(google, Provided({google.issuers[0].keys_url: jwks()}))] == [
        "gcp keys",
        "gcp clock",
    ]


def test_keys_of_other_issuers_do_not_count() -> None:
    tenant, client = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
    azure = azure_ad.provider(tenants=(tenant,), client_id=client)
    other = jwk(rsa_key(), issuer=f"https://login.microsoftonline.com/{client}/v2.0")
    findings = found(azure, Provided({trusted.keys_url: jwks(other) for trusted in azure.issuers}))
    assert [finding.level for finding in findings] == [Level.FAIL, Level.FAIL, Level.OK]


def test_warnings_of_the_provider() -> None:
    google = gcp.provider(client_id="1-a.apps.googleusercontent.com")
    finding = found(google, Provided({google.issuers[0].keys_url: jwks()}))[0]
    assert (finding.level, finding.what, finding.fix) == (Level.WARN, "gcp settings", "list your domains")


@pytest.mark.parametrize(
    ("server_ahead", "level", "says"),
    [
        (0, Level.OK, "agree"),
        (-1, Level.OK, "agree"),  # a header has whole seconds
        (4, Level.OK, "4 s behind"),
        (6, Level.WARN, "6 s behind"),
        (-8, Level.WARN, "7 s ahead of"),
        (31, Level.FAIL, "AUTH_LEEWAY_SECONDS"),
        (-40, Level.FAIL, "39 s ahead of"),
    ],
)
def test_the_clock(server_ahead: float, level: Level, says: str) -> None:
    finding = found(OKTA, Provided({KEYS_URL: jwks()}, NOW + server_ahead))[-1]
    assert (finding.what, finding.level) == ("okta clock", level)
    assert says in finding.detail
    assert level is Level.OK or "NTP" in str(finding.fix)


def test_the_leeway_of_the_settings_counts() -> None:
    assert check_clock("okta", [4.0], 2).level is Level.FAIL
    assert check_clock("okta", [200.0], 300).level is Level.WARN
    assert check_clock("okta", [200.0, -1.0], 30).level is Level.OK


def test_answers_without_a_date() -> None:
    assert found(OKTA, Provided({KEYS_URL: jwks()}, None))[-1].level is Level.WARN


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["kty", "alg", "use", "kid", "n", "e", "crv", "x", "y", "key_ops"]),
            st.text() | st.integers() | st.none() | st.lists(st.text()),
        )
    )
)
def test_no_published_key_breaks_the_report(keys: list[dict[str, Any]]) -> None:
    for finding in found(OKTA, Provided({KEYS_URL: {"keys": keys}})):
        assert all(line.isprintable() for line in render(finding).split("\n"))


@pytest.mark.slow
def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    with KeyServer(jwks(), tmp_path) as server:
        provider = okta.provider(org_domain=server.domain, audience=AUDIENCE)
        (finding,) = found(provider, HttpsFetcher().get)
        assert finding.level is Level.FAIL
        assert "certificate is refused" in finding.detail
        assert "set AUTH_CA_FILE" in str(finding.fix)
        good = found(provider, HttpsFetcher(server.ca_file).get)
        assert good[0].level is Level.OK


@pytest.mark.slow
def test_a_key_server_that_is_down(tmp_path: Path) -> None:
    with KeyServer(jwks(), tmp_path) as server:
        ca_file, domain = server.ca_file, server.domain
    provider = okta.provider(org_domain=domain, audience=AUDIENCE)
    (finding,) = found(provider, HttpsFetcher(ca_file).get)
    assert finding.level is Level.FAIL
    assert domain in str(finding.fix)
    assert "OKTA_" in str(finding.fix)
