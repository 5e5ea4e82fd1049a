from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.auth.errors import TokenExpired
from boilstream.auth.expiry import LEEWAY_SECONDS, ExpiryRule
from boilstream.auth.identity import Identity
from boilstream.auth.middleware import ANONYMOUS
from tests.support.tokens import NOW, FakeClock


@pytest.mark.parametrize(
    ("leeway", "after_end", "is_over"),
    [
        (30, -1, False),
        (30, 0, False),
        (30, 29.9, False),
        (30, 30, True),
        (30, 31, True),
        (0, -0.1, False),
        (0, 0, True),  # RFC 7519, 4.1.4: on or after the time the token must not be accepted
    ],
)
def test_a_token_ends_its_leeway_after_its_end(leeway: float, after_end: float, is_over: bool) -> None:
    assert ExpiryRule(leeway, FakeClock(NOW + after_end)).is_over(NOW) is is_over


def test_the_default_leeway_is_that_of_the_settings() -> None:
    assert ExpiryRule().leeway_seconds == LEEWAY_SECONDS == 30


@given(
    leeway=st.floats(0, 300),
    end=st.floats(0, 1e11),
    times=st.lists(st.floats(0, 1e11), min_size=2),
)
def test_what_is_over_stays_over(leeway: float, end: float, times: list[float]) -> None:
    clock = FakeClock()
    rule = ExpiryRule(leeway, clock)
    verdicts = []
    for clock.now in sorted(times):
        verdicts.append(rule.is_over(end))
    assert verdicts == sorted(verdicts)


def test_a_caller_is_current_until_the_token_is_over() -> None:
    clock = FakeClock()
    rule = ExpiryRule(10, clock)
    identity = Identity("okta", "00u1", expires_at=NOW + 5)
    rule.require_current(identity)
    clock.advance(14.9)
    rule.require_current(identity)
    clock.advance(0.1)
    with pytest.raises(TokenExpired, match="expired during the call: get a new one") as caught:
        rule.require_current(identity, ack_up_to_offset=-1)
    assert caught.value.details == {"ack_up_to_offset": -1}
    assert caught.value.code == "UNAUTHENTICATED"
    assert not caught.value.retryable


def test_callers_without_a_token_have_no_end() -> None:
    ExpiryRule(0, FakeClock(1e15)).require_current(ANONYMOUS)
