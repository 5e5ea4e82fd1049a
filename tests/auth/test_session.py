from __future__ import annotations

import base64
import json
import logging
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from boilstream.auth import jws
from boilstream.auth.errors import InvalidToken
from boilstream.auth.identity import Identity
from boilstream.auth.manager import build_manager
from boilstream.auth.session import MAX_SESSION_CHARACTERS, TOKEN_TYPE, URN, Session, SessionIssuer
from boilstream.errors import ConfigurationError, InvalidArgument
from boilstream.settings import Settings
from tests.support.tokens import NOW, FakeClock, b64, golden, raw_token, rsa_key, token

KEY = Ed25519PrivateKey.generate()
IDENTITY = Identity(
    provider="okta",
    subject="00u123456789abcdef",
    client="0oa123456789abcdef",
    groups=frozenset({"DataEngineers", "PlatformUsers"}),
    scopes=frozenset({"openid", "write:data"}),
    roles=frozenset({"Ingest", "Unused"}),
    expires_at=NOW + 600.0,
)
NAMED_GROUPS = frozenset({"DataEngineers", "Ingest", "Others"})
NAMED_SCOPES = frozenset({"write:data", "read:data"})
NONE: frozenset[str] = frozenset()

printable = st.text(
    st.characters(codec="utf-8").filter(lambda character: character.isprintable()), min_size=1, max_size=255
)
names = st.frozensets(st.text(max_size=20), max_size=8)
identities = st.builds(
    Identity,
    provider=st.sampled_from(["okta", "auth0", "azure-ad", "cognito", "gcp", "oidc"]),
    subject=printable,
    client=st.none() | printable,
    groups=names,
    scopes=names,
    roles=names,
    expires_at=st.floats(min_value=NOW + 1, max_value=NOW + 86_400) | st.just(float("inf")),
)


def some_of(values: frozenset[str]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(sorted(values))) if values else st.just(NONE)


def made(clock: FakeClock | None = None, max_seconds: float = 3600) -> SessionIssuer:
    return SessionIssuer(KEY, max_seconds=max_seconds, clock=clock or FakeClock())


def claims_of(session: Session, issuer: SessionIssuer) -> dict[str, Any]:
    """The claims after the checks of signature, type and audience, in the way of the manager."""
    (trusted,) = issuer.provider.issuers
    header, payload = jws.verify(session.token, issuer.jwks, trusted.algorithms)
    assert header["typ"] in trusted.token_types
    claims = jws.json_object(payload, "payload")
    assert claims["iss"] == trusted.issuer
    trusted.check_audience(claims)
    return claims


def restored(session: Session, issuer: SessionIssuer) -> Identity:
    claims = claims_of(session, issuer)
    (trusted,) = issuer.provider.issuers
    return replace(trusted.to_identity(claims), expires_at=float(claims["exp"]))


@given(identity=identities, groups=names, scopes=names, data=st.data())
def test_a_session_holds_the_identity_reduced_to_the_names_of_the_rules(
    identity: Identity, groups: frozenset[str], scopes: frozenset[str], data: st.DataObject
) -> None:
    groups |= data.draw(some_of(identity.groups | identity.roles))
    scopes |= data.draw(some_of(identity.scopes))
    issuer = made()
    session = issuer.issue(identity, groups, scopes)
    assert restored(session, issuer) == replace(
        identity,
        groups=identity.groups & groups,
        roles=identity.roles & groups,
        scopes=identity.scopes & scopes,
        expires_at=float(int(min(identity.expires_at, NOW + 3600))),
        session=True,
    )
    assert len(session.token) <= MAX_SESSION_CHARACTERS


def test_roles_count_as_groups_and_unnamed_ones_are_left_out() -> None:
    issuer = made()
    identity = restored(issuer.issue(IDENTITY, NAMED_GROUPS, NAMED_SCOPES), issuer)
    assert identity.groups == {"DataEngineers"}
    assert identity.roles == {"Ingest"}
    assert identity.scopes == {"write:data"}
    assert identity.principal == IDENTITY.principal


def test_header_and_claims_are_those_of_the_documentation() -> None:
    issuer = made()
    session = issuer.issue(IDENTITY, NAMED_GROUPS, NAMED_SCOPES)
    header, _ = jws.verify(session.token, issuer.jwks, ["EdDSA"])
    (key,) = issuer.jwks["keys"]
    assert header == {"alg": "EdDSA", "typ": "boilstream-session+jwt", "kid": key["kid"]}
    claims = claims_of(session, issuer)
    assert len(claims.pop("jti")) == 22
    assert claims == {
        "iss": "urn:boilstream:session",
        "aud": "urn:boilstream:session",
        "sub": IDENTITY.subject,
        "iat": NOW,
        "exp": NOW + 600,
        "provider": "okta",
        "client": IDENTITY.client,
        "groups": ["DataEngineers"],
        "roles": ["Ingest"],
        "scopes": ["write:data"],
    }


