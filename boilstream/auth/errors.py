"""What can go wrong with a token or a permission: one line for the client, the reason for the log."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

from boilstream.errors import Internal, PermissionDenied, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from boilstream.auth.authorizer import Decision

CLIENT_MESSAGE = (
    "invalid token: get a new one from your identity provider and try again; the server's log has the reason"
)
"""What a client reads, whatever is wrong with its token: a cause would help to forge one."""

_LOGGER = logging.getLogger("boilstream.auth.errors")

_SHOWN_CHARACTERS = 64
_SHOWN_ITEMS = 4


class InvalidToken(Unauthenticated):
    """The token cannot be accepted.

    `message` is the same for all causes. `reason` is for the log and names the cause; `fix`, where
    one is known, says what to change: a setting, the request for the token, the issuer. Neither holds
    token text; values out of the token go through `shown` first.
    """

    def __init__(self, reason: str, fix: str | None = None) -> None:
        super().__init__(CLIENT_MESSAGE)
        self.reason = reason
        self.fix = fix

    @property
    def explanation(self) -> str:
        """Reason and fix in one line."""
        return f"{self.reason}; {self.fix}" if self.fix else self.reason


class TokenExpired(Unauthenticated):
    """The token was valid when the call began and ended before the call did."""

    def __init__(self, **details: str | int) -> None:
        super().__init__("the token expired during the call: get a new one and try again", **details)


class Denied(PermissionDenied):
    """The authorizer refused the action; `decision` holds what the client does not read."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.message)
        self.decision = decision


class KeysUnavailable(Unavailable):
    """The provider's key server cannot be reached, and no cached key can answer for it (retryable)."""


def defect(error: Exception) -> Internal:
    """The answer to a defect met with a token at hand; the log gets type and place of `error`, not its text.

    The message of a library could quote the token.
    """
    frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    _LOGGER.error(
        "Authentication failed by a defect: %s at %s", type(error).__name__, " < ".join(frames[::-1])
    )
    return Internal("authentication failed by a defect of the server")


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
