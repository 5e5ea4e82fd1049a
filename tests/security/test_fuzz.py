"""A fuzz run over raw tokens: good ones, cut, spliced and bent in every layer of their form."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from boilstream.auth.errors import CLIENT_MESSAGE, InvalidToken
from boilstream.auth.identity import Identity
from boilstream.auth.manager import AuthManager
from tests.security.parties import GOLDEN, KID, NAMES, SIGNERS, manager_of, signed, web
from tests.support.tokens import b64, raw_token

PIECE = 16
"""So many characters of a token in a row must not reach a log."""

GOOD = [
    signed(claims, name, alg)
    for name in NAMES
    for claims in GOLDEN[name][:2]
    for alg in sorted(SIGNERS[name])
]

fuzz = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def manager() -> Iterator[AuthManager]:
    made = manager_of(NAMES, web())
    yield made
    made.close()


def pieces(text: str) -> set[str]:
    return {text[at : at + PIECE] for at in range(len(text) - PIECE + 1)}


def check(manager: AuthManager, made: str, expected: Identity | None, secret: str) -> None:
    """Assert that the token is accepted when it is a good one, else refused in form, without `secret`."""
    try:
        identity = manager.authenticate(made)
    except InvalidToken as error:
        assert expected is None
        assert type(error) is InvalidToken
        assert error.message == str(error) == CLIENT_MESSAGE
        for text in (error.reason, error.explanation):
            assert text.isprintable()
            assert len(text) < 3000
            assert pieces(secret).isdisjoint(pieces(text))
        assert len(error.reason) < 1000
        event(error.reason.split(":")[0])
    else:
        assert identity == expected
        event("accepted")


def decoded(part: str) -> bytes:
    """The bytes of a part, as far as there are some."""
    with contextlib.suppress(binascii.Error, ValueError):
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    return part.encode("utf-8", "surrogatepass")


Change = Callable[[st.DrawFn, str], str]
CHARACTERS = st.sampled_from("AZaz09-_.=+/ \n\x00\u00e9\u0410\ud800") | st.characters()


def position(draw: st.DrawFn, text: str | bytes) -> int:
    return draw(st.integers(0, max(len(text) - 1, 0)))


def flip_a_bit_inside(draw: st.DrawFn, text: str) -> str:
    """Flip one bit of what a part encodes."""
    parts = text.split(".")
    chosen = draw(st.integers(0, len(parts) - 1))
    data = bytearray(decoded(parts[chosen]))
    if data:
        data[position(draw, bytes(data))] ^= 1 << draw(st.integers(0, 7))
    parts[chosen] = b64(bytes(data))
    return ".".join(parts)


def flip_a_bit_of_the_text(draw: st.DrawFn, text: str) -> str:
    at = position(draw, text)
    return (
        text[:at]
        + "".join(chr(ord(c) ^ (1 << draw(st.integers(0, 7)))) for c in text[at : at + 1])
        + text[at + 1 :]
    )


def put_a_character(draw: st.DrawFn, text: str) -> str:
    at, gone = position(draw, text), draw(st.integers(0, 2))
    return text[:at] + draw(CHARACTERS) + text[at + gone :]


def cut(draw: st.DrawFn, text: str) -> str:
    start, end = sorted((position(draw, text), position(draw, text)))
    return text[:start] + text[end:] if draw(st.booleans()) else text[start:end]


def repeat(draw: st.DrawFn, text: str) -> str:
    start, end = sorted((position(draw, text), position(draw, text)))
    return text[:end] + text[start:end] * draw(st.integers(1, 3)) + text[end:]


def splice_texts(draw: st.DrawFn, text: str) -> str:
    other = draw(st.sampled_from(GOOD))
    return text[: position(draw, text)] + other[position(draw, other) :]


def splice_parts(draw: st.DrawFn, text: str) -> str:
    pairs = zip(text.split("."), draw(st.sampled_from(GOOD)).split("."), strict=False)
    return ".".join(pair[draw(st.integers(0, 1))] for pair in pairs)


def rearrange_parts(draw: st.DrawFn, text: str) -> str:
    return ".".join(draw(st.lists(st.sampled_from([*text.split("."), ""]), min_size=1, max_size=6)))


def swap_alphabets(draw: st.DrawFn, text: str) -> str:
    """Another way to write the same bytes, which lenient decoders take."""
    swaps: list[Callable[[str], str]] = [
        lambda it: it.replace("-", "+").replace("_", "/"),
        lambda it: ".".join(part + "=" * (-len(part) % 4) for part in it.split(".")),
        lambda it: it.replace(".", "%2E"),
        lambda it: "\n".join(it[at : at + 64] for at in range(0, len(it), 64)),
        lambda it: it.swapcase(),
        lambda it: it + "=",
        lambda it: it[:-1] + chr(ord(it[-1]) + 1) if it else it,  # bits that carry nothing
        lambda it: f"Bearer {it}",
        lambda it: ".".join(b64(part.encode("utf-8", "surrogatepass")) for part in it.split(".")),
        lambda it: ".".join(decoded(part).hex() for part in it.split(".")),
    ]
    return draw(st.sampled_from(swaps))(text)


def deep(draw: st.DrawFn) -> str:
    depth = draw(st.sampled_from([2, 50, 900, 990, 1000, 1100, 5000, 12_000]))
    opening, closing = draw(st.sampled_from([("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")]))
    return opening * depth + "1" + closing * draw(st.sampled_from([0, depth]))


NUMBERS = [
    "1" + "0" * 400,
    "9" * 4400,
    "1e999",
    "-1e999",
    "1e-999",
    "-0",
    "NaN",
    "Infinity",
    "1" * 30 + ".5",
    "0x10",
]


def bend_the_json(draw: st.DrawFn, text: str) -> str:
    """Double a member of the header or the payload, nest deeply, or write a number that no float holds."""
    parts = text.split(".")
    chosen = draw(st.integers(0, min(1, len(parts) - 1)))
    data = decoded(parts[chosen])
    try:
        members = json.loads(data)
    except (ValueError, RecursionError):
        return text
    if not isinstance(members, dict) or not members:
        return text
    name = draw(st.sampled_from(sorted(members)))
    value = draw(
        st.sampled_from([json.dumps(members[name]), "null", *NUMBERS])
        | st.deferred(lambda: st.just(deep(draw)))
    )
    bent = draw(st.sampled_from(["first", "last", "escaped", "instead", "after", "nested"]))
    body = data.decode()
    if bent == "first":
        body = f'{{"{name}":{value},{body[1:]}'
    elif bent == "last":
        body = f'{body[:-1]},"{name}":{value}}}'
    elif bent == "escaped":
        body = f'{body[:-1]},"\\u{ord(name[0]):04x}{name[1:]}":{value}}}'
    elif bent == "instead":
        rest = {key: kept for key, kept in members.items() if key != name}
        body = f'{json.dumps(rest)[:-1]}{", " if rest else ""}"{name}":{value}}}'
    elif bent == "after":
        body = f"{body}{value}"
    else:
        body = f"[{body}]"
    parts[chosen] = b64(body.encode())
    return ".".join(parts)


CHANGES: list[Change] = [
    flip_a_bit_inside,
    flip_a_bit_of_the_text,
    put_a_character,
    cut,
    repeat,
    splice_texts,
    splice_parts,
    rearrange_parts,
    swap_alphabets,
    bend_the_json,
    bend_the_json,
]


@st.composite
def mutants(draw: st.DrawFn) -> tuple[str, str]:
    """A good token, and what one to three changes made of it."""
    good = draw(st.sampled_from(GOOD))
    made = good
    for change in draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3)):
        made = change(draw, made)
    return good, made


@pytest.mark.slow
def test_mutants_of_good_tokens(manager: AuthManager) -> None:
    identities = {good: manager.authenticate(good) for good in GOOD}

    @settings(parent=fuzz, max_examples=2000)
    @given(mutants())
    def run(pair: tuple[str, str]) -> None:
        good, made = pair
        secrets = [text.partition(".")[2] for text in (good, made)]
        check(manager, made, identities.get(made), "\x00".join(secrets))

    run()


MEMBERS = ["iss", "aud", "exp", "nbf", "iat", "sub"]
"""Claims that every provider reads, but for Azure AD's: there `oid` is what elsewhere is `sub`."""