def test_empty_sets_and_no_client_take_no_room() -> None:
    issuer = made()
    session = issuer.issue(replace(IDENTITY, client=None), NONE, NONE)
    assert not {"client", "groups", "roles", "scopes"} & claims_of(session, issuer).keys()
    assert restored(session, issuer).client is None


def test_the_key_id_is_the_thumbprint_of_the_key() -> None:
    # The key and the thumbprint of RFC 8037, appendix A.1 to A.3.
    private = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    issuer = SessionIssuer(Ed25519PrivateKey.from_private_bytes(private), max_seconds=60)
    assert issuer.jwks == {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
                "use": "sig",
                "alg": "EdDSA",
            }
        ]
    }


def test_the_public_keys_hold_no_private_part() -> None:
    secret = b64(KEY.private_bytes_raw())
    assert secret not in json.dumps(made().jwks)
    assert all("d" not in key for key in made().jwks["keys"])


@pytest.mark.parametrize(
    ("original_ends", "max_seconds", "expected"),
    [
        (NOW + 600.0, 3600, NOW + 600),
        (NOW + 600.9, 3600, NOW + 600),
        (NOW + 7200.0, 3600, NOW + 3600),
        (float("inf"), 60.5, NOW + 60),
    ],
)
def test_a_session_ends_with_the_original_or_at_its_longest_life(
    original_ends: float, max_seconds: float, expected: int
) -> None:
    issuer = made(max_seconds=max_seconds)
    session = issuer.issue(replace(IDENTITY, expires_at=original_ends), NONE, NONE)
    assert session.expires_at == expected
    assert claims_of(session, issuer)["exp"] == expected


def test_issue_time_and_end_are_whole_seconds() -> None:
    issuer = made(FakeClock(NOW + 0.75))
    claims = claims_of(issuer.issue(IDENTITY, NONE, NONE), issuer)
    assert (claims["iat"], type(claims["iat"]), type(claims["exp"])) == (NOW, int, int)


@pytest.mark.parametrize("ended", [NOW - 10.0, float(NOW), NOW + 0.5])
def test_a_token_that_has_ended_gives_no_session(ended: float) -> None:
    with pytest.raises(InvalidToken) as caught:
        made().issue(replace(IDENTITY, expires_at=ended), NONE, NONE)
    assert caught.value.reason.startswith("Expired: ")


def test_a_session_holds_only_under_the_settings_that_made_it() -> None:
    issuers = [
        SessionIssuer(KEY, max_seconds=60, policy=policy, clock=FakeClock()) for policy in ("", "a", "b")
    ]
    for issuer in issuers:
        session = issuer.issue(IDENTITY, NAMED_GROUPS, NAMED_SCOPES)
        assert restored(session, issuer).principal == IDENTITY.principal
        for other in issuers:
            if other is not issuer:
                with pytest.raises(InvalidToken) as caught:
                    restored(session, other)
                assert "other settings" in caught.value.reason


def test_what_decides_about_callers_is_part_of_the_settings_that_count(tmp_path: Path) -> None:
    """Tenants, audiences, listed groups and the longest life; not what may differ from node to node."""
    path = tmp_path / "session.key"
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    base: dict[str, Any] = {
        "auth_providers": ("okta",),
        "okta_org_domain": "company.okta.com",
        "okta_audience": "api://boilstream",
        "session_key_path": path,
    }

    def audience(**changes: Any) -> Any:
        manager = build_manager(Settings(**(base | changes)))
        assert manager is not None
        assert manager.sessions is not None
        session = manager.sessions.issue(replace(IDENTITY, expires_at=float("inf")), NONE, NONE)
        return claims_of(session, manager.sessions)["aud"]

    copy = tmp_path / "copy.key"
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o600)
    assert audience() == audience(session_key_path=copy, data_dir=tmp_path, log_level="debug")
    authority = tmp_path / "ca.crt"
    trustme.CA().cert_pem.write_to_path(authority)
    assert audience() == audience(auth_ca_file=authority), "one node may need it, another not"
    changed = [
        audience(okta_audience="api://other"),
        audience(okta_auth_server_id="other"),
        audience(read_only_groups=("Interns",)),
        audience(session_seconds=60),
    ]
    assert len({audience(), *changed}) == 5


