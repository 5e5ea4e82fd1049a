"""Rules that change while the server runs (SIGHUP)."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

pytestmark = pytest.mark.slow

ROWS = pa.table({"a": [1, 2]})
RULE = '[[rules]]\nname = "{name}"\ngroups = ["Analysts"]\ntopics = ["{topics}"]\nallow = ["{allow}"]\n'


class Reloading:
    """A server, its rules file, and a caller that only the file knows."""

    def __init__(self, server: ServerProcess, rules: Path, issuer: IssuerProcess) -> None:
        self.server = server
        self._rules = rules
        self.admin = Client(server.location, issuer.token(groups="Admins"), issuer.ca_cert)
        self.analyst = Client(server.location, issuer.token(groups="Analysts"), issuer.ca_cert)

    def reload(self, text: str, says: str) -> str:
        """Write the file, send SIGHUP, and return the line of the log that says so."""
        self._rules.write_text(text)
        before = len(self.server.log)
        os.kill(self.server.pid, signal.SIGHUP)
        deadline = time.monotonic() + 20
        while not (found := [line for line in self.server.log[before:] if says in line]):
            assert time.monotonic() < deadline, "".join(self.server.log)
            time.sleep(0.01)
        return found[0]

    def allow(self, topics: str, right: str) -> None:
        line = self.reload(
            RULE.format(name="analysts", topics=topics, allow=right), "the rules were read again"
        )
        assert line == "INFO boilstream::app: the rules were read again\n"

    def may(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except flight.FlightUnauthorizedError:
            return False
        return True


@pytest.fixture(scope="module")
def running(
    issuer: IssuerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, Path]]:
    folder = tmp_path_factory.mktemp("reload")
    rules = folder / "rules.toml"
    rules.write_text(RULE.format(name="none", topics="none.none", allow="read"))
    environment = issuer.environment() | {
        "DATA_DIR": str(folder / "data"),
        "AUTHORIZATION_RULES_FILE": str(rules),
    }
    with ServerProcess(environment) as process:
        yield process, rules


@pytest.fixture
def reloading(running: tuple[ServerProcess, Path], issuer: IssuerProcess) -> Iterator[Reloading]:
    made = Reloading(*running, issuer)
    yield made
    made.admin.close()
    made.analyst.close()


def test_new_rights_hold_at_once(reloading: Reloading, topic: list[str]) -> None:
    name, analyst = ".".join(topic), reloading.analyst
    reloading.admin.put(topic, ROWS)
    reloading.allow("none.none", "read")
    assert not reloading.may(lambda: analyst.get(topic))
    assert name not in analyst.topics()
    reloading.allow(name, "read")
    assert reloading.may(lambda: analyst.get(topic))
    assert analyst.topics() == [name]
    assert not reloading.may(lambda: analyst.put(topic, ROWS))
    reloading.allow("s3.*", "write")
    assert reloading.may(lambda: analyst.put(topic, ROWS))
    assert not reloading.may(lambda: analyst.action("drop_topic", {"topic": topic}))
    reloading.allow("none.none", "read")
    assert not reloading.may(lambda: analyst.get(topic))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            RULE.format(name="good", topics="*", allow="admin")
            + RULE.format(name="bad", topics="*", allow="fly"),
            "rule 2 (bad): allow: 'fly'",
        ),
        ("[[rules]", "is not TOML"),
        ("", "at least one rule"),
    ],
)
def test_a_wrong_file_is_refused_whole_and_the_old_rules_stay(
    reloading: Reloading, topic: list[str], wrong: str, says: str
) -> None:
    reloading.admin.put(topic, ROWS)
    reloading.allow(".".join(topic), "read")
    line = reloading.reload(wrong, "the rules are not changed")
    assert line.startswith("ERROR boilstream::app: the rules are not changed: AUTHORIZATION_RULES_FILE: ")
    assert says in line
    assert reloading.may(lambda: reloading.analyst.get(topic))
    assert not reloading.may(lambda: reloading.analyst.put(topic, ROWS))
    assert not reloading.may(lambda: reloading.analyst.action("drop_topic", {"topic": topic}))


def begun(reloading: Reloading, topic: list[str]) -> tuple[Any, Any]:
    """A stream of the analyst that the server has let in."""
    analyst = reloading.analyst
    begins = re.compile(rf"append to {re.escape('.'.join(topic))} by \S+ begins")

    def number() -> int:
        return len(begins.findall("".join(reloading.server.log)))

    before = number()
    path = flight.FlightDescriptor.for_path(*topic)
    writer, results = analyst.connection.do_put(path, ROWS.schema, analyst.options)
    writer.write_table(ROWS)
    deadline = time.monotonic() + 20
    while number() == before:
        assert time.monotonic() < deadline, "".join(reloading.server.log)
        time.sleep(0.01)
    return writer, results


def test_running_streams_of_those_who_keep_the_right_go_on(reloading: Reloading, topic: list[str]) -> None:
    reloading.allow(".".join(topic), "write")
    writer, results = begun(reloading, topic)
    reloading.allow("s3.*", "admin")
    writer.write_table(ROWS)
    writer.done_writing()
    assert b'"rows": 4' in results.read().to_pybytes()
    writer.close()
    assert reloading.admin.get(topic).num_rows == 4


def test_a_stream_stores_nothing_once_the_right_is_taken_away(reloading: Reloading, topic: list[str]) -> None:
    reloading.allow(".".join(topic), "write")
    writer, results = begun(reloading, topic)
    reloading.allow(".".join(topic), "read")
    writer.done_writing()
    assert results.read() is None
    with pytest.raises(flight.FlightUnauthorizedError, match="needs write"):
        writer.close()
    assert ".".join(topic) not in reloading.admin.topics()


def test_a_session_gets_no_rights_by_groups_that_it_does_not_carry(
    reloading: Reloading, issuer: IssuerProcess, topic: list[str]
) -> None:
    """As documented: after a rule about new groups callers make a new session."""
    reloading.admin.put(topic, ROWS)
    reloading.allow("none.none", "read")
    token = issuer.token(groups="Analysts Others")

    def session() -> Client:
        made = reloading.admin.action("session", {"token": token})["token"]
        return Client(reloading.server.location, made, issuer.ca_cert)

    before = session()
    assert before.action("whoami")["groups"] == ["Analysts"]
    rule = RULE.format(name="others", topics="s3.*", allow="read").replace("Analysts", "Others")
    reloading.reload(rule, "the rules were read again")
    after = session()
    assert reloading.may(lambda: after.get(topic))
    assert not reloading.may(lambda: before.get(topic))
    before.close()
    after.close()
