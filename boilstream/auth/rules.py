"""The rules of authorization as data, and reading them: from the settings, and from the rules file."""

from __future__ import annotations

import enum
import fnmatch
import json
import logging
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boilstream.auth.errors import shown
from boilstream.catalog.names import fold
from boilstream.errors import ConfigurationError
from boilstream.settings.identity import PROVIDER_ALIASES, AuthorizationSettings

_LOGGER = logging.getLogger("boilstream.auth.rules")

MAX_FILE_BYTES = 1024 * 1024
"""Largest rules file, bytes."""


class Action(enum.Enum):
    """What a caller wants to do with a topic or with the server."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    """Drop, alter, and touch what belongs to other principals."""


ALLOWS: Mapping[Action, frozenset[Action]] = {
    Action.READ: frozenset({Action.READ}),
    Action.WRITE: frozenset({Action.READ, Action.WRITE}),
    Action.ADMIN: frozenset(Action),
}
"""What a right brings with it, itself included."""


@dataclass(frozen=True, slots=True)
class TopicGlob:
    """A set of topics: schema and table each match a glob of `*`, `?` and `[...]`.

    Names and globs are compared folded, as topic names are; schema and table apart, so that a dot in
    a name confuses nothing.
    """

    schema: str
    table: str
    server: bool = False
    """Whether calls that concern no topic, such as flush, belong to the set."""

    def matcher(self) -> Callable[[tuple[str, str]], bool]:
        """A function that tells for a `TopicName.key` whether the topic belongs to the set."""
        schema, table = (re.compile(fnmatch.translate(fold(glob))) for glob in (self.schema, self.table))
        return lambda key: schema.match(key[0]) is not None and table.match(key[1]) is not None

    def __str__(self) -> str:
        if self.server:
            return "*"
        if "." in self.schema:
            return json.dumps([self.schema, self.table], ensure_ascii=False)
        return f"{self.schema}.{self.table}"


EVERY_TOPIC = TopicGlob("*", "*", server=True)
"""What `*` alone stands for: all topics, and the server itself."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the rules file: principals, topics, rights.

    A caller matches if it has one of the names of every kind (users, clients, groups, scopes) that is
    not empty. A rule without any kind matches all callers if `everyone` is set, else none.
    """

    topics: tuple[TopicGlob, ...]
    allow: frozenset[Action]
    """As written; `ALLOWS` tells what each right brings with it."""
    name: str | None = None
    users: frozenset[str] = frozenset()
    """`provider:subject`, as `Identity.principal`."""
    clients: frozenset[str] = frozenset()
    """`provider:client id`."""
    groups: frozenset[str] = frozenset()
    """Groups or app roles."""
    scopes: frozenset[str] = frozenset()
    everyone: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """All that decides. Names of groups, scopes, users and clients are compared exactly, letter case included."""

    admin_groups: frozenset[str] = frozenset()
    write_groups: frozenset[str] = frozenset()
    read_only_groups: frozenset[str] = frozenset()
    admin_scopes: frozenset[str] = frozenset({"admin:system"})
    write_scopes: frozenset[str] = frozenset({"write:data"})
    read_scopes: frozenset[str] = frozenset({"read:data"})
    enabled: bool = True
    """When false, every caller may read and write, and none has admin, whatever else is set."""
    required_read_scopes: frozenset[str] = frozenset()
    """Scopes that a token needs, all of them, to read; on top of what allows it."""
    required_write_scopes: frozenset[str] = frozenset()
    required_admin_scopes: frozenset[str] = frozenset()
    file_rules: tuple[Rule, ...] = ()
    """The rules file in its order; empty without one."""


def load_rules(settings: AuthorizationSettings) -> Rules:
    """The rules of the settings and of AUTHORIZATION_RULES_FILE, which is read now.

    Raises ConfigurationError that names the file, the rule and the key if anything is wrong with the
    file; nothing of it is used then. Logs a warning for each rule of the file that cannot be reached.
    """
    path = settings.authorization_rules_file
    rules = Rules(
        admin_groups=frozenset(settings.admin_groups),
        write_groups=frozenset(settings.write_groups),
        read_only_groups=frozenset(settings.read_only_groups),
        admin_scopes=frozenset(settings.admin_scopes),
        write_scopes=frozenset(settings.write_scopes),
        read_scopes=frozenset(settings.read_scopes),
        enabled=settings.authorization_active,
        required_read_scopes=frozenset(settings.required_read_scopes),
        required_write_scopes=frozenset(settings.required_write_scopes),
        required_admin_scopes=frozenset(settings.required_admin_scopes),
        file_rules=read_rules_file(path) if path is not None else (),
    )
    _warn_of_unreachable(rules)
    return rules


def read_rules_file(path: Path) -> tuple[Rule, ...]:
    """The rules of a file, TOML or JSON by its suffix; raises ConfigurationError if anything is wrong."""
    try:
        return _rules(_parsed(path))
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror}") from None
    except RecursionError:
        raise _refusal(path, "is nested too deeply") from None
    except ValueError as error:  # ours, and those of the parsers
        raise _refusal(path, brief(str(error), 400)) from None


def rule_label(number: int, name: str | None) -> str:
    """`rule 3 (etl-events)`, on one line and bounded."""
    return f"rule {number} ({brief(name)})" if name else f"rule {number}"


def brief(text: str, limit: int = 64) -> str:
    """`text` on one line, printable, and cut to `limit` characters."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: limit + 1])
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _refusal(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"AUTHORIZATION_RULES_FILE: {brief(str(path), 200)}: {problem}; docs/authorization.md has an example"
    )


