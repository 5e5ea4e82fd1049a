"""The exchange of a long token for a session; every transport uses this rule."""

from __future__ import annotations

from boilstream.auth.audit import Auditor
from boilstream.auth.authorizer import Authorizer
from boilstream.auth.identity import Caller
from boilstream.auth.manager import AuthManager
from boilstream.auth.session import Session
from boilstream.errors import InvalidArgument


class SessionExchange:
    """Makes sessions for the holders of valid tokens. Without a `manager` nobody needs one."""

    def __init__(self, manager: AuthManager | None, authorizer: Authorizer, auditor: Auditor) -> None:
        self._manager = manager
        self._authorizer = authorizer
        self._auditor = auditor

    def exchange(self, token: str, *, peer: str | None, call: str) -> Session:
        """A session for the holder of `token`, with those groups and scopes that the rules name now.

        Raises InvalidToken or KeysUnavailable as `AuthManager.authenticate` does, and InvalidArgument
        when the token is a session already, or when this server asks for no tokens.
        """
        if self._manager is None or self._manager.sessions is None:
            raise InvalidArgument("this server asks for no tokens, so there are no sessions; call without")
        identity = self._manager.authenticate(token)
        session = self._manager.sessions.issue(identity, *self._authorizer.names())
        self._auditor.session(Caller(identity, peer, call))
        return session
