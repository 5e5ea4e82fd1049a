"""The client's line and the log's text."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from boilstream.auth.authorizer import Action, Decision
from boilstream.auth.errors import Denied, InvalidToken, KeysUnavailable, shown
from boilstream.errors import PermissionDenied

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_the_client_reads_the_same_line_for_every_cause() -> None:
    errors = [InvalidToken("Expired: long ago"), InvalidToken("Key not found")]
    assert len({error.message for error in errors}) == 1
    assert "new one" in errors[0].message
    assert "log" in errors[0].message
    assert str(errors[0]) == errors[0].message
    assert "Expired" not in errors[0].message
    assert errors[0].reason == "Expired: long ago"
    assert errors[0].code == "UNAUTHENTICATED"
    assert not errors[0].retryable


def test_missing_keys_are_worth_a_retry() -> None:
    assert KeysUnavailable("x").retryable
    assert KeysUnavailable("x").code == "UNAVAILABLE"


def test_a_refusal_shows_the_message_and_keeps_the_decision() -> None:
    decision = Decision(False, "no rule: 2 groups", "needs write: scope write:data", Action.WRITE, None)
    error = Denied(decision)
    assert isinstance(error, PermissionDenied)
    assert error.code == "PERMISSION_DENIED"
    assert error.message == str(error) == "needs write: scope write:data"
    assert error.decision is decision
    assert not error.retryable


@given(JSON)
def test_untrusted_values_become_short_printable_lines(value: Any) -> None:
    text = shown(value)
    assert text.isprintable()
    assert len(text) < 2000
    text.encode()


def test_long_values_are_cut() -> None:
    assert shown("k" * 1_000_000) == repr("k" * 64) + "..."
    assert shown(["a", "b\n", 1, {"c": []}, "e"]) == "['a', 'b\\n', 1, a JSON object, ...]"


def test_deep_values_are_named_only() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert shown(value) == "[a JSON array]"
