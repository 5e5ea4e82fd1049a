"""The exchange of a provider's token for a session, with a real manager, without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from boilstream.auth.audit import Auditor
from boilstream.auth.authorizer import Authorizer
from boilstream.auth.errors import InvalidToken, KeysUnavailable
from boilstream.auth.exchange import SessionExchange
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.manager import AuthManager
from boilstream.auth.providers import okta
from boilstream.auth.rules import Action, Rule, Rules, TopicGlob
from boilstream.auth.session import SessionIssuer
from boilstream.catalog.names import topic_name
from boilstream.errors import InvalidArgument
from boilstream.observe.audit import AuditLog
from boilstream.observe.metrics import Metrics
from tests.support.tokens import AUDIENCE, NOW, ORG_DOMAIN, FakeClock, FakeFetch, golden, token

KEY = Ed25519PrivateKey.generate()
RULES = Rules(write_groups=frozenset({"DataEngineers"}))
PEER = "ipv4:192.0.2.7:41234"


class Node:
    """As much of a server as exchanges tokens."""

    def __init__(self, folder: Path, *, key: Ed25519PrivateKey = KEY, rules: Rules = RULES) -> None:
        self.clock, self.fetch = FakeClock(), FakeFetch()
        self.manager = AuthManager(
            [okta.provider(org_domain=ORG_DOMAIN, audience=AUDIENCE)],
            sessions=SessionIssuer(key, max_seconds=600, clock=self.clock),
            fetch=self.fetch,
            expiry=ExpiryRule(30, self.clock),
            monotonic=self.clock,
        )
        self._path = folder / "audit.log"
        self._log = AuditLog.open(str(self._path), clock=self.clock)
        self.authorizer = Authorizer(rules)
        self.exchange = SessionExchange(self.manager, self.authorizer, Auditor(self._log, Metrics()))

    def session(self, long: str) -> str:
        return self.exchange.exchange(long, peer=PEER, call="action session").token

    def audited(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def close(self) -> None:
        self.manager.close()
        self._log.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.close()


LONG = token(golden().user)


def test_a_session_stands_for_the_holder_of_the_token(node: Node) -> None:
    identity = node.manager.authenticate(node.session(LONG))
    original = node.manager.authenticate(LONG)
    assert identity.session
    assert not original.session
    assert (identity.provider, identity.subject, identity.client) == (
        original.provider,
        original.subject,
        original.client,
    )
    assert identity.groups == {"DataEngineers"}  # the one that a rule names
    assert identity.scopes == {"read:data", "write:data"}
    for action in Action:
        for topic in (None, topic_name("s3", "t")):
            decided = node.authorizer.decide(original, action, topic)
            assert node.authorizer.decide(identity, action, topic).allowed is decided.allowed


def test_names_are_those_of_the_rules_of_now(node: Node) -> None:
    rule = Rule((TopicGlob("s3", "*"),), frozenset({Action.READ}), groups=frozenset({"PlatformUsers"}))
    node.authorizer.replace(Rules(file_rules=(rule,)))
    identity = node.manager.authenticate(node.session(LONG))
    assert identity.groups == {"PlatformUsers"}


def test_an_exchange_is_audited_once(node: Node) -> None:
    node.session(LONG)
    (line,) = node.audited()
    assert (line["decision"], line["call"], line["peer"]) == ("allowed", "action session", PEER)
    assert (line["provider"], line["subject"]) == ("okta", golden().user["sub"])


def test_a_session_ends_after_its_time_or_with_the_token(node: Node) -> None:
    early = node.exchange.exchange(LONG, peer=None, call="x")
    assert early.expires_at == NOW + 600
    node.clock.advance(3500)
    late = node.exchange.exchange(LONG, peer=None, call="x")
    assert late.expires_at == NOW + 3600
    node.clock.advance(129)
    assert node.manager.authenticate(late.token).session  # the same leeway as for the original
    node.clock.advance(1)
    for ended in (late.token, LONG, early.token):
        with pytest.raises(InvalidToken, match="invalid token") as caught:
            node.manager.authenticate(ended)
        assert caught.value.reason.startswith("Expired: ")


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ("garbage", "Malformed token: "),
        (token({**golden().user, "aud": "api://other"}), "Invalid audience: "),
        (token({**golden().user, "exp": NOW - 31}), "Expired: "),
        (LONG[:-8], "Signature wrong: "),
    ],
)
def test_a_token_that_is_not_valid_makes_no_session(node: Node, wrong: str, kind: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        node.session(wrong)
    assert caught.value.reason.startswith((kind, "Malformed token: "))
    assert node.audited() == []  # the refusal is told by whoever answers the call


def test_sessions_are_not_exchanged(node: Node) -> None:
    session = node.session(LONG)
    with pytest.raises(InvalidArgument, match="session token cannot be exchanged"):
        node.session(session)
    assert len(node.audited()) == 1


def test_a_provider_that_is_down_is_no_fault_of_the_token(node: Node) -> None:
    node.fetch.error = OSError("down")
    with pytest.raises(KeysUnavailable):
        node.session(LONG)


def test_a_server_that_asks_for_no_tokens_has_no_sessions(tmp_path: Path) -> None:
    auditor = Auditor(AuditLog.open(None), Metrics())
    for manager in (None, AuthManager([okta.provider(org_domain=ORG_DOMAIN, audience=AUDIENCE)])):
        exchange = SessionExchange(manager, Authorizer(RULES), auditor)
        with pytest.raises(InvalidArgument, match="asks for no tokens"):
            exchange.exchange(LONG, peer=None, call="action session")
        if manager is not None:
            manager.close()


def test_nodes_with_one_key_accept_each_others_sessions_and_others_do_not(node: Node, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    same, other = Node(tmp_path / "b"), Node(tmp_path / "c", key=Ed25519PrivateKey.generate())
    session = node.session(LONG)
    assert same.manager.authenticate(session).session
    with pytest.raises(InvalidToken) as caught:
        other.manager.authenticate(session)
    assert caught.value.reason.startswith("Key not found: ")
    assert "SESSION_KEY_PATH" in str(caught.value.fix)
    same.close()
    other.close()
