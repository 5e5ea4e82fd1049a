"""The audit log of a real server: who was refused, and who changed what."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.e2e.test_access import ALL_BUT, OF_THE_SERVER, permission_of
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess, details
from tests.support.walk import CALLS, Target, make_target

pytestmark = pytest.mark.slow

ROWS = pa.table({"a": [1, 2, 3]})
SUBJECT = "00u123456789abcdef"
KEYS = [
    *("time", "decision", "call", "action", "topic", "provider", "subject", "client", "peer"),
    *("reason", "rows", "commit", "error_id"),
]


class Audited:
    """A server without TLS, the file of its audit log, and what was added to it."""

    def __init__(self, server: ServerProcess, path: Path, issuer: IssuerProcess) -> None:
        self.server = server
        self.path = path
        self._issuer = issuer
        self._read = path.stat().st_size

    def client(self, groups: str) -> Client:
        return self.with_token(self._issuer.token(groups=groups))

    def with_token(self, token: str | None) -> Client:
        return Client(self.server.location, token)

    def new(self) -> list[dict[str, Any]]:
        """The lines since the last look; every line is there before its caller gets an answer."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            added = file.read()
        self._read += len(added)
        lines = [json.loads(line) for line in added.splitlines()]
        for line in lines:
            assert list(line) == KEYS
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        return lines

    def one(self) -> dict[str, Any]:
        (line,) = self.new()
        return line


@pytest.fixture(scope="module")
def running(
    issuer: IssuerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, Path]]:
    folder = tmp_path_factory.mktemp("audited")
    path = folder / "audit.log"
    environment = issuer.environment() | {"DATA_DIR": str(folder / "data"), "AUDIT_LOG": str(path)}
    del environment["TLS_CERT_PATH"], environment["TLS_KEY_PATH"]
    with ServerProcess(environment) as process:
        yield process, path


@pytest.fixture
def audited(running: tuple[ServerProcess, Path], issuer: IssuerProcess) -> Audited:
    return Audited(*running, issuer)


@pytest.fixture(scope="module")
def target(running: tuple[ServerProcess, Path], issuer: IssuerProcess) -> Target:
    """A topic that no call of these tests may change."""
    return make_target(running[0], issuer, ["s3", "audited"])


def given(line: dict[str, Any]) -> dict[str, Any]:
    """What a line says beside its time, where it is from, and the id of the error."""
    known = {name: value for name, value in line.items() if value is not None}
    for name in ("time", "peer", "error_id"):
        known.pop(name, None)
    return known


def failed(client: Client, call: str, target: Target) -> Exception:
    with pytest.raises((flight.FlightError, pa.ArrowException, OSError)) as caught:
        CALLS[call](client, target)
    client.close()
    error: Exception = caught.value
    return error


STREAMS = {"DoPut", "DoExchange", "GetSchema", "PollFlightInfo"}
"""Calls that the middleware refuses, where nobody knows the network address."""

CREATES = {"action create_topic", "action create_table"}


def bare(call: str) -> str:
    """A call without what tells two ways of it apart."""
    return call.partition(" (")[0]


AUDITED_AS = {"PollFlightInfo": "unknown call", "action no_such_action": "unknown action"}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("token", [None, "garbage"])
def test_a_call_without_a_valid_token_leaves_one_line(
    target: Target, audited: Audited, call: str, token: str | None
) -> None:
    error = failed(audited.with_token(token), call, target)
    line = audited.one()
    reason = line.pop("reason")
    assert given(line) == {"decision": "unauthenticated", "call": AUDITED_AS.get(call, bare(call))}
    if token is None and call != "action session":
        assert reason.startswith("no bearer token: ")
    else:
        assert reason.startswith("Malformed token: ")
    if call in STREAMS:
        assert line["peer"] is None
    else:
        assert re.fullmatch(r"ipv[46]:.+:\d+", line["peer"])
    if isinstance(error, flight.FlightError):
        assert details(error)["error_id"] == line["error_id"]
    assert re.fullmatch(r"[0-9a-f]{12}", line["error_id"])


@pytest.mark.parametrize(
    "call", [call for call in CALLS if permission_of(call) in ("read", "write", "admin")]
)
def test_a_denied_call_leaves_one_line_with_its_caller_and_the_rule(
    target: Target, audited: Audited, call: str
) -> None:
    permission = permission_of(call)
    error = failed(audited.client(ALL_BUT[permission]), call, target)
    line = audited.one()
    reason = line.pop("reason")
    name = ".".join(target.new_path if call in CREATES else target.path)
    assert given(line) == {
        "decision": "denied",
        "call": bare(call),
        "action": permission,
        "provider": "okta",
        "subject": SUBJECT,
        "client": "0oadevclient",
        **({} if call in OF_THE_SERVER else {"topic": name}),
    }
    setting = {"read": "READ_ONLY_GROUPS", "write": "WRITE_GROUPS", "admin": "ADMIN_GROUPS"}[permission]
    assert f"would match: member of one of {setting}" in reason
    assert re.fullmatch(r"ipv[46]:.+:\d+", line["peer"])
    if isinstance(error, flight.FlightError):
        assert details(error)["error_id"] == line["error_id"]