def test_a_session_cannot_be_exchanged_for_a_longer_one() -> None:
    issuer = made()
    session = restored(issuer.issue(IDENTITY, NAMED_GROUPS, NAMED_SCOPES), issuer)
    with pytest.raises(InvalidArgument, match="exchange the identity provider's token again"):
        issuer.issue(session, NAMED_GROUPS, NAMED_SCOPES)


def test_two_sessions_of_one_caller_differ() -> None:
    issuer = made()
    assert len({issuer.issue(IDENTITY, NONE, NONE).token for _ in range(10)}) == 10


def test_a_token_is_not_part_of_what_a_log_line_could_show() -> None:
    session = made().issue(IDENTITY, NONE, NONE)
    assert session.token not in repr(session)


def test_a_token_with_200_group_ids_becomes_short() -> None:
    groups = [str(uuid.UUID(int=number + (4 << 76) + (8 << 60))) for number in range(200)]
    original = token({**golden().user, "groups": groups}, key=rsa_key())
    assert 10_000 < len(original) < 12_000
    identity = replace(IDENTITY, groups=frozenset(groups))
    issuer = made()
    session = issuer.issue(identity, frozenset(groups[:3]), NAMED_SCOPES)
    assert len(session.token) < 1500
    assert restored(session, issuer).groups == set(groups[:3])


def test_too_many_named_groups_are_refused_with_what_to_do() -> None:
    groups = frozenset(str(uuid.UUID(int=number)) for number in range(200))
    identity = replace(IDENTITY, groups=groups)
    with pytest.raises(InvalidArgument, match=r"at most 6144 .* 200 groups, 0 roles and 0 scopes .* fewer"):
        made().issue(identity, groups, NONE)


def test_the_longest_subject_and_client_fit() -> None:
    identity = replace(IDENTITY, subject="\U0001f600" * 255, client="\U0001f600" * 255)
    issuer = made()
    assert restored(issuer.issue(identity, NAMED_GROUPS, NAMED_SCOPES), issuer).subject == identity.subject


_TAMPERED = made().issue(IDENTITY, NAMED_GROUPS, NAMED_SCOPES).token


@given(
    position=st.integers(0, len(_TAMPERED) - 1),
    character=st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \x00"),
)
def test_no_character_can_be_changed(position: int, character: str) -> None:
    changed = _TAMPERED[:position] + character + _TAMPERED[position + 1 :]
    if changed == _TAMPERED:
        jws.verify(changed, made().jwks, ("EdDSA",))
    else:
        with pytest.raises(InvalidToken):
            jws.verify(changed, made().jwks, ("EdDSA",))


@given(cut=st.integers(0, len(_TAMPERED) - 1))
def test_no_character_can_be_left_out_or_added(cut: int) -> None:
    for changed in (
        _TAMPERED[:cut] + _TAMPERED[cut + 1 :],
        _TAMPERED[:cut],
        f"{_TAMPERED[:cut]}A{_TAMPERED[cut:]}",
    ):
        with pytest.raises(InvalidToken):
            jws.verify(changed, made().jwks, ("EdDSA",))


def test_another_key_does_not_verify() -> None:
    other = SessionIssuer(Ed25519PrivateKey.generate(), max_seconds=60, clock=FakeClock())
    with pytest.raises(InvalidToken) as caught:
        jws.verify(other.issue(IDENTITY, NONE, NONE).token, made().jwks, ("EdDSA",))
    assert caught.value.reason.startswith("Key not found: ")


def good_claims() -> dict[str, Any]:
    issuer = made()
    return claims_of(issuer.issue(IDENTITY, NAMED_GROUPS, NAMED_SCOPES), issuer)


@pytest.mark.parametrize(
    "audience", [None, "urn:boilstream:other", [], [URN, "other"], URN.upper(), f"{URN}/", 7, {URN: 1}]
)
def test_only_the_exact_audience_is_accepted(audience: object) -> None:
    (trusted,) = made().provider.issuers
    claims = good_claims() | {"aud": audience}
    if audience is None:
        del claims["aud"]
    with pytest.raises(InvalidToken) as caught:
        trusted.check_audience(claims)
    assert caught.value.reason.startswith("Invalid audience: ")


