"""Groups, scopes and the words of a refusal."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.auth.authorizer import Action, Authorizer, Decision, Rules, rules_from
from boilstream.auth.identity import Identity
from boilstream.errors import PermissionDenied
from boilstream.settings import Settings

RULES = Rules(
    admin_groups=frozenset({"Admins", "Engineers"}),
    write_groups=frozenset({"Engineers", "ETL"}),
    read_only_groups=frozenset({"Analysts"}),
)
TOPIC = "s3.user_events"
READ, WRITE, ADMIN = Action.READ, Action.WRITE, Action.ADMIN


def caller(groups: set[str] = set(), scopes: set[str] = set()) -> Identity:  # noqa: B006 - never changed
    return Identity("okta", "00u1", groups=frozenset(groups), scopes=frozenset(scopes))


def allowed(identity: Identity, rules: Rules = RULES) -> set[Action]:
    authorizer = Authorizer(rules)
    return {action for action in Action if authorizer.decide(identity, action, TOPIC).allowed}


@pytest.mark.parametrize(
    ("groups", "scopes", "expected"),
    [
        ({"Admins"}, set(), {READ, WRITE, ADMIN}),
        ({"Engineers"}, set(), {READ, WRITE, ADMIN}),
        ({"ETL"}, set(), {READ, WRITE}),
        ({"Analysts"}, set(), {READ}),
        ({"Analysts", "ETL"}, set(), {READ, WRITE}),
        ({"Analysts", "Others"}, set(), {READ}),
        (set(), {"admin:system"}, {READ, WRITE, ADMIN}),
        (set(), {"write:data"}, {READ, WRITE}),
        (set(), {"read:data"}, {READ}),
        (set(), {"read:data", "write:data"}, {READ, WRITE}),
        ({"Others"}, {"write:data"}, {READ, WRITE}),
        ({"Analysts"}, {"admin:system", "write:data"}, {READ}),
        (set(), set(), set()),
        ({"Others"}, {"openid"}, set()),
        ({"admins", "analysts "}, {"READ:DATA"}, set()),
    ],
)
def test_who_may_what(groups: set[str], scopes: set[str], expected: set[Action]) -> None:
    assert allowed(caller(groups, scopes)) == expected


def test_decisions_name_their_rule() -> None:
    authorizer = Authorizer(RULES)
    assert authorizer.decide(caller({"ETL"}), WRITE, TOPIC) == Decision(True, "group ETL")
    assert authorizer.decide(caller(scopes={"write:data"}), READ, None) == Decision(True, "scope write:data")


@pytest.mark.parametrize(
    ("identity", "action", "topic", "message"),
    [
        (
            caller(),
            WRITE,
            TOPIC,
            "needs write on s3.user_events: member of one of WRITE_GROUPS, or scope write:data",
        ),
        (
            caller(),
            READ,
            TOPIC,
            "needs read on s3.user_events: member of one of READ_ONLY_GROUPS, or scope read:data",
        ),
        (caller(), ADMIN, None, "needs admin: member of one of ADMIN_GROUPS, or scope admin:system"),
        (
            caller({"Analysts"}, {"write:data"}),
            WRITE,
            TOPIC,
            "needs write on s3.user_events: member of one of WRITE_GROUPS "
            "(scopes do not count for members of a listed group)",
        ),
    ],
)
def test_refusals_name_the_missing_rule(
    identity: Identity, action: Action, topic: str | None, message: str
) -> None:
    authorizer = Authorizer(RULES)
    assert authorizer.decide(identity, action, topic) == Decision(False, message)
    with pytest.raises(PermissionDenied) as caught:
        authorizer.require(identity, action, topic)
    assert caught.value.message == message


def test_only_configured_ways_are_named() -> None:
    only_admins = Rules(admin_groups=frozenset({"Admins"}), write_scopes=frozenset())
    reason = Authorizer(only_admins).decide(caller(), WRITE, TOPIC).reason
    assert reason == "needs write on s3.user_events: member of one of ADMIN_GROUPS, or scope admin:system"
    nothing = Rules(admin_scopes=frozenset(), write_scopes=frozenset(), read_scopes=frozenset())
    reason = Authorizer(nothing).decide(caller(), WRITE, TOPIC).reason
    assert reason == "needs write on s3.user_events: no rule allows it, see WRITE_GROUPS"
    readers = Rules(read_only_groups=frozenset({"Analysts"}))
    reason = Authorizer(readers).decide(caller({"Analysts"}), WRITE, TOPIC).reason
    assert "no rule allows it for members of a listed group" not in reason
    assert "WRITE_GROUPS" in reason


def test_require_is_silent_when_allowed() -> None:
    Authorizer(RULES).require(caller({"ETL"}), WRITE, TOPIC)


def test_without_rules_all_may_read_and_write_and_nobody_is_admin(caplog: pytest.LogCaptureFixture) -> None:
    authorizer = Authorizer(Rules(enabled=False))
    assert caplog.record_tuples[0][:2] == ("boilstream.auth.authorizer", logging.WARNING)
    assert "WRITE_GROUPS" in caplog.text
    assert authorizer.decide(caller(), READ, TOPIC).allowed
    assert authorizer.decide(caller(), WRITE, TOPIC).allowed
    refused = authorizer.decide(caller(scopes={"admin:system"}), ADMIN, TOPIC)
    assert refused == Decision(
        False, "needs admin on s3.user_events: authorization is off, set ADMIN_GROUPS or ADMIN_SCOPES"
    )
    assert len(caplog.records) == 1


def test_with_rules_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Authorizer(RULES)
    assert caplog.records == []


def test_rules_from_settings() -> None:
    rules = rules_from(
        Settings(
            admin_groups="A,B", write_groups="W", read_only_groups="R", write_scopes="w:x", read_scopes="r:x"
        )
    )
    assert rules == Rules(
        admin_groups=frozenset({"A", "B"}),
        write_groups=frozenset({"W"}),
        read_only_groups=frozenset({"R"}),
        admin_scopes=frozenset({"admin:system"}),
        write_scopes=frozenset({"w:x"}),
        read_scopes=frozenset({"r:x"}),
        enabled=True,
    )
    assert not rules_from(Settings()).enabled
    assert rules_from(Settings(authorization_enabled=True)).enabled
    assert not rules_from(Settings(authorization_enabled=False, admin_groups=("A",))).enabled


NAMES = st.frozensets(st.sampled_from("abcdef"))


@given(st.builds(Rules, NAMES, NAMES, NAMES, NAMES, NAMES, NAMES), NAMES, NAMES)
def test_rights_are_nested_and_groups_come_first(
    rules: Rules, groups: frozenset[str], scopes: frozenset[str]
) -> None:
    rights = allowed(Identity("okta", "x", groups=groups, scopes=scopes), rules)
    assert rights in (set(), {READ}, {READ, WRITE}, {READ, WRITE, ADMIN})
    listed = rules.admin_groups | rules.write_groups | rules.read_only_groups
    if groups & listed:
        assert rights == allowed(Identity("okta", "x", groups=groups), rules)
        assert READ in rights
    else:
        assert rights == allowed(Identity("okta", "x", scopes=scopes), rules)
