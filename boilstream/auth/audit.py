"""What is told of calls to those who must answer for them: the audit log and the metrics of refusals."""

from __future__ import annotations

import json

from boilstream.auth.authorizer import Decision
from boilstream.auth.errors import Denied, InvalidToken, KeysUnavailable
from boilstream.auth.identity import Caller
from boilstream.errors import BoilStreamError, Internal, PermissionDenied, Unauthenticated
from boilstream.observe.audit import AuditEvent, AuditLog
from boilstream.observe.metrics import Metrics


class Auditor:
    """Turns callers, decisions and errors into audit events. Thread safe."""

    def __init__(self, log: AuditLog, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics

    def allowed(
        self,
        caller: Caller,
        decision: Decision,
        *,
        rows: int | None = None,
        commit: str | None = None,
        note: str | None = None,
    ) -> None:
        """A change that was made, or may have been: a topic defined or dropped, rows committed.

        `note` is added to the reason.
        """
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
                reason=f"{decision.reason}; {note}" if note else decision.reason,
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
        """A call that ended with `error`; noted is what keeps a caller out, whoever's fault it is."""
        is_known = caller is not None
        kept_out = isinstance(error, (KeysUnavailable, Internal)) and not is_known
        if not kept_out and not isinstance(error, (Unauthenticated, PermissionDenied)):
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
                decision="denied" if isinstance(error, PermissionDenied) else "unauthenticated",
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
    """The topic in the form of the rules file: with a dot in its schema an array, so that it names one topic."""
    topic = decision.topic
    if topic is None:
        return None
    return json.dumps([topic.schema, topic.table]) if "." in topic.schema else str(topic)
