"""Tokens, transaction ids, tickets and descriptors: what was altered or belongs to others opens nothing."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.e2e.airport.conftest import Attach, location_of, on_local_store, refusal
from tests.support.airport import AirportClient, AirportError, Table
from tests.support.issuer import IssuerProcess
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.slow, on_local_store]


REFUSED = ("Permission", "IO")
"""How a call without a valid credential ends: typed unless the refusal overtakes the client's first message."""


@pytest.fixture
def people(duckdb: AirportClient, table: str) -> str:
    duckdb.create_table(table, {"id": "INTEGER", "name": "VARCHAR"})
    duckdb.insert(table, "VALUES (1, 'a'), (2, 'b')")
    return table


def altered(text: str) -> list[str]:
    """The text with one character changed at each of some places, cut, and extended."""
    places = sorted({0, 1, len(text) // 3, len(text) // 2, len(text) - 2, len(text) - 1})
    changed = [text[:n] + ("A" if text[n] != "A" else "B") + text[n + 1 :] for n in places]
    return [*changed, text[:-1], text[1:], text + "A", text[: len(text) // 2], "x", "A" * 500]


def test_without_a_token_nothing_is_served(
    server: ServerProcess, issuer: IssuerProcess, duckdb: AirportClient, people: str
) -> None:
    known = duckdb.table(people)
    with AirportClient(location_of(server), ca=issuer.ca_cert) as nobody:
        calls: list[Callable[[], object]] = [
            nobody.show_all_tables,
            nobody.begin_statement,
            nobody.ask_version,
            lambda: nobody.create_schema("x"),
            lambda: nobody.raw_action("drop_table", {"type": "table", "catalog_name": "boilstream"}),
            lambda: nobody.open(known, duckdb.engine.plan(known, "SELECT * FROM t")),
        ]
        for call in calls:
            assert "token" in str(refusal(call))
        for stream in (
            lambda: nobody._write("insert", known, batches(known)),
            lambda: read(nobody, known, b"x"),
        ):
            with pytest.raises(AirportError, match="token"):
                stream()


def batches(table: Table) -> Any:
    schema = pa.schema([pa.field(item.name, item.type) for item in table.columns])
    yield pa.record_batch([pa.nulls(1, item.type) for item in schema], schema=schema)
    yield pa.record_batch([pa.nulls(1, item.type) for item in schema], schema=schema)


def read(client: AirportClient, table: Table, ticket: bytes) -> pa.Table:
    """DoGet with this ticket."""
    plan = client.engine.plan(table, "SELECT * FROM t")
    opened = replace(client_scan(client, table, plan), endpoints=[])
    endpoint = flight.FlightEndpoint(ticket, ["arrow-flight-reuse-connection://?"])
    return pa.Table.from_batches(list(opened.batches(endpoint)), opened.schema)


def client_scan(client: AirportClient, table: Table, plan: Any) -> Any:
    from tests.support.airport import OpenScan

    return OpenScan(client, table, plan, client.scan_of(table))


def test_a_bad_token_is_refused_at_once(attach: Attach) -> None:
    for token in ("garbage", "a.b.c", "x" * 3000):
        error = refusal(attach(token=token).show_all_tables)
        assert "token" in str(error)
        assert token not in str(error)


def test_an_expired_token_is_refused_at_once(attach: Attach, issuer: IssuerProcess) -> None:
    error = refusal(attach(token=issuer.token(groups="Admins", age=7200)).show_all_tables)
    assert "token" in str(error)


def test_a_bad_secret_is_a_permission_error_for_data(
    attach: Attach, issuer: IssuerProcess, people: str
) -> None:
    duckdb = attach(secret_token=issuer.token(groups="Admins", age=7200))
    duckdb.show_all_tables()
    refusal(duckdb.read, people)
    with pytest.raises(AirportError) as caught:
        duckdb.insert(people, "VALUES (3, 'c')")
    assert caught.value.kind in REFUSED


def test_transaction_ids_are_unguessable_and_expire(attach: Attach) -> None:
    client, found = attach(), []
    for _ in range(20):
        client.begin_statement()
        found.append(client._transaction)
    assert all(text and text.isascii() and text.isprintable() and len(text) >= 32 for text in found)
    texts = [text or "" for text in found]
    assert (
        len({text[-32:] for text in texts}) > 1 or len(set(texts)) == 1
    )  # signed: equal only if all of it is


def test_altered_transaction_ids_open_nothing(attach: Attach, people: str) -> None:
    duckdb = attach(secret=False)
    assert duckdb.read(people).num_rows == 2
    known, good = duckdb.table(people), duckdb._transaction
    assert good is not None
    plan = duckdb.engine.plan(known, "SELECT * FROM t")
    for bad in altered(good):
        duckdb._transaction = bad
        refusal(duckdb.open, known, plan)
        with pytest.raises(AirportError) as caught:
            duckdb._write("insert", known, batches(known))
        assert caught.value.kind in REFUSED
        assert bad not in str(caught.value)
    duckdb._transaction = good
    assert duckdb.open(known, plan).read().num_rows == 2


def test_a_transaction_id_of_another_client_session_opens_nothing(
    server: ServerProcess, issuer: IssuerProcess, attach: Attach, people: str
) -> None:
    owner = attach(secret=False)
    owner.read(people)
    known = owner.table(people)
    plan = owner.engine.plan(known, "SELECT * FROM t")
    with AirportClient(location_of(server), ca=issuer.ca_cert) as thief:
        thief._transaction = owner._transaction
        error = refusal(thief.open, known, plan)
        assert "attach" in str(error).lower() or "token" in str(error)
        with pytest.raises(AirportError) as caught:
            thief._write("insert", known, batches(known))
        assert caught.value.kind in REFUSED
    assert owner.open(known, plan).read().num_rows == 2


def test_a_transaction_id_carries_no_more_rights_than_its_owner_has(attach: Attach, people: str) -> None:
    reader = attach("Readers", secret=False)
    assert reader.read(people).num_rows == 2
    with pytest.raises(AirportError) as caught:
        reader.insert(people, "VALUES (3, 'c')")
    assert caught.value.kind == "Permission"
    assert "WRITE_GROUPS" in str(caught.value)


def test_a_transaction_id_does_not_help_a_caller_with_a_token_of_his_own(
    attach: Attach, issuer: IssuerProcess, people: str
) -> None:
    """The token of the data calls decides, whoever began the transaction."""
    mixed = attach("Admins", secret_token=issuer.token(groups="Readers", subject="00uother"))
    mixed.show_all_tables()
    with pytest.raises(AirportError) as caught:
        mixed.insert(people, "VALUES (3, 'c')")
    assert caught.value.kind == "Permission"


def test_a_transaction_id_opens_no_catalog_calls(
    server: ServerProcess, issuer: IssuerProcess, attach: Attach, people: str
) -> None:
    """DDL comes with the token of ATTACH; the extension sends no transaction id there."""
    owner = attach(secret=False)
    owner.begin_statement()
    known = owner.table(people)
    with AirportClient(
        location_of(server), ca=issuer.ca_cert, session=owner.calls[0].header("airport-client-session-id")[0]
    ) as thief:
        thief._transaction = owner._transaction
        body = {
            "type": "table",
            "catalog_name": "boilstream",
            "schema_name": "s3",
            "name": people,
            "ignore_not_found": False,
        }
        refusal(thief.raw_action, "drop_table", body, scan=thief.scan_of(known))
    assert owner.read(people).num_rows == 2


def test_a_transaction_id_is_for_one_catalog_name(attach: Attach, people: str) -> None:
    owner = attach(secret=False)
    owner.read(people)
    known = owner.table(people)
    owner._calls.catalog = "other"
    refusal(owner.open, known, owner.engine.plan(known, "SELECT * FROM t"))


def test_altered_tickets_open_nothing(duckdb: AirportClient, people: str) -> None:
    opened = duckdb.open_scan(people)
    good: bytes = opened.endpoints[0].ticket.ticket
    known = duckdb.table(people)
    assert read(duckdb, known, good).num_rows > 0
    places = {*range(0, len(good), max(1, len(good) // 40)), len(good) - 1}
    bad = [good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :] for n in sorted(places)]
    for ticket in [*bad, good[:-1], good + b"A", b"", b"\x00" * 100, b"{}", base64.b64encode(good)]:
        with pytest.raises(AirportError) as caught:
            read(duckdb, known, ticket)
        assert "error id" not in str(caught.value)


def test_a_ticket_is_for_who_asked_for_it(
    duckdb: AirportClient, attach: Attach, issuer: IssuerProcess, people: str
) -> None:
    ticket: bytes = duckdb.open_scan(people).endpoints[0].ticket.ticket
    known = duckdb.table(people)
    for other in (
        attach(token=issuer.token(groups="Admins", subject="00uother")),
        attach(token=issuer.token(groups="Strangers", subject="00ustranger")),
    ):
        other.begin_statement()
        with pytest.raises(AirportError) as caught:
            read(other, known, ticket)
        assert "error id" not in str(caught.value)
    again = attach()
    again.begin_statement()
    assert read(again, known, ticket).num_rows > 0  # another process of the same user


def test_tickets_and_transaction_ids_are_not_interchangeable(
    duckdb: AirportClient, attach: Attach, people: str
) -> None:
    ticket: bytes = duckdb.open_scan(people).endpoints[0].ticket.ticket
    known = duckdb.table(people)
    with pytest.raises(AirportError):
        read(duckdb, known, (duckdb._transaction or "").encode())
    other = attach(secret=False)
    other.begin_statement()
    other._transaction = base64.urlsafe_b64encode(ticket).decode()
    refusal(other.open, known, duckdb.engine.plan(known, "SELECT * FROM t"))


def test_descriptors_that_were_made_up(duckdb: AirportClient, people: str) -> None:
    known = duckdb.table(people)
    path = [part.decode() for part in known.descriptor.path]
    made_up: list[flight.FlightDescriptor] = [
        flight.FlightDescriptor.for_path(),
        flight.FlightDescriptor.for_path(*path[:3]),
        flight.FlightDescriptor.for_path(*path, "x"),
        flight.FlightDescriptor.for_path(*path[:3], "x"),
        flight.FlightDescriptor.for_path(*path[:3], ""),
        flight.FlightDescriptor.for_path(*path[:3], path[3] + "9999999999"),
        flight.FlightDescriptor.for_path(*path[:3], path[3].rpartition(".")[0] + ".99"),
        flight.FlightDescriptor.for_path(*path[:3], "../../etc/passwd.1"),
        flight.FlightDescriptor.for_path(*path[:3], "%00.1"),
        flight.FlightDescriptor.for_path(*path[:3], path[3].rpartition(".")[0] + "." + "9" * 5000),
        flight.FlightDescriptor.for_command(b"SELECT 1"),
    ]
    duckdb.begin_statement()
    for descriptor in made_up:
        stranger = replace(known, descriptor=descriptor)
        with pytest.raises(AirportError) as caught:
            duckdb.open(stranger, duckdb.engine.plan(known, "SELECT * FROM t"))
            pytest.fail(f"{descriptor} was served")
        assert "error id" not in str(caught.value), descriptor
        with pytest.raises(AirportError) as caught:
            duckdb._write("insert", stranger, batches(known))
        assert "error id" not in str(caught.value), descriptor


@pytest.mark.parametrize("operation", ["scalar_function", "table_function_in_out", "truncate", "INSERT", ""])
def test_operations_that_are_not_served(duckdb: AirportClient, people: str, operation: str) -> None:
    duckdb.begin_statement()
    known = duckdb.table(people)
    with pytest.raises(AirportError) as caught:
        duckdb._write(operation, known, batches(known))
    assert "error id" not in str(caught.value)
    assert duckdb.read(people).num_rows == 2


def test_no_capability_is_in_the_log(server: ServerProcess, attach: Attach, people: str) -> None:
    client = attach(secret=False)
    client.read(people)
    client.insert(people, "VALUES (3, 'c')")
    log = "".join(server.log)
    assert client._transaction is not None
    assert client._transaction not in log
    ticket = client.open_scan(people).endpoints[0].ticket.ticket
    assert ticket.decode("latin-1") not in "".join(server.log)


def test_a_client_that_is_not_duckdb_gets_the_errors_of_flight(
    server: ServerProcess, issuer: IssuerProcess
) -> None:
    connection = flight.connect(location_of(server), tls_root_certs=issuer.ca_cert.read_bytes())
    with pytest.raises(flight.FlightUnauthenticatedError):
        list(connection.do_action(flight.Action("list_schemas", b""), flight.FlightCallOptions(timeout=60)))
    headers = [(b"authorization", f"Bearer {issuer.token(groups='Admins')}".encode())]
    options = flight.FlightCallOptions(headers=headers, timeout=60)
    writer, reader = connection.do_exchange(flight.FlightDescriptor.for_path("s3", "x"), options)
    with pytest.raises(flight.FlightError) as caught:
        writer.begin(pa.schema({"a": pa.int64()}))
        writer.done_writing()
        reader.read_all()
    assert "Traceback" not in str(caught.value)
    with pytest.raises(flight.FlightError):
        writer.close()
    connection.close()
