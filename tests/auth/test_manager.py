"""Tokens to identities: issuer, times, cache, logs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from boilstream.auth.errors import InvalidToken, KeysUnavailable
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.fetch import FetchFailed
from boilstream.auth.manager import AuthManager, build_manager
from boilstream.auth.providers import okta
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings
from tests.support.keyserver import KeyServer
from tests.support.tokens import (
    AUDIENCE,
    CLIENT_ID,
    ISSUER,
    NOW,
    ORG_DOMAIN,
    ORG_ISSUER,
    FakeClock,
    FakeFetch,
    golden,
    jwk,
    jwks,
    rsa_key,
    token,
)

USER = golden().user
OKTA = okta.provider(org_domain=ORG_DOMAIN, audience=AUDIENCE)


def refusal(manager: AuthManager, made: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        manager.authenticate(made)
    return caught.value.explanation


def test_a_good_token(manager: AuthManager, fetch: FakeFetch) -> None:
    identity = manager.authenticate(token(USER))
    assert identity.principal == "okta:00u123456789abcdef"
    assert identity.groups == {"DataEngineers", "PlatformUsers"}
    assert identity.expires_at == NOW + 3600
    assert fetch.urls == [f"{ISSUER}/v1/keys"]


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "application/at+jwt", "application/AT+JWT"])
def test_token_types(manager: AuthManager, typ: str | None) -> None:
    assert manager.authenticate(token(USER, header={"typ": typ}))


@pytest.mark.parametrize("typ", ["dpop+jwt", "logout+jwt", "JWE", 1, ["JWT"], "application/application/jwt"])
def test_other_token_types_are_refused(manager: AuthManager, typ: Any) -> None:
    assert refusal(manager, token(USER, header={"typ": typ})).startswith("Invalid token type")


def test_documented_log_lines(fetch: FakeFetch, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        manager = AuthManager([OKTA], fetch=fetch, expiry=ExpiryRule(clock=clock), monotonic=clock)
        manager.authenticate(token(USER))
        manager.authenticate(token(USER))
    assert caplog.record_tuples == [
        ("boilstream.auth.manager", logging.INFO, "Added Okta authentication provider"),
        ("boilstream.auth.manager", logging.INFO, "Authentication enabled with 1 provider(s)"),
        ("boilstream.auth.okta", logging.DEBUG, f"Fetching JWKS from Okta: {ISSUER}/v1/keys"),
        (
            "boilstream.auth.okta",
            logging.DEBUG,
            "Successfully validated Okta token for user: 00u123456789abcdef",
        ),
    ]


def test_refusals_are_logged_in_full_without_the_token(
    manager: AuthManager, caplog: pytest.LogCaptureFixture
) -> None:
    made = token({**USER, "aud": "api://other"})
    reason = refusal(manager, made)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("boilstream.auth.manager", logging.WARNING)
    assert reason in record.getMessage()
    assert "OKTA_AUDIENCE" in reason
    assert not any(part in caplog.text for part in made.split("."))


def test_the_issuer_is_compared_exactly_and_before_any_key(manager: AuthManager, fetch: FakeFetch) -> None:
    for issuer in (
        ISSUER + "/",
        ISSUER[:-1],
        ISSUER + "x",
        ISSUER.upper(),
        "http" + ISSUER[5:],
        "",
        None,
        [ISSUER],
    ):
        reason = refusal(manager, token({**USER, "iss": issuer}))
        assert reason.startswith("Invalid issuer")
    assert ISSUER in refusal(manager, token({**USER, "iss": "https://other"}))
    assert "OKTA_AUTH_SERVER_ID" in refusal(manager, token({**USER, "iss": "https://other"}))
    assert fetch.urls == []


def test_org_tokens_get_a_telling_reason(manager: AuthManager) -> None:
    for claims in (golden().org_id_token, golden().org_access_token):
        assert "OKTA_ALLOW_ORG_SERVER" in refusal(manager, token(claims))


def test_both_servers_of_okta(fetch: FakeFetch, clock: FakeClock) -> None:
    both = okta.provider(org_domain=ORG_DOMAIN, audience=AUDIENCE, client_id=CLIENT_ID, allow_org_server=True)
    manager = AuthManager([both], fetch=fetch, expiry=ExpiryRule(clock=clock), monotonic=clock)
    for claims in (golden().user, golden().client_credentials, golden().id_token, golden().org_id_token):
        assert manager.authenticate(token(claims)).subject == claims["sub"]
    assert fetch.urls == [f"{ISSUER}/v1/keys", f"{ORG_ISSUER}/oauth2/v1/keys"]
    assert "custom authorization server" in refusal(manager, token(golden().org_access_token))


def test_a_token_ends_after_its_time_and_the_leeway(manager: AuthManager, clock: FakeClock) -> None:
    made = token(USER)
    clock.advance(3600 + 29.9)
    manager.authenticate(made)
    clock.advance(0.1)
    told = refusal(manager, made)
    assert told.startswith("Expired: the token ended 30 s ago; get a new one"), "a cached token expires too"
    assert refusal(manager, made).startswith("Expired")
    assert refusal(manager, token({**USER, "jti": "AT.2"})).startswith("Expired")


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_starts_at_its_time_less_the_leeway(
    manager: AuthManager, clock: FakeClock, claim: str
) -> None:
    assert manager.authenticate(token({**USER, claim: NOW + 30}))
    made = token({**USER, claim: NOW + 31})
    assert refusal(manager, made).startswith(
        f"Not yet valid: {claim} is 31 s ahead; compare the clock of this server"
    )
    clock.advance(1)
    assert manager.authenticate(made)


def test_times_may_be_fractions_and_only_exp_is_required(manager: AuthManager) -> None:
    claims = {name: value for name, value in USER.items() if name != "iat"} | {"exp": NOW + 0.5}
    assert manager.authenticate(token(claims)).expires_at == NOW + 0.5
    del claims["exp"]
    assert refusal(manager, token(claims)) == "Invalid claim: exp is missing"


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [None, True, str(NOW + 60), [], {}, -1, 10**4000, 1e300])
def test_times_of_a_wrong_type_are_refused(manager: AuthManager, claim: str, value: Any) -> None:
    assert refusal(manager, token({**USER, claim: value})).startswith(f"Invalid claim: {claim} is")


def test_verified_tokens_are_remembered_by_their_bytes(manager: AuthManager, fetch: FakeFetch) -> None:
    made = token(USER)
    first = manager.authenticate(made)
    assert manager.authenticate(made) is first
    assert refusal(manager, made[:-1] + ("A" if made[-1] != "A" else "B"))
    assert refusal(manager, made + "=")
    assert manager.authenticate(made) is first


def test_the_memory_for_tokens_is_bounded(fetch: FakeFetch, clock: FakeClock) -> None:
    manager = AuthManager(
        [OKTA], fetch=fetch, expiry=ExpiryRule(clock=clock), monotonic=clock, max_cached_tokens=2
    )
    made = [token({**USER, "jti": f"AT.{number}"}) for number in range(3)]
    first, second = (manager.authenticate(made[number]) for number in range(2))
    assert manager.authenticate(made[0]) is first
    manager.authenticate(made[2])
    assert manager.authenticate(made[0]) is first
    assert manager.authenticate(made[1]) is not second
    assert len(manager._verified._tokens) == 2


def test_a_rotated_key_is_fetched(manager: AuthManager, fetch: FakeFetch) -> None:
    manager.authenticate(token(USER))
    fetch.publish(jwk(rsa_key("next"), "kid-2"))
    made = token(USER, key=rsa_key("next"), header={"kid": "kid-2"})
    assert manager.authenticate(made)
    assert len(fetch.urls) == 2


def test_a_withdrawn_key_ends_the_tokens_that_are_remembered(
    manager: AuthManager, fetch: FakeFetch, clock: FakeClock
) -> None:
    remembered = token({**USER, "exp": NOW + 100_000})
    manager.authenticate(remembered)
    fetch.publish(jwk(rsa_key("next"), "kid-2"))
    clock.advance(3601)
    assert "Key not found" in refusal(manager, remembered)


def test_a_key_that_is_not_published(manager: AuthManager) -> None:
    told = refusal(manager, token(USER, header={"kid": "nowhere"}))
    assert told.startswith("Key not found: the issuer publishes no key with kid 'nowhere'; get a new token")


def test_a_key_server_that_is_down(manager: AuthManager, fetch: FakeFetch, clock: FakeClock) -> None:
    fetch.error = FetchFailed("down")
    assert manager.preload(30) is False
    with pytest.raises(KeysUnavailable):
        manager.authenticate(token(USER))
    fetch.error = None
    clock.advance(5)
    assert manager.authenticate(token(USER))


def test_a_refused_algorithm_asks_for_no_keys(manager: AuthManager, fetch: FakeFetch) -> None:
    assert refusal(manager, token(USER, alg="RS512")).startswith("Algorithm refused")
    assert fetch.urls == []


def test_preload_and_close(manager: AuthManager, fetch: FakeFetch) -> None:
    assert manager.preload(30) is True
    manager.close()
    assert manager.authenticate(token(USER))
    assert len(fetch.urls) == 1


def test_two_providers_with_one_issuer_are_a_mistake(fetch: FakeFetch) -> None:
    with pytest.raises(ConfigurationError, match=ISSUER):
        AuthManager([OKTA, OKTA], fetch=fetch)


def test_a_crowd_of_callers(manager: AuthManager, fetch: FakeFetch) -> None:
    made = [token({**USER, "uid": f"user-{number % 20}"}) for number in range(200)]
    with ThreadPoolExecutor(16) as pool:
        subjects = [identity.subject for identity in pool.map(manager.authenticate, made)]
    assert subjects == [f"user-{number % 20}" for number in range(200)]
    assert len(fetch.urls) == 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeyServer]:
    with KeyServer(jwks(), tmp_path) as running:
        yield running


def test_built_from_settings_over_a_real_network(server: KeyServer) -> None:
    settings = Settings(
        auth_providers=("okta",),
        okta_org_domain=server.domain,
        okta_audience=AUDIENCE,
        auth_ca_file=server.ca_file,
    )
    manager = build_manager(settings)
    assert manager is not None
    assert manager.preload(30)
    claims = golden(time.time(), issuer=f"https://{server.domain}/oauth2/default").user
    assert manager.authenticate(token(claims)).groups == {"DataEngineers", "PlatformUsers"}
    manager.close()
    assert server.paths == ["/oauth2/default/v1/keys"]


def test_without_providers_there_is_no_manager() -> None:
    assert build_manager(Settings()) is None
