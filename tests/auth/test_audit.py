"""What an auditor makes of callers, decisions and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from boilstream.auth.audit import Auditor
from boilstream.auth.authorizer import Action, Authorizer, Decision
from boilstream.auth.errors import Denied, InvalidToken, KeysUnavailable, TokenExpired
from boilstream.auth.identity import Caller, Identity
from boilstream.auth.rules import Rules
from boilstream.catalog.names import topic_name
from boilstream.errors import BoilStreamError, Internal, NotFound, PermissionDenied, Unauthenticated
from boilstream.observe.audit import AuditLog
from boilstream.observe.metrics import Metrics

CALLER = Caller(
    Identity("okta", "00u1", "0oa1", groups=frozenset({"Readers"}), scopes=frozenset({"write:data"})),
    "ipv4:192.0.2.7:41234",
    "DoPut",
)
TOPIC = topic_name("s3", "Events")
RULES = Authorizer(Rules(read_only_groups=frozenset({"Readers"}), write_groups=frozenset({"Writers"})))
EMPTY = dict.fromkeys(
    ("action", "topic", "provider", "subject", "client", "peer", "rows", "commit", "error_id")
)
NOW = {"time": "2027-01-15T08:00:00.000Z"}


class Audited:
    """An auditor and what it wrote."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "audit.log"
        self.metrics = Metrics()
        self.log = AuditLog.open(str(self._path), clock=lambda: 1_800_000_000)
        self.auditor = Auditor(self.log, self.metrics)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def denied(self) -> dict[str, float]:
        """Action -> refused calls, as the metrics count them."""
        samples = [sample for family in self.metrics.registry.collect() for sample in family.samples]
        return {
            sample.labels["action"]: sample.value
            for sample in samples
            if sample.name == "boilstream_auth_denied_calls_total" and sample.value
        }


@pytest.fixture
def audited(tmp_path: Path) -> Audited:
    return Audited(tmp_path)


def decision(action: Action = Action.READ) -> Decision:
    return RULES.decide(CALLER.identity, action, TOPIC)


def test_a_commit_is_told_with_its_caller_its_rule_and_its_rows(audited: Audited) -> None:
    audited.auditor.allowed(CALLER, decision(), rows=7, commit="w/1")
    assert audited.lines() == [
        NOW
        | {
            "decision": "allowed",
            "call": "DoPut",
            "action": "read",
            "topic": "s3.Events",
            "provider": "okta",
            "subject": "00u1",
            "client": "0oa1",
            "peer": "ipv4:192.0.2.7:41234",
            "reason": "group Readers",
            "rows": 7,
            "commit": "w/1",
            "error_id": None,
        }
    ]


def test_a_session_is_told_with_its_caller(audited: Audited) -> None:
    audited.auditor.session(CALLER)
    assert audited.lines() == [
        NOW
        | EMPTY
        | {
            "decision": "allowed",
            "call": "DoPut",
            "provider": "okta",
            "subject": "00u1",
            "client": "0oa1",
            "peer": "ipv4:192.0.2.7:41234",
            "reason": "a valid token was exchanged for a session",
        }
    ]


def test_a_denied_call_is_told_with_the_reason_that_the_client_does_not_read(audited: Audited) -> None:
    denied = Denied(decision(Action.WRITE))
    audited.auditor.refused(denied, call="DoPut", error_id="e1", peer=CALLER.peer, caller=CALLER)
    (line,) = audited.lines()
    assert line["reason"] == denied.decision.reason != denied.message
    assert "group Readers is listed and does not allow write" in line["reason"]
    assert {name: line[name] for name in ("decision", "action", "topic", "subject", "error_id")} == {
        "decision": "denied",
        "action": "write",
        "topic": "s3.Events",
        "subject": "00u1",
        "error_id": "e1",
    }
    assert audited.denied() == {"write": 1}


def test_a_denied_call_on_the_server_itself_has_no_topic(audited: Audited) -> None:
    denied = Denied(RULES.decide(CALLER.identity, Action.WRITE, None))
    audited.auditor.refused(denied, call="action flush", error_id="e1", caller=CALLER)
    assert audited.lines()[0]["topic"] is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidToken("Expired: long ago", "get a new one"), "Expired: long ago; get a new one"),
        (InvalidToken("Malformed token: no dots"), "Malformed token: no dots"),
        (Unauthenticated("no bearer token"), "no bearer token"),
    ],
)
def test_a_call_without_a_valid_token_is_told_with_what_is_wrong(
    audited: Audited, error: BoilStreamError, reason: str
) -> None:
    audited.auditor.refused(error, call="DoGet", error_id="e2", peer="ipv4:192.0.2.7:1")
    assert audited.lines() == [
        NOW
        | EMPTY
        | {
            "decision": "unauthenticated",
            "call": "DoGet",
            "peer": "ipv4:192.0.2.7:1",
            "reason": reason,
            "error_id": "e2",
        }
    ]
    assert audited.denied() == {}


def test_a_token_that_ends_in_mid_call_is_told_with_its_owner(audited: Audited) -> None:
    error = TokenExpired(ack_up_to_offset=-1)
    audited.auditor.refused(error, call="DoPut", error_id="e3", peer=CALLER.peer, caller=CALLER)
    (line,) = audited.lines()
    assert (line["decision"], line["subject"], line["reason"]) == ("unauthenticated", "00u1", error.message)


def test_a_denial_without_a_decision_is_told_by_its_message(audited: Audited) -> None:
    audited.auditor.refused(PermissionDenied("not yours"), call="DoGet", error_id="e4", caller=CALLER)
    (line,) = audited.lines()
    assert (line["decision"], line["action"], line["reason"]) == ("denied", None, "not yours")


@pytest.mark.parametrize("error", [KeysUnavailable("provider down"), Internal("a defect")])
def test_what_keeps_everybody_out_is_told_too(audited: Audited, error: BoilStreamError) -> None:
    audited.auditor.refused(error, call="DoGet", error_id="e7", peer="ipv4:192.0.2.7:1")
    (line,) = audited.lines()
    assert (line["decision"], line["reason"]) == ("unauthenticated", error.message)
    assert line["subject"] is None


def test_a_change_whose_outcome_is_not_known_says_so(audited: Audited) -> None:
    audited.auditor.allowed(CALLER, decision(), note="the outcome is not known")
    (line,) = audited.lines()
    assert line["reason"] == "group Readers; the outcome is not known"
    assert line["rows"] is line["commit"] is None


def test_a_topic_is_named_so_that_it_is_one(audited: Audited) -> None:
    for schema, table in (("a.b", "c"), ("a", "b.c")):
        decided = RULES.decide(CALLER.identity, Action.READ, topic_name(schema, table))
        audited.auditor.allowed(CALLER, decided)
    assert [line["topic"] for line in audited.lines()] == ['["a.b", "c"]', "a.b.c"]


@pytest.mark.parametrize("error", [NotFound("no topic"), KeysUnavailable("provider down"), Internal("x")])
def test_other_errors_are_no_refusals(audited: Audited, error: BoilStreamError) -> None:
    audited.auditor.refused(error, call="DoGet", error_id="e5", caller=CALLER)
    assert audited.lines() == []


def test_a_log_that_cannot_be_written_fails_no_call(audited: Audited) -> None:
    audited.log.close()
    audited.auditor.allowed(CALLER, decision())
    audited.auditor.refused(Denied(decision(Action.ADMIN)), call="DoPut", error_id="e6", caller=CALLER)
    assert audited.log.lost == 2
    assert audited.denied() == {"admin": 1}
