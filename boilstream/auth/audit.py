"""What is told of calls to those who must answer for them: the audit log and the metrics of refusals."""

from __future__ import annotations

from boilstream.auth.authorizer import Decision
from boilstream.auth.errors import Denied, InvalidToken
from boilstream.auth.identity import Caller
from boilstream.errors import BoilStreamError, PermissionDenied, Unauthenticated
from boilstream.observe.audit import AuditEvent, AuditLog
from boilstream.observe.metrics import Metrics


class Auditor:
    """Turns callers, decisions and errors into audit events. Thread safe."""

    def __init__(self, log: AuditLog, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics

    def allowed(
        self, caller: Caller, decision: Decision, *, rows: int | None = None, commit: str | None = None
    ) -> None:
        """A change that was made: a topic defined or dropped, rows committed."""
        self._log.write(
            AuditEvent(
                decision="allowed",
                call=caller.call,
                action=decision.action.value,
                topic=_text(decision),
                provider=caller.identity.provider,
                subject=caller.identity.subject,
                client=caller.identity.client,
                peer=caller.peer,
                reason=decision.reason,
                rows=rows,
                commit=commit,
            )
        )

    def session(self, caller: Caller) -> None:
        """A session token that was made for the caller."""
        self._log.write(
            AuditEvent(
                decision="allowed",
                call=caller.call,
                provider=caller.identity.provider,
                subject=caller.identity.subject,
                client=caller.identity.client,
                peer=caller.peer,
                reason="a valid token was exchanged for a session",
            )
        )

    def refused(
        self,
        error: BoilStreamError,
        *,
        call: str,
        error_id: str,
        peer: str | None = None,
        caller: Caller | None = None,
    ) -> None:
        """A call that ended with `error`; only refusals for want of a token or a permission are noted."""
        if not isinstance(error, (Unauthenticated, PermissionDenied)):
            return
        decision = error.decision if isinstance(error, Denied) else None
        if decision is not None:
            self._metrics.denied(decision.action.value)
            reason = decision.reason
        else:
            reason = error.explanation if isinstance(error, InvalidToken) else error.message
        identity = caller.identity if caller is not None else None
        self._log.write(
            AuditEvent(
                decision="unauthenticated" if isinstance(error, Unauthenticated) else "denied",
                call=call,
                action=decision.action.value if decision is not None else None,
                topic=_text(decision) if decision is not None else None,
                provider=identity.provider if identity is not None else None,
                subject=identity.subject if identity is not None else None,
                client=identity.client if identity is not None else None,
                peer=peer,
                reason=reason,
                error_id=error_id,
            )
        )


def _text(decision: Decision) -> str | None:
    return str(decision.topic) if decision.topic is not None else None
