"""Nobody in by mistake: every RPC without a valid token, and every permission."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess, details

pytestmark = pytest.mark.slow

ROWS = pa.table({"a": [1, 2]})
PATH = flight.FlightDescriptor.for_path("s3", "guarded")


def _exchange(client: Client) -> object:
    writer, reader = client.connection.do_exchange(PATH, client.options)
    with writer:
        writer.begin(ROWS.schema)
        writer.done_writing()
        return reader.read_all()


CALLS: dict[str, Callable[[Client], object]] = {
    "ListFlights": lambda client: client.topics(),
    "GetFlightInfo": lambda client: client.info(["s3", "guarded"]),
    "GetSchema": lambda client: client.connection.get_schema(PATH, client.options),
    "DoGet": lambda client: client.read(b"s3.guarded"),
    "DoPut": lambda client: client.put(["s3", "guarded"], ROWS),
    "DoExchange": _exchange,
    "DoAction": lambda client: client.action("health"),
    "an unknown action": lambda client: client.action("no_such_action"),
    "ListActions": lambda client: client.connection.list_actions(client.options),
}


def refused(call: Callable[[Client], object], client: Client) -> Exception:
    with pytest.raises((flight.FlightUnauthenticatedError, OSError), match=r"^UNAUTHENTICATED: ") as caught:
        call(client)
    client.close()
    if isinstance(caught.value, flight.FlightError):  # pyarrow's get_schema raises a bare OSError
        assert details(caught.value)["code"] == "UNAUTHENTICATED"
    error: Exception = caught.value
    assert "Traceback" not in str(error)
    return error


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_no_rpc_is_served_without_a_token(
    server: ServerProcess, issuer: IssuerProcess, call: Callable[[Client], object]
) -> None:
    error = refused(call, Client(server.location, None, issuer.ca_cert))
    assert "authorization: Bearer" in str(error)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_no_rpc_is_served_with_a_bad_token(
    server: ServerProcess, issuer: IssuerProcess, call: Callable[[Client], object]
) -> None:
    refused(call, Client(server.location, "garbage", issuer.ca_cert))


def test_an_expired_token_is_refused(server: ServerProcess, issuer: IssuerProcess) -> None:
    token = issuer.token(groups="Admins", age=7200)
    refused(CALLS["DoAction"], Client(server.location, token, issuer.ca_cert))


@pytest.mark.parametrize(
    "header", [(b"authorization", b"Basic eDp5"), (b"authorization", b"Bearer"), (b"authorization", b"")]
)
def test_other_schemes_are_refused(
    server: ServerProcess, issuer: IssuerProcess, header: tuple[bytes, bytes]
) -> None:
    refused(CALLS["ListFlights"], Client(server.location, None, issuer.ca_cert, [header]))


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
    refused(CALLS["ListFlights"], Client(server.location, bad, issuer.ca_cert))
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
