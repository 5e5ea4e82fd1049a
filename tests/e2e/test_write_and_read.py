"""The main job: rows in, durable, and out again, on every kind of store."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.flight as flight
import pytest

from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

pytestmark = pytest.mark.slow

EVENTS = pa.table(
    {
        "timestamp": pa.array([1_700_000_000_000_000, None], pa.timestamp("us", tz="UTC")),
        "user_id": ["user-1", "user-2"],
        "event_type": ["login", None],
        "properties": ['{"a": 1}', "{}"],
    }
)


def test_rows_come_back_as_they_went_in(client: Client, topic: list[str]) -> None:
    acknowledgement = client.put(topic, EVENTS)
    assert acknowledgement["rows"] == acknowledgement["ack_up_to_records"] == 2
    assert acknowledgement["ack_up_to_offset"] == 0
    writer, _, sequence = acknowledgement["commit"].partition("/")
    assert writer
    assert int(sequence) >= 1
    assert client.get(topic).equals(EVENTS)


def test_a_second_write_is_added(client: Client, topic: list[str]) -> None:
    client.put(topic, EVENTS)
    client.put(topic, EVENTS)
    assert client.get(topic).num_rows == 4


def test_the_three_forms_of_a_path_reach_the_same_topic(client: Client, topic: list[str]) -> None:
    client.put(topic, EVENTS)
    for path in ([".".join(topic)], [topic[1]], [topic[0].upper(), topic[1].upper()]):
        assert client.get(path).num_rows == 2


def test_names_are_kept_as_written(client: Client, topic: list[str]) -> None:
    path = ["S3", f"Täulu / {topic[1]} %2e%2e"]
    client.put(path, EVENTS)
    assert client.get([path[0].lower(), path[1].upper()]).equals(EVENTS)
    assert ".".join(path) in client.topics()


def test_the_declared_schema_is_told_before_reading(client: Client, topic: list[str]) -> None:
    client.put(topic, EVENTS)
    descriptor = flight.FlightDescriptor.for_path(*topic)
    assert client.info(topic).schema.equals(EVENTS.schema)
    assert client.connection.get_schema(descriptor, client.options).schema.equals(EVENTS.schema)
    assert client.info(topic).total_records == 2
    assert client.info(topic).total_bytes > 0


def test_a_ticket_may_be_just_the_name(client: Client, topic: list[str]) -> None:
    client.put(topic, EVENTS)
    assert client.read(".".join(topic).encode()).equals(EVENTS)
    assert client.read(json.dumps({"topic": topic}).encode()).equals(EVENTS)


def test_a_plan_is_a_snapshot(client: Client, topic: list[str]) -> None:
    client.put(topic, EVENTS)
    planned = client.info(topic)
    client.put(topic, EVENTS)
    assert sum(client.read(endpoint.ticket).num_rows for endpoint in planned.endpoints) == 2


def test_columns_are_matched_by_name_and_missing_ones_become_null(client: Client, topic: list[str]) -> None:
    client.put(topic, EVENTS)
    client.put(topic, pa.table({"event_type": ["x"], "user_id": ["u"]}))
    assert client.get(topic).slice(2).to_pylist() == [
        {"timestamp": None, "user_id": "u", "event_type": "x", "properties": None}
    ]


def test_a_large_append_cuts_its_own_files_and_is_visible_whole(client: Client, topic: list[str]) -> None:
    batch = pa.record_batch({"n": pa.array(range(65_536), pa.int64()), "s": ["x" * 100] * 65_536})
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                seen.add(client.info(topic).total_records)
            except flight.FlightServerError:
                seen.add(0)  # not there yet

    watcher = threading.Thread(target=watch)
    watcher.start()
    acknowledgement = client.put(topic, [batch] * 8)
    done.set()
    watcher.join()
    assert acknowledgement["rows"] == 8 * 65_536
    assert seen <= {0, 8 * 65_536}
    stored = client.get(topic)
    assert stored.num_rows == 8 * 65_536
    assert pc.sum(stored["n"]).as_py() == 8 * sum(range(65_536))


def test_many_concurrent_appends_share_commits_and_lose_nothing(
    server: ServerProcess, issuer: IssuerProcess, topic: list[str]
) -> None:
    token = issuer.token(groups="Admins")

    def work(worker: int) -> set[str]:
        client = Client(server.location, token, issuer.ca_cert)
        commits = set()
        for number in range(10):
            rows = pa.table({"worker": pa.array([worker] * 10), "number": pa.array([number] * 10)})
            commits.add(client.put(topic, rows)["commit"])
        client.close()
        return commits

    with ThreadPoolExecutor(20) as pool:
        commits = set().union(*pool.map(work, range(20)))
    assert len(commits) < 200
    client = Client(server.location, token, issuer.ca_cert)
    counts = client.get(topic).group_by(["worker", "number"]).aggregate([([], "count_all")])
    assert counts.num_rows == 200
    assert set(counts["count_all"].to_pylist()) == {10}
    client.close()


def test_two_first_writers_with_different_schemas_both_get_a_clear_answer(
    client: Client, server: ServerProcess, issuer: IssuerProcess, topic: list[str]
) -> None:
    schemas = [pa.table({"a": [1]}), pa.table({"b": ["x"]})]
    barrier = threading.Barrier(2)

    def work(data: pa.Table) -> str:
        own = Client(server.location, issuer.token(groups="Admins"), issuer.ca_cert)
        barrier.wait()
        try:
            own.put(topic, data)
        except flight.FlightError as error:
            return str(error)
        finally:
            own.close()
        return "ok"

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(work, schemas))
    assert "ok" in answers
    assert client.get(topic).num_rows == answers.count("ok")
    if answers.count("ok") == 1:
        assert any("INVALID_ARGUMENT" in answer or "UNAVAILABLE" in answer for answer in answers)


def test_topics_can_be_created_dropped_and_created_again(client: Client, topic: list[str]) -> None:
    client.put(topic, EVENTS)
    planned = client.info(topic)
    client.action("drop_topic", {"topic": topic})
    assert ".".join(topic) not in client.topics()
    with pytest.raises(flight.FlightServerError, match="NOT_FOUND"):
        client.get(topic)
    client.put(topic, pa.table({"other": [1]}))
    assert client.get(topic).num_rows == 1
    with pytest.raises(flight.FlightServerError, match="NOT_FOUND"):
        client.read(planned.endpoints[0].ticket)


def test_actions(client: Client, topic: list[str]) -> None:
    assert client.action("health")["status"] == "ok"
    assert client.action("whoami")["groups"] == ["Admins"]
    assert client.action("flush") == {"flushed": True}
    names = {action.type for action in client.connection.list_actions(client.options)}
    assert {"health", "whoami", "flush", "create_topic", "drop_topic", "session", "list_schemas"} <= names


def test_an_empty_topic_can_be_created_and_read(client: Client, topic: list[str]) -> None:
    import base64

    schema = pa.schema([pa.field("a", pa.int32(), nullable=False)])
    body = {"topic": topic, "schema": base64.b64encode(schema.serialize().to_pybytes()).decode()}
    assert client.action("create_topic", body) == {"topic": topic}
    assert client.get(topic).equals(schema.empty_table())
    with pytest.raises(flight.FlightError, match="ALREADY_EXISTS"):
        client.action("create_topic", body)
