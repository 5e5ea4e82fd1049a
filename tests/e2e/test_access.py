"""Nobody in by mistake: every call without a valid token, and every permission."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.flight as flight
import pytest

from boilstream.flight.server import FlightServer
from tests.support.airport.errors import CALL_ERRORS, remote_error
from tests.support.documented import documented_calls, rpc_names
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess, details
from tests.support.walk import AIRPORT, BODIES, CALLS, ROWS, SERVED, Target, make_target

pytestmark = pytest.mark.slow

GROUPS = {"read": "Readers", "read, per topic": "Readers", "write": "Writers", "admin": "Admins"}
"""Permission of the table -> the group that has it and no more."""

ALL_BUT = {"read": "Strangers", "read, per topic": "Strangers", "write": "Readers", "admin": "Writers"}
"""Permission of the table -> the group that has every other right but this and those that bring it along."""

DOCUMENTED = {**documented_calls(), "action no_such_action": ""}

WITHOUT_TOKEN = ["DoGet", "DoGet (sealed ticket)", "DoExchange", "action endpoints", "action flight_info"]
"""What a transaction id opens."""

OF_DUCKDB = [call for call in CALLS if call.startswith(("DoGet", "DoExchange"))] + [
    f"action {name}" for name in BODIES
]
"""What DuckDB's extension calls, or a client like it."""

OF_THE_SERVER = {"action flush", "action create_schema", "action drop_schema"}
"""Calls that need their permission on no topic, but as a whole."""


NOWHERE = Target(["s3", "guarded"], flight.FlightDescriptor.for_path("s3", "guarded"), b"")
"""For calls that do not get as far as their topic."""


def permission_of(call: str) -> str:
    """What the table says of a call."""
    return DOCUMENTED[call.partition(" (")[0]]


