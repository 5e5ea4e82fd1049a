from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from boilstream.auth.checks import CHECKS
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.fetch import FetchFailed
from boilstream.auth.identity import Identity
from boilstream.auth.manager import AuthManager
from boilstream.auth.providers import auth0, okta
from boilstream.auth.session import SessionIssuer
from boilstream.catalog.names import topic_name
from boilstream.doctor import token as module
from boilstream.doctor.findings import Finding, Level, render
from boilstream.doctor.token import explain_token
from boilstream.settings import Settings, load
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    NOW,
    ORG_DOMAIN,
    ORG_ISSUER,
    FakeClock,
    FakeFetch,
    golden,
    raw_token,
    rsa_key,
    token,
)

USER = golden().user
CLIENT = golden().client_credentials
OKTA = okta.provider(org_domain=ORG_DOMAIN, audience=AUDIENCE)
AUTH0 = auth0.provider(tenant="company.eu.auth0.com", audience=AUDIENCE)


def manager_of(
    fetch: FakeFetch | None = None, sessions: SessionIssuer | None = None, providers: Any = (OKTA,)
) -> AuthManager:
    clock = FakeClock()
    return AuthManager(
        providers,
        fetch=fetch or FakeFetch(),
        expiry=ExpiryRule(clock=clock),
        monotonic=clock,
        sessions=sessions,
    )


@pytest.fixture
def manager() -> Iterator[AuthManager]:
    made = manager_of()
    yield made
    made.close()


def settings(**others: object) -> Settings:
    return load(auth_providers=("okta",), okta_org_domain=ORG_DOMAIN, okta_audience=AUDIENCE, **others)


def report(manager: AuthManager, made: str, topic: str | None = None, **others: object) -> list[str]:
    name = topic_name(*topic.split(".")) if topic else None
    findings = explain_token(settings(**others), made, name, manager=manager)
    lines = [line for finding in findings for line in render(finding).split("\n")]
    assert not any(part in line for part in made.split(".") if len(part) > 8 for line in lines)
    return lines


def test_the_order_of_the_checks_is_the_order_of_the_report() -> None:
    assert list(module._FIXES) == ["form", "issuer", *CHECKS, "identity"]


def test_a_token_that_is_accepted(manager: AuthManager) -> None:
    assert report(manager, token(USER, header={"typ": "JWT"}), admin_groups=("DataEngineers",))[1:] == [
        "ok form: signed JWT, alg 'RS256', kid 'kid-1', typ 'JWT'",
        f"ok issuer: '{ISSUER}'",
        "ok provider: okta",
        "ok header: algorithm 'RS256' is accepted, no header that is refused",
        "ok signature: made by the issuer's key 'kid-1'",
        "ok type: typ 'JWT'",
        "ok times: end 2027-01-15 09:00:00 UTC (in 60 min), issued 2027-01-15 08:00:00 UTC (0 s ago)",
        "ok audience: 'api://boilstream'",
        "ok identity: okta:00u123456789abcdef, client '0oa123456789abcdef'",
        "ok groups: DataEngineers, PlatformUsers",
        "ok scopes: openid, read:data, write:data",
        "ok read: allowed (group DataEngineers)",
        "ok write: allowed (group DataEngineers)",
        "ok admin: allowed (group DataEngineers)",
        "ok token: the server accepts this token",
    ]


@pytest.mark.parametrize(
    ("claims", "what", "reason", "fix"),
    [
        ({"aud": "api://other"}, "audience", "Invalid audience: ", "OKTA_AUDIENCE"),
        ({"iss": "https://other.okta.com/oauth2/default"}, "issuer", "Invalid issuer: ", "OKTA_ORG_DOMAIN"),
        ({"iss": ORG_ISSUER}, "issuer", "Invalid issuer: ", "custom authorization server"),
        ({"exp": NOW - 300}, "times", "Expired: the token ended 300 s ago (end 2027-01-15 07:55", "NTP"),
        ({"groups": "Admins"}, "identity", "Invalid claim: groups", "correct the claim"),
    ],
)
def test_a_refusal_ends_in_what_to_change(
    manager: AuthManager, claims: dict[str, Any], what: str, reason: str, fix: str
) -> None:
    lines = report(manager, token({**USER, **claims}))
    number = next(number for number, line in enumerate(lines) if line.startswith("FAIL"))
    assert lines[number].startswith(f"FAIL {what}: {reason}")
    assert fix in lines[number + 1]
    assert lines[-2] == f"FAIL token: the server refuses this token: {what}"
    assert lines[-1] == lines[number + 1]
    assert lines[-1].startswith("  fix: ")


