"""Writing for a caller: permissions, the end of tokens, and what is audited, over a store in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from boilstream.auth.audit import Auditor
from boilstream.auth.authorizer import Authorizer
from boilstream.auth.errors import Denied, TokenExpired
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.identity import Caller, Identity
from boilstream.auth.rules import Action, Rule, Rules, TopicGlob
from boilstream.catalog.changes import RenameTopic, SetNotNull
from boilstream.catalog.names import TopicName, topic_name
from boilstream.errors import AlreadyExists, ConstraintViolated, InvalidArgument, NotFound, Unavailable
from boilstream.ingest.group import Receipt
from boilstream.ingest.service import Ingestion
from boilstream.observe.audit import AuditLog
from boilstream.observe.metrics import Metrics
from tests.ingest.test_engine import SCHEMA, World, rows
from tests.support.stores import failing
from tests.support.tokens import NOW, FakeClock

NAME = topic_name("s3", "Events")
RULES = Rules(
    admin_groups=frozenset({"Admins"}),
    write_groups=frozenset({"Writers"}),
    read_only_groups=frozenset({"Readers"}),
)


def caller(group: str = "Writers", *, call: str = "DoPut", expires_at: float = NOW + 60) -> Caller:
    identity = Identity("okta", "00u1", "0oa1", groups=frozenset({group}), expires_at=expires_at)
    return Caller(identity, "ipv4:192.0.2.7:41234", call)


class Service:
    """The service over a world, with a clock and an audit log."""

    def __init__(self, folder: Path, *, auto_create: bool = True, **options: float) -> None:
        self.world = World(folder, **options)
        self.clock = FakeClock()
        self._path = folder / "audit.log"
        self._log = AuditLog.open(str(self._path), clock=self.clock)
        self.authorizer = Authorizer(RULES)
        self.ingestion = Ingestion(
            self.world.catalog,
            self.world.engine,
            self.world.log_writer,
            self.world.index,
            self.world.store,
            self.authorizer,
            expiry=ExpiryRule(10, self.clock),
            auditor=Auditor(self._log, Metrics()),
            auto_create=auto_create,
            ack_timeout=options.get("ack_timeout", 5.0),
        )

    def put(self, who: Caller, *batches: pa.RecordBatch, name: TopicName = NAME) -> Receipt:
        append = self.ingestion.open(who, name, SCHEMA)
        try:
            for batch in batches:
                append.write(batch)
            return append.finish(lambda: False)
        finally:
            append.close()

    def stored(self) -> list[int]:
        topic = self.world.catalog.find(NAME)
        return [] if topic is None else self.world.rows(topic)

    def audited(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def close(self) -> None:
        self.world.engine.close(5)
        self._log.close()
        assert self.world.engine.budget.used == 0, "every reserved byte is released"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.close()


def test_a_commit_is_audited_once_with_rows_and_record(service: Service) -> None:
    receipt = service.put(caller(), rows(1, 2), rows(3))
    assert service.stored() == [1, 2, 3]
    (line,) = service.audited()
    assert {key: value for key, value in line.items() if value is not None and key != "time"} == {
        "decision": "allowed",
        "call": "DoPut",
        "action": "write",
        "topic": "s3.Events",
        "provider": "okta",
        "subject": "00u1",
        "client": "0oa1",
        "peer": "ipv4:192.0.2.7:41234",
        "reason": "group Writers",
        "rows": 3,
        "commit": receipt.commit_id,
    }


@pytest.mark.parametrize("group", ["Readers", "Strangers"])
def test_nothing_is_opened_defined_or_dropped_without_the_permission(service: Service, group: str) -> None:
    who = caller(group)
    for change in (
        lambda: service.ingestion.open(who, NAME, SCHEMA),
        lambda: service.ingestion.create_topic(who, NAME, SCHEMA),
        lambda: service.ingestion.drop_topic(who, NAME),
        lambda: service.ingestion.flush(who),
    ):
        with pytest.raises(Denied):
            change()
    assert service.world.catalog.list() == []
    assert service.audited() == []  # the refusal is told by whoever answers the call


def test_who_may_not_write_does_not_learn_what_exists(service: Service) -> None:
    def message(name: str) -> str:
        with pytest.raises(Denied) as caught:
            service.ingestion.drop_topic(caller("Writers"), topic_name("s3", name))
        return caught.value.message.replace(name, "x")

    service.put(caller(), rows(1))
    assert message("Events") == message("Nothing")


def test_a_writer_may_not_drop_and_an_admin_may(service: Service) -> None:
    service.put(caller(), rows(1))
    with pytest.raises(Denied):
        service.ingestion.drop_topic(caller("Writers"), NAME)
    service.ingestion.drop_topic(caller("Admins", call="action drop_topic"), NAME)
    assert service.world.catalog.find(NAME) is None
    lines = service.audited()
    assert [(line["call"], line["action"], line["reason"]) for line in lines] == [
        ("DoPut", "write", "group Writers"),
        ("action drop_topic", "admin", "group Admins"),
    ]
    assert (lines[1]["topic"], lines[1]["rows"], lines[1]["commit"]) == ("s3.Events", None, None)


def test_a_definition_is_audited_and_a_second_one_refused(service: Service) -> None:
    who = caller(call="action create_topic")
    service.ingestion.create_topic(who, NAME, SCHEMA)
    with pytest.raises(AlreadyExists):
        service.ingestion.create_topic(who, NAME, SCHEMA)
    (line,) = service.audited()
    assert (line["call"], line["action"], line["topic"]) == ("action create_topic", "write", "s3.Events")


def test_a_drop_is_audited_as_soon_as_it_cannot_be_undone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.put(caller(), rows(1))

    def fail(_topic: object) -> None:
        raise Unavailable("the catalog is down")

    with monkeypatch.context() as patched:
        patched.setattr(service.world.catalog, "drop", fail)
        with pytest.raises(Unavailable):
            service.ingestion.drop_topic(caller("Admins"), NAME)
    topic = service.world.catalog.get(NAME)
    assert service.world.index.is_dropped(topic.id)  # the rows are gone, whatever the catalog says
    assert [line["action"] for line in service.audited()] == ["write", "admin"]


def test_what_does_not_exist_is_neither_dropped_nor_audited(service: Service) -> None:
    with pytest.raises(NotFound):
        service.ingestion.drop_topic(caller("Admins"), NAME)
    assert service.audited() == []


def test_a_write_that_fails_is_audited_if_its_outcome_is_open(tmp_path: Path) -> None:
    service = Service(tmp_path, ack_timeout=0.3)
    with pytest.raises(InvalidArgument, match="no rows"):
        service.put(caller())
    service.world.store.before = failing(10**9, contains=".parquet")
    assert service.audited() == []
    with pytest.raises(Unavailable):
        service.put(caller(), rows(1))
    (line,) = service.audited()
    assert (line["rows"], line["commit"]) == (None, None)
    assert "the outcome is not known" in line["reason"]
    service.close()


def test_a_flush_changes_nothing_that_is_not_audited_already(service: Service) -> None:
    service.ingestion.flush(caller())
    assert service.audited() == []


def test_without_auto_create_a_missing_topic_is_not_made(tmp_path: Path) -> None:
    service = Service(tmp_path, auto_create=False)
    with pytest.raises(NotFound, match="AUTO_CREATE_TOPICS"):
        service.ingestion.open(caller(), NAME, SCHEMA)
    service.ingestion.create_topic(caller(), NAME, SCHEMA)
    assert service.put(caller(), rows(1)).rows == 1
    service.close()


def test_an_append_ends_with_the_token_of_its_caller(service: Service) -> None:
    append = service.ingestion.open(caller(), NAME, SCHEMA)
    append.write(rows(1))
    service.clock.advance(69.9)  # the token ended 9.9 s ago, within the leeway
    append.write(rows(2))
    service.clock.advance(0.1)
    with pytest.raises(TokenExpired) as caught:
        append.write(rows(3))
    assert caught.value.details == {"ack_up_to_offset": -1}
    append.close()
    assert service.stored() == []
    assert service.world.catalog.list() == []
    assert service.audited() == []


def test_a_complete_append_is_not_committed_after_the_end_of_the_token(service: Service) -> None:
    append = service.ingestion.open(caller(), NAME, SCHEMA)
    append.write(rows(1))
    service.clock.advance(70)
    with pytest.raises(TokenExpired) as caught:
        append.finish(lambda: False)
    assert caught.value.details == {"ack_up_to_offset": -1}
    append.close()
    assert service.stored() == []
    assert service.audited() == []


def test_files_that_a_large_append_cut_before_its_token_ended_are_removed(tmp_path: Path) -> None:
    service = Service(tmp_path, max_file_bytes=8)
    append = service.ingestion.open(caller(), NAME, SCHEMA)
    append.write(rows(1, 2))
    append.write(rows(3, 4))
    service.clock.advance(70)
    with pytest.raises(TokenExpired):
        append.write(rows(5))
    append.close()
    service.close()
    assert service.world.data_files() == []
    assert not [key for key in service.world.store.objects if key.startswith("_log/")]


def test_rows_that_are_on_their_way_when_the_token_ends_are_acknowledged(service: Service) -> None:
    """The decision falls before the commit; afterwards the rows are durable and the client must know."""
    service.world.store.before = lambda method, key: service.clock.advance(1000)
    assert service.put(caller(), rows(1)).rows == 1
    assert len(service.audited()) == 1


def test_a_right_that_is_taken_away_ends_open_appends(service: Service) -> None:
    append = service.ingestion.open(caller(), NAME, SCHEMA)
    service.authorizer.replace(Rules(admin_groups=frozenset({"Admins"})))
    append.write(rows(1))
    with pytest.raises(Denied):
        append.finish(lambda: False)
    append.close()
    with pytest.raises(Denied):
        service.ingestion.open(caller(), NAME, SCHEMA)
    assert service.audited() == []


def nulls_and_ones(*values: int | None) -> pa.RecordBatch:
    return pa.record_batch({"n": pa.array(values, pa.int64())})


def forget_statistics(service: Service) -> None:
    """Make the index what a start finds in the log of a release that kept no statistics."""
    topic = service.world.catalog.get(NAME)
    known = service.world.index._topics[topic.id]
    known._files = [replace(file, statistics={}) for file in known._files]
    known._snapshot = None


@pytest.mark.parametrize("release", ["this one", "one without statistics"])
def test_a_column_becomes_not_null_only_while_no_row_is(service: Service, release: str) -> None:
    admin = caller("Admins")
    service.put(caller(), nulls_and_ones(1, 2))
    service.put(caller(), nulls_and_ones(3, None))
    if release != "this one":
        forget_statistics(service)
    with pytest.raises(InvalidArgument, match=r"'n' of s3\.Events cannot become NOT NULL"):
        service.ingestion.alter_topic(admin, NAME, SetNotNull("n"))
    service.ingestion.drop_topic(admin, NAME)
    service.put(caller(), nulls_and_ones(1, 2))
    if release != "this one":
        forget_statistics(service)
    altered = service.ingestion.alter_topic(admin, NAME, SetNotNull("N"))
    assert not altered.schema.declared.field("n").nullable
    with pytest.raises(ConstraintViolated):
        service.put(caller(), nulls_and_ones(None))
    assert service.world.index.totals(altered.id).rows == 2


def test_altering_needs_admin_and_is_audited(service: Service) -> None:
    service.put(caller(), rows(1))
    with pytest.raises(Denied):
        service.ingestion.alter_topic(caller(), NAME, RenameTopic("other"))
    altered = service.ingestion.alter_topic(caller("Admins"), NAME, RenameTopic("Other"))
    assert str(altered.name) == "s3.Other"
    line = service.audited()[-1]
    assert (line["action"], line["topic"], line["decision"]) == ("admin", "s3.Events", "allowed")
    assert line["reason"].endswith("RenameTopic")


def test_a_topic_cannot_be_renamed_to_a_name_that_its_admin_may_not_write(service: Service) -> None:
    """Else whoever rules one name could put rows under any other."""
    service.put(caller(), rows(1))
    rule = Rule((TopicGlob("s3", "Events"),), frozenset({Action.ADMIN}), groups=frozenset({"Owners"}))
    service.authorizer.replace(Rules(write_groups=frozenset({"Writers"}), file_rules=(rule,)))
    with pytest.raises(Denied):
        service.ingestion.alter_topic(caller("Owners"), NAME, RenameTopic("payroll"))
    assert service.world.catalog.find(NAME) is not None
