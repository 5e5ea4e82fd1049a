"""Who may do what: a pure decision on an Identity, an action and a topic."""

from __future__ import annotations

import enum
import heapq
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from boilstream.auth.errors import Denied
from boilstream.auth.identity import Identity
from boilstream.auth.rules import ALLOWS, Action, Rule, Rules, brief, rule_label
from boilstream.catalog.names import TopicName

__all__ = ["Action", "Authorizer", "Decision"]

_LOGGER = logging.getLogger("boilstream.auth.authorizer")

_CACHED = 4096
_SHOWN_TOPIC = 80
_SHOWN_NAMES = 3


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the action is allowed, and why."""

    allowed: bool
    reason: str
    """For the audit log: the level and rule that decided, or what would have. One line, bounded; names
    groups, scopes and rules, never users."""
    message: str
    """For the client: what it needs. One line, bounded; empty if the action is allowed."""
    action: Action
    topic: TopicName | None


class Authorizer:
    """Decides by groups, then by scopes, then by the rules file.

    The first level that lists a name of the caller decides; inside a level rights add up. Scopes therefore
    count only for tokens without a listed group, and the file only for tokens without either. Required
    scopes apply on top: those of the action that is asked for, not of the ones that it implies.

    Safe for use by many threads. Warns in the log when no rule is in force.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = _RuleSet(rules)

    def replace(self, rules: Rules) -> None:
        """Decide by `rules` from now on; a decision that is being made uses the old set to its end."""
        self._rules = _RuleSet(rules)

    def names(self) -> tuple[frozenset[str], frozenset[str]]:
        """All groups (and app roles), and all scopes, that any rule mentions.

        An identity that is reduced to these gets the same decisions.
        """
        return self._rules.names

    def decide(self, identity: Identity, action: Action, topic: TopicName | None) -> Decision:
        """Whether `identity` may do `action` on `topic` (None: on the server), with the reason."""
        return self._rules.decide(identity, action, topic)

    def require(self, identity: Identity, action: Action, topic: TopicName | None) -> Decision:
        """The decision, if it allows the action; else raise Denied, which carries it."""
        decision = self.decide(identity, action, topic)
        if not decision.allowed:
            raise Denied(decision)
        return decision


class _Level(enum.Enum):
    GROUPS = "group"
    SCOPES = "scope"
    FILE = "rule"


class _Listed:
    """Names that are listed per action: the groups, or the scopes, of the settings."""

    def __init__(self, listed: Mapping[Action, frozenset[str]]) -> None:
        self.all = frozenset[str]().union(*listed.values())
        self._allowing = {
            action: tuple(listed[by] for by in Action if action in ALLOWS[by]) for action in Action
        }

    def allowing(self, action: Action, held: frozenset[str]) -> str | None:
        """The name in `held` that allows the action; that of the least right where several do."""
        for names in self._allowing[action]:
            if found := names & held:
                return min(found)
        return None


@dataclass(frozen=True, slots=True)
class _RulesOn:
    """Rules of the file that concern one topic: their numbers, and how each is named in a reason."""

    numbers: frozenset[int]
    labels: Mapping[int, str]