def test_changes_leave_one_line_each_and_reads_none(audited: Audited, topic: list[str]) -> None:
    admin, writer = audited.client("Admins"), audited.client("Writers")
    schema = base64.b64encode(ROWS.schema.serialize().to_pybytes()).decode()
    caller = {"provider": "okta", "subject": SUBJECT, "client": "0oadevclient", "decision": "allowed"}
    on = {"topic": ".".join(topic)}

    writer.action("create_topic", {"topic": topic, "schema": schema})
    assert given(audited.one()) == caller | on | {
        "call": "action create_topic",
        "action": "write",
        "reason": "group Writers",
    }
    acknowledgement = writer.put(topic, ROWS)
    line = audited.one()
    assert re.fullmatch(r"ipv[46]:.+:\d+", line["peer"])
    assert given(line) == caller | on | {
        "call": "DoPut",
        "action": "write",
        "reason": "group Writers",
        "rows": 3,
        "commit": acknowledgement["commit"],
    }
    writer.put([topic[0], f"{topic[1]}_made_by_the_stream"], ROWS)
    assert audited.one()["rows"] == 3

    assert writer.get(topic).num_rows == 3
    assert writer.read(json.dumps({"topic": topic}).encode()).num_rows == 3
    writer.topics()
    writer.connection.get_schema(flight.FlightDescriptor.for_path(*topic), writer.options)
    list(writer.connection.list_actions(writer.options))
    for name in ("health", "whoami", "flush"):
        writer.action(name)
    assert audited.new() == []

    admin.action("drop_topic", {"topic": topic})
    assert given(audited.one()) == caller | on | {
        "call": "action drop_topic",
        "action": "admin",
        "reason": "group Admins",
    }
    admin.close()
    writer.close()


def test_calls_that_fail_for_other_reasons_leave_no_line(audited: Audited, topic: list[str]) -> None:
    admin = audited.client("Admins")
    for call in (
        lambda: admin.get(topic),
        lambda: admin.action("drop_topic", {"topic": topic}),
        lambda: admin.action("session", {}),
        lambda: admin.action("no_such_action"),
        lambda: admin.put(topic, [pa.record_batch({"a": pa.array([], pa.int64())})]),
    ):
        with pytest.raises(flight.FlightServerError):
            call()
    admin.close()
    assert audited.new() == []


def test_a_session_leaves_a_line_and_its_changes_name_the_original_caller(
    audited: Audited, topic: list[str]
) -> None:
    client = audited.with_token(None)
    token = audited.client("Writers").token
    session = client.action("session", {"token": token})["token"]
    line = audited.one()
    assert re.fullmatch(r"ipv[46]:.+:\d+", line["peer"])
    assert given(line) == {
        "decision": "allowed",
        "call": "action session",
        "provider": "okta",
        "subject": SUBJECT,
        "client": "0oadevclient",
        "reason": "a valid token was exchanged for a session",
    }
    user = replace(client, token=session, connection=None)
    user.put(topic, ROWS)
    line = audited.one()
    assert (line["provider"], line["subject"], line["reason"]) == ("okta", SUBJECT, "group Writers")
    user.close()
    client.close()


def test_names_of_topics_cannot_make_lines(audited: Audited) -> None:
    path = ["s3", 'x", "decision": "allowed täulu' + "y" * 150]
    client = audited.client("Readers")
    with pytest.raises(flight.FlightUnauthorizedError):
        client.put(path, ROWS)
    client.close()
    line = audited.one()
    assert (line["decision"], line["topic"]) == ("denied", ".".join(path))


def test_no_token_is_in_the_audit_log(
    target: Target, audited: Audited, issuer: IssuerProcess, topic: list[str]
) -> None:
    good, old = issuer.token(groups="Writers"), issuer.token(groups="Writers", age=7200)
    client = audited.with_token(good)
    client.put(topic, ROWS)
    session = client.action("session", {"token": good})["token"]
    client.close()
    failed(audited.with_token(session), "action drop_topic", target)
    for refused in (old, good[:-8] + "AAAAAAAA"):
        failed(audited.with_token(refused), "action whoami", target)
        failed(audited.with_token(refused), "action session", target)
    assert len(audited.new()) == 7
    written = audited.path.read_text() + "".join(audited.server.log)
    for token in (good, old, session):
        for part in token.split(".")[1:]:
            assert part[:40] not in written


def test_the_file_is_made_for_its_owner_and_group_alone(audited: Audited) -> None:
    assert audited.path.stat().st_mode & 0o007 == 0


def test_a_renamed_file_is_left_at_sighup(
    issuer: IssuerProcess, data_dir: dict[str, str], tmp_path: Path
) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    with ServerProcess(issuer.environment() | data_dir | {"AUDIT_LOG": str(path)}) as server:
        client = Client(server.location, issuer.token(groups="Writers"), issuer.ca_cert)
        client.put(["s3", "a"], ROWS)
        path.rename(old)
        client.put(["s3", "b"], ROWS)
        assert not path.exists()
        os.kill(server.pid, signal.SIGHUP)
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline, "".join(server.log)
            time.sleep(0.01)
        client.put(["s3", "c"], ROWS)
        client.close()
        server.stop()

    def topics(file: Path) -> list[str]:
        return [json.loads(line)["topic"] for line in file.read_text().splitlines()]

    assert topics(old) == ["s3.a", "s3.b"]
    assert topics(path) == ["s3.c"]