@pytest.mark.parametrize("name", ["sub", "provider", "client", "groups", "roles", "scopes"])
@pytest.mark.parametrize("value", [None, 7, True, {}, [7], [["a"]], "", "a\nb", "x" * 256])
def test_claims_of_a_wrong_type_are_refused_though_signed(name: str, value: object) -> None:
    (trusted,) = made().provider.issuers
    with pytest.raises(InvalidToken) as caught:
        trusted.to_identity(good_claims() | {name: value})
    assert caught.value.reason.startswith(f"Invalid claim: {name} ")


@pytest.mark.parametrize("name", ["sub", "provider"])
def test_a_session_without_a_caller_is_refused(name: str) -> None:
    (trusted,) = made().provider.issuers
    claims = good_claims()
    del claims[name]
    with pytest.raises(InvalidToken) as caught:
        trusted.to_identity(claims)
    assert caught.value.reason.startswith(f"Invalid claim: {name} ")


def test_the_provider_declares_a_type_and_an_algorithm_of_its_own() -> None:
    provider = made().provider
    (trusted,) = provider.issuers
    assert (provider.name, provider.display_name) == ("session", "session")
    assert trusted.issuer == trusted.keys_url == URN
    assert trusted.algorithms == ("EdDSA",)
    assert trusted.token_types == {TOKEN_TYPE}
    assert TOKEN_TYPE.islower(), "the manager compares in lower case"


def test_a_token_made_elsewhere_with_the_key_restores_the_same_caller() -> None:
    # Written by hand, so that a change of the wire form cannot go unseen: nodes of two versions share a key.
    issuer = made()
    kid = issuer.jwks["keys"][0]["kid"]
    header = json.dumps({"alg": "EdDSA", "typ": "boilstream-session+jwt", "kid": kid})
    claims = {"iss": URN, "aud": URN, "sub": "u", "exp": NOW + 60, "provider": "oidc", "groups": ["g"]}
    session = Session(raw_token(header, json.dumps(claims), KEY, "EdDSA"), NOW + 60.0)
    assert restored(session, issuer) == Identity(
        provider="oidc", subject="u", groups=frozenset({"g"}), expires_at=NOW + 60.0, session=True
    )


def pem(key: Any = KEY, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    data: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return data


def key_file(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    path = folder / "session.key"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_nodes_with_the_same_key_file_accept_each_others_sessions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = key_file(tmp_path, pem())
    one = SessionIssuer.from_key_file(path, max_seconds=60, clock=FakeClock())
    two = SessionIssuer.from_key_file(path, max_seconds=60, clock=FakeClock())
    session = one.issue(IDENTITY, NAMED_GROUPS, NAMED_SCOPES)
    assert restored(session, two).principal == IDENTITY.principal
    assert session.expires_at == NOW + 60
    assert not caplog.records


def test_without_a_key_file_each_start_has_a_key_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "boilstream.auth.session"):
        one, two = (SessionIssuer.from_key_file(None, max_seconds=60) for _ in range(2))
    assert one.jwks != two.jwks
    assert "SESSION_KEY_PATH" in caplog.text
    assert all(record.levelno == logging.INFO for record in caplog.records)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_file_that_others_can_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    path = key_file(tmp_path, pem(), mode)
    SessionIssuer.from_key_file(path, max_seconds=60)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"mode {mode:03o}" in record.getMessage()
    assert f"chmod 600 {path}" in record.getMessage()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no private key in PEM"),
        (b"not a key", "no private key in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no private key in PEM"),
        (KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "no private key"),
        (pem(password=b"secret"), "is encrypted"),
        (pem(rsa_key()), "not of type Ed25519"),
    ],
    ids=["empty", "text", "broken", "public", "encrypted", "rsa"],
)
def test_a_file_without_a_usable_key_is_refused_with_how_to_make_one(
    tmp_path: Path, data: bytes, problem: str
) -> None:
    path = key_file(tmp_path, data)
    with pytest.raises(ConfigurationError) as caught:
        SessionIssuer.from_key_file(path, max_seconds=60)
    assert_helps(caught.value.message, path, problem)


def test_a_missing_key_file_is_refused_with_how_to_make_one(tmp_path: Path) -> None:
    for path, problem in [(tmp_path / "none.key", "No such file"), (tmp_path, "Is a directory")]:
        with pytest.raises(ConfigurationError) as caught:
            SessionIssuer.from_key_file(path, max_seconds=60)
        assert_helps(caught.value.message, path, problem)


def assert_helps(message: str, path: Path, problem: str) -> None:
    assert message.startswith("SESSION_KEY_PATH: ")
    assert str(path) in message
    assert problem in message
    assert "openssl genpkey -algorithm ed25519 -out session.key" in message