@st.composite
def bad_payloads(draw: st.DrawFn) -> tuple[str, str]:
    """A name, and a payload of its tokens that no number, nesting or double member makes a good one."""
    name = draw(st.sampled_from(NAMES))
    claims: dict[str, Any] = dict(draw(st.sampled_from(GOLDEN[name])))
    member = draw(st.sampled_from(MEMBERS))
    if name == "azure-ad" and member == "sub":
        member = "oid"
    if draw(st.booleans()):
        second = draw(st.sampled_from([json.dumps(claims.get(member, 0)), "null", deep(draw)]))
        first = draw(st.sampled_from([json.dumps(claims.get(member, 0)), "0"]))
        claims.pop(member, None)
        again = draw(st.sampled_from([member, f"\\u{ord(member[0]):04x}{member[1:]}"]))
        bent = f'"{member}":{first},"{again}":{second}'
    else:
        claims.pop(member, None)
        harmless = {"1e-999", "-0"} if member in ("nbf", "iat") else {""}
        numbers = [number for number in NUMBERS if number not in harmless]
        bent = f'"{member}":{draw(st.sampled_from(numbers) | st.deferred(lambda: st.just(deep(draw))))}'
    rest = json.dumps(claims)
    body = f"{{{bent},{rest[1:]}" if draw(st.booleans()) else f"{rest[:-1]},{bent}}}"
    return name, body


@pytest.mark.slow
@settings(parent=fuzz, max_examples=500)
@given(bad_payloads())
def test_payloads_that_the_issuer_signed_but_nobody_can_mean(
    manager: AuthManager, made: tuple[str, str]
) -> None:
    name, payload = made
    (alg, key), *_ = SIGNERS[name].items()
    typ = "boilstream-session+jwt" if name == "session" else "JWT"
    text = raw_token(json.dumps({"alg": alg, "kid": KID, "typ": typ}), payload, key, alg)
    check(manager, text, None, text.partition(".")[2])


@pytest.mark.slow
@settings(parent=fuzz, max_examples=500)
@given(
    st.binary(max_size=400)
    | st.lists(st.binary(max_size=120), max_size=6).map(lambda parts: b".".join(parts))
)
def test_bytes_of_any_kind(manager: AuthManager, data: bytes) -> None:
    for made in (data.decode("latin-1"), data.decode("utf-8", "surrogateescape")):
        check(manager, made, None, made)
    wrapped = ".".join(b64(part) for part in data.split(b"."))
    check(manager, wrapped, None, wrapped.partition(".")[2])


def test_the_numbers_that_the_run_takes_are_beyond_all_times() -> None:
    for number in NUMBERS:
        with contextlib.suppress(ValueError):
            value = float(number)
            assert not math.isfinite(value) or not 1 <= value < 1e12
