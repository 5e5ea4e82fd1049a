"""What can go wrong with a token: one line for the client, the reason for the log."""

from __future__ import annotations

from boilstream.errors import Unauthenticated, Unavailable

CLIENT_MESSAGE = (
    "invalid token: get a new one from your identity provider and try again; the server's log has the reason"
)
"""What a client reads, whatever is wrong with its token: a cause would help to forge one."""

_SHOWN_CHARACTERS = 64
_SHOWN_ITEMS = 4


class InvalidToken(Unauthenticated):
    """The token cannot be accepted.

    `message` is the same for all causes. `reason` is for the log: it names the cause and the setting
    to look at, and holds no token text; values out of the token go through `shown` first.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(CLIENT_MESSAGE)
        self.reason = reason


class KeysUnavailable(Unavailable):
    """The provider's key server cannot be reached, and no cached key can answer for it (retryable)."""


def shown(value: object) -> str:
    """Untrusted `value` (from a token or a key set) as log text: escaped, on one line, cut when long."""
    if isinstance(value, (list, tuple)):
        items = [_shown_item(item) for item in value[:_SHOWN_ITEMS]]
        return "[" + ", ".join([*items, "..."] if len(value) > _SHOWN_ITEMS else items) + "]"
    return _shown_item(value)


def _shown_item(value: object) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN_CHARACTERS else repr(value[:_SHOWN_CHARACTERS]) + "..."
    if isinstance(value, (list, tuple, dict)):  # repr of deep nesting would exceed the recursion limit
        return f"a JSON {'object' if isinstance(value, dict) else 'array'}"
    return repr(value)[:_SHOWN_CHARACTERS]
