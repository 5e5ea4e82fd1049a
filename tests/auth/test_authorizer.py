"""Three levels, required scopes, and the words of a decision."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boilstream.auth.authorizer import Action, Authorizer, Decision
from boilstream.auth.errors import Denied
from boilstream.auth.identity import Identity
from boilstream.auth.rules import EVERY_TOPIC, Rule, Rules, TopicGlob
from boilstream.catalog.names import TopicName, fold, topic_name

RULES = Rules(
    admin_groups=frozenset({"Admins", "Engineers"}),
    write_groups=frozenset({"Engineers", "ETL"}),
    read_only_groups=frozenset({"Analysts"}),
)
TOPIC = topic_name("s3", "user_events")
READ, WRITE, ADMIN = Action.READ, Action.WRITE, Action.ADMIN
EVENTS = Rule(
    (TopicGlob("s3", "*_events"), TopicGlob("s3", "user_*")),
    frozenset({WRITE}),
    name="etl-events",
    clients=frozenset({"okta:0oa1"}),
)
PUBLIC = Rule((EVERY_TOPIC,), frozenset({READ}), everyone=True)
WITH_FILE = replace(RULES, file_rules=(EVENTS, PUBLIC))


def caller(
    groups: set[str] = set(),  # noqa: B006 - never changed
    scopes: set[str] = set(),  # noqa: B006
    client: str | None = None,
) -> Identity:
    return Identity("okta", "00u1", client, groups=frozenset(groups), scopes=frozenset(scopes))


def rights(identity: Identity, rules: Rules = RULES, topic: TopicName | None = TOPIC) -> set[Action]:
    authorizer = Authorizer(rules)
    return {action for action in Action if authorizer.decide(identity, action, topic).allowed}


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
    assert rights(caller(groups, scopes)) == expected
    as_roles = Identity("azure-ad", "x", roles=frozenset(groups), scopes=frozenset(scopes))
    assert rights(as_roles) == expected


def test_groups_and_app_roles_add_up() -> None:
    both = Identity("azure-ad", "x", groups=frozenset({"Analysts"}), roles=frozenset({"ETL"}))
    assert rights(both) == {READ, WRITE}


@pytest.mark.parametrize(
    ("identity", "topic", "expected"),
    [
        (caller(client="0oa1"), TOPIC, {READ, WRITE}),
        (caller(client="0oa1"), topic_name("S3", "User_X"), {READ, WRITE}),
        (caller(client="0oa1"), topic_name("s3", "orders"), {READ}),
        (caller(client="0oa1"), topic_name("s3.user_events", "x"), {READ}),
        (caller(client="0oa1"), None, {READ}),
        (caller(client="0oa2"), TOPIC, {READ}),
        (Identity("auth0", "00u1", "0oa1"), TOPIC, {READ}),
        (caller(), TOPIC, {READ}),
        (caller({"Others"}, {"openid"}, "0oa1"), TOPIC, {READ, WRITE}),
        # a level that lists a name decides, also where the file would allow more
        (caller({"Analysts"}, client="0oa1"), TOPIC, {READ}),
        (caller(scopes={"read:data"}, client="0oa1"), TOPIC, {READ}),
    ],
)
def test_what_the_file_allows(identity: Identity, topic: TopicName | None, expected: set[Action]) -> None:
    assert rights(identity, WITH_FILE, topic) == expected


def test_only_a_rule_on_all_topics_reaches_the_server_itself() -> None:
    globs = Rule((TopicGlob("*", "*"),), frozenset({WRITE}), everyone=True)
    assert rights(caller(), replace(RULES, file_rules=(globs,)), None) == set()
    star = replace(globs, topics=(EVERY_TOPIC,))
    assert rights(caller(), replace(RULES, file_rules=(star,)), None) == {READ, WRITE}


def test_all_kinds_of_a_rule_must_match_and_one_name_of_each() -> None:
    rule = Rule(
        (EVERY_TOPIC,),
        frozenset({READ}),
        users=frozenset({"okta:u1", "okta:u2"}),
        clients=frozenset({"okta:c1"}),
        groups=frozenset({"g1", "g2"}),
        scopes=frozenset({"s1"}),
    )
    rules = Rules(file_rules=(rule,))
    match = Identity("okta", "u2", "c1", groups=frozenset({"g2", "x"}), scopes=frozenset({"s1", "y"}))
    assert rights(match, rules) == {READ}
    assert rights(replace(match, groups=frozenset(), roles=frozenset({"g1"})), rules) == {READ}
    for other in (
        replace(match, subject="u3"),
        replace(match, provider="auth0"),
        replace(match, client=None),
        replace(match, client="c2"),
        replace(match, groups=frozenset({"x"})),
        replace(match, scopes=frozenset()),
    ):
        assert rights(other, rules) == set()


def test_a_rule_without_principals_is_for_nobody() -> None:
    assert rights(caller(), Rules(file_rules=(Rule((EVERY_TOPIC,), frozenset({READ})),))) == set()


def test_required_scopes_come_on_top_of_every_level() -> None:
    rules = replace(WITH_FILE, required_write_scopes=frozenset({"mfa", "vpn"}))
    for identity in (caller({"ETL"}), caller(scopes={"write:data"}), caller(client="0oa1")):
        assert rights(identity, rules) == {READ}
        assert rights(replace(identity, scopes=identity.scopes | {"mfa"}), rules) == {READ}
        assert rights(replace(identity, scopes=identity.scopes | {"mfa", "vpn"}), rules) == {READ, WRITE}


def test_required_scopes_are_those_of_the_action_that_is_asked_for() -> None:
    rules = replace(RULES, required_read_scopes=frozenset({"see"}))
    assert rights(caller({"Admins"}), rules) == {WRITE, ADMIN}


@pytest.mark.parametrize(
    ("identity", "action", "topic", "reason"),
    [
        (caller({"ETL"}), WRITE, TOPIC, "group ETL"),
        (caller({"ETL", "Admins"}), READ, TOPIC, "group ETL"),
        (caller(scopes={"write:data"}), READ, None, "scope write:data"),
        (caller(client="0oa1"), WRITE, TOPIC, "rule 1 (etl-events) on s3.*_events"),
        (caller(client="0oa1"), WRITE, topic_name("s3", "user_x"), "rule 1 (etl-events) on s3.user_*"),
        (caller(), READ, TOPIC, "rule 2 on *"),
        (caller(), READ, None, "rule 2 on *"),
    ],
)
def test_decisions_name_their_rule(
    identity: Identity, action: Action, topic: TopicName | None, reason: str
) -> None:
    assert Authorizer(WITH_FILE).decide(identity, action, topic) == Decision(True, reason, "", action, topic)


@pytest.mark.parametrize(
    ("rules", "identity", "action", "topic", "message", "reason"),
    [
        (
            RULES,
            caller(),
            WRITE,
            TOPIC,
            "needs write on s3.user_events: member of one of WRITE_GROUPS, or scope write:data",
            "no rule: 0 groups and 0 scopes, none listed; "
            "would match: member of one of WRITE_GROUPS, or scope write:data",
        ),
        (
            RULES,
            caller({"A", "B"}, {"openid"}),
            READ,
            TOPIC,
            "needs read on s3.user_events: member of one of READ_ONLY_GROUPS, or scope read:data",
            "no rule: 2 groups and 1 scopes, none listed; "
            "would match: member of one of READ_ONLY_GROUPS, or scope read:data",
        ),
        (
            RULES,
            caller(),
            ADMIN,
            None,
            "needs admin: member of one of ADMIN_GROUPS, or scope admin:system",
            "no rule: 0 groups and 0 scopes, none listed; "
            "would match: member of one of ADMIN_GROUPS, or scope admin:system",
        ),
        (
            RULES,
            caller({"Analysts"}, {"write:data"}),
            WRITE,
            TOPIC,
            "needs write on s3.user_events: member of one of WRITE_GROUPS "
            "(scopes do not count for members of a listed group)",
            "no rule: group Analysts is listed and does not allow write; would match: member of one of "
            "WRITE_GROUPS (scopes do not count for members of a listed group)",
        ),
        (
            RULES,
            caller(scopes={"read:data"}),
            WRITE,
            TOPIC,
            "needs write on s3.user_events: member of one of WRITE_GROUPS, or scope write:data",
            "no rule: scope read:data is listed and does not allow write; "
            "would match: member of one of WRITE_GROUPS, or scope write:data",
        ),
        (
            WITH_FILE,
            caller(),
            WRITE,
            TOPIC,
            "needs write on s3.user_events: member of one of WRITE_GROUPS, or scope write:data, "
            "or a rule in AUTHORIZATION_RULES_FILE",
            "no rule: 0 groups and 0 scopes, none listed, rule 2 on * does not allow write; "
            "would match: member of one of WRITE_GROUPS, or scope write:data, "
            "or a rule in AUTHORIZATION_RULES_FILE (rule 1 (etl-events) on s3.*_events)",
        ),
        (
            replace(RULES, file_rules=(EVENTS,)),
            caller(),
            READ,
            None,
            "needs read: member of one of READ_ONLY_GROUPS, or scope read:data, "
            "or a rule on all topics (*) in AUTHORIZATION_RULES_FILE",
            "no rule: 0 groups and 0 scopes, none listed; "
            "would match: member of one of READ_ONLY_GROUPS, or scope read:data, "
            "or a rule on all topics (*) in AUTHORIZATION_RULES_FILE (none there allows it)",
        ),
        (
            WITH_FILE,
            caller({"Analysts"}),
            WRITE,
            TOPIC,
            "needs write on s3.user_events: member of one of WRITE_GROUPS "
            "(scopes and AUTHORIZATION_RULES_FILE do not count for members of a listed group)",
            "no rule: group Analysts is listed and does not allow write; would match: member of one of "
            "WRITE_GROUPS (scopes and AUTHORIZATION_RULES_FILE do not count for members of a listed group)",
        ),
        (
            WITH_FILE,
            caller(scopes={"read:data"}),
            WRITE,
            TOPIC,
            "needs write on s3.user_events: member of one of WRITE_GROUPS, or scope write:data "
            "(AUTHORIZATION_RULES_FILE does not count for tokens with a listed scope)",
            "no rule: scope read:data is listed and does not allow write; would match: member of one of "
            "WRITE_GROUPS, or scope write:data "
            "(AUTHORIZATION_RULES_FILE does not count for tokens with a listed scope)",
        ),
        (
            replace(RULES, required_write_scopes=frozenset({"mfa"})),
            caller({"ETL"}),
            WRITE,
            TOPIC,
            "needs write on s3.user_events: scope mfa (required by REQUIRED_WRITE_SCOPES)",
            "required scope mfa missing (REQUIRED_WRITE_SCOPES); otherwise group ETL",
        ),
        (
            replace(RULES, required_admin_scopes=frozenset("edcba")),
            caller(scopes={"a"}),
            ADMIN,
            None,
            "needs admin: member of one of ADMIN_GROUPS, or scope admin:system; "
            "and scopes b, c, d, 1 more (required by REQUIRED_ADMIN_SCOPES)",
            "no rule: 0 groups and 1 scopes, none listed; would match: member of one of ADMIN_GROUPS, or scope "
            "admin:system; required scopes b, c, d, 1 more missing (REQUIRED_ADMIN_SCOPES)",
        ),
    ],
)
def test_refusals_name_the_missing_rule(
    rules: Rules, identity: Identity, action: Action, topic: TopicName | None, message: str, reason: str
) -> None:
    authorizer = Authorizer(rules)
    decision = Decision(False, reason, message, action, topic)
    assert authorizer.decide(identity, action, topic) == decision
    with pytest.raises(Denied) as caught:
        authorizer.require(identity, action, topic)
    assert caught.value.message == message
    assert caught.value.decision == decision


@pytest.mark.parametrize(
    ("rules", "identity", "needed"),
    [
        (
            Rules(admin_groups=frozenset({"Admins"}), write_scopes=frozenset()),
            caller(),
            "member of one of ADMIN_GROUPS, or scope admin:system",
        ),
        (
            Rules(admin_scopes=frozenset(), write_scopes=frozenset(), read_scopes=frozenset()),
            caller(),
            "no rule allows it, see WRITE_GROUPS",
        ),
        (
            Rules(read_only_groups=frozenset({"Analysts"})),
            caller({"Analysts"}),
            "no rule allows it, see WRITE_GROUPS (scopes do not count for members of a listed group)",
        ),
    ],
)
def test_only_configured_ways_are_named(rules: Rules, identity: Identity, needed: str) -> None:
    decision = Authorizer(rules).decide(identity, WRITE, TOPIC)
    assert decision.message == f"needs write on s3.user_events: {needed}"


def test_without_rules_all_may_read_and_write_and_nobody_is_admin(caplog: pytest.LogCaptureFixture) -> None:
    authorizer = Authorizer(
        replace(WITH_FILE, enabled=False, required_read_scopes=frozenset({"x"}), admin_groups=frozenset("a"))
    )
    assert caplog.record_tuples[0][:2] == ("boilstream.auth.authorizer", logging.WARNING)
    assert "WRITE_GROUPS" in caplog.text
    assert authorizer.decide(caller(), READ, TOPIC).allowed
    assert authorizer.decide(caller(), WRITE, TOPIC).reason == "authorization is off"
    refused = authorizer.decide(caller({"a"}, scopes={"admin:system"}), ADMIN, TOPIC)
    assert not refused.allowed
    assert refused.reason == "authorization is off, which allows nobody admin"
    assert refused.message == (
        "needs admin on s3.user_events: authorization is off, set ADMIN_GROUPS or ADMIN_SCOPES"
    )
    assert len(caplog.records) == 1


def test_with_rules_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Authorizer(WITH_FILE).replace(RULES)
    assert caplog.records == []


def test_replaced_rules_decide_from_then_on() -> None:
    authorizer = Authorizer(RULES)
    assert not authorizer.decide(caller(client="0oa1"), WRITE, TOPIC).allowed
    authorizer.replace(WITH_FILE)
    assert authorizer.decide(caller(client="0oa1"), WRITE, TOPIC).allowed
    authorizer.replace(replace(WITH_FILE, file_rules=(PUBLIC,)))
    assert not authorizer.decide(caller(client="0oa1"), WRITE, TOPIC).allowed
    assert authorizer.names()[0] == frozenset({"Admins", "Engineers", "ETL", "Analysts"})


def test_a_decision_never_mixes_two_sets_of_rules() -> None:
    by_scope = Rules(read_only_groups=frozenset({"x"}), file_rules=())
    by_group = Rules(
        read_only_groups=frozenset({"g"}), write_groups=frozenset({"g"}), write_scopes=frozenset()
    )
    authorizer = Authorizer(by_scope)
    identity = caller({"g"}, {"write:data"})
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            authorizer.replace(by_group)
            authorizer.replace(by_scope)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        reasons = {authorizer.require(identity, WRITE, TOPIC).reason for _ in range(5000)}
    finally:
        stop.set()
        thread.join()
    assert reasons <= {"group g", "scope write:data"}


def test_names_are_all_that_any_rule_mentions() -> None:
    rules = Rules(
        admin_groups=frozenset({"g1"}),
        write_groups=frozenset({"g2"}),
        read_only_groups=frozenset({"g3"}),
        admin_scopes=frozenset({"s1"}),
        write_scopes=frozenset({"s2"}),
        read_scopes=frozenset({"s3"}),
        required_read_scopes=frozenset({"r1"}),
        required_write_scopes=frozenset({"r2"}),
        required_admin_scopes=frozenset({"r3"}),
        file_rules=(replace(PUBLIC, groups=frozenset({"g4"}), scopes=frozenset({"s4"})),),
    )
    groups, scopes = Authorizer(rules).names()
    assert groups == {"g1", "g2", "g3", "g4"}
    assert scopes == {"s1", "s2", "s3", "s4", "r1", "r2", "r3"}


def test_long_and_strange_names_stay_one_short_line() -> None:
    name = "n\u202e" + "x" * 5000
    rules = Rules(
        write_groups=frozenset({name}),
        write_scopes=frozenset({name}),
        required_write_scopes=frozenset(f"{name}{number}" for number in range(50)),
        file_rules=tuple(
            Rule((TopicGlob(name, name), EVERY_TOPIC), frozenset({WRITE}), name, scopes=frozenset({"no"}))
            for _ in range(50)
        ),
    )
    authorizer = Authorizer(rules)
    topic = topic_name("\u202e\u00a0" * 50, "y" * 255)
    for identity in (caller({name}), caller(scopes={name}), caller()):
        for where in (topic, None):
            decision = authorizer.decide(identity, WRITE, where)
            assert not decision.allowed
            assert decision.message.isprintable()
            assert decision.reason.isprintable()
            assert len(decision.message) < 700
            assert len(decision.reason) < 1200
            assert decision.topic == where


# Properties, over few names so that they meet

NAMES = st.frozensets(st.sampled_from("abcdef"), max_size=4)
PARTS = st.sampled_from(["s3", "S3", "a.b", "a", "b.c", "c", "Stra\u00dfe", "strasse", "[x]"])
GLOBS = st.one_of(PARTS, st.sampled_from(["*", "?", "??", "a*", "*.*", "[a-c]", "[!a]", "[[]x]", "*ss*"]))
TOPICS = st.one_of(st.none(), st.builds(TopicName, PARTS, PARTS))
PRINCIPALS = st.frozensets(st.sampled_from(["okta:x", "okta:y", "auth0:x"]), max_size=2)
ACTIONS = st.sampled_from(Action)
FILE_RULES = st.builds(
    Rule,
    topics=st.lists(
        st.one_of(st.just(EVERY_TOPIC), st.builds(TopicGlob, GLOBS, GLOBS)), min_size=1, max_size=3
    ).map(tuple),
    allow=st.frozensets(ACTIONS, min_size=1),
    name=st.none() | st.just("name"),
    users=PRINCIPALS,
    clients=PRINCIPALS,
    groups=NAMES,
    scopes=NAMES,
    everyone=st.booleans(),
)
RULE_SETS = st.builds(
    Rules,
    *([st.one_of(st.just(frozenset[str]()), NAMES)] * 6),
    enabled=st.sampled_from([True, True, True, False]),
    required_read_scopes=st.one_of(st.just(frozenset[str]()), NAMES),
    required_write_scopes=st.one_of(st.just(frozenset[str]()), NAMES),
    required_admin_scopes=st.one_of(st.just(frozenset[str]()), NAMES),
    file_rules=st.lists(FILE_RULES, max_size=5).map(tuple),
)
ONLY_FILE = st.builds(
    Rules,
    *([st.just(frozenset[str]())] * 6),
    file_rules=st.lists(FILE_RULES, max_size=5).map(tuple),
)
IDENTITIES = st.builds(
    Identity,
    st.sampled_from(["okta", "auth0"]),
    st.sampled_from("xy"),
    st.sampled_from(["x", "y", None]),
    groups=NAMES,
    scopes=NAMES,
    roles=NAMES,
)


def oracle(rules: Rules, who: Identity, action: Action, topic: TopicName | None) -> bool:
    """The rules of docs/authorization.md, said as plainly as possible."""
    if not rules.enabled:
        return action is not ADMIN
    groups = set(who.groups) | set(who.roles)
    got: set[Action] = set()
    if groups & (rules.admin_groups | rules.write_groups | rules.read_only_groups):
        got |= {READ, WRITE, ADMIN} if groups & rules.admin_groups else set()
        got |= {READ, WRITE} if groups & rules.write_groups else set()
        got |= {READ} if groups & rules.read_only_groups else set()
    elif who.scopes & (rules.admin_scopes | rules.write_scopes | rules.read_scopes):
        got |= {READ, WRITE, ADMIN} if who.scopes & rules.admin_scopes else set()
        got |= {READ, WRITE} if who.scopes & rules.write_scopes else set()
        got |= {READ} if who.scopes & rules.read_scopes else set()
    else:
        for rule in rules.file_rules:
            kinds = [
                (rule.users, {f"{who.provider}:{who.subject}"}),
                (rule.clients, {f"{who.provider}:{who.client}"} if who.client else set()),
                (rule.groups, groups),
                (rule.scopes, who.scopes),
            ]
            given = [bool(wanted & held) for wanted, held in kinds if wanted]
            if (all(given) if given else rule.everyone) and any(holds(glob, topic) for glob in rule.topics):
                got |= {READ} if rule.allow else set()
                got |= {WRITE} if rule.allow & {WRITE, ADMIN} else set()
                got |= {ADMIN} if ADMIN in rule.allow else set()
    required = {
        READ: rules.required_read_scopes,
        WRITE: rules.required_write_scopes,
        ADMIN: rules.required_admin_scopes,
    }
    return action in got and required[action] <= who.scopes


def holds(glob: TopicGlob, topic: TopicName | None) -> bool:
    if topic is None:
        return glob is EVERY_TOPIC
    return fnmatchcase(fold(topic.schema), fold(glob.schema)) and fnmatchcase(
        fold(topic.table), fold(glob.table)
    )


@settings(deadline=None)
@given(RULE_SETS, st.lists(st.tuples(IDENTITIES, TOPICS), min_size=1, max_size=4))
def test_decisions_agree_with_the_plain_words(
    rules: Rules, calls: list[tuple[Identity, TopicName | None]]
) -> None:
    authorizer = Authorizer(rules)
    for identity, topic in calls * 2:
        for action in Action:
            decision = authorizer.decide(identity, action, topic)
            assert decision.allowed == oracle(rules, identity, action, topic), (action, decision)
            assert (decision.action, decision.topic) == (action, topic)
            assert bool(decision.message) == (not decision.allowed)
            assert decision.reason


@settings(deadline=None)
@given(RULE_SETS, IDENTITIES, ACTIONS, TOPICS)
def test_require_raises_exactly_when_it_is_not_allowed(
    rules: Rules, identity: Identity, action: Action, topic: TopicName | None
) -> None:
    authorizer = Authorizer(rules)
    decision = authorizer.decide(identity, action, topic)
    try:
        assert authorizer.require(identity, action, topic) == decision
        assert decision.allowed
    except Denied as error:
        assert error.decision == decision
        assert not decision.allowed


@settings(deadline=None)
@given(RULE_SETS, IDENTITIES, TOPICS)
def test_an_identity_reduced_to_the_names_gets_the_same_answer(
    rules: Rules, identity: Identity, topic: TopicName | None
) -> None:
    authorizer = Authorizer(rules)
    groups, scopes = authorizer.names()
    reduced = replace(
        identity,
        groups=identity.groups & groups,
        scopes=identity.scopes & scopes,
        roles=identity.roles & groups,
    )
    for action in Action:
        full, less = (authorizer.decide(who, action, topic) for who in (identity, reduced))
        assert full.allowed == less.allowed
        assert full.message == less.message


@settings(deadline=None)
@given(RULE_SETS, IDENTITIES, TOPICS, FILE_RULES, st.integers(0, 5))
def test_one_more_rule_in_the_file_takes_nothing_away(
    rules: Rules, identity: Identity, topic: TopicName | None, rule: Rule, place: int
) -> None:
    file_rules = (*rules.file_rules[:place], rule, *rules.file_rules[place:])
    assert rights(identity, rules, topic) <= rights(identity, replace(rules, file_rules=file_rules), topic)


@settings(deadline=None)
@given(ONLY_FILE, IDENTITIES, TOPICS)
def test_rights_of_the_file_are_nested_and_say_which_rule(
    rules: Rules, identity: Identity, topic: TopicName | None
) -> None:
    assert rights(identity, rules, topic) in (set(), {READ}, {READ, WRITE}, {READ, WRITE, ADMIN})
    authorizer = Authorizer(rules)
    for action in Action:
        decision = authorizer.decide(identity, action, topic)
        if decision.allowed:
            number = int(decision.reason.split()[1])
            alone = replace(rules, file_rules=(rules.file_rules[number - 1],))
            assert oracle(alone, identity, action, topic)


@settings(deadline=None)
@given(st.builds(Rules, *([NAMES] * 6)), NAMES, NAMES)
def test_rights_are_nested_and_groups_come_first(
    rules: Rules, groups: frozenset[str], scopes: frozenset[str]
) -> None:
    found = rights(Identity("okta", "x", groups=groups, scopes=scopes), rules)
    assert found in (set(), {READ}, {READ, WRITE}, {READ, WRITE, ADMIN})
    listed = rules.admin_groups | rules.write_groups | rules.read_only_groups
    if groups & listed:
        assert found == rights(Identity("okta", "x", groups=groups), rules)
        assert READ in found
    else:
        assert found == rights(Identity("okta", "x", scopes=scopes), rules)
