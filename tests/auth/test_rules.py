"""The rules file: what it may hold, how it is refused, and what its globs mean."""

from __future__ import annotations

import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boilstream.auth.rules import (
    EVERY_TOPIC,
    MAX_FILE_BYTES,
    Action,
    Rule,
    Rules,
    TopicGlob,
    brief,
    load_rules,
    read_rules_file,
    rule_label,
)
from boilstream.catalog.names import topic_name
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings

DOCS = Path(__file__).parents[2] / "docs" / "authorization.md"

TOML = """
[[rules]]
name = "etl-events"
users = ["okta:00u1234", "auth0:auth0|5f"]
groups = ["ETL"]
topics = ["s3.events_*", ["a.b", "c"]]
allow = ["read", "write"]

[[rules]]
clients = ["Entra-ID:0oa:1"]
scopes = ["jobs"]
topics = ["*", "s3.a.b"]
allow = ["admin"]

[[rules]]
everyone = true
topics = ["public.*"]
allow = ["read"]
"""
EXPECTED = (
    Rule(
        (TopicGlob("s3", "events_*"), TopicGlob("a.b", "c")),
        frozenset({Action.READ, Action.WRITE}),
        name="etl-events",
        users=frozenset({"okta:00u1234", "auth0:auth0|5f"}),
        groups=frozenset({"ETL"}),
    ),
    Rule(
        (EVERY_TOPIC, TopicGlob("s3", "a.b")),
        frozenset({Action.ADMIN}),
        clients=frozenset({"azure-ad:0oa:1"}),
        scopes=frozenset({"jobs"}),
    ),
    Rule((TopicGlob("public", "*"),), frozenset({Action.READ}), everyone=True),
)
RULE: dict[str, Any] = {"name": "r", "groups": ["g"], "topics": ["*"], "allow": ["read"]}


