"""Tokens that end while streams run: nothing goes on in the name of a caller who is none any more."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess, details

pytestmark = pytest.mark.slow

ROWS = pa.table({"n": pa.array(range(1000), pa.int64())})
LIFE_SECONDS = 4
PATIENCE_SECONDS = 30.0

_VALUES = [
    pa.Array.from_buffers(pa.int64(), 65_536, [None, pa.py_buffer(os.urandom(65_536 * 8))]) for _ in "abcd"
]
BIG = [pa.record_batch(_VALUES, names=list("abcd"))] * 48
"""Rows that neither shrink nor fit into the buffers between server and client: 96 MiB."""


@dataclass
class Ended:
    """Calls that one token has begun, after its end."""

    admin: Client
    caller: Client
    audit: Path
    session: str
    open_put: tuple[Any, Any]
    complete_put: tuple[Any, Any]
    get: Any
    taken: int

    def line(self, error: flight.FlightError) -> dict[str, Any]:
        """The line of the audit log about an error."""
        lines = [json.loads(line) for line in self.audit.read_text().splitlines()]
        (found,) = (line for line in lines if line["error_id"] == details(error)["error_id"])
        return dict(found)


def begun(client: Client, table: str) -> tuple[Any, Any]:
    """A stream to `s3.<table>` that the server has taken rows of."""
    path = flight.FlightDescriptor.for_path("s3", table)
    writer, results = client.connection.do_put(path, ROWS.schema, client.options)
    writer.write_table(ROWS)
    return writer, results


def await_that(condition: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture(scope="module")
def ended(issuer: IssuerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("expiry")
    audit = folder / "audit.log"
    environment = issuer.environment() | {
        "DATA_DIR": str(folder / "data"),
        "AUTH_LEEWAY_SECONDS": "0",
        "AUDIT_LOG": str(audit),
    }
    with ServerProcess(environment) as server:
        admin = Client(server.location, issuer.token(groups="Admins"), issuer.ca_cert)
        admin.put(["s3", "big"], BIG)
        token = issuer.token(groups="Admins", subject="00ushort", age=3600 - LIFE_SECONDS)
        caller = Client(server.location, token, issuer.ca_cert)
        session = caller.action("session", {"token": token})["token"]
        puts = [begun(caller, table) for table in ("open", "complete")]
        get = caller.connection.do_get(flight.Ticket(b"s3.big"), caller.options)
        taken = get.read_chunk().data.num_rows
        await_that(
            lambda: "".join(server.log).count("by okta:00ushort begins") == 2, "the streams do not begin"
        )

        def is_over() -> bool:
            try:
                caller.action("whoami")
            except flight.FlightUnauthenticatedError:
                return True
            return False

        assert not is_over(), "the token ended before all calls had begun"
        await_that(is_over, "the token does not end")
        yield Ended(admin, caller, audit, session, puts[0], puts[1], get, taken)
        for client in (admin, caller):
            client.close()


def check_refusal(ended: Ended, error: flight.FlightError, call: str) -> None:
    assert str(error).startswith("UNAUTHENTICATED: the token expired during the call: get a new one")
    assert "Traceback" not in str(error)
    assert details(error)["code"] == "UNAUTHENTICATED"
    assert details(error)["retryable"] is False
    line = ended.line(error)
    assert (line["decision"], line["call"], line["subject"]) == ("unauthenticated", call, "00ushort")
    assert line["peer"]
    assert "the token expired during the call" in line["reason"]


def test_a_stream_that_goes_on_is_refused_after_the_next_batch_and_nothing_is_stored(ended: Ended) -> None:
    writer, _ = ended.open_put

    def is_refused() -> bool:
        try:
            writer.write_table(ROWS)
        except (flight.FlightError, pa.ArrowException, OSError):
            return True
        return False

    await_that(is_refused, "the server takes batch after batch")
    with pytest.raises(flight.FlightUnauthenticatedError) as caught:
        writer.close()
    check_refusal(ended, caught.value, "DoPut")
    assert details(caught.value)["ack_up_to_offset"] == -1
    assert "s3.open" not in ended.admin.topics()


def test_a_stream_that_is_complete_only_after_the_end_is_not_stored(ended: Ended) -> None:
    writer, results = ended.complete_put
    writer.done_writing()
    assert results.read() is None
    with pytest.raises(flight.FlightUnauthenticatedError) as caught:
        writer.close()
    check_refusal(ended, caught.value, "DoPut")
    assert details(caught.value)["ack_up_to_offset"] == -1
    assert "s3.complete" not in ended.admin.topics()


def test_a_slow_reader_gets_batches_and_then_the_refusal(ended: Ended) -> None:
    rows = ended.taken
    with pytest.raises(flight.FlightUnauthenticatedError) as caught:
        while True:
            rows += ended.get.read_chunk().data.num_rows
    check_refusal(ended, caught.value, "DoGet")
    assert 0 < rows < sum(batch.num_rows for batch in BIG)
    assert ended.admin.read(b"s3.big").num_rows == sum(batch.num_rows for batch in BIG)


def test_the_session_ends_with_the_token_that_it_was_made_from(ended: Ended) -> None:
    session = Client(ended.caller.location, ended.session, ended.caller.ca_cert)
    with pytest.raises(flight.FlightUnauthenticatedError, match="invalid token"):
        session.action("whoami")
    session.close()


def test_the_ended_token_makes_no_session(ended: Ended) -> None:
    with pytest.raises(flight.FlightUnauthenticatedError, match="invalid token") as caught:
        ended.admin.action("session", {"token": ended.caller.token})
    assert ended.line(caught.value)["reason"].startswith("Expired: the token ended ")
