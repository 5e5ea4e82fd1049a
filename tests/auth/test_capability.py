"""Sealed texts of the server: what they hold, for whom they count, and how long."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from boilstream.auth.capability import (
    MAX_SEALED_BYTES,
    MAX_TRANSACTION_CHARACTERS,
    TICKET,
    Capabilities,
    TransactionRefused,
    build_capabilities,
)
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.identity import Identity
from boilstream.auth.manager import build_manager
from boilstream.auth.middleware import ANONYMOUS
from boilstream.auth.session import MAX_SESSION_CHARACTERS, SessionIssuer
from boilstream.errors import ConfigurationError, InvalidArgument, PermissionDenied
from boilstream.settings import Settings
from tests.support.tokens import NOW, FakeClock

KEY = bytes(range(32))
IDENTITY = Identity(
    provider="okta",
    subject="00u123456789abcdef",
    client="0oa123456789abcdef",
    groups=frozenset({"DataEngineers", "PlatformUsers"}),
    scopes=frozenset({"openid", "write:data"}),
    roles=frozenset({"Ingest", "Unused"}),
    expires_at=NOW + 7200.0,
)
GROUPS = frozenset({"DataEngineers", "Ingest", "Others"})
SCOPES = frozenset({"write:data", "read:data"})
NONE: frozenset[str] = frozenset()
PROCESS = "3f0a7c8e-5d0f-4a0e-9a57-0d6d3f1b2c4d"
HERE: dict[str, Any] = {"catalog": "boilstream", "client_session": PROCESS}

printable = st.text(
    st.characters(codec="utf-8").filter(lambda character: character.isprintable()), min_size=1, max_size=255
)
names = st.frozensets(st.text(max_size=20), max_size=8)
identities = st.builds(
    Identity,
    provider=st.sampled_from(["okta", "auth0", "azure-ad", "oidc", "anonymous"]),
    subject=printable,
    client=st.none() | printable,
    groups=names,
    scopes=names,
    roles=names,
    expires_at=st.floats(min_value=NOW + 1, max_value=NOW + 86_400) | st.just(float("inf")),
    session=st.booleans(),
)


def made(clock: FakeClock | None = None, key: bytes = KEY, leeway: float = 0) -> Capabilities:
    return Capabilities(key, expiry=ExpiryRule(leeway, clock or FakeClock()))


def issued(capabilities: Capabilities, identity: Identity = IDENTITY, **changes: Any) -> str:
    text = capabilities.issue(identity, **({**HERE, "groups": GROUPS, "scopes": SCOPES} | changes))
    assert text is not None
    return text


@given(
    identity=identities,
    groups=names,
    scopes=names,
    catalog=st.text(max_size=40),
    process=st.text(min_size=1, max_size=40),
)
def test_a_transaction_stands_for_the_caller_reduced_to_the_names_of_the_rules(
    identity: Identity, groups: frozenset[str], scopes: frozenset[str], catalog: str, process: str
) -> None:
    groups |= frozenset(sorted(identity.groups | identity.roles)[::2])
    scopes |= frozenset(sorted(identity.scopes)[::2])
    capabilities = made()
    where: dict[str, Any] = {"catalog": catalog, "client_session": process}
    text = capabilities.issue(identity, **where, groups=groups, scopes=scopes)
    if text is None:  # many characters of many bytes
        long = [identity.subject, identity.client, sorted(groups), sorted(scopes), catalog, process]
        assert len(json.dumps(long, ensure_ascii=False).encode()) > 1200
        return
    assert capabilities.redeem(text, **where) == replace(
        identity,
        groups=identity.groups & groups,
        roles=identity.roles & groups,
        scopes=identity.scopes & scopes,
        expires_at=float(int(min(identity.expires_at, NOW + 3600))),
    )
    assert text.isascii()
    assert len(text) <= MAX_TRANSACTION_CHARACTERS


def test_the_caller_is_who_it_was() -> None:
    capabilities = made()
    caller = capabilities.redeem(issued(capabilities), **HERE)
    assert caller.principal == IDENTITY.principal
    assert caller.client == IDENTITY.client
    assert caller.groups == {"DataEngineers"}
    assert caller.roles == {"Ingest"}
    assert caller.scopes == {"write:data"}
    assert not caller.session
    assert capabilities.redeem(issued(capabilities, replace(IDENTITY, session=True)), **HERE).session


def test_without_providers_ids_are_made_too() -> None:
    capabilities = made()
    text = issued(capabilities, ANONYMOUS)
    assert capabilities.redeem(text, **HERE) == replace(ANONYMOUS, expires_at=NOW + 3600.0)


def test_every_id_is_another_one_and_fits_into_a_header() -> None:
    capabilities = made()
    texts = {issued(capabilities) for _ in range(20)}
    assert len(texts) == 20
    assert all(text.isascii() and text.isprintable() and " " not in text for text in texts)


@pytest.mark.parametrize(
    ("token_ends", "expected"),
    [(NOW + 7200.0, NOW + 3600), (NOW + 600.9, NOW + 600), (float("inf"), NOW + 3600)],
)
def test_an_id_ends_after_an_hour_or_with_the_token(token_ends: float, expected: float) -> None:
    clock = FakeClock()
    capabilities = made(clock)
    text = issued(capabilities, replace(IDENTITY, expires_at=token_ends))
    assert capabilities.redeem(text, **HERE).expires_at == expected
    clock.now = expected - 0.001
    capabilities.redeem(text, **HERE)
    clock.now = expected
    with pytest.raises(
        TransactionRefused, match=r"^the transaction has expired: end it, or DETACH and ATTACH"
    ):
        capabilities.redeem(text, **HERE)


def test_nodes_whose_clocks_differ_tolerate_as_much_as_with_tokens() -> None:
    clock = FakeClock()
    capabilities = made(clock, leeway=30)
    text = issued(capabilities)
    clock.advance(3629)
    capabilities.redeem(text, **HERE)
    clock.advance(1)
    with pytest.raises(TransactionRefused, match="expired"):
        capabilities.redeem(text, **HERE)


def test_a_token_within_its_leeway_gives_an_id_for_the_rest_of_it_and_none_after() -> None:
    clock = FakeClock(NOW + 10)
    capabilities = made(clock, leeway=30)
    ended = replace(IDENTITY, expires_at=float(NOW))
    text = issued(capabilities, ended)
    assert capabilities.redeem(text, **HERE).expires_at == NOW
    clock.now = NOW + 30
    with pytest.raises(TransactionRefused, match="expired"):
        capabilities.redeem(text, **HERE)
    assert capabilities.issue(ended, **HERE, groups=NONE, scopes=NONE) is None


def test_an_id_that_was_made_with_an_id_does_not_live_longer() -> None:
    clock = FakeClock()
    capabilities = made(clock)
    first = capabilities.redeem(issued(capabilities), **HERE)
    clock.advance(3000)
    second = capabilities.redeem(issued(capabilities, first), **HERE)
    assert second.expires_at == first.expires_at


@pytest.mark.parametrize("process", [None, ""])
def test_a_client_that_does_not_name_its_process_gets_no_id(process: str | None) -> None:
    where = HERE | {"client_session": process}
    assert made().issue(IDENTITY, **where, groups=NONE, scopes=NONE) is None


def test_an_id_too_long_for_a_header_is_not_made() -> None:
    groups = frozenset(f"group-{number:040}" for number in range(80))
    capabilities = made()
    assert capabilities.issue(replace(IDENTITY, groups=groups), **HERE, groups=groups, scopes=NONE) is None
    issued(capabilities, replace(IDENTITY, groups=groups), groups=NONE)
    assert (
        capabilities.issue(IDENTITY, **(HERE | {"client_session": "x" * 5000}), groups=NONE, scopes=NONE)
        is None
    )


def test_an_id_too_long_beside_its_token_is_not_made() -> None:
    """Clients that have the token for all calls send both, and gRPC refuses more than 8 KiB of headers."""
    capabilities = made()
    length = len(issued(capabilities))
    room = MAX_SESSION_CHARACTERS - length
    assert len(issued(capabilities, bearer_characters=room)) == length
    arguments = {**HERE, "groups": GROUPS, "scopes": SCOPES}
    assert capabilities.issue(IDENTITY, **arguments, bearer_characters=room + 1) is None
    assert capabilities.issue(IDENTITY, **arguments, bearer_characters=12_000) is None


def test_the_catalog_counts_in_any_letter_case_and_may_be_unnamed() -> None:
    """ATTACH takes the name in any case; older clients do not send it again."""
    capabilities = made()
    text = issued(capabilities)
    for catalog in ("boilstream", "BoilStream", None):
        assert capabilities.redeem(text, catalog=catalog, client_session=PROCESS).subject == IDENTITY.subject
        capabilities.check(text, IDENTITY, catalog=catalog, client_session=PROCESS)


def test_beside_a_token_an_id_may_have_ended() -> None:
    clock = FakeClock()
    capabilities = made(clock)
    text = issued(capabilities)
    clock.advance(100_000)
    capabilities.check(text, IDENTITY, **HERE)


def test_beside_a_token_an_id_belongs_to_the_same_principal() -> None:
    capabilities = made()
    text = issued(capabilities)
    capabilities.check(text, replace(IDENTITY, client="other", groups=NONE, session=True), **HERE)
    for other in (replace(IDENTITY, subject="x"), replace(IDENTITY, provider="auth0"), ANONYMOUS):
        with pytest.raises(TransactionRefused, match=r"another user .* SECRET"):
            capabilities.check(text, other, **HERE)


PAYLOAD = {"topic": "7f", "columns": [0, 2], "filters": '{"a": "täulu \\u0000"}', "rows": None, "share": 0.5}


def test_a_ticket_gives_back_what_it_was_made_of() -> None:
    capabilities = made()
    sealed = capabilities.seal(TICKET, PAYLOAD, principal="okta:u")
    assert sealed.isascii()
    assert capabilities.open(TICKET, sealed, principal="okta:u") == PAYLOAD


def test_a_ticket_ends_and_says_what_to_do() -> None:
    clock = FakeClock(NOW + 0.5)
    capabilities = made(clock)
    sealed = capabilities.seal(TICKET, PAYLOAD, principal="okta:u")
    clock.now = NOW + 3599.9
    capabilities.open(TICKET, sealed, principal="okta:u")
    clock.now = NOW + 3600.0
    with pytest.raises(InvalidArgument, match=r"^the ticket has expired; run the statement again$"):
        capabilities.open(TICKET, sealed, principal="okta:u")


def test_a_ticket_is_for_its_principal_alone() -> None:
    capabilities = made()
    sealed = capabilities.seal(TICKET, PAYLOAD, principal="okta:u")
    with pytest.raises(PermissionDenied, match="another user"):
        capabilities.open(TICKET, sealed, principal="okta:v")


def test_a_ticket_too_long_to_be_read_is_not_made() -> None:
    with pytest.raises(InvalidArgument, match=f"at most {MAX_SEALED_BYTES} are read"):
        made().seal(TICKET, {"files": "x" * MAX_SEALED_BYTES}, principal="okta:u")


# The key.


def key_file(folder: Path, key: Ed25519PrivateKey, name: str = "session.key") -> Path:
    path = folder / name
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return path


def node(**changes: Any) -> Capabilities:
    base: dict[str, Any] = {
        "auth_providers": ("okta",),
        "okta_org_domain": "company.okta.com",
        "okta_audience": "api://boilstream",
    }
    settings = Settings(**(base | changes))
    manager = build_manager(settings)
    capabilities = build_capabilities(settings, manager)
    if manager is not None:
        manager.close()
    return capabilities


def accepts(node: Capabilities, of: Capabilities) -> bool:
    text = issued(of, replace(IDENTITY, expires_at=float("inf")))
    sealed = of.seal(TICKET, PAYLOAD, principal="okta:u")
    try:
        node.redeem(text, **HERE)
    except TransactionRefused:
        with pytest.raises(InvalidArgument):
            node.open(TICKET, sealed, principal="okta:u")
        return False
    return node.open(TICKET, sealed, principal="okta:u") == PAYLOAD


def test_nodes_with_one_key_and_one_policy_accept_each_others_texts(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    path, copy = key_file(tmp_path, key), key_file(tmp_path, key, "copy.key")
    first = node(session_key_path=path)
    assert accepts(node(session_key_path=path), first), "after a restart"
    assert accepts(node(session_key_path=copy, log_level="debug", data_dir=tmp_path), first)
    other = key_file(tmp_path, Ed25519PrivateKey.generate(), "other.key")
    assert not accepts(node(session_key_path=other), first)


@pytest.mark.parametrize(
    "change",
    [
        {"okta_audience": "api://other"},
        {"read_only_groups": ("Interns",)},
        {"session_seconds": 60},
        {"auth_providers": ()},
    ],
)
def test_settings_that_decide_differently_end_them(tmp_path: Path, change: dict[str, Any]) -> None:
    path = key_file(tmp_path, Ed25519PrivateKey.generate())
    before, after = node(session_key_path=path), node(session_key_path=path, **change)
    assert not accepts(after, before)
    assert not accepts(before, after)


@pytest.mark.parametrize("providers", [("okta",), ()])
def test_without_a_key_file_they_end_with_the_process(providers: tuple[str, ...]) -> None:
    first = node(auth_providers=providers)
    assert accepts(first, first)
    assert not accepts(node(auth_providers=providers), first)


def test_without_providers_nodes_share_a_key_file_too(tmp_path: Path) -> None:
    path = key_file(tmp_path, Ed25519PrivateKey.generate())
    assert accepts(
        node(auth_providers=(), session_key_path=path), node(auth_providers=(), session_key_path=path)
    )


def test_a_file_without_a_key_is_told_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "session.key"
    path.write_text("no key")
    with pytest.raises(ConfigurationError, match="SESSION_KEY_PATH"):
        node(auth_providers=(), session_key_path=path)


def test_the_leeway_is_that_of_the_settings(tmp_path: Path) -> None:
    settings = Settings(auth_providers=(), auth_leeway_seconds=300)
    ended = replace(IDENTITY, expires_at=0.0)
    assert build_capabilities(settings, None).issue(ended, **HERE, groups=NONE, scopes=NONE) is None


def test_the_derived_key_is_that_of_hkdf() -> None:
    """Written by hand, so that a change cannot go unseen: nodes of two versions share a key file."""
    private = bytes(range(32, 64))
    issuer = SessionIssuer(Ed25519PrivateKey.from_private_bytes(private), max_seconds=60, policy="p")
    extracted = hmac.digest(bytes(32), private, hashlib.sha256)  # RFC 5869, 2.2, without a salt
    expanded = hmac.digest(extracted, b'["boilstream", "capability 1", "p"]\x01', hashlib.sha256)
    assert issuer.derived_key("capability 1") == expanded
    others = [
        issuer.derived_key("capability 2"),
        SessionIssuer(Ed25519PrivateKey.from_private_bytes(private), max_seconds=60).derived_key(
            "capability 1"
        ),
        private,
    ]
    assert expanded not in others
    assert len({*others}) == 3