def test_a_key_that_is_not_published(manager: AuthManager) -> None:
    lines = report(manager, token(USER, header={"kid": "kid-9"}))
    assert "FAIL signature: Key not found: the issuer publishes no key with kid 'kid-9'" in lines
    assert lines[-1].startswith("  fix: get a new token")
    assert "ok read: allowed if the token were accepted (authorization is off)" in lines


def test_groups_that_are_not_extracted(manager: AuthManager) -> None:
    lines = report(manager, token(CLIENT), write_groups=("Writers",))
    number = lines.index("warn groups: Groups not extracted: the token has none, and rules decide by groups")
    assert lines[number + 1].startswith("  fix: add a claim groups")
    assert lines[-2] == "warn token: the server accepts this token, but finds no groups in it"
    assert lines[-1] == lines[number + 1]
    assert "ok groups: none" in report(manager, token(CLIENT))


def test_several_objections_are_all_told(manager: AuthManager) -> None:
    made = token({**USER, "aud": "api://other", "exp": NOW - 300}, header={"typ": "logout+jwt"})
    lines = report(manager, made)
    assert lines[-2] == "FAIL token: the server refuses this token: type, times, audience"
    assert sum(line.startswith("FAIL") for line in lines) == 4


def test_a_header_that_is_refused(manager: AuthManager) -> None:
    lines = report(manager, token(USER, header={"alg": "none"}))
    assert any(line.startswith("FAIL header: Algorithm refused: token has 'none'") for line in lines)
    assert "warn signature: not checked, because the header is refused" in lines


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("opaque-token-of-some-provider", "1 parts instead of 3"),
        ("aaaaaaaaaa.bbbbbbbbbb.cccccccccc.dddddddddd.eeeeeeeeee", "encrypted"),
        ("not!base64url.eyJpc3MiOiJ4In0.c2lnbmF0dXJl", "base64url"),
        ("\u202eevil.\x1b[31mred.\x07", "beyond ASCII"),
        ("", "parts instead"),
    ],
)
def test_what_is_no_token(made: str, says: str) -> None:
    lines = report(manager_of(providers=(OKTA, AUTH0)), made)
    assert lines[1].startswith("FAIL form: Malformed token: ")
    assert says in lines[1]
    assert lines[-1].startswith("  fix: ")
    assert says in ("base64url", "beyond ASCII") or "request the token with audience" in lines[-1]


def test_keys_that_cannot_be_had() -> None:
    fetch = FakeFetch()
    fetch.error = FetchFailed(
        "the server's certificate is refused (self-signed); set AUTH_CA_FILE to the CA bundle"
    )
    lines = report(manager_of(fetch), token(USER))
    number = next(number for number, line in enumerate(lines) if line.startswith("FAIL signature: "))
    assert "certificate is refused" in lines[number]
    assert "set AUTH_CA_FILE" in lines[number + 1]
    assert lines[-2] == "FAIL token: the server cannot check this token now: signature"


