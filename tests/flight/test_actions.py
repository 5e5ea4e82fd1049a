"""The actions over a double of the service that they call."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream import __version__
from boilstream.auth.exchange import SessionExchange
from boilstream.auth.identity import Caller, Identity
from boilstream.auth.session import Session
from boilstream.catalog.names import TopicName
from boilstream.errors import BoilStreamError, InvalidArgument, PermissionDenied, Unavailable, Unimplemented
from boilstream.flight.actions import MAX_BODY_BYTES, Actions
from boilstream.ingest.service import Ingestion

CALLER = Caller(
    Identity(
        "okta",
        "00u1",
        "0oa1",
        groups=frozenset({"b", "a"}),
        scopes=frozenset({"write:data"}),
        roles=frozenset({"r"}),
        expires_at=1.0,
    )
)
SCHEMA = pa.schema([pa.field("a", pa.int32(), nullable=False), pa.field("b", pa.string())])
ENCODED = base64.b64encode(SCHEMA.serialize().to_pybytes()).decode()


class Created:
    """As much of a topic as the answer tells."""

    def __init__(self, name: TopicName) -> None:
        self.name = name


class IngestionDouble:
    """Notes what it is asked for, and fails on demand."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.error: BoilStreamError | None = None

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def create_topic(self, caller: Caller, name: TopicName, schema: pa.Schema) -> Created:
        self._note("create", caller, name, schema)
        return Created(name)

    def drop_topic(self, caller: Caller, name: TopicName) -> None:
        self._note("drop", caller, name)

    def flush(self, caller: Caller) -> None:
        self._note("flush", caller)


@pytest.fixture
def ingestion() -> IngestionDouble:
    return IngestionDouble()


