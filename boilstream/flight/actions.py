"""The actions of DoAction: JSON in, JSON out."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from boilstream import __version__
from boilstream.auth.identity import Identity
from boilstream.catalog.names import TopicName, from_path
from boilstream.errors import InvalidArgument, Unimplemented
from boilstream.ingest.service import Ingestion

MAX_BODY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Action:
    description: str
    run: Callable[[Identity, bytes], dict[str, Any]]


class Actions:
    """The actions of this server by name."""

    def __init__(self, ingestion: Ingestion, *, node: str) -> None:
        """`node` is the id that this process has in the commit log."""
        self._ingestion = ingestion
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
        return [(name, action.description) for name, action in self._actions.items()]

    def run(self, identity: Identity, name: str, body: bytes) -> Iterator[bytes]:
        """The results of an action, one at least; raises Unimplemented for an unknown one."""
        action = self._actions.get(name)
        if action is None:
            raise Unimplemented(
                f"there is no action {ascii(name)[:60]}; known are {', '.join(self._actions)}"
            )
        if len(body) > MAX_BODY_BYTES:
            raise InvalidArgument(
                f"the body of action {name} has {len(body)} bytes; at most {MAX_BODY_BYTES} are read"
            )
        yield json.dumps(action.run(identity, body)).encode()

    def _health(self, _identity: Identity, _body: bytes) -> dict[str, Any]:
        return {"status": "ok", "version": __version__, "node": self._node}

    def _whoami(self, identity: Identity, _body: bytes) -> dict[str, Any]:
        return {
            "provider": identity.provider,
            "subject": identity.subject,
            "client": identity.client,
            "groups": sorted(identity.groups),
            "scopes": sorted(identity.scopes),
            "roles": sorted(identity.roles),
        }

    def _create_topic(self, identity: Identity, body: bytes) -> dict[str, Any]:
        request = _object(body)
        topic = self._ingestion.create_topic(identity, _topic(request), _schema(request))
        return {"topic": [topic.name.schema, topic.name.table]}

    def _drop_topic(self, identity: Identity, body: bytes) -> dict[str, Any]:
        name = _topic(_object(body))
        self._ingestion.drop_topic(identity, name)
        return {"dropped": [name.schema, name.table]}

    def _flush(self, identity: Identity, _body: bytes) -> dict[str, Any]:
        self._ingestion.flush(identity)
        return {"flushed": True}


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