def refusal(path: Path) -> str:
    """The message with which the file is refused; checks what all refusals share."""
    with pytest.raises(ConfigurationError) as caught:
        read_rules_file(path)
    message = caught.value.message
    assert message.startswith("AUTHORIZATION_RULES_FILE: ")
    assert path.name in message
    assert message.isprintable()
    return message


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    assert read_rules_file(written(tmp_path / "rules.toml", TOML)) == EXPECTED
    rules = [
        {
            "name": "etl-events",
            "users": ["okta:00u1234", "auth0:auth0|5f"],
            "groups": ["ETL"],
            "topics": ["s3.events_*", ["a.b", "c"]],
            "allow": ["read", "write"],
        },
        {"clients": ["entra-id:0oa:1"], "scopes": ["jobs"], "topics": ["*", "s3.a.b"], "allow": ["admin"]},
        {"everyone": True, "topics": ["public.*"], "allow": ["read"]},
    ]
    path = written(tmp_path / "rules.JSON", json.dumps({"rules": rules}))
    assert read_rules_file(path) == EXPECTED


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    example = DOCS.read_text().split("```toml\n", 1)[1].split("```", 1)[0]
    rules = read_rules_file(written(tmp_path / "rules.toml", example))
    assert [rule.name for rule in rules] == ["etl-events", "analysts", "jobs", None]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"group": ["g"]}, "unknown key 'group'; known are name, users,"),
        ({"topics": None}, "topics: is missing"),
        ({"allow": None}, "allow: is missing"),
        ({"groups": None}, "one of users, clients, groups, scopes is needed, or everyone = true"),
        ({"groups": []}, "groups: must be a list of at least one item, not []"),
        ({"users": []}, "users: must be a list"),
        ({"topics": []}, "topics: must be a list"),
        ({"allow": []}, "allow: must be a list"),
        ({"groups": "g"}, "groups: must be a list of at least one item, not 'g'"),
        ({"groups": {"g": 1}}, "groups: must be a list of at least one item, not a JSON object"),
        ({"groups": [1]}, "groups: 1 is not a text"),
        ({"scopes": [None]}, "scopes: None is not a text"),
        ({"scopes": [" "]}, "scopes: ' ' is not a text"),
        ({"scopes": ["a\nb"]}, "scopes: 'a\\nb' has a control character"),
        ({"groups": ["a\u2028b"]}, "groups: 'a\\u2028b' has a control character"),
        ({"groups": ["\ud800"]}, "groups: '\\ud800' has a control character"),
        ({"topics": ["s3.a\x00"]}, "topics: 's3.a\\x00' has a control character"),
        ({"topics": [["s3", "a\t"]]}, "topics: 'a\\t' has a control character"),
        ({"users": ["okta:\x7f"]}, "users: 'okta:\\x7f' has a control character"),
        ({"name": 3}, "name: 3 is not a text"),
        ({"name": ""}, "name: '' is not a text"),
        ({"name": "a\rb"}, "name: 'a\\rb' has a control character"),
        ({"allow": "read"}, "allow: must be a list"),
        ({"allow": ["read", "drop"]}, "allow: 'drop' is none of read, write, admin"),
        ({"allow": ["READ"]}, "allow: 'READ' is none of"),
        ({"allow": [True]}, "allow: True is none of"),
        ({"users": ["00u1234"]}, "users: '00u1234' is not of the form provider:id, such as okta:00u1234"),
        ({"users": ["urn:ietf:x"]}, "users: 'urn:ietf:x' is not of the form provider:id"),
        ({"users": ["okta:"]}, "users: 'okta:' is not of the form"),
        ({"clients": [":x"]}, "clients: ':x' is not of the form provider:id"),
        ({"everyone": True}, "everyone: contradicts groups; leave one out"),
        ({"everyone": False}, "everyone: must be true or left out"),
        ({"groups": None, "everyone": 1}, "everyone: must be true or left out"),
        ({"topics": ["events_*"]}, "topics: 'events_*' is not of the form schema.table"),
        ({"topics": ["**"]}, "topics: '**' is not of the form"),
        ({"topics": [".t"]}, "topics: '.t' is not of the form"),
        ({"topics": ["s3."]}, "topics: 's3.' is not of the form"),
        ({"topics": [""]}, "topics: '' is not a text"),
        ({"topics": [["s3"]]}, "topics: ['s3'] has 1 elements, not schema and table"),
        ({"topics": [["a", "b", "c"]]}, "topics: ['a', 'b', 'c'] has 3 elements"),
        ({"topics": [["a", 1]]}, "topics: 1 is not a text"),
        ({"topics": [3]}, "topics: 3 is not a text"),
        ({"topics": ["s3.[ab"]}, "topics: '[ab' has a [ without ]; write [[] for the character itself"),
        ({"topics": ["s3.[]"]}, "topics: '[]' has a [ without ]"),
        ({"topics": ["s[.]3.x"]}, "topics: 's[' has a [ without ]"),
    ],
)
def test_a_wrong_rule_refuses_the_whole_file_and_is_named(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    wrong = {key: value for key, value in (RULE | change).items() if value is not None}
    path = written(tmp_path / "rules.json", json.dumps({"rules": [RULE, wrong, RULE]}))
    message = refusal(path)
    assert f": rule 2{'' if wrong['name'] in (3, '') else ' ('}" in message
    assert f": {problem}" in message


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([RULE], "must be an object with the member rules"),
        ({}, "rules must be a list of at least one rule"),
        ({"rules": []}, "rules must be a list of at least one rule"),
        ({"rules": RULE}, "rules must be a list of at least one rule"),
        ({"rules": [RULE], "rule": 1}, "unknown key 'rule'; the only one is rules"),
        ({"rules": [RULE, 3]}, "rule 2: must be a table or object"),
    ],
)
def test_a_wrong_document_is_refused(tmp_path: Path, document: object, problem: str) -> None:
    assert problem in refusal(written(tmp_path / "rules.json", json.dumps(document)))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("rules.toml", "[[rules]\n", "is not TOML: "),
        ("rules.toml", 'rules = "\x00"', "is not TOML: "),
        ("rules.toml", "", "rules must be a list of at least one rule"),
        ("rules.toml", b"\xff\xfe", "is not UTF-8 text at byte 0"),
        ("rules.toml", "x = " + "[" * 100_000, "is nested too deeply"),
        ("rules.toml", "x = " + "9" * 10_000, "is not TOML: "),
        ("rules.json", "", "is not JSON: "),
        ("rules.json", '{"rules": [}', "is not JSON: "),
        ("rules.json", '{"rules": [], "rules": []}', "is not JSON: the member 'rules' stands twice"),
        ("rules.json", "[" * 100_000, "is nested too deeply"),
        ("rules.json", " " * (MAX_FILE_BYTES + 1), f"has more than {MAX_FILE_BYTES} bytes"),
        ("rules.yaml", "rules: []", "the name must end in .toml or .json"),
        ("rules", "", "the name must end in .toml or .json"),
    ],
)
def test_an_unusable_file_is_refused(tmp_path: Path, name: str, content: str | bytes, problem: str) -> None:
    assert problem in refusal(written(tmp_path / name, content))