class ExchangeDouble:
    """Hands out one session for any token."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None, str]] = []

    def exchange(self, token: str, *, peer: str | None, call: str) -> Session:
        self.calls.append((token, peer, call))
        return Session("short", 99.0)


@pytest.fixture
def exchange() -> ExchangeDouble:
    return ExchangeDouble()


@pytest.fixture
def actions(ingestion: IngestionDouble, exchange: ExchangeDouble) -> Actions:
    return Actions(cast(Ingestion, ingestion), cast(SessionExchange, exchange), node="node-1")


def run(actions: Actions, name: str, body: object = b"") -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.loads(actions.run(CALLER, name, data))


def test_health_says_what_runs(actions: Actions) -> None:
    assert run(actions, "health") == {"status": "ok", "version": __version__, "node": "node-1"}


def test_whoami_says_who_calls_and_nothing_else(actions: Actions) -> None:
    assert run(actions, "whoami") == {
        "provider": "okta",
        "subject": "00u1",
        "client": "0oa1",
        "groups": ["a", "b"],
        "scopes": ["write:data"],
        "roles": ["r"],
        "session": False,
        "expires_at": 1,
    }


def test_flush_flushes(actions: Actions, ingestion: IngestionDouble) -> None:
    assert run(actions, "flush") == {"flushed": True}
    assert ingestion.calls == [("flush", CALLER)]


@pytest.mark.parametrize("path", [["S3", "Events"], ["S3.Events"], "S3.Events"])
def test_topics_are_named_by_a_path_or_a_text(
    actions: Actions, ingestion: IngestionDouble, path: object
) -> None:
    name = TopicName("S3", "Events")
    answer = run(actions, "create_topic", {"topic": path, "schema": ENCODED, "unknown": 1})
    assert answer == {"topic": ["S3", "Events"]}
    assert run(actions, "drop_topic", {"topic": path}) == {"dropped": ["S3", "Events"]}
    assert ingestion.calls == [("create", CALLER, name, SCHEMA), ("drop", CALLER, name)]


def test_a_session_is_made_for_the_token_in_the_body(actions: Actions, exchange: ExchangeDouble) -> None:
    answer = actions.session(b'{"token": "long"}', "ipv4:192.0.2.7:1")
    assert json.loads(answer) == {"token": "short", "token_type": "Bearer", "expires_at": 99}
    assert exchange.calls == [("long", "ipv4:192.0.2.7:1", "action session")]


@pytest.mark.parametrize(
    "body", [b"", b"long", b"{}", b'{"token": ""}', b'{"token": 1}', b"[]", b"x" * (MAX_BODY_BYTES + 1)]
)
def test_bodies_without_a_token_make_no_session(
    actions: Actions, exchange: ExchangeDouble, body: bytes
) -> None:
    with pytest.raises(InvalidArgument):
        actions.session(body, None)
    assert exchange.calls == []


def test_only_actions_that_exist_are_in_the_set(actions: Actions) -> None:
    assert "drop_topic" in actions
    assert "drop_topic\nforged" not in actions


@pytest.mark.parametrize("name", ["", "Health", "health ", "drop", "x" * 10_000, "\x00\n", "täulu", "\ud800"])
def test_unknown_actions_are_unimplemented(actions: Actions, ingestion: IngestionDouble, name: str) -> None:
    with pytest.raises(Unimplemented, match="known are health, whoami, create_topic") as caught:
        run(actions, name)
    assert len(caught.value.message) < 300
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()
    assert ingestion.calls == []


def refused(actions: Actions, name: str, body: object) -> str:
    with pytest.raises(InvalidArgument) as caught:
        run(actions, name, body)
    assert len(caught.value.message) < 400
    return caught.value.message


@pytest.mark.parametrize("name", ["create_topic", "drop_topic"])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"topic":' * 10_000, b"NaN"],
)
def test_bodies_that_are_no_object(
    actions: Actions, ingestion: IngestionDouble, name: str, body: bytes
) -> None:
    assert "JSON object" in refused(actions, name, body)
    assert ingestion.calls == []


@pytest.mark.parametrize("name", ["create_topic", "drop_topic"])
@pytest.mark.parametrize("topic", [None, 1, {}, [1], ["s3", None], [["s3"]], True, 1.5])
def test_topics_that_are_no_path(
    actions: Actions, ingestion: IngestionDouble, name: str, topic: object
) -> None:
    assert '"topic"' in refused(actions, name, {"topic": topic, "schema": ENCODED})
    assert '"topic"' in refused(actions, name, {"schema": ENCODED})
    assert ingestion.calls == []


@pytest.mark.parametrize(
    "topic", [[], ["a", "b", "c"], ["s3", ""], "..", ["s3", "a\u0007"], ["s3", "\ud800"]]
)
def test_topics_with_illegal_names(actions: Actions, ingestion: IngestionDouble, topic: object) -> None:
    refused(actions, "drop_topic", {"topic": topic})
    refused(actions, "create_topic", {"topic": topic, "schema": ENCODED})
    assert ingestion.calls == []


@pytest.mark.parametrize(
    "schema",
    [
        None,
        1,
        [],
        {},
        "",
        "%%%",
        "täulu",
        "\ud800",
        ENCODED[:-8],
        ENCODED[8:],
        ENCODED + "\n",
        base64.b64encode(b"x" * 100).decode(),
        base64.b64encode(b"\xff\xff\xff\xff\xff\xff\xff\x7f").decode(),
    ],
)
def test_schemas_that_are_no_arrow_message(
    actions: Actions, ingestion: IngestionDouble, schema: object
) -> None:
    assert '"schema"' in refused(actions, "create_topic", {"topic": ["s3", "t"], "schema": schema})
    assert ingestion.calls == []


def test_a_missing_schema_is_told(actions: Actions, ingestion: IngestionDouble) -> None:
    assert '"schema"' in refused(actions, "create_topic", {"topic": ["s3", "t"]})
    assert ingestion.calls == []


@given(st.binary(max_size=300))
def test_any_bytes_are_a_schema_or_an_argument_error(data: bytes) -> None:
    double = IngestionDouble()
    body = {"topic": ["s3", "t"], "schema": base64.b64encode(data).decode()}
    try:
        run(
            Actions(cast(Ingestion, double), cast(SessionExchange, ExchangeDouble()), node="n"),
            "create_topic",
            body,
        )
    except InvalidArgument as error:
        assert error.message
        assert double.calls == []


@pytest.mark.parametrize("name", ["health", "whoami", "flush", "create_topic", "drop_topic"])
def test_bodies_have_a_limit(actions: Actions, ingestion: IngestionDouble, name: str) -> None:
    assert str(MAX_BODY_BYTES) in refused(actions, name, b" " * (MAX_BODY_BYTES + 1))
    assert ingestion.calls == []


@pytest.mark.parametrize("error", [PermissionDenied("needs write on s3.t"), Unavailable("later")])
def test_errors_of_the_service_pass(
    actions: Actions, ingestion: IngestionDouble, error: BoilStreamError
) -> None:
    ingestion.error = error
    for name in ("create_topic", "drop_topic", "flush"):
        with pytest.raises(type(error)) as caught:
            run(actions, name, {"topic": ["s3", "t"], "schema": ENCODED})
        assert caught.value is error


def test_every_action_is_listed_with_the_body_that_it_takes(actions: Actions) -> None:
    listed = dict(actions.list())
    assert set(listed) == {"health", "whoami", "flush", "create_topic", "drop_topic", "session"}
    assert all(listed.values())
    for name in ("create_topic", "drop_topic"):
        assert '{"topic": ["s3", "events"]' in listed[name]
