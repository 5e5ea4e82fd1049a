"""Whether identity providers publish keys that tokens can be checked with, and what time it is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from boilstream.auth import jws
from boilstream.auth.discovery import discover
from boilstream.auth.errors import InvalidToken
from boilstream.auth.fetch import Answer, FetchFailed
from boilstream.auth.jwks import KeyCache
from boilstream.auth.providers.base import Provider, TrustedIssuer
from boilstream.auth.rules import brief
from boilstream.doctor.findings import Finding, fail, noted_warnings, ok, split_advice, warn, warned

Get = Callable[[str], Answer]
"""Gets an address or raises FetchFailed; see `HttpsFetcher.get`."""

WARN_CLOCK_SECONDS: Final = 5.0
"""A clock that is further off than this wants to be looked at, though tokens are still accepted."""

_READ_SECONDS: Final = 10.0  # reading keys that are at hand takes no time; this guards against a defect
_SHOWN_KINDS: Final = 6
_FIX_CLOCK: Final = "let NTP set the clock of this machine (timedatectl shows whether it does)"


def check_provider(
    provider: Provider, get: Get, *, max_keys: int, leeway_seconds: float, clock: Callable[[], float]
) -> Iterator[Finding]:
    """What there is to say of one provider: its settings, each of its addresses, its time.

    `clock` gives seconds since the epoch, which are compared with the header Date of the answers.
    """
    for text in provider.warnings:
        yield warn(f"{provider.name} settings", *split_advice(text, "see that this is what you want"))
    answers = _Answers(get, clock)
    by_address: dict[str, list[TrustedIssuer]] = {}
    for trusted in provider.issuers:
        by_address.setdefault(trusted.keys_url, []).append(trusted)
    for url, issuers in by_address.items():
        yield from _check_address(provider, url, issuers, answers, max_keys)
    if answers.received:
        yield check_clock(provider.name, answers.offsets, leeway_seconds)


def check_clock(name: str, offsets: Sequence[float], leeway_seconds: float) -> Finding:
    """The clock of this machine against that of the provider `name`.

    `offsets` holds, for each answer with a date, by how many seconds this clock is surely ahead (behind, if
    negative). The least counts: caches answer with dates of the past.
    """
    what = f"{name} clock"
    if not offsets:
        return warn(what, "the provider's answers carry no date, so nothing was compared", _FIX_CLOCK)
    offset = min(offsets, key=abs)
    if not offset:
        return ok(what, "this machine and the provider agree")
    side = "ahead of" if offset > 0 else "behind"
    detail = f"this machine is {abs(offset):.0f} s {side} the provider"
    if abs(offset) > leeway_seconds:
        return fail(what, f"{detail}, AUTH_LEEWAY_SECONDS tolerates {leeway_seconds:g}", _FIX_CLOCK)
    return warn(what, detail, _FIX_CLOCK) if abs(offset) > WARN_CLOCK_SECONDS else ok(what, detail)


class _Answers:
    """Gets documents and keeps what they tell about the clock."""

    def __init__(self, get: Get, clock: Callable[[], float]) -> None:
        self._get = get
        self._clock = clock
        self.received = 0
        self.offsets: list[float] = []

    def __call__(self, url: str) -> Answer:
        answer = self._get(url)
        self.received += 1
        if answer.date is not None:
            # The header was written at most the whole exchange ago, in whole seconds.
            latest = self._clock() - answer.date
            earliest = latest - answer.seconds - 1
            self.offsets.append(latest if latest < 0 else max(0.0, earliest))
        return answer


def _check_address(
    provider: Provider, url: str, issuers: Sequence[TrustedIssuer], answers: _Answers, max_keys: int
) -> Iterator[Finding]:
    """The key set at `url`, which all of `issuers` use; with discovery, the discovery document before it."""
    what = f"{provider.name} keys"
    try:
        if issuers[0].discover:
            what = f"{provider.name} discovery"
            finding, url = _discover(what, url, issuers[0], answers)
            yield finding
            what = f"{provider.name} keys"
        answer = answers(url)
    except FetchFailed as error:
        yield fail(what, *_unreachable(provider, url, str(error)))
        return
    with noted_warnings() as notes:
        keys = _keys(provider, url, answer.body, max_keys)
    if keys is None:
        yield fail(
            what,
            f"{url} answers in {_milliseconds(answer)}, not with a set of keys (RFC 7517)",
            f"check the settings {_settings(provider)}: this may be the address of something else",
        )
        return
    yield from warned(what, notes, "see JWKS_MAX_KEYS")
    yield _judged(what, f"{url} answers in {_milliseconds(answer)}", keys, issuers)


def _discover(what: str, url: str, trusted: TrustedIssuer, answers: _Answers) -> tuple[Finding, str]:
    """A finding on the discovery document, and the address of keys in it; raises FetchFailed."""
    taken: list[Answer] = []

    def fetch(address: str) -> bytes:
        taken.append(answers(address))
        return taken[-1].body

    found = discover(fetch, url, trusted.issuer)
    names = ", ".join(brief(name) for name in found.algorithms[:_SHOWN_KINDS])
    told = f", algorithms {names}" if names else ""
    return ok(what, f"{url} answers in {_milliseconds(taken[-1])}{told}"), found.jwks_uri


def _unreachable(provider: Provider, url: str, reason: str) -> tuple[str, str]:
    problem, advice = split_advice(reason, "")
    if "certificate" not in problem:
        reach = f"see that this machine reaches {urlsplit(url).netloc}, and check the settings {_settings(provider)}"
        advice = f"{advice}; {reach}" if advice else reach
    return f"{url}: {problem}", advice


def _keys(provider: Provider, url: str, body: bytes, max_keys: int) -> list[dict[str, Any]] | None:
    """The keys in an answer, read as the server reads them; None if it would not take it."""
    cache = KeyCache(
        url,
        fetch=lambda _: body,
        display_name=provider.display_name,
        logger_name=provider.logger_name,
        max_keys=max_keys,
    )
    if not cache.preload(_READ_SECONDS):
        return None
    keys: list[dict[str, Any]] = cache.jwks_for(None)["keys"]
    return keys


def _judged(
    what: str, answered: str, keys: Sequence[Mapping[str, Any]], issuers: Sequence[TrustedIssuer]
) -> Finding:
    kinds = Counter(_kind(key) for key in keys)
    listed = [f"{kind} x{count}" if count > 1 else kind for kind, count in sorted(kinds.items())]
    more = [f"{len(listed) - _SHOWN_KINDS} more kinds"] if len(listed) > _SHOWN_KINDS else []
    algorithms = tuple(dict.fromkeys(name for trusted in issuers for name in trusted.algorithms))
    fitting = sum(any(_is_usable(key, trusted) for trusted in issuers) for key in keys)
    detail = (
        f"{answered}, {len(keys)} key{'s' if len(keys) != 1 else ''} "
        f"({', '.join([*listed[:_SHOWN_KINDS], *more])}), {fitting} for {', '.join(algorithms)}"
    )
    if fitting:
        return ok(what, detail)
    fix = f"let the provider sign with one of {', '.join(algorithms)}, and publish the key with use sig"
    if issuers[0].discover:
        fix += ", or set OIDC_ALGORITHMS to what it signs with"
    return fail(what, detail, fix)


def _kind(key: Mapping[str, Any]) -> str:
    """Type and algorithm, such as `RSA RS256`, and the use if it is not for signatures."""
    members = [key.get("kty"), key.get("alg"), None if key.get("use") in (None, "sig") else key["use"]]
    return " ".join(brief(str(member), 20) for member in members if member is not None) or "no type"


def _is_usable(key: Mapping[str, Any], trusted: TrustedIssuer) -> bool:
    """Whether the key could verify a token: of a signature that cannot be right, it must be the only fault."""
    if trusted.accepts_key is not None and not trusted.accepts_key(key):
        return False
    for algorithm in trusted.algorithms:
        unsigned = jws.Jws({"alg": algorithm}, b"{}", b"\0", b"e30.e30")
        try:
            jws.check_signature(unsigned, {"keys": [key]}, trusted.algorithms)
        except InvalidToken as error:
            if error.reason.startswith("Signature wrong"):
                return True
    return False


def _milliseconds(answer: Answer) -> str:
    return f"{answer.seconds * 1000:.0f} ms"


def _settings(provider: Provider) -> str:
    """The variables of a provider: `OKTA_...`."""
    return f"{provider.name.partition('-')[0].upper()}_..."