def test_a_file_of_the_greatest_size_is_read(tmp_path: Path) -> None:
    content = json.dumps({"rules": [RULE]})
    assert len(read_rules_file(written(tmp_path / "rules.json", content.ljust(MAX_FILE_BYTES)))) == 1


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "rules.toml")
    (tmp_path / "folder.toml").mkdir()
    assert "is not a file" in refusal(tmp_path / "folder.toml")
    os.mkfifo(tmp_path / "pipe.toml")
    assert "is not a file" in refusal(tmp_path / "pipe.toml")
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    assert "cannot be read" in refusal(tmp_path / "loop.toml")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["*", "read", "okta:x", "s3.[a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(["rules", *RULE]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.one_of(JSON, st.fixed_dictionaries({"rules": st.lists(JSON, max_size=2)})))
def test_any_other_document_is_refused_in_one_line_or_read(
    tmp_path_factory: pytest.TempPathFactory, document: object
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "any.json", json.dumps(document))
    try:
        rules = read_rules_file(path)
    except ConfigurationError as error:
        assert error.message.isprintable()
        assert len(error.message) < 1000
    else:
        assert all(rule.topics and rule.allow for rule in rules)


@pytest.mark.parametrize("kind", ["users", "clients", "groups", "scopes", "topics", "allow"])
@settings(deadline=None)
@given(value=JSON)
def test_any_value_of_a_key_is_refused_in_one_line_or_read(
    tmp_path_factory: pytest.TempPathFactory, kind: str, value: object
) -> None:
    path = written(
        tmp_path_factory.getbasetemp() / "value.json", json.dumps({"rules": [RULE | {kind: value}]})
    )
    try:
        read_rules_file(path)
    except ConfigurationError as error:
        assert f"rule 1 (r): {kind}: " in error.message
        assert error.message.isprintable()
    else:
        assert isinstance(value, list)
        assert value


@pytest.mark.parametrize(
    ("glob", "schema", "table", "expected"),
    [
        (TopicGlob("s3", "events_*"), "s3", "events_", True),
        (TopicGlob("s3", "events_*"), "S3", "EVENTS_Web", True),
        (TopicGlob("S3", "Events_*"), "s3", "events_web", True),
        (TopicGlob("s3", "events_*"), "s3", "my_events_", False),
        (TopicGlob("s3", "events"), "s3", "events_web", False),
        (TopicGlob("a", "b.c"), "a", "b.c", True),
        (TopicGlob("a", "b.c"), "a.b", "c", False),
        (TopicGlob("a*", "c"), "a.b", "c", True),
        (TopicGlob("a*", "c"), "a", "b.c", False),
        (TopicGlob("*", "*"), "any", "a\u00e4 / \U0001f600", True),
        (TopicGlob("s3", "?"), "s3", "ab", False),
        (TopicGlob("s3", "[A-C]"), "s3", "b", True),
        (TopicGlob("s3", "[!A-C]"), "s3", "b", False),
        (TopicGlob("s3", "[[]x]"), "s3", "[x]", True),
        (TopicGlob("s3", "STRASSE"), "s3", "stra\u00dfe", True),
        (TopicGlob("s3", "caf\u00e9"), "s3", "cafe\u0301", True),
        (TopicGlob("s3", "a.c"), "s3", "abc", False),
    ],
)
def test_globs_match_schema_and_table_apart(glob: TopicGlob, schema: str, table: str, expected: bool) -> None:
    assert glob.matcher()(topic_name(schema, table).key) is expected


@settings(deadline=None)
@given(st.text("ab[]!^-&~|*?\\.A\u00df\u0301"), st.text("ab[]!^-\\"))
def test_every_glob_compiles_without_a_warning(glob: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matches = TopicGlob(glob, "*").matcher()
    assert matches((name, "")) in (True, False)


def test_globs_are_written_as_in_the_file() -> None:
    assert str(EVERY_TOPIC) == "*"
    assert str(TopicGlob("*", "*")) == "*.*"
    assert str(TopicGlob("s3", "a.b")) == "s3.a.b"
    assert str(TopicGlob("a.b", "\u00e4")) == '["a.b", "\u00e4"]'


def test_rules_from_settings_alone(caplog: pytest.LogCaptureFixture) -> None:
    rules = load_rules(
        Settings(
            admin_groups="A,B",
            write_groups="W",
            read_only_groups="R",
            write_scopes="w:x",
            read_scopes="r:x",
            required_read_scopes="r1,r2",
            required_write_scopes="r3",
            required_admin_scopes="r4",
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
        required_read_scopes=frozenset({"r1", "r2"}),
        required_write_scopes=frozenset({"r3"}),
        required_admin_scopes=frozenset({"r4"}),
    )
    assert not load_rules(Settings()).enabled
    assert load_rules(Settings(authorization_enabled=True)).enabled
    assert not load_rules(Settings(authorization_enabled=False, admin_groups=("A",))).enabled
    assert caplog.records == []


def test_rules_with_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "rules.toml", TOML)
    rules = load_rules(Settings(authorization_rules_file=path))
    assert rules.enabled
    assert rules.file_rules == EXPECTED
    written(path, TOML.replace("public.*", "*"))
    assert load_rules(Settings(authorization_rules_file=path)).file_rules[2].topics == (EVERY_TOPIC,)
    written(path, TOML.replace("public.*", "public"))
    for enabled in (None, True, False):
        with pytest.raises(ConfigurationError, match="rule 3: topics: 'public'"):
            load_rules(Settings(authorization_rules_file=path, authorization_enabled=enabled))


def test_rules_that_an_earlier_level_hides_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "rules.toml", TOML)
    load_rules(Settings(authorization_rules_file=path, write_groups=("ETL",), read_scopes=("other",)))
    assert caplog.record_tuples == [
        (
            "boilstream.auth.rules",
            logging.WARNING,
            "AUTHORIZATION_RULES_FILE: rule 1 (etl-events) is never reached: its groups all stand in the "
            "settings of groups, which decide before the file",
        )
    ]
    caplog.clear()
    load_rules(Settings(authorization_rules_file=path, write_scopes=("jobs",)))
    assert "rule 2 is never reached: its scopes" in caplog.text


@settings(deadline=None)
@given(st.text(), st.integers(3, 100))
def test_brief_texts_are_short_and_printable(text: str, limit: int) -> None:
    short = brief(text, limit)
    assert len(short) <= limit
    assert short.isprintable()
    if text.isprintable() and len(text) <= limit:
        assert short == text


def test_labels_name_number_and_name() -> None:
    assert rule_label(3, "etl") == "rule 3 (etl)"
    assert rule_label(3, None) == "rule 3"
    assert len(rule_label(3, "x" * 1000)) < 80