@pytest.mark.parametrize(
    ("length", "level", "says"),
    [
        (6_000, Level.OK, "characters"),
        (7_100, Level.WARN, "8 KiB"),
        (17_000, Level.WARN, "always"),
    ],
)
def test_the_length_is_told(manager: AuthManager, length: int, level: Level, says: str) -> None:
    made = token({**USER, "groups": ["x" * ((length - 900) * 3 // 4)]})
    finding = explain_token(settings(), made, manager=manager)[0]
    assert (finding.what, finding.level) == ("length", level)
    assert str(len(made)) in finding.detail
    assert says in finding.detail
    assert level is Level.OK or "action session" in str(finding.fix)


def test_many_groups_are_cut_and_those_of_rules_come_first(manager: AuthManager) -> None:
    groups = [f"group-{number:03}" for number in range(200)]
    lines = report(manager, token({**USER, "groups": groups}), write_groups=("group-199",))
    (line,) = [line for line in lines if line.startswith("ok groups: ")]
    assert line.startswith("ok groups: group-199, group-000, group-001, ")
    assert line.endswith("group-018 and 180 more")


def test_permissions_on_one_topic(manager: AuthManager, tmp_path: Path) -> None:
    lines = report(manager, token(USER), "s3.events", read_only_groups=("DataEngineers",))
    assert "ok read on s3.events: allowed (group DataEngineers)" in lines
    number = next(
        number for number, line in enumerate(lines) if line.startswith("warn write on s3.events: denied")
    )
    assert lines[number + 1].startswith("  fix: needs write on s3.events: ")
    assert lines[-1] == "ok token: the server accepts this token"


RULES = {
    "rules": [
        {"groups": ["Others"], "topics": ["s3.others"], "allow": ["write"]},
        {"name": "etl", "groups": ["PlatformUsers"], "topics": ["s3.a", "s3.b_*"], "allow": ["write"]},
        {"everyone": True, "topics": ["public.*"], "allow": ["read"]},
    ]
}


def test_rules_of_the_file_that_concern_the_caller(manager: AuthManager, tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(RULES))
    made = token({**USER, "scp": ["openid"]})
    lines = report(manager, made, authorization_rules_file=path, required_read_scopes=("read:data",))
    assert "ok rule 2 (etl): allows write on s3.a, s3.b_*" in lines
    assert "ok rule 3: allows read on public.*" in lines
    assert not any(line.startswith("ok rule 1") for line in lines)
    on_topic = report(manager, made, "s3.b_2", authorization_rules_file=path)
    assert "ok write on s3.b_2: allowed (rule 2 (etl) on s3.b_*)" in on_topic
    assert not any(line.startswith("ok rule") for line in on_topic)


def test_rules_of_the_file_do_not_count_for_members_of_a_listed_group(
    manager: AuthManager, tmp_path: Path
) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(RULES))
    lines = report(manager, token(USER), authorization_rules_file=path, read_only_groups=("DataEngineers",))
    assert not any(line.startswith("ok rule") for line in lines)


def test_many_rules_are_cut(manager: AuthManager, tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    rule = {"everyone": True, "topics": [f"s3.t{number}" for number in range(25)], "allow": ["read"]}
    path.write_text(json.dumps({"rules": [rule] * 25}))
    lines = report(manager, token({**USER, "scp": []}), authorization_rules_file=path)
    assert "ok rules: 5 more rules concern this caller" in lines
    assert any(line.endswith("s3.t19 and 5 more") for line in lines)


SESSION = SessionIssuer(Ed25519PrivateKey.generate(), max_seconds=600, clock=FakeClock())
CALLER = Identity("okta", "00u1", groups=frozenset({"Writers"}), expires_at=NOW + 3600.0)


def test_a_session(tmp_path: Path) -> None:
    made = SESSION.issue(CALLER, frozenset({"Writers"}), frozenset()).token
    path = tmp_path / "session.key"
    path.touch()
    lines = report(manager_of(sessions=SESSION), made, write_groups=("Writers",), session_key_path=path)
    assert "ok provider: session, made from a token of 'okta'" in lines
    assert "ok write: allowed (group Writers)" in lines
    assert lines[-1] == "ok token: the server accepts this token"


def test_a_session_of_a_key_in_the_memory_of_a_server() -> None:
    made = SESSION.issue(CALLER, frozenset({"Writers"}), frozenset()).token
    own = SessionIssuer(Ed25519PrivateKey.generate(), max_seconds=600, clock=FakeClock())
    lines = report(manager_of(sessions=own), made, write_groups=("Writers",))
    assert any(line.startswith("FAIL signature: Key not found") for line in lines)
    assert "SESSION_KEY_PATH" in lines[-1]


def test_without_providers_no_token_is_needed() -> None:
    (finding,) = explain_token(load(), token(USER))
    assert finding.level is Level.OK
    assert "need no token" in finding.detail


hostile = st.text(
    st.sampled_from("a\x1b[2J\r\n\t\x00\x07\x9b\u202e\u2028\ud800é\\'\"") | st.characters(), max_size=100
)
values = hostile | st.none() | st.booleans() | st.integers() | st.floats() | st.lists(hostile, max_size=5)
names = st.sampled_from(
    ["iss", "aud", "sub", "uid", "cid", "exp", "nbf", "iat", "groups", "scp", "nonce", "jti"]
)


def findings_of(made: str) -> list[Finding]:
    manager = manager_of()
    try:
        return explain_token(settings(write_groups=("Writers",)), made, manager=manager)
    finally:
        manager.close()


@given(
    claims=st.dictionaries(names, values),
    header=st.dictionaries(st.sampled_from(["kid", "typ", "alg", "jku", "crit"]), values),
)
def test_no_claim_reaches_the_terminal_as_a_command(claims: dict[str, Any], header: dict[str, Any]) -> None:
    made = raw_token(
        json.dumps({"alg": "RS256", "kid": "kid-1"} | header), json.dumps({**USER, **claims}), rsa_key()
    )
    lines = [line for finding in findings_of(made) for line in render(finding).split("\n")]
    assert all(line.isprintable() for line in lines)
    assert not any(part in line for part in made.split(".") for line in lines)
    assert lines[-1].startswith(("ok token: ", "  fix: "))


@given(hostile)
def test_no_text_reaches_the_terminal_as_a_command(made: str) -> None:
    lines = [line for finding in findings_of(made) for line in render(finding).split("\n")]
    assert all(line.isprintable() for line in lines)
