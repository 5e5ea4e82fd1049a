"""Sessions: a token that no header can hold is exchanged for one that fits."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import jwt
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from boilstream.auth.errors import CLIENT_MESSAGE
from boilstream.dev.tokens import IssuerState, TokenSigner, load_or_create_key
from tests.support.issuer import AUDIENCE, IssuerProcess
from tests.support.server import Client, ServerProcess, details

pytestmark = pytest.mark.slow

ROWS = pa.table({"a": [1, 2]})
GUIDS = " ".join(str(uuid.UUID(int=number)) for number in range(1, 200))
"""Other groups of a caller; with one that counts these are 200."""


@dataclass(frozen=True)
class Nodes:
    """Two servers with one session key, and one with a key of its own."""

    one: ServerProcess
    two: ServerProcess
    other: ServerProcess


@pytest.fixture(scope="module")
def nodes(issuer: IssuerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("sessions")
    key = folder / "session.key"
    key.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    key.chmod(0o600)
    shared = issuer.environment() | {"SESSION_KEY_PATH": str(key)}
    with ExitStack() as stack:
        started = []
        for name, environment in (("one", shared), ("two", shared), ("other", issuer.environment())):
            (folder / name).mkdir()
            process = ServerProcess(environment | {"DATA_DIR": str(folder / name / "data")})
            started.append(stack.enter_context(process))
        yield Nodes(*started)


@pytest.fixture
def connect(nodes: Nodes, issuer: IssuerProcess) -> Iterator[Any]:
    """Makes clients of a token for a node, node one by default."""
    with ExitStack() as stack:

        def made(token: str | None, node: ServerProcess | None = None) -> Client:
            client = Client((node or nodes.one).location, token, issuer.ca_cert)
            stack.callback(client.close)
            return client

        yield made


def long_token(issuer: IssuerProcess, group: str) -> str:
    token = issuer.token(groups=f"{GUIDS} {group}")
    assert 11_000 < len(token) < 13_000
    return token


def exchange(client: Client, token: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.action("session", {"token": token})
    assert set(answer) == {"token", "token_type", "expires_at"}
    assert answer["token_type"] == "Bearer"
    return answer


def ending(token: str) -> int:
    return int(jwt.decode(token, options={"verify_signature": False})["exp"])


def refusal(client: Client, name: str = "whoami", body: object = None) -> flight.FlightError:
    with pytest.raises(flight.FlightError) as caught:
        client.action(name, body)
    error: flight.FlightError = caught.value
    assert "Traceback" not in str(error)
    return error


@pytest.mark.parametrize(
    ("group", "may"),
    [("Admins", "read write drop"), ("Writers", "read write"), ("Readers", "read"), ("x", "")],
)
def test_a_long_token_is_exchanged_without_a_header_and_its_session_may_what_its_groups_allow(
    connect: Any, issuer: IssuerProcess, topic: list[str], group: str, may: str
) -> None:
    connect(issuer.token(groups="Admins")).put(topic, ROWS)
    long = long_token(issuer, group)
    session = exchange(connect(None), long)
    assert len(session["token"]) < 1000
    assert session["expires_at"] == ending(long)
    caller = connect(session["token"])
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: caller.get(topic),
        "write": lambda: caller.put(topic, ROWS),
        "drop": lambda: caller.action("drop_topic", {"topic": topic}),
    }
    for right, call in calls.items():
        if right in may.split():
            call()
        else:
            with pytest.raises(flight.FlightUnauthorizedError):
                call()


def test_the_long_token_itself_does_not_travel_reliably_in_a_header(
    connect: Any, issuer: IssuerProcess
) -> None:
    """gRPC refuses headers of this length at random; whatever it does, the token is not the reason."""
    client = connect(long_token(issuer, "Readers"))
    for _ in range(5):
        try:
            client.topics()
        except (flight.FlightError, pa.ArrowException) as error:
            assert "metadata size" in str(error)
            assert "invalid token" not in str(error)
    twice = connect(long_token(issuer, "Readers") + "A" * 8192)
    with pytest.raises((flight.FlightError, pa.ArrowException), match="metadata size"):
        twice.topics()


def test_whoami_tells_the_original_caller(connect: Any, issuer: IssuerProcess) -> None:
    long = issuer.token(groups=f"{GUIDS} Readers", scopes="read:data", subject="00uada")
    who = connect(exchange(connect(None), long)["token"]).action("whoami")
    assert who == {
        "provider": "okta",
        "subject": "00uada",
        "client": "0oadevclient",
        "groups": ["Readers"],
        "scopes": ["read:data"],
        "roles": [],
        "session": True,
        "expires_at": ending(long),
    }


@pytest.mark.parametrize("header", ["garbage", "expired"])
def test_a_bad_header_beside_the_body_does_not_matter(
    connect: Any, issuer: IssuerProcess, header: str
) -> None:
    bad = issuer.token(age=7200) if header == "expired" else header
    session = exchange(connect(bad), issuer.token(groups="Readers"))
    assert connect(session["token"]).action("whoami")["session"] is True


def test_a_good_header_does_not_stand_in_for_a_bad_body(connect: Any, issuer: IssuerProcess) -> None:
    error = refusal(connect(issuer.token(groups="Admins")), "session", {"token": "garbage"})
    assert isinstance(error, flight.FlightUnauthenticatedError)


def test_a_session_cannot_be_exchanged(connect: Any, issuer: IssuerProcess) -> None:
    session = exchange(connect(None), issuer.token(groups="Readers"))["token"]
    for client in (connect(None), connect(session)):
        error = refusal(client, "session", {"token": session})
        assert details(error)["code"] == "INVALID_ARGUMENT"
        assert "session token cannot be exchanged" in str(error)


def wrong_tokens(issuer: IssuerProcess) -> dict[str, str]:
    state = IssuerState(f"https://{issuer.domain}/oauth2/default", "api://other")
    signer = TokenSigner(load_or_create_key(issuer.folder), state)
    good = issuer.token(groups="Admins")
    elsewhere = TokenSigner(
        load_or_create_key(issuer.folder), IssuerState("https://elsewhere.example/", AUDIENCE)
    )
    wanted: dict[str, Any] = {
        "groups": ["Admins"],
        "scopes": [],
        "subject": "00u1",
        "lifetime_seconds": 3600,
    }
    return {
        "garbage": "garbage",
        "expired": issuer.token(groups="Admins", age=7200),
        "another audience": signer.sign(**wanted),
        "another issuer": elsewhere.sign(**wanted),
        "a changed signature": good[:-8] + "AAAAAAAA",
        "an empty signature": good.rpartition(".")[0] + ".",
        "text that is not ASCII": "tökén",
        "half a surrogate pair": "\ud800",
    }


def test_what_is_refused_in_a_header_is_refused_in_the_body_with_the_same_words(
    connect: Any, issuer: IssuerProcess
) -> None:
    for what, token in wrong_tokens(issuer).items():
        bodied = refusal(connect(None), "session", {"token": token})
        assert isinstance(bodied, flight.FlightUnauthenticatedError), what
        assert str(bodied).startswith(f"UNAUTHENTICATED: {CLIENT_MESSAGE}"), what
        if token.isascii():
            headed = refusal(connect(token))
            assert str(headed) == str(bodied), what
            assert type(headed) is type(bodied)
            assert {**details(headed), "error_id": ""} == {**details(bodied), "error_id": ""}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": 7}', b'{"token": ""}', b"\xff", b"[" * 100_000]
)
def test_a_body_without_a_token_is_an_invalid_argument(connect: Any, body: bytes) -> None:
    client = connect(None)
    with pytest.raises(flight.FlightServerError, match=r"^INVALID_ARGUMENT: "):
        list(client.connection.do_action(flight.Action("session", body), client.options))


@pytest.mark.parametrize(
    "name", ["health", "whoami", "flush", "create_topic", "SESSION", "session ", "Session"]
)
def test_no_other_action_goes_without_a_header(connect: Any, issuer: IssuerProcess, name: str) -> None:
    error = refusal(connect(None), name, {"token": issuer.token(groups="Admins")})
    assert isinstance(error, flight.FlightUnauthenticatedError)


def test_nodes_that_share_a_key_accept_each_others_sessions_and_no_others(
    connect: Any, nodes: Nodes, issuer: IssuerProcess
) -> None:
    token = issuer.token(groups="Readers")
    sessions = {
        node.location: exchange(connect(None, node), token)["token"]
        for node in (nodes.one, nodes.two, nodes.other)
    }
    for maker in (nodes.one, nodes.two, nodes.other):
        for node in (nodes.one, nodes.two, nodes.other):
            client = connect(sessions[maker.location], node)
            if maker is node or nodes.other not in (maker, node):
                assert client.action("whoami")["session"] is True
            else:
                error = refusal(client)
                assert isinstance(error, flight.FlightUnauthenticatedError)
                assert str(error).startswith(f"UNAUTHENTICATED: {CLIENT_MESSAGE}")
    assert "SESSION_KEY_PATH" in "".join(nodes.other.log)  # what to do, for the operator


def test_no_token_is_in_the_log(connect: Any, nodes: Nodes, issuer: IssuerProcess) -> None:
    long = long_token(issuer, "Readers")
    session = exchange(connect(None), long)["token"]
    connect(session).topics()
    refusal(connect(session), "session", {"token": session})
    refusal(connect(None), "session", {"token": long[:-8]})
    log = "".join(nodes.one.log)
    for token in (long, session):
        for part in token.split(".")[1:]:
            assert part[:40] not in log