class _RuleSet:
    """Rules made ready for many decisions; never changes."""

    def __init__(self, rules: Rules) -> None:
        if not rules.enabled:
            _LOGGER.warning(
                "Authorization is off: every authenticated caller may read and write all topics, nobody may "
                "drop; set ADMIN_GROUPS, WRITE_GROUPS or READ_ONLY_GROUPS"
            )
        self._enabled = rules.enabled
        groups, scopes = _groups(rules), _scopes(rules)
        self._groups, self._scopes = _Listed(groups), _Listed(scopes)
        self._required = {
            Action.READ: rules.required_read_scopes,
            Action.WRITE: rules.required_write_scopes,
            Action.ADMIN: rules.required_admin_scopes,
        }
        self._file = tuple(enumerate(rules.file_rules, 1))
        self._globs = [
            (number, glob, glob.matcher(), f"{rule_label(number, rule.name)} on {brief(str(glob))}")
            for number, rule in self._file
            for glob in rule.topics
        ]
        self._file_allows = {
            action: frozenset(
                number
                for number, rule in self._file
                if any(action in ALLOWS[allowed] for allowed in rule.allow)
            )
            for action in Action
        }
        self._ways = {
            (level, action, server): _ways(rules, level, action, server)
            for level in _Level
            for action in Action
            for server in (False, True)
        }
        self.names = (
            self._groups.all.union(*(rule.groups for rule in rules.file_rules)),
            self._scopes.all.union(*self._required.values(), *(rule.scopes for rule in rules.file_rules)),
        )
        # Each call asks again for the same few callers, and ListFlights for every topic.
        self._rules_for = lru_cache(_CACHED)(self._find_rules_for)
        self._rules_on = lru_cache(_CACHED)(self._find_rules_on)
        self._would_allow = lru_cache(_CACHED)(self._find_would_allow)

    def decide(self, identity: Identity, action: Action, topic: TopicName | None) -> Decision:
        if not self._enabled:
            return _decide_without_rules(action, topic)
        held = identity.groups | identity.roles if identity.roles else identity.groups
        if not self._groups.all.isdisjoint(held):
            level, decider = _Level.GROUPS, self._groups.allowing(action, held)
        elif not self._scopes.all.isdisjoint(identity.scopes):
            level, decider = _Level.SCOPES, self._scopes.allowing(action, identity.scopes)
        else:
            level, decider = _Level.FILE, self._rule_allowing(identity, action, topic)
        if decider is not None and level is not _Level.FILE:
            decider = f"{level.value} {brief(decider)}"
        lacking = self._required[action] - identity.scopes
        if decider is not None and not lacking:
            return Decision(True, decider, "", action, topic)

        reasons, needs = [], []
        if decider is None:
            why, ways = self._explain(level, identity, held, action, topic)
            reasons.append(f"no rule: {why}; would match: {ways}")
            needs.append(self._ways[level, action, topic is None])
        if lacking:
            setting = f"REQUIRED_{action.name}_SCOPES"
            reasons.append(f"required {_scope_list(lacking)} missing ({setting})")
            needs.append(f"{_scope_list(lacking)} (required by {setting})")
            if decider is not None:
                reasons.append(f"otherwise {decider}")
        return Decision(
            False, "; ".join(reasons), f"{_need(action, topic)}: {'; and '.join(needs)}", action, topic
        )

    def _rule_allowing(self, identity: Identity, action: Action, topic: TopicName | None) -> str | None:
        """The first rule of the file that allows it."""
        if not self._file:
            return None
        on_topic = self._rules_on(topic)
        allowing = self._rules_for(identity) & on_topic.numbers & self._file_allows[action]
        return on_topic.labels[min(allowing)] if allowing else None

    def _explain(
        self,
        level: _Level,
        identity: Identity,
        held: frozenset[str],
        action: Action,
        topic: TopicName | None,
    ) -> tuple[str, str]:
        """Why nothing allows the action, and what would, for the log."""
        ways = self._ways[level, action, topic is None]
        if level is not _Level.FILE:
            listed, own = (self._groups, held) if level is _Level.GROUPS else (self._scopes, identity.scopes)
            name = brief(min(listed.all & own))
            return f"{level.value} {name} is listed and does not allow {action.value}", ways
        why = f"{len(held)} groups and {len(identity.scopes)} scopes, none listed"
        if self._file:
            on_topic = self._rules_on(topic)
            if lesser := self._rules_for(identity) & on_topic.numbers:
                why += f", {on_topic.labels[min(lesser)]} does not allow {action.value}"
            ways += self._would_allow(action, topic)
        return why, ways

    def _find_rules_for(self, identity: Identity) -> frozenset[int]:
        """Numbers of the rules whose principals the caller matches."""
        return frozenset(number for number, rule in self._file if _concerns(rule, identity))

    def _find_rules_on(self, topic: TopicName | None) -> _RulesOn:
        """The rules whose topics hold this one."""
        if topic is None:
            found = [(number, label) for number, glob, _, label in self._globs if glob.server]
        else:
            key = topic.key
            found = [(number, label) for number, _, matches, label in self._globs if matches(key)]
        labels = dict(reversed(found))  # of several globs of one rule the first names it
        return _RulesOn(frozenset(labels), labels)

    def _find_would_allow(self, action: Action, topic: TopicName | None) -> str:
        """The first rules of the file that would allow it to other callers, in parentheses."""
        on_topic = self._rules_on(topic)
        numbers = heapq.nsmallest(_SHOWN_NAMES, self._file_allows[action] & on_topic.numbers)
        return f" ({', '.join(on_topic.labels[number] for number in numbers) or 'none there allows it'})"


