"""The caller, as every part of BoilStream sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller: the claims of one token in the same terms for every provider."""

    provider: str
    """Name of the provider that vouched for the token, such as `okta`; `anonymous` without providers."""
    subject: str
    """Stable id of the user or client at that provider; never an e-mail address by choice."""
    client: str | None = None
    """OAuth client id that obtained the token, where the provider tells."""
    groups: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    expires_at: float = float("inf")
    """When the token ends, seconds since the epoch."""
    session: bool = False
    """Whether the token was a session token of this server, made from one of `provider`."""

    @property
    def principal(self) -> str:
        """`provider:subject`, the key for limits, audit and ownership."""
        return f"{self.provider}:{self.subject}"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes one call, and from where."""

    identity: Identity
    peer: str | None = None
    """Network address as the transport tells it, such as `ipv4:192.0.2.7:41234`."""
    call: str = ""
    """The call in the words of the transport, such as `DoPut` or `action drop_topic`."""