def _parsed(path: Path) -> object:
    kind = path.suffix.lower()
    if kind not in (".toml", ".json"):
        raise ValueError("the name must end in .toml or .json")
    if path.exists() and not path.is_file():
        raise ValueError("is not a file")
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"has more than {MAX_FILE_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text at byte {error.start}") from None
    parse = tomllib.loads if kind == ".toml" else _parsed_json
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"is not {kind[1:].upper()}: {error}") from None


def _parsed_json(text: str) -> object:
    return json.loads(text, object_pairs_hook=_members)


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the member {shown(twice)} stands twice in one object")
    return members


def _rules(document: object) -> tuple[Rule, ...]:
    if not isinstance(document, dict):
        raise ValueError("must be an object with the member rules")
    if unknown := sorted(document.keys() - {"rules"}):
        raise ValueError(f"unknown key {shown(unknown[0])}; the only one is rules")
    listed = document.get("rules")
    if not isinstance(listed, list) or not listed:  # an empty file may be one that is being written
        raise ValueError("rules must be a list of at least one rule ([[rules]] in TOML)")
    return tuple(_rule(number, raw) for number, raw in enumerate(listed, 1))


def _rule(number: int, raw: object) -> Rule:
    if not isinstance(raw, dict):
        raise ValueError(f"rule {number}: must be a table or object")
    name = raw.get("name")
    label = rule_label(number, name if isinstance(name, str) else None)
    try:
        return _rule_of(raw)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None


_KINDS = ("users", "clients", "groups", "scopes")
_KEYS = ("name", *_KINDS, "everyone", "topics", "allow")


def _rule_of(raw: dict[str, Any]) -> Rule:
    if unknown := sorted(raw.keys() - set(_KEYS)):
        raise ValueError(f"unknown key {shown(unknown[0])}; known are {', '.join(_KEYS)}")
    if missing := [key for key in ("topics", "allow") if key not in raw]:
        raise ValueError(f"{missing[0]}: is missing")
    if "everyone" in raw and raw["everyone"] is not True:
        raise ValueError("everyone: must be true or left out")
    kinds = [kind for kind in _KINDS if kind in raw]
    if not kinds and "everyone" not in raw:
        raise ValueError(
            f"one of {', '.join(_KINDS)} is needed, or everyone = true for a rule for all callers"
        )
    if kinds and "everyone" in raw:
        raise ValueError(f"everyone: contradicts {kinds[0]}; leave one out")
    return Rule(
        topics=tuple(_topic(item) for item in _items(raw, "topics")),
        allow=frozenset(_right(item) for item in _items(raw, "allow")),
        name=_text("name", raw["name"]) if "name" in raw else None,
        users=frozenset(_principal("users", item) for item in _items(raw, "users")),
        clients=frozenset(_principal("clients", item) for item in _items(raw, "clients")),
        groups=frozenset(_text("groups", item) for item in _items(raw, "groups")),
        scopes=frozenset(_text("scopes", item) for item in _items(raw, "scopes")),
        everyone="everyone" in raw,
    )


