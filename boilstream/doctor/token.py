"""`boilstream doctor --token -`: why the server accepts or refuses a token, and what it may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from boilstream.auth import jws, session
from boilstream.auth.authorizer import Authorizer
from boilstream.auth.errors import InvalidToken, KeysUnavailable, shown
from boilstream.auth.identity import Identity
from boilstream.auth.manager import AuthManager, Explanation, build_manager
from boilstream.auth.rules import EVERY_TOPIC, Action, Rule, Rules, brief, load_rules, rule_label
from boilstream.catalog.names import TopicName
from boilstream.doctor.findings import Finding, Level, fail, noted_warnings, ok, split_advice, warn
from boilstream.settings import Settings

LONG_CHARACTERS: Final = 7_000
"""Above it a token with the other headers of a call nears gRPC's limit of 8 KiB."""

REFUSED_CHARACTERS: Final = 16 * 1024
"""gRPC refuses every header of this length; between 8 KiB and this it does so at random."""

_SHOWN: Final = 20
_UNITS: Final = ((86_400, "days"), (3_600, "h"), (60, "min"), (1, "s"))
_LAST_YEAR: Final = 253_402_300_799  # the end of the year 9999, where datetime ends

_FIXES: Final[Mapping[str, str]] = {
    "form": "send the access token whole and unchanged, as the provider gave it",
    "issuer": "get the token from a provider of AUTH_PROVIDERS, or add the provider there",
    "header": "let the provider sign access tokens with an accepted algorithm and no special headers",
    "signature": "get a new token from the provider and send it unchanged",
    "type": "send an access token",
    "times": "get a new token; if it is new, compare the clocks (NTP)",
    "audience": "request the token for the audience of this server",
    "identity": "correct the claim at the provider, or the setting that is named",
}
"""What to do where an objection does not say it itself; also the order of the checks."""

_FIX_REACH: Final = (
    "see that this machine reaches the provider; `boilstream doctor` without --token says more"
)

_FIX_MEMORY_KEY: Final = (
    "without SESSION_KEY_PATH only the server that made a session can check it: set SESSION_KEY_PATH for both, or "
    "explain the token that the session was made from"
)


def explain_token(
    settings: Settings,
    token: str,
    topic: TopicName | None = None,
    *,
    manager: AuthManager | None = None,
) -> list[Finding]:
    """What every check says of `token`; the last finding tells whether the server would let its holder in.

    Permissions are those on `topic`, or for None those on the server and what the rules file gives the
    caller. Keys come from the provider, through `manager` (None: the one that `settings` describe). Nothing
    in the findings holds a part of the token as it was sent. Raises ConfigurationError for settings that do
    not fit. Without providers no token is needed.
    """
    with noted_warnings() as notes:
        own = manager is None
        manager = manager or build_manager(settings)
        if manager is None:
            return [ok("token", "AUTH_PROVIDERS is not set, so calls need no token and none is looked at")]
        try:
            rules = load_rules(settings)
            authorizer = Authorizer(rules)
            notes.clear()  # of the settings; from here on they are of fetches that failed
            explanation = manager.explain(token)
        finally:
            if own:
                manager.close()
    findings = [_length(token)]
    checks = _Checks(explanation, token, manager.expiry.clock(), notes)
    findings += checks.findings(has_session_key=settings.session_key_path is not None)
    identity, accepted = explanation.identity, explanation.accepted
    if identity is not None and explanation.candidate is not None:
        named, _ = authorizer.names()
        hint = explanation.candidate.provider.groups_hint
        findings += list(_held(identity, named, hint))
        condition = "" if accepted else " if the token were accepted"
        findings += [_permission(authorizer, identity, action, topic, condition) for action in Action]
        if topic is None and rules.enabled:
            findings += _rules_of(rules, identity)
    findings.append(_verdict(explanation, findings))
    return findings