def _concerns(rule: Rule, identity: Identity) -> bool:
    if not (rule.users or rule.clients or rule.groups or rule.scopes):
        return rule.everyone
    return (
        (not rule.users or identity.principal in rule.users)
        and (
            not rule.clients
            or (identity.client is not None and f"{identity.provider}:{identity.client}" in rule.clients)
        )
        and (
            not rule.groups
            or not (rule.groups.isdisjoint(identity.groups) and rule.groups.isdisjoint(identity.roles))
        )
        and (not rule.scopes or not rule.scopes.isdisjoint(identity.scopes))
    )


def _decide_without_rules(action: Action, topic: TopicName | None) -> Decision:
    if action is Action.ADMIN:
        message = f"{_need(action, topic)}: authorization is off, set ADMIN_GROUPS or ADMIN_SCOPES"
        return Decision(False, "authorization is off, which allows nobody admin", message, action, topic)
    return Decision(True, "authorization is off", "", action, topic)


_GROUP_SETTINGS: Mapping[Action, str] = {
    Action.READ: "READ_ONLY_GROUPS",
    Action.WRITE: "WRITE_GROUPS",
    Action.ADMIN: "ADMIN_GROUPS",
}


def _groups(rules: Rules) -> Mapping[Action, frozenset[str]]:
    return {
        Action.READ: rules.read_only_groups,
        Action.WRITE: rules.write_groups,
        Action.ADMIN: rules.admin_groups,
    }


def _scopes(rules: Rules) -> Mapping[Action, frozenset[str]]:
    return {
        Action.READ: rules.read_scopes,
        Action.WRITE: rules.write_scopes,
        Action.ADMIN: rules.admin_scopes,
    }


def _ways(rules: Rules, level: _Level, action: Action, server: bool) -> str:
    """What would allow the action to a caller whom `level` refuses; names the settings of groups, not the groups."""
    groups, scopes = _groups(rules), _scopes(rules)
    by = [listed for listed in Action if action in ALLOWS[listed]]
    file = "AUTHORIZATION_RULES_FILE" if rules.file_rules else None
    ways = [f"member of one of {_GROUP_SETTINGS[listed]}" for listed in by if groups[listed]][:1]
    if level is not _Level.GROUPS:
        ways += [f"scope {brief(min(scopes[listed]))}" for listed in by if scopes[listed]][:1]
    if level is _Level.FILE and file:
        ways.append(f"a rule on all topics (*) in {file}" if server else f"a rule in {file}")
    text = ", or ".join(ways) or f"no rule allows it, see {_GROUP_SETTINGS[action]}"
    if level is _Level.GROUPS:
        ignored = f"scopes and {file} do" if file else "scopes do"
        text += f" ({ignored} not count for members of a listed group)"
    elif level is _Level.SCOPES and file:
        text += f" ({file} does not count for tokens with a listed scope)"
    return text


def _scope_list(scopes: frozenset[str]) -> str:
    names = [brief(name) for name in heapq.nsmallest(_SHOWN_NAMES, scopes)]
    more = [f"{len(scopes) - _SHOWN_NAMES} more"] if len(scopes) > _SHOWN_NAMES else []
    return f"{'scopes' if len(scopes) > 1 else 'scope'} {', '.join(names + more)}"


def _need(action: Action, topic: TopicName | None) -> str:
    return f"needs {action.value}" + (f" on {brief(str(topic), _SHOWN_TOPIC)}" if topic is not None else "")
