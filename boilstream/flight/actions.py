"""The actions of DoAction: JSON in, JSON out."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from boilstream import __version__
from boilstream.auth.exchange import SessionExchange
from boilstream.auth.identity import Caller
from boilstream.catalog.names import TopicName, from_path
from boilstream.errors import InvalidArgument, Unimplemented
from boilstream.ingest.service import Ingestion

MAX_BODY_BYTES = 1024 * 1024

SESSION = "session"
"""The one action that needs no token in the header."""


@dataclass(frozen=True, slots=True)
class _Action:
    description: str
    run: Callable[[Caller, bytes], dict[str, Any]]


class Actions:
    """The actions of this server by name."""

    def __init__(self, ingestion: Ingestion, sessions: SessionExchange, *, node: str) -> None:
        """`node` is the id that this process has in the commit log."""
        self._ingestion = ingestion
        self._sessions = sessions
        self._node = node
        self._actions = {
            "health": _Action("state of the server; no body", self._health),
            "whoami": _Action("the caller as the server knows it; no body", self._whoami),
            "create_topic": _Action(
                'define a topic; body {"topic": ["s3", "events"], "schema": "<base64 of an Arrow IPC schema>"}',
                self._create_topic,
            ),
            "drop_topic": _Action(
                'end a topic and its rows; body {"topic": ["s3", "events"]}', self._drop_topic
            ),
            "flush": _Action("commit all complete appends now; no body", self._flush),
        }

    def list(self) -> list[tuple[str, str]]:
        """Name and description of every action."""
        described = [(name, action.description) for name, action in self._actions.items()]
        session = 'a short token for a long one; needs no header; body {"token": "<bearer token>"}'
        return [*described, (SESSION, session)]

    def __contains__(self, name: str) -> bool:
        return name in self._actions

    def run(self, caller: Caller, name: str, body: bytes | memoryview) -> bytes:
        """The result of an action; raises Unimplemented for an unknown one."""
        action = self._actions.get(name)
        if action is None:
            raise Unimplemented(
                f"there is no action {ascii(name)[:60]}; known are {', '.join(self._actions)}, {SESSION}"
            )
        return json.dumps(action.run(caller, _small(name, body))).encode()

    def session(self, body: bytes | memoryview, peer: str | None) -> bytes:
        """The result of the action `session`, for a caller at the network address `peer`."""
        token = _object(_small(SESSION, body)).get("token")
        if not isinstance(token, str) or not token:
            raise InvalidArgument('"token" is the bearer token to exchange, without the word Bearer')
        session = self._sessions.exchange(token, peer=peer, call=f"action {SESSION}")
        return json.dumps(
            {"token": session.token, "token_type": "Bearer", "expires_at": int(session.expires_at)}
        ).encode()

    def _health(self, _caller: Caller, _body: bytes) -> dict[str, Any]:
        return {"status": "ok", "version": __version__, "node": self._node}

    def _whoami(self, caller: Caller, _body: bytes) -> dict[str, Any]:
        identity = caller.identity
        return {
            "provider": identity.provider,
            "subject": identity.subject,
            "client": identity.client,
            "groups": sorted(identity.groups),
            "scopes": sorted(identity.scopes),
            "roles": sorted(identity.roles),
            "session": identity.session,
            "expires_at": int(identity.expires_at) if math.isfinite(identity.expires_at) else None,
        }

    def _create_topic(self, caller: Caller, body: bytes) -> dict[str, Any]:
        request = _object(body)
        topic = self._ingestion.create_topic(caller, _topic(request), _schema(request))
        return {"topic": [topic.name.schema, topic.name.table]}

    def _drop_topic(self, caller: Caller, body: bytes) -> dict[str, Any]:
        name = _topic(_object(body))
        self._ingestion.drop_topic(caller, name)
        return {"dropped": [name.schema, name.table]}

    def _flush(self, caller: Caller, _body: bytes) -> dict[str, Any]:
        self._ingestion.flush(caller)
        return {"flushed": True}


def _small(name: str, body: bytes | memoryview) -> bytes:
    if len(body) > MAX_BODY_BYTES:
        raise InvalidArgument(
            f"the body of action {name} has {len(body)} bytes; at most {MAX_BODY_BYTES} are read"
        )
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidArgument("the body of this action is a JSON object; list_actions shows its form")
    return value


def _topic(request: dict[str, Any]) -> TopicName:
    path = request.get("topic")
    if isinstance(path, str):
        path = [path]
    if not isinstance(path, list) or not all(isinstance(part, str) for part in path):
        raise InvalidArgument('"topic" is the path of a topic, such as ["s3", "user_events"]')
    return from_path(path)


def _schema(request: dict[str, Any]) -> pa.Schema:
    try:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(request.get("schema", ""), validate=True)))
    except (TypeError, ValueError, pa.ArrowException, OSError, EOFError):
        raise InvalidArgument(
            '"schema" is the base64 of an Arrow IPC schema message (schema.serialize())'
        ) from None