def _length(token: str) -> Finding:
    detail = f"{len(token)} characters"
    session_way = "exchange it for a session: the action session of Arrow Flight"
    if len(token) > REFUSED_CHARACTERS:
        return warn("length", f"{detail}: gRPC refuses a header of this length always", session_way)
    if len(token) > LONG_CHARACTERS:
        return warn(
            "length",
            f"{detail}: gRPC may refuse a header above 8 KiB (all headers of a call together)",
            f"{session_way}; or let the provider put fewer groups into it",
        )
    return ok("length", detail)


class _Checks:
    """The verdicts of the checks, each with what it looked at."""

    def __init__(self, explanation: Explanation, token: str, now: float, notes: Sequence[str]) -> None:
        self._explanation = explanation
        self._now = now
        self._notes = notes
        self._header: dict[str, Any] = {}
        self._claims: Mapping[str, Any] = {}
        if explanation.findings["form"] is None:
            self._header = jws.parse(token).header
        if explanation.candidate is not None:
            self._claims = explanation.candidate.claims

    def findings(self, *, has_session_key: bool) -> Iterator[Finding]:
        """One finding per check that was made, and the provider after the issuer."""
        made = self._explanation.findings
        for name, otherwise in _FIXES.items():
            if name not in made:
                if name == "signature" and "header" in made:
                    yield warn(name, "not checked, because the header is refused", "see the header")
                continue
            objection = made[name]
            if objection is None:
                yield ok(name, self._found(name))
            elif isinstance(objection, KeysUnavailable):
                # In the log a fetch that failed ends in "(age of the keys at hand)".
                cause = self._notes[0].rpartition(" (")[0] if self._notes else objection.message
                yield fail(name, *split_advice(cause, _FIX_REACH))
            elif name == "signature" and self._is_session and not has_session_key:
                yield fail(name, objection.reason, _FIX_MEMORY_KEY)
            else:
                yield _objected(name, objection, otherwise, self._beside(name))
            if name == "issuer" and objection is None:
                yield self._provider()

    @property
    def _is_session(self) -> bool:
        candidate = self._explanation.candidate
        return candidate is not None and candidate.provider.name == session.NAME

    def _provider(self) -> Finding:
        candidate, identity = self._explanation.candidate, self._explanation.identity
        assert candidate is not None
        if not self._is_session:
            return ok("provider", candidate.provider.name)
        made_from = identity.provider if identity is not None else self._claims.get("provider")
        return ok("provider", f"session, made from a token of {shown(made_from)}")

    def _found(self, name: str) -> str:
        """What a check without an objection looked at."""
        header, claims = self._header, self._claims
        match name:
            case "form":
                members = {key: header[key] for key in ("alg", "kid", "typ") if key in header}
                return "signed JWT, " + ", ".join(f"{key} {shown(value)}" for key, value in members.items())
            case "issuer":
                return shown(claims["iss"])
            case "header":
                return f"algorithm {shown(header['alg'])} is accepted, no header that is refused"
            case "signature":
                return f"made by the issuer's key {shown(header.get('kid'))}"
            case "type":
                return f"typ {shown(header['typ'])}" if "typ" in header else "no typ, which is accepted"
            case "times":
                return self._times()
            case "audience":
                return shown(claims.get("aud"))
        identity = self._explanation.identity
        assert identity is not None
        client = f", client {shown(identity.client)}" if identity.client is not None else ""
        return f"{identity.provider}:{brief(identity.subject, 255)}{client}"

    def _beside(self, name: str) -> str:
        """What is worth knowing beside an objection, though it does not say it."""
        return f" ({self._times()})" if name == "times" else ""

    def _times(self) -> str:
        words = {"exp": "end", "nbf": "start", "iat": "issued"}
        return ", ".join(
            f"{word} {_moment(self._claims[name], self._now)}"
            for name, word in words.items()
            if name in self._claims
        )


def _objected(name: str, objection: InvalidToken, otherwise: str, beside: str) -> Finding:
    if objection.fix is not None:
        return fail(name, objection.reason + beside, objection.fix)
    problem, advice = split_advice(objection.reason, otherwise)
    return fail(name, problem + beside, advice)