@pytest.fixture(scope="module")
def plain(issuer: IssuerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server without TLS, so that PollFlightInfo can be made of another call on the way."""
    environment = issuer.environment() | {"DATA_DIR": str(tmp_path_factory.mktemp("plain") / "data")}
    del environment["TLS_CERT_PATH"], environment["TLS_KEY_PATH"]
    with ServerProcess(environment) as process:
        yield process


@pytest.fixture(scope="module")
def target(plain: ServerProcess, issuer: IssuerProcess) -> Target:
    """A topic with ROWS, that no call of these tests may change."""
    return make_target(plain, issuer, ["s3", "walked"])


def answer(call: str, client: Client, target: Target) -> Any:
    """What the call brings: its result, or the error; neither shows anything of the server's inside."""
    try:
        result = CALLS[call](client, target)
    except CALL_ERRORS as error:
        result = error
    client.close()
    assert "Traceback" not in str(result)
    assert ".py" not in str(result)
    return result


def assert_refused(result: Any, code: str) -> None:
    """Refused with `code` in message, class and details, as far as pyarrow's client shows them."""
    # pyarrow's server has but gRPC's UNKNOWN for GetSchema, which its client puts in front.
    assert str(result).removeprefix("Unknown error: ").startswith(f"{code}: "), result
    if isinstance(result, flight.FlightError):  # not so for GetSchema
        kinds = {
            "UNAUTHENTICATED": flight.FlightUnauthenticatedError,
            "PERMISSION_DENIED": flight.FlightUnauthorizedError,
            "UNIMPLEMENTED": flight.FlightServerError,
        }
        assert type(result) is kinds[code]
        assert details(result)["code"] == code
        assert len(details(result)["error_id"]) == 12
    else:
        assert isinstance(result, (OSError, pa.ArrowException))


def test_this_walk_leaves_no_call_out(plain: ServerProcess, issuer: IssuerProcess) -> None:
    client = Client(plain.location, issuer.token())
    actions = {f"action {action.type}" for action in client.connection.list_actions(client.options)}
    client.close()
    served = (rpc_names(FlightServer) - {"DoAction"}) | actions
    assert served | {"PollFlightInfo"} == set(documented_calls())
    assert set(DOCUMENTED) == {call.partition(" (")[0] for call in CALLS}
    assert {call for call in CALLS if permission_of(call)} == set(SERVED)


@pytest.mark.parametrize("call", CALLS)
def test_no_call_is_served_without_a_token(plain: ServerProcess, target: Target, call: str) -> None:
    result = answer(call, Client(plain.location, None), target)
    assert_refused(result, "UNAUTHENTICATED")
    if call != "action session":  # which says nothing of the header
        assert "send the header authorization: Bearer <token>" in str(result)


@pytest.mark.parametrize("call", CALLS)
def test_no_call_is_served_with_a_bad_token(plain: ServerProcess, target: Target, call: str) -> None:
    for bad in ("garbage", "a.b.c", "none"):
        result = answer(call, Client(plain.location, bad), target)
        assert_refused(result, "UNAUTHENTICATED")
        assert "invalid token: get a new one from your identity provider" in str(result)


def assert_permission_is_named(call: str, target: Target, result: Any) -> None:
    permission = permission_of(call)
    setting = {"read": "READ_ONLY_GROUPS", "write": "WRITE_GROUPS", "admin": "ADMIN_GROUPS"}[permission]
    topic = "" if call in OF_THE_SERVER else f" on {target.name}"
    assert f"needs {permission}{topic}" in str(result)
    assert setting in str(result)


@pytest.mark.parametrize("call", [call for call in CALLS if permission_of(call) in GROUPS])
def test_no_call_is_served_to_those_who_lack_just_its_permission(
    plain: ServerProcess, issuer: IssuerProcess, target: Target, call: str
) -> None:
    permission = permission_of(call)
    result = answer(call, Client(plain.location, issuer.token(groups=ALL_BUT[permission])), target)
    if permission == "read, per topic":
        assert result == []
        return
    assert_refused(result, "PERMISSION_DENIED")
    assert_permission_is_named(call, target, result)


@pytest.mark.parametrize("call", SERVED)
def test_every_call_is_served_to_those_who_have_its_permission(
    plain: ServerProcess, issuer: IssuerProcess, topic: list[str], call: str
) -> None:
    target = make_target(plain, issuer, topic)
    groups = GROUPS.get(permission_of(call), "")
    result = answer(call, Client(plain.location, issuer.token(groups=groups)), target)
    assert SERVED[call](result, target), result


@pytest.mark.parametrize("call", [call for call in CALLS if not permission_of(call)])
def test_calls_that_are_not_there_say_so(
    plain: ServerProcess, issuer: IssuerProcess, target: Target, call: str
) -> None:
    result = answer(call, Client(plain.location, issuer.token(groups="Admins")), target)
    if call == "PollFlightInfo":  # Arrow's own answer
        assert isinstance(result, pa.ArrowNotImplementedError)
    else:
        assert_refused(result, "UNIMPLEMENTED")


def assert_refused_in_duckdb(call: str, result: Any, code: str) -> None:
    """Refused so that DuckDB's extension shows it at once: an action with its code, a stream by its kind."""
    assert isinstance(result, CALL_ERRORS), result
    is_action = call.startswith("action ")
    shown = remote_error(result, where="", context=call, action=is_action)
    assert not shown.retried
    if is_action:  # what pyarrow's client makes of the base class FlightError
        assert str(result).startswith(f"Flight error: {code}: ")
    else:
        assert type(result) is flight.FlightServerError
        told = msgpack.unpackb(result.extra_info)  # type: ignore[union-attr]  # pyarrow has no types
        assert set(told) == {"exception_type", "message"}
        assert told["exception_type"] == "PermissionException"
        assert told["message"] in str(result)


@pytest.mark.parametrize("call", OF_DUCKDB)
def test_duckdb_is_told_of_a_missing_or_bad_token_in_its_own_form(
    plain: ServerProcess, target: Target, call: str
) -> None:
    result = answer(call, Client(plain.location, None, headers=AIRPORT), target)
    assert_refused_in_duckdb(call, result, "UNAUTHENTICATED")
    assert "CREATE SECRET (TYPE airport" in str(result)
    result = answer(call, Client(plain.location, "garbage", headers=AIRPORT), target)
    assert_refused_in_duckdb(call, result, "UNAUTHENTICATED")
    assert "invalid token" in str(result)


@pytest.mark.parametrize(
    "call", [call for call in OF_DUCKDB if permission_of(call) in ("read", "write", "admin")]
)
def test_duckdb_is_told_of_a_missing_permission_in_its_own_form(
    plain: ServerProcess, issuer: IssuerProcess, target: Target, call: str
) -> None:
    token = issuer.token(groups=ALL_BUT[permission_of(call)])
    result = answer(call, Client(plain.location, token, headers=AIRPORT), target)
    assert_refused_in_duckdb(call, result, "PERMISSION_DENIED")
    assert_permission_is_named(call, target, result)


@pytest.mark.parametrize("call", CALLS)
def test_a_transaction_id_opens_what_duckdb_sends_without_a_token_and_nothing_else(
    plain: ServerProcess, issuer: IssuerProcess, topic: list[str], call: str
) -> None:
    target = make_target(plain, issuer, topic)
    begun = answer(
        "action create_transaction",
        Client(plain.location, issuer.token(groups="Admins"), headers=AIRPORT),
        target,
    )
    headers = [*AIRPORT, (b"airport-transaction-id", msgpack.unpackb(begun)["identifier"].encode())]
    result = answer(call, Client(plain.location, None, headers=headers), target)
    if call in WITHOUT_TOKEN:
        assert SERVED[call](result, target), result
    else:
        assert isinstance(result, CALL_ERRORS), result
        assert ("invalid token" if call == "action session" else "no bearer token") in str(result)


@pytest.mark.parametrize("bearer", [None, "garbage"])
def test_a_handshake_lets_nobody_in(plain: ServerProcess, bearer: str | None) -> None:
    client = Client(plain.location, bearer)
    with pytest.raises(flight.FlightUnauthenticatedError) as caught:
        client.connection.authenticate_basic_token(b"user", b"password", client.options)
    client.close()
    assert "Traceback" not in str(caught.value)


def refused(client: Client, call: str = "action health") -> str:
    """The message of the refusal that the client gets."""
    result = answer(call, client, NOWHERE)
    assert_refused(result, "UNAUTHENTICATED")
    return str(result)


def test_an_expired_token_is_refused(server: ServerProcess, issuer: IssuerProcess) -> None:
    token = issuer.token(groups="Admins", age=7200)
    refused(Client(server.location, token, issuer.ca_cert))


@pytest.mark.parametrize(
    "header", [(b"authorization", b"Basic eDp5"), (b"authorization", b"Bearer"), (b"authorization", b"")]
)
def test_other_schemes_are_refused(
    server: ServerProcess, issuer: IssuerProcess, header: tuple[bytes, bytes]
) -> None:
    refused(Client(server.location, None, issuer.ca_cert, [header]), "ListFlights")


def test_the_scheme_may_have_any_letter_case(server: ServerProcess, issuer: IssuerProcess) -> None:
    for scheme in (b"bearer ", b"BEARER "):
        header = (b"authorization", scheme + issuer.token(groups="Readers").encode())
        client = Client(server.location, None, issuer.ca_cert, [header])
        assert client.action("health")["status"] == "ok"
        client.close()


def test_a_token_is_never_in_the_log(server: ServerProcess, issuer: IssuerProcess) -> None:
    good, bad = issuer.token(groups="Readers"), issuer.token(age=7200)
    client = Client(server.location, good, issuer.ca_cert)
    client.topics()
    client.close()
    refused(Client(server.location, bad, issuer.ca_cert), "ListFlights")
    log = "".join(server.log)
    for token in (good, bad):
        for part in token.split(".")[1:]:
            assert part not in log


def test_the_documented_log_lines_are_there(server: ServerProcess, issuer: IssuerProcess) -> None:
    client = Client(server.location, issuer.token(groups="Readers", subject="00u123"), issuer.ca_cert)
    client.topics()
    client.close()
    log = "".join(server.log)
    assert "INFO boilstream::auth::manager: Added Okta authentication provider\n" in log
    assert "INFO boilstream::auth::manager: Authentication enabled with 1 provider(s)\n" in log
    assert (
        f"DEBUG boilstream::auth::okta: Fetching JWKS from Okta: https://{issuer.domain}/oauth2/default/v1/keys"
        in log
    )
    assert "DEBUG boilstream::auth::okta: Successfully validated Okta token for user: 00u123\n" in log


@pytest.mark.parametrize(
    ("who", "may"),
    [
        ({"groups": "Admins"}, "read write drop"),
        ({"groups": "Writers"}, "read write"),
        ({"groups": "Readers"}, "read"),
        ({"groups": "Readers Writers"}, "read write"),
        ({"groups": "Strangers"}, ""),
        ({"scopes": "admin:system"}, "read write drop"),
        ({"scopes": "write:data"}, "read write"),
        ({"scopes": "read:data"}, "read"),
        ({"groups": "Readers", "scopes": "write:data"}, "read"),
        ({"groups": "Strangers", "scopes": "write:data"}, "read write"),
        ({}, ""),
    ],
)
def test_groups_decide_then_scopes(
    client: Client,
    server: ServerProcess,
    issuer: IssuerProcess,
    topic: list[str],
    who: dict[str, str],
    may: str,
) -> None:
    client.put(topic, ROWS)
    caller = Client(server.location, issuer.token(**who), issuer.ca_cert)  # type: ignore[arg-type]  # texts only
    calls: dict[str, Callable[[], Any]] = {
        "read": lambda: caller.get(topic),
        "write": lambda: caller.put(topic, ROWS),
        "drop": lambda: caller.action("drop_topic", {"topic": topic}),
    }
    for action, call in calls.items():
        if action in may.split():
            call()
        else:
            with pytest.raises(flight.FlightUnauthorizedError) as caught:
                call()
            assert details(caught.value)["code"] == "PERMISSION_DENIED"
            assert ".".join(topic) in str(caught.value)
    assert (".".join(topic) in caller.topics()) == ("read" in may.split() and "drop" not in may.split())
    caller.close()


def test_a_denied_write_creates_no_topic(
    client: Client, server: ServerProcess, issuer: IssuerProcess, topic: list[str]
) -> None:
    reader = Client(server.location, issuer.token(groups="Readers"), issuer.ca_cert)
    with pytest.raises(flight.FlightUnauthorizedError, match="WRITE_GROUPS"):
        reader.put(topic, ROWS)
    reader.close()
    assert ".".join(topic) not in client.topics()


def test_whoami_tells_what_the_server_knows(server: ServerProcess, issuer: IssuerProcess) -> None:
    caller = Client(server.location, issuer.token(groups="Readers", scopes="read:data"), issuer.ca_cert)
    who = caller.action("whoami")
    caller.close()
    assert who["provider"] == "okta"
    assert who["subject"] == "00u123456789abcdef"
    assert (who["groups"], who["scopes"]) == (["Readers"], ["read:data"])
    assert "token" not in json.dumps(who)


STREAMS_AND_OTHERS = ("DoPut", "DoGet", "GetSchema", "action health")


@pytest.mark.parametrize("call", STREAMS_AND_OTHERS)
def test_a_header_that_is_sent_twice_is_refused(
    server: ServerProcess, issuer: IssuerProcess, call: str
) -> None:
    good = issuer.token(groups="Admins")
    for other in (good, "garbage"):
        header = (b"authorization", b"Bearer " + other.encode())
        client = Client(server.location, good, issuer.ca_cert, [header])
        assert "2 authorization headers: send the header authorization: Bearer <token>, once" in refused(
            client, call
        )


@pytest.mark.parametrize("call", STREAMS_AND_OTHERS)
def test_a_token_that_no_header_holds_is_refused_by_the_transport_and_the_server_lives_on(
    client: Client, server: ServerProcess, issuer: IssuerProcess, call: str
) -> None:
    payload = base64.urlsafe_b64encode(os.urandom(75_000)).decode()
    huge = Client(server.location, f"a.{payload}.b", issuer.ca_cert)
    result = answer(call, huge, NOWHERE)
    assert isinstance(result, (flight.FlightError, pa.ArrowException, OSError))
    assert re.search("metadata size", str(result))
    assert payload[:50] not in str(result)
    assert client.action("health")["status"] == "ok"