def _items(raw: dict[str, Any], key: str) -> list[object]:
    """The list under `key`; empty only if there is no such key."""
    if key not in raw:
        return []
    value = raw[key]
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key}: must be a list of at least one item, not {shown(value)}")
    return value


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key}: {shown(value)} is not a text with a character in it")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in value):
        raise ValueError(f"{key}: {shown(value)} has a control character")
    return value


def _principal(key: str, value: object) -> str:
    """`provider:id` with the provider's one name; ids of different providers can be equal."""
    text = _text(key, value)
    provider, _, subject = text.partition(":")
    known = PROVIDER_ALIASES.get(provider.lower())
    if known is None or not subject:
        raise ValueError(
            f"{key}: {shown(value)} is not of the form provider:id, such as okta:00u1234; providers are "
            + ", ".join(sorted(set(PROVIDER_ALIASES.values())))
        )
    return f"{known}:{subject}"


def _right(value: object) -> Action:
    for action in Action:
        if value == action.value:
            return action
    raise ValueError(f"allow: {shown(value)} is none of {', '.join(action.value for action in Action)}")


def _topic(value: object) -> TopicGlob:
    if value == "*":
        return EVERY_TOPIC
    if isinstance(value, list):
        if len(value) != 2:
            raise ValueError(f"topics: {shown(value)} has {len(value)} elements, not schema and table")
        schema, table = (_text("topics", part) for part in value)
    else:
        schema, _, table = _text("topics", value).partition(".")
        if not schema or not table:
            raise ValueError(
                f"topics: {shown(value)} is not of the form schema.table, such as s3.events_*; "
                "* alone is every topic"
            )
    for glob in (schema, table):
        if "[" in _CLASS.sub("", glob):
            raise ValueError(f"topics: {shown(glob)} has a [ without ]; write [[] for the character itself")
        for members in _CLASS.findall(glob):
            _check_class(glob, members)
    return TopicGlob(schema, table)


def _check_class(glob: str, members: str) -> None:
    """Refuse sets whose meaning would change when they are folded, as names are: they could match more."""
    characters = members[1:-1].removeprefix("!")
    ranges = re.findall("(.)-(.)", characters, re.DOTALL)
    alphabets = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    is_plain = all(
        any(low in known and high in known and low <= high for known in alphabets) for low, high in ranges
    )
    if not is_plain or any(len(fold(character)) != 1 for character in characters):
        raise ValueError(
            f"topics: {shown(glob)}: the set {shown(members)} may hold "
            "single characters, and ranges of digits or of letters of one case"
        )


_CLASS = re.compile(r"\[!?+\]?+[^\]]*\]")
"""A set of characters in a glob, as fnmatch reads it."""


def _warn_of_unreachable(rules: Rules) -> None:
    groups = rules.admin_groups | rules.write_groups | rules.read_only_groups
    scopes = rules.admin_scopes | rules.write_scopes | rules.read_scopes
    for number, rule in enumerate(rules.file_rules, 1):
        for kind, names, listed in (("groups", rule.groups, groups), ("scopes", rule.scopes, scopes)):
            if names and names <= listed:
                _LOGGER.warning(
                    "AUTHORIZATION_RULES_FILE: %s is never reached: its %s all stand in the settings of %s, "
                    "which decide before the file",
                    rule_label(number, rule.name),
                    kind,
                    kind,
                )