def _moment(value: object, now: float) -> str:
    """A NumericDate (RFC 7519, 2) in UTC and against now: `2026-05-01 12:00:00 UTC (in 59 min)`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LAST_YEAR:
        return shown(value)
    distance = abs(value - now)
    seconds, unit = next((item for item in _UNITS if distance >= 2 * item[0]), _UNITS[-1])
    words = f"{distance / seconds:.0f} {unit}"
    relative = f"in {words}" if value > now else f"{words} ago"
    return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S} UTC ({relative})"


def _held(identity: Identity, named: frozenset[str], groups_hint: str) -> Iterator[Finding]:
    """Groups, roles and scopes; of many, those first that rules name."""
    if not identity.groups and not identity.roles and named:
        yield warn(
            "groups", "Groups not extracted: the token has none, and rules decide by groups", groups_hint
        )
    else:
        yield ok("groups", _bounded(identity.groups, named))
    if identity.roles:
        yield ok("roles", _bounded(identity.roles, named))
    yield ok("scopes", _bounded(identity.scopes, frozenset()))


def _bounded(names: frozenset[str], first: frozenset[str]) -> str:
    ordered = sorted(names, key=lambda name: (name not in first, name))
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(brief(name) for name in ordered[:_SHOWN]) + more or "none"


def _permission(
    authorizer: Authorizer, identity: Identity, action: Action, topic: TopicName | None, condition: str
) -> Finding:
    decision = authorizer.decide(identity, action, topic)
    what = action.value if topic is None else f"{action.value} on {brief(str(topic), 255)}"
    if decision.allowed:
        return ok(what, f"allowed{condition} ({decision.reason})")
    return warn(what, f"denied ({decision.reason})", decision.message)


def _rules_of(rules: Rules, identity: Identity) -> Iterator[Finding]:
    """The rules of the file that give this caller something."""
    mine = [
        (number, rule) for number, rule in enumerate(rules.file_rules, 1) if _decides(rules, rule, identity)
    ]
    for number, rule in mine[:_SHOWN]:
        topics = ", ".join(brief(str(glob)) for glob in rule.topics[:_SHOWN])
        more = f" and {len(rule.topics) - _SHOWN} more" if len(rule.topics) > _SHOWN else ""
        rights = ", ".join(action.value for action in Action if action in rule.allow)
        yield ok(rule_label(number, rule.name), f"allows {rights} on {topics}{more}")
    if len(mine) > _SHOWN:
        yield ok("rules", f"{len(mine) - _SHOWN} more rules concern this caller")


def _decides(rules: Rules, rule: Rule, identity: Identity) -> bool:
    """Whether this rule would decide for the caller if it were the only one of the file, and on everything."""
    none = frozenset[str]()
    alone = replace(
        rules,
        file_rules=(replace(rule, topics=(EVERY_TOPIC,)),),
        required_read_scopes=none,
        required_write_scopes=none,
        required_admin_scopes=none,
    )
    decision = Authorizer(alone).decide(identity, Action.READ, None)
    return decision.allowed and decision.reason.startswith(rule_label(1, rule.name))


def _verdict(explanation: Explanation, findings: Sequence[Finding]) -> Finding:
    """The last line; it repeats what to change first, so that nobody has to look for it."""
    if not explanation.accepted:
        failed = [finding for finding in findings if finding.level is Level.FAIL]
        names = ", ".join(finding.what for finding in failed)
        objections = [found for found in explanation.findings.values() if found is not None]
        unsure = all(isinstance(found, KeysUnavailable) for found in objections)
        verb = "cannot check this token now" if unsure else "refuses this token"
        return fail("token", f"the server {verb}: {names}", failed[0].fix or "")
    accepted = "the server accepts this token"
    for finding in findings:
        if finding.what == "groups" and finding.fix is not None:
            return warn("token", f"{accepted}, but finds no groups in it", finding.fix)
    return ok("token", accepted)
