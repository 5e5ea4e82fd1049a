"""When a token has ended: one rule for new tokens, remembered ones and running streams."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from boilstream.auth.errors import TokenExpired
from boilstream.auth.identity import Identity

LEEWAY_SECONDS: Final = 30.0
"""Default difference between the clocks of provider and server that is tolerated."""


class ExpiryRule:
    """Tokens are good until `leeway_seconds` after their end; `clock` gives seconds since the epoch.

    The same leeway holds for every other time in a token (RFC 7519, 4.1.4).
    """

    def __init__(
        self, leeway_seconds: float = LEEWAY_SECONDS, clock: Callable[[], float] = time.time
    ) -> None:
        self.leeway_seconds = leeway_seconds
        self.clock = clock

    def is_over(self, expires_at: float) -> bool:
        """Whether a token that ends at `expires_at` (seconds since the epoch) counts no more."""
        return self.clock() - expires_at >= self.leeway_seconds

    def require_current(self, identity: Identity, **details: str | int) -> None:
        """Raise TokenExpired, with `details`, if the caller's token has ended since the call began."""
        if self.is_over(identity.expires_at):
            raise TokenExpired(**details)
