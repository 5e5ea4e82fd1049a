"""Attacks on the sealed texts of the server: transaction ids and tickets."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.auth.capability import (
    MAX_SEALED_BYTES,
    MAX_TRANSACTION_CHARACTERS,
    TICKET,
    TRANSACTION,
    Capabilities,
    TransactionRefused,
)
from boilstream.auth.errors import InvalidToken
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.identity import Identity
from boilstream.errors import InvalidArgument, PermissionDenied
from tests.security.parties import CLOCK, NAMES, SESSIONS, manager_of, web
from tests.support.tokens import NOW, b64

KEY = SESSIONS.derived_key("capability 1")
EXPIRY = ExpiryRule(30, CLOCK)
SERVER = Capabilities(KEY, expiry=EXPIRY)
IDENTITY = Identity("okta", "00u1", groups=frozenset({"DataEngineers"}), expires_at=NOW + 7200.0)
NAMED = frozenset({"DataEngineers", "Admins"})
PROCESS = "3f0a7c8e-5d0f-4a0e-9a57-0d6d3f1b2c4d"
HERE: dict[str, Any] = {"catalog": "boilstream", "client_session": PROCESS}


def transaction(identity: Identity = IDENTITY, server: Capabilities = SERVER, **changes: Any) -> str:
    text = server.issue(identity, **(HERE | changes), groups=NAMED, scopes=frozenset())
    assert text is not None
    return text


GOOD = transaction()
SEALED = SERVER.seal(TICKET, {"topic": "7f", "segments": [["a", 0, 10]]}, principal=IDENTITY.principal)

not_genuine = r"^the transaction id was altered, or was made by another server or before a restart: end"


def refused_everywhere(text: str, match: str = not_genuine) -> None:
    """Neither alone nor beside a token."""
    for use in (
        lambda: SERVER.redeem(text, **HERE),
        lambda: SERVER.check(text, IDENTITY, **HERE),
    ):
        with pytest.raises(TransactionRefused, match=match) as caught:
            use()
        assert len(caught.value.message) < 200
        assert caught.value.__cause__ is None
        assert not text or len(text) < 8 or text not in caught.value.message


def test_the_texts_that_the_attacks_change_are_good() -> None:
    assert SERVER.redeem(GOOD, **HERE).subject == "00u1"
    SERVER.check(GOOD, IDENTITY, **HERE)
    assert SERVER.open(TICKET, SEALED, principal=IDENTITY.principal)["topic"] == "7f"


@given(position=st.integers(0, len(GOOD) - 1), character=st.characters())
def test_no_character_of_an_id_can_be_changed(position: int, character: str) -> None:
    changed = GOOD[:position] + character + GOOD[position + 1 :]
    if changed != GOOD:
        refused_everywhere(changed)


@given(position=st.integers(0, len(GOOD)), added=st.text(min_size=1, max_size=5))
def test_nothing_can_be_added_to_an_id(position: int, added: str) -> None:
    refused_everywhere(GOOD[:position] + added + GOOD[position:])


@given(begin=st.integers(0, len(GOOD)), length=st.integers(1, len(GOOD)))
def test_nothing_can_be_taken_from_an_id(begin: int, length: int) -> None:
    if begin < len(GOOD):
        refused_everywhere(GOOD[:begin] + GOOD[begin + length :])


def test_the_last_character_has_one_form_only() -> None:
    """Two of its six bits carry nothing: decoders take four characters for one."""
    for character in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=":
        if character != GOOD[-1]:
            refused_everywhere(GOOD[:-1] + character)
    body, mac = GOOD.split(".")
    padded = body + "=" * (-len(body) % 4)
    for changed in (f"{GOOD}=", f"{padded}=.{mac}", f" {GOOD}", f"{GOOD}\n", GOOD.replace(".", "..")):
        refused_everywhere(changed)


@given(text=st.text(max_size=100) | st.text("eyJ.-_=AZaz09", max_size=200))
def test_no_text_passes_by_chance(text: str) -> None:
    refused_everywhere(text)


@given(data=st.binary(max_size=200))
def test_no_bytes_pass_for_a_ticket_by_chance(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="altered"):
        SERVER.open(TICKET, data, principal=IDENTITY.principal)


@given(position=st.integers(0, len(SEALED) - 1), byte=st.integers(0, 255))
def test_no_byte_of_a_ticket_can_be_changed(position: int, byte: int) -> None:
    changed = SEALED[:position] + bytes([byte]) + SEALED[position + 1 :]
    if changed != SEALED:
        with pytest.raises(InvalidArgument, match="altered"):
            SERVER.open(TICKET, changed, principal=IDENTITY.principal)


@pytest.mark.parametrize("text", ["ä" + GOOD[1:], GOOD[:-1] + "\udcff", "\x00", "ﬀ", GOOD.replace("e", "é")])
def test_other_characters_than_ascii_are_refused(text: str) -> None:
    assert not text.isascii() or text == "\x00"
    refused_everywhere(text)


def forged(payload: object, *, key: bytes = KEY, purpose: str = TRANSACTION, nul: bytes = b"\0") -> str:
    body = b64(payload if isinstance(payload, bytes) else json.dumps(payload).encode())
    return f"{body}.{b64(hmac.digest(key, purpose.encode() + nul + body.encode(), 'sha256'))}"


def test_an_id_too_long_is_refused_though_genuine() -> None:
    claims = {
        "principal": "okta:00u1",
        "end": NOW + 60,
        "payload": {"catalog": "boilstream", "process": PROCESS},
    }
    claims["payload"] |= {"sub": "00u1", "provider": "okta"}  # type: ignore[operator]  # it is a dict
    assert SERVER.redeem(forged(claims), **HERE).subject == "00u1", "the forge knows the form"
    longest = forged(claims | {"more": "x" * MAX_TRANSACTION_CHARACTERS})
    refused_everywhere(longest)
    refused_everywhere(GOOD * 100_000)


def test_a_ticket_too_long_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(InvalidArgument, match="altered"):
        SERVER.open(TICKET, b"A" * (MAX_SEALED_BYTES + 1), principal="okta:00u1")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[" * 2000,
        b"{}",
        b"[]",
        b"null",
        {"principal": "okta:00u1", "end": NOW + 60},
        {"principal": 7, "end": NOW + 60, "payload": {}},
        {"principal": "okta:00u1", "end": "never", "payload": {}},
        {"principal": "okta:00u1", "end": None, "payload": {}},
        {"principal": "okta:00u1", "end": NOW + 60, "payload": []},
        {"principal": "okta:00u1", "end": NOW + 60, "payload": {}},
        {"principal": "okta:00u1", "end": NOW + 60, "payload": {"process": PROCESS, "catalog": 7}},
        {"principal": "okta:00u1", "end": NOW + 60, "payload": {"process": None, "catalog": "boilstream"}},
    ],
)
def test_a_genuine_text_of_another_form_is_refused_without_a_defect(payload: object) -> None:
    """Another version of the server may have made it."""
    refused_everywhere(forged(payload))
    with pytest.raises(TransactionRefused):
        SERVER.redeem(forged(payload), catalog=None, client_session=None)


@pytest.mark.parametrize("claims", [{"sub": 7, "provider": "okta"}, {"provider": "okta"}, {"sub": "a\nb"}])
def test_a_genuine_text_without_a_caller_stands_for_nobody(claims: dict[str, Any]) -> None:
    payload = {"catalog": "boilstream", "process": PROCESS, **claims}
    with pytest.raises(TransactionRefused, match=not_genuine):
        SERVER.redeem(forged({"principal": "okta:00u1", "end": NOW + 60, "payload": payload}), **HERE)


def test_a_mac_of_another_key_purpose_or_algorithm_is_refused() -> None:
    body, mac = GOOD.split(".")
    payload = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    assert forged(payload) == GOOD
    refused_everywhere(forged(payload, key=bytes(32)))
    refused_everywhere(forged(payload, key=b""))
    refused_everywhere(forged(payload, purpose=TICKET))
    refused_everywhere(forged(payload, nul=b""))
    refused_everywhere(f"{body}.")
    refused_everywhere(f".{mac}")
    refused_everywhere(f"{body}.{b64(hmac.digest(KEY, body.encode(), 'sha512'))}")


def test_rights_cannot_be_written_into_an_id() -> None:
    body, mac = GOOD.split(".")
    payload = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert payload["payload"]["groups"] == ["DataEngineers"], "whoever has it can read it"
    for change in ({"groups": ["Admins"]}, {"sub": "00u2"}, {"process": "mine"}):
        changed = payload | {"payload": payload["payload"] | change}
        refused_everywhere(f"{b64(json.dumps(changed).encode())}.{mac}")
    refused_everywhere(f"{b64(json.dumps(payload | {'end': NOW * 2}).encode())}.{mac}")


def test_a_transaction_is_no_ticket_and_the_other_way_round() -> None:
    with pytest.raises(InvalidArgument, match="altered"):
        SERVER.open(TICKET, GOOD.encode(), principal=IDENTITY.principal)
    refused_everywhere(SEALED.decode())
    with pytest.raises(InvalidArgument, match="altered"):
        SERVER.open("ticket2", SEALED, principal=IDENTITY.principal)


def test_an_id_counts_for_one_process_and_one_catalog() -> None:
    for process in ("", PROCESS.upper(), PROCESS + " ", "3f0a7c8e-5d0f-4a0e-9a57-0d6d3f1b2c4e", None):
        for use in (SERVER.redeem, lambda text, **where: SERVER.check(text, IDENTITY, **where)):
            with pytest.raises(TransactionRefused, match="another client process"):
                use(GOOD, catalog="boilstream", client_session=process)
    for catalog in ("", "other", "boilstream ", "böilstream"):
        for use in (SERVER.redeem, lambda text, **where: SERVER.check(text, IDENTITY, **where)):
            with pytest.raises(TransactionRefused, match="another catalog"):
                use(GOOD, catalog=catalog, client_session=PROCESS)


def test_ids_and_tickets_of_others_help_nobody() -> None:
    mallory = replace(IDENTITY, subject="mallory")
    with pytest.raises(TransactionRefused, match="another user"):
        SERVER.check(GOOD, mallory, **HERE)
    with pytest.raises(PermissionDenied, match="another user"):
        SERVER.open(TICKET, SEALED, principal=mallory.principal)
    own = transaction(mallory)
    assert SERVER.redeem(own, **HERE).principal == "okta:mallory"
    with pytest.raises(TransactionRefused, match="another user"):
        SERVER.check(own, IDENTITY, **HERE)


@pytest.mark.parametrize(
    "other",
    [
        lambda: Capabilities(bytes(32), expiry=EXPIRY),
        lambda: Capabilities(SESSIONS.derived_key("capability 2"), expiry=EXPIRY),
        lambda: Capabilities(KEY[:-1] + bytes([KEY[-1] ^ 1]), expiry=EXPIRY),
    ],
)
def test_another_key_accepts_nothing(other: Callable[[], Capabilities]) -> None:
    refused_everywhere(transaction(server=other()))
    with pytest.raises(InvalidArgument, match="altered"):
        other().open(TICKET, SEALED, principal=IDENTITY.principal)


def test_a_session_token_is_no_id_and_an_id_no_bearer_token() -> None:
    session = SESSIONS.issue(IDENTITY, NAMED, frozenset()).token
    refused_everywhere(session)
    body = session.rpartition(".")[0]
    refused_everywhere(f"{body}.{GOOD.split('.')[1]}")
    manager = manager_of(NAMES, web())
    try:
        assert manager.authenticate(session).subject == "00u1"
        for text in (GOOD, SEALED.decode(), f"{GOOD}.", f"{session.split('.')[0]}.{GOOD}"):
            with pytest.raises(InvalidToken):
                manager.authenticate(text)
    finally:
        manager.close()


def test_the_key_of_ids_is_not_that_of_sessions() -> None:
    public = json.dumps(SESSIONS.jwks)
    assert b64(KEY) not in public
    refused_everywhere(forged({}, key=public.encode()))


def test_neither_key_nor_id_is_part_of_what_a_log_line_could_show() -> None:
    assert KEY.hex() not in repr(SERVER)
    assert repr(KEY) not in repr(SERVER)
