"""Who may do what: a pure decision on an Identity, an action and a topic."""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from boilstream.auth.identity import Identity
from boilstream.errors import PermissionDenied
from boilstream.settings import Settings

_LOGGER = logging.getLogger("boilstream.auth.authorizer")


class Action(enum.Enum):
    """What a caller wants to do with a topic or with the server."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    """Drop, alter, and touch what belongs to other principals."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The configured groups and scopes. Names are compared exactly, letter case included."""

    admin_groups: frozenset[str] = frozenset()
    write_groups: frozenset[str] = frozenset()
    read_only_groups: frozenset[str] = frozenset()
    admin_scopes: frozenset[str] = frozenset({"admin:system"})
    write_scopes: frozenset[str] = frozenset({"write:data"})
    read_scopes: frozenset[str] = frozenset({"read:data"})
    enabled: bool = True
    """When false, every caller may read and write, and none has admin."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the action is allowed, and the rule that made it so or that is missing."""

    allowed: bool
    reason: str


_ALLOWS: Mapping[Action, frozenset[Action]] = {
    Action.READ: frozenset({Action.READ}),
    Action.WRITE: frozenset({Action.READ, Action.WRITE}),
    Action.ADMIN: frozenset(Action),
}
"""What a name listed for an action allows."""


class Authorizer:
    """Decides by groups, then by scopes: the first level with a match decides, inside a level rights add up.

    Scopes therefore count only for tokens without a listed group, such as those of client credentials.
    Warns once, in the log, when no rule is in force.
    """

    def __init__(self, rules: Rules) -> None:
        self._enabled = rules.enabled
        self._groups = {
            Action.READ: rules.read_only_groups,
            Action.WRITE: rules.write_groups,
            Action.ADMIN: rules.admin_groups,
        }
        self._scopes = {
            Action.READ: rules.read_scopes,
            Action.WRITE: rules.write_scopes,
            Action.ADMIN: rules.admin_scopes,
        }
        if not rules.enabled:
            _LOGGER.warning(
                "Authorization is off: every authenticated caller may read and write all topics, nobody may "
                "drop; set ADMIN_GROUPS, WRITE_GROUPS or READ_ONLY_GROUPS"
            )

    def decide(self, identity: Identity, action: Action, topic: str | None) -> Decision:
        """Whether `identity` may do `action` on `topic` (None: on the server), with the reason.

        Groups and scopes hold for every topic; the name serves the reason.
        """
        if not self._enabled:
            if action is Action.ADMIN:
                return Decision(
                    False, f"{_need(action, topic)}: authorization is off, set ADMIN_GROUPS or ADMIN_SCOPES"
                )
            return Decision(True, "authorization is off")
        by_group = _matches(self._groups, identity.groups)
        matches = by_group or _matches(self._scopes, identity.scopes)
        for listed, names in matches.items():
            if action in _ALLOWS[listed]:
                return Decision(True, f"{'group' if by_group else 'scope'} {min(names)}")
        return Decision(False, f"{_need(action, topic)}: {self._missing(action, bool(by_group))}")

    def require(self, identity: Identity, action: Action, topic: str | None) -> None:
        """Raise PermissionDenied, naming the missing rule, unless `decide` allows the action."""
        decision = self.decide(identity, action, topic)
        if not decision.allowed:
            raise PermissionDenied(decision.reason)

    def _missing(self, action: Action, has_listed_group: bool) -> str:
        """What would have allowed the action; names the settings of groups, not the groups."""
        ways = [listed for listed in Action if action in _ALLOWS[listed]]
        settings = [_GROUP_SETTINGS[listed] for listed in ways if self._groups[listed]][:1]
        scopes = [min(self._scopes[listed]) for listed in ways if self._scopes[listed]][:1]
        alternatives = [f"member of one of {name}" for name in settings]
        if not has_listed_group:
            alternatives += [f"scope {name}" for name in scopes]
        missing = ", or ".join(alternatives) or f"no rule allows it, see {_GROUP_SETTINGS[action]}"
        if has_listed_group:
            missing += " (scopes do not count for members of a listed group)"
        return missing


_GROUP_SETTINGS: Mapping[Action, str] = {
    Action.READ: "READ_ONLY_GROUPS",
    Action.WRITE: "WRITE_GROUPS",
    Action.ADMIN: "ADMIN_GROUPS",
}


def rules_from(settings: Settings) -> Rules:
    """The rules that the settings hold."""
    return Rules(
        admin_groups=frozenset(settings.admin_groups),
        write_groups=frozenset(settings.write_groups),
        read_only_groups=frozenset(settings.read_only_groups),
        admin_scopes=frozenset(settings.admin_scopes),
        write_scopes=frozenset(settings.write_scopes),
        read_scopes=frozenset(settings.read_scopes),
        enabled=settings.authorization_active,
    )


def _matches(listed: Mapping[Action, frozenset[str]], names: frozenset[str]) -> dict[Action, frozenset[str]]:
    return {action: listed[action] & names for action in Action if listed[action] & names}


def _need(action: Action, topic: str | None) -> str:
    return f"needs {action.value}" + (f" on {topic}" if topic is not None else "")
