"""Reading for a caller: permissions and the end of tokens, over a store in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from boilstream.auth.authorizer import Authorizer
from boilstream.auth.errors import Denied, TokenExpired
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.identity import Identity
from boilstream.auth.rules import Action, Rule, Rules, TopicGlob
from boilstream.catalog.changes import AddColumn, DropColumn, RenameTopic
from boilstream.catalog.definition import MAX_VERSIONS
from boilstream.catalog.names import topic_name
from boilstream.catalog.topics import Topic, draft
from boilstream.catalog.types import TopicSchema
from boilstream.errors import Internal, NotFound
from boilstream.query.predicates.predicate import Outcome, Predicate, comparison
from boilstream.query.scan import Segment
from boilstream.query.service import Queries
from tests.ingest.test_engine import SCHEMA, World, rows
from tests.support.tokens import NOW, FakeClock

NAME = topic_name("s3", "t")
RULES = Rules(
    read_only_groups=frozenset({"Readers"}),
    file_rules=(Rule((TopicGlob("s3", "open_*"),), frozenset({Action.READ}), groups=frozenset({"Guests"})),),
)
STRANGER = Identity("okta", "00u9")
GUEST = Identity("okta", "00u8", groups=frozenset({"Guests"}))


def reader(expires_at: float = NOW + 60) -> Identity:
    return Identity("okta", "00u1", groups=frozenset({"Readers"}), expires_at=expires_at)


class Reading:
    """Queries over a world, with a clock."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.clock = FakeClock()
        self.authorizer = Authorizer(RULES)
        self.queries = Queries(
            self.world.catalog,
            self.world.index,
            self.world.store,
            self.authorizer,
            ExpiryRule(10, self.clock),
        )

    def fill(self, name: str = "t", *values: int) -> None:
        """Each value in a file, and so a batch, of its own."""
        topic = self.world.topic(name)
        for value in values:
            self.world.append(topic, rows(value))

    def read(self, identity: Identity, **options: object) -> Iterator[pa.RecordBatch]:
        schema, batches = self.queries.read(identity, NAME, **options)  # type: ignore[arg-type]
        assert schema.equals(SCHEMA)
        return batches

    def plan(self, topic: Topic, predicate: Predicate | None = None) -> list[Segment]:
        """All segments that a reader plans to read."""
        parts = self.queries.plan_scan(reader(), topic.id, topic.version, predicate)
        return [segment for part in parts for segment in part]

    def scan(self, topic: Topic, segments: list[Segment]) -> Iterator[pa.RecordBatch]:
        return self.queries.scan(reader(), topic.id, topic.version, segments, columns=["n"])

    def drop(self, topic: Topic) -> None:
        """As `Ingestion.drop_topic`."""
        self.world.log_writer.commit((), dropped=(topic.id,), deadline=float("inf"))
        self.world.catalog.drop(topic)


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[Reading]:
    reading = Reading(tmp_path)
    yield reading
    reading.world.engine.close(5)


def values(batches: Iterator[pa.RecordBatch]) -> list[int]:
    return [value for batch in batches for value in batch.column("n").to_pylist()]


def test_rows_totals_and_plan_for_those_who_may_read(reading: Reading) -> None:
    reading.fill("t", 1, 2, 3)
    assert values(reading.read(reader())) == [1, 2, 3]
    assert reading.queries.topic(reader(), NAME).totals.rows == 3
    plan = reading.queries.plan(reader(), NAME)
    assert sum(file.rows for part in plan.parts for file in part) == 3


@pytest.mark.parametrize("name", ["t", "missing"])
def test_others_learn_nothing_not_even_what_exists(reading: Reading, name: str) -> None:
    reading.fill("t", 1)
    topic = topic_name("s3", name)
    for query in (reading.queries.read, reading.queries.topic, reading.queries.plan):
        for identity in (STRANGER, GUEST):
            with pytest.raises(Denied, match=f"needs read on s3.{name}: "):
                query(identity, topic)


def test_a_listing_shows_each_caller_what_it_may_read(reading: Reading) -> None:
    reading.fill("t", 1)
    reading.fill("open_1", 1, 2)

    def listed(identity: Identity) -> list[tuple[str, int]]:
        return [(s.topic.name.table, s.totals.rows) for s in reading.queries.topics(identity)]

    assert listed(reader()) == [("open_1", 2), ("t", 1)]
    assert listed(GUEST) == [("open_1", 2)]
    assert listed(STRANGER) == []


def test_rows_end_with_the_token_after_the_batch_that_is_on_its_way(reading: Reading) -> None:
    reading.fill("t", 1, 2, 3)
    batches = reading.read(reader())
    assert next(batches).column("n").to_pylist() == [1]
    reading.clock.advance(69.9)  # the token ended 9.9 s ago, within the leeway
    assert next(batches).column("n").to_pylist() == [2]
    reading.clock.advance(0.1)
    with pytest.raises(TokenExpired) as caught:
        next(batches)
    assert caught.value.details == {}
    with pytest.raises(StopIteration):
        next(batches)


def test_a_read_that_was_complete_before_the_token_ended_is_complete(reading: Reading) -> None:
    reading.fill("t", 1)
    batches = reading.read(reader())
    next(batches)
    reading.clock.advance(1000)
    with pytest.raises(StopIteration):
        next(batches)


def test_rows_that_nobody_takes_before_the_token_ends_are_not_given(reading: Reading) -> None:
    reading.fill("t", 1)
    batches = reading.read(reader())
    reading.clock.advance(1000)
    with pytest.raises(TokenExpired):
        next(batches)


def test_rows_end_when_the_right_is_taken_away(reading: Reading) -> None:
    reading.fill("t", 1, 2, 3)
    batches = reading.read(reader())
    assert next(batches).column("n").to_pylist() == [1]
    reading.authorizer.replace(Rules(write_groups=frozenset({"Readers"})))
    assert next(batches).column("n").to_pylist() == [2]  # a greater right brings the lesser along
    reading.authorizer.replace(Rules(read_only_groups=frozenset({"Others"})))
    with pytest.raises(Denied, match=r"needs read on s3\.t: "):
        next(batches)


def test_rules_hold_for_tickets_too(reading: Reading) -> None:
    reading.fill("t", 1)
    plan = reading.queries.plan(reader(), NAME)
    names = tuple(file.key.rpartition("/")[2] for part in plan.parts for file in part)
    assert values(reading.read(reader(), topic_id=plan.topic.id, files=names)) == [1]
    with pytest.raises(Denied):
        reading.read(STRANGER, topic_id=plan.topic.id, files=names)
    with pytest.raises(NotFound, match="has no file"):
        reading.read(reader(), files=("../other.parquet",))
    with pytest.raises(NotFound, match="dropped and made anew"):
        reading.read(reader(), topic_id="another")


def test_a_file_that_is_gone_is_a_drop_or_a_defect(
    reading: Reading, caplog: pytest.LogCaptureFixture
) -> None:
    reading.fill("t", 1)
    topic = reading.world.catalog.get(NAME)
    batches, later = reading.read(reader()), reading.read(reader())
    reading.world.store.objects.clear()
    with pytest.raises(Internal, match="missing in the object store"):
        next(batches)
    assert "a data file that the commit log names is missing" in caplog.text
    reading.world.log_writer.commit((), dropped=(topic.id,), deadline=float("inf"))
    with pytest.raises(NotFound, match="was dropped while it was read"):
        next(later)


def test_a_topic_without_rows_has_a_schema_and_no_batches(reading: Reading) -> None:
    reading.world.catalog.create(draft(NAME, TopicSchema.declare(SCHEMA)))
    reading.clock.advance(1000)
    assert values(reading.read(reader())) == []


# Reads of a version of a topic, by its id


def greater(value: int) -> Predicate:
    """n > value, for files whose bounds are known."""

    def possible(lower: object, upper: object) -> Outcome:
        assert isinstance(upper, int)
        return Outcome.VALUE if upper > value else Outcome.FALSE

    return comparison("n", 1, pc.field("n") > value, possible)


def test_a_scan_reads_the_files_that_may_match_with_ids_of_all(reading: Reading) -> None:
    reading.fill("t", 1, 5, 9)
    topic = reading.world.catalog.get(NAME)
    segments = reading.plan(topic, greater(4))
    assert [segment.first_row_id for segment in segments] == [1, 2]
    assert reading.plan(topic, greater(9)) == []
    batches = reading.queries.scan(
        reader(), topic.id, topic.version, segments, columns=["n"], predicate=greater(5), row_ids=True
    )
    assert [row for batch in batches for row in batch.to_pylist()] == [{"rowid": 2, "n": 9}]


def test_a_topic_without_rows_has_no_parts(reading: Reading) -> None:
    assert reading.plan(reading.world.topic()) == []


def test_a_scan_that_was_planned_finishes_whatever_becomes_of_the_topic(reading: Reading) -> None:
    reading.fill("t", 1, 2, 3)
    topic = reading.world.catalog.get(NAME)
    segments = reading.plan(topic)
    begun = reading.scan(topic, segments)
    assert next(begun).column("n").to_pylist() == [1]
    reading.world.append(topic, rows(4))
    altered = reading.world.catalog.alter(topic.id, AddColumn(pa.field("m", pa.string())))
    altered = reading.world.catalog.alter(topic.id, DropColumn("n"))
    altered = reading.world.catalog.alter(topic.id, RenameTopic("u"))
    assert next(begun).column("n").to_pylist() == [2]
    reading.drop(altered)
    assert values(begun) == [3]
    assert values(reading.scan(topic, segments)) == [1, 2, 3]
    with pytest.raises(NotFound, match="dropped; DETACH and ATTACH again"):
        reading.plan(topic)


def test_each_version_has_its_schema(reading: Reading) -> None:
    topic = reading.world.topic()
    later = reading.world.catalog.alter(topic.id, AddColumn(pa.field("m", pa.string())))
    assert reading.queries.schema_of(reader(), topic.id, topic.version).declared.names == ["n"]
    assert reading.queries.schema_of(reader(), topic.id, later.version).declared.names == ["n", "m"]
    assert reading.queries.topic_by_id(reader(), topic.id) is later


def test_a_forgotten_version_says_what_to_do(reading: Reading) -> None:
    reading.fill("t", 1)
    topic = reading.world.catalog.get(NAME)
    segments = reading.plan(topic)
    for number in range(MAX_VERSIONS):
        reading.world.catalog.alter(topic.id, AddColumn(pa.field(f"c{number}", pa.int64())))
    for call in (
        lambda: reading.queries.schema_of(reader(), topic.id, topic.version),
        lambda: reading.plan(topic),
        lambda: reading.scan(topic, segments),
    ):
        with pytest.raises(NotFound, match=r"version 1 .* not known any more; DETACH and ATTACH again"):
            call()


def test_an_unknown_topic_says_what_to_do(reading: Reading) -> None:
    for call in (
        lambda: reading.queries.topic_by_id(reader(), "no such id"),
        lambda: reading.queries.schema_of(reader(), "no such id", 1),
        lambda: reading.queries.plan_scan(reader(), "no such id", 1),
        lambda: reading.queries.scan(reader(), "no such id", 1, []),
    ):
        with pytest.raises(NotFound, match="DETACH and ATTACH again"):
            call()


def test_a_topic_whose_drop_is_under_way_is_gone_already(reading: Reading) -> None:
    reading.fill("t", 1)
    topic = reading.world.catalog.get(NAME)
    reading.world.log_writer.commit((), dropped=(topic.id,), deadline=float("inf"))
    with pytest.raises(NotFound, match="DETACH and ATTACH again"):
        reading.plan(topic)


def test_scans_need_the_right_to_read_the_name_that_the_topic_has_now(reading: Reading) -> None:
    reading.fill("t", 1, 2)
    topic = reading.world.catalog.get(NAME)
    segments = reading.plan(topic)
    guest = (GUEST, topic.id, topic.version)
    for call in (
        lambda: reading.queries.schema_of(*guest),
        lambda: reading.queries.plan_scan(*guest),
        lambda: reading.queries.scan(*guest, segments),
        lambda: reading.queries.topic_by_id(GUEST, topic.id),
    ):
        with pytest.raises(Denied, match=r"needs read on s3\.t: "):
            call()
    reading.world.catalog.alter(topic.id, RenameTopic("open_t"))
    batches = reading.queries.scan(*guest, segments)
    assert next(batches).column("n").to_pylist() == [1]
    reading.world.catalog.alter(topic.id, RenameTopic("closed_t"))
    with pytest.raises(Denied, match=r"needs read on s3\.closed_t: "):
        next(batches)


def test_a_scan_ends_with_the_token(reading: Reading) -> None:
    reading.fill("t", 1, 2)
    topic = reading.world.catalog.get(NAME)
    batches = reading.scan(topic, reading.plan(topic))
    next(batches)
    reading.clock.advance(1000)
    with pytest.raises(TokenExpired):
        next(batches)


def test_schemas_have_the_topics_that_the_caller_may_read(reading: Reading) -> None:
    reading.world.topic("t")
    reading.world.topic("open_1")
    reading.world.catalog.create_schema("Empty")

    def listed(identity: Identity) -> dict[str, list[str]]:
        schemas = reading.queries.schemas(identity)
        return {schema: [topic.name.table for topic in topics] for schema, topics in schemas.items()}

    assert listed(reader()) == {"Empty": [], "s3": ["open_1", "t"]}
    assert listed(GUEST) == {"Empty": [], "s3": ["open_1"]}
    assert listed(STRANGER) == {"Empty": [], "s3": []}


def test_topics_are_listed_in_their_schema_however_it_is_written(reading: Reading) -> None:
    reading.world.catalog.create_schema("Raw")
    reading.world.catalog.create(draft(topic_name("RAW", "t"), TopicSchema.declare(SCHEMA)))
    schemas = reading.queries.schemas(reader())
    assert {schema: len(topics) for schema, topics in schemas.items()} == {"Raw": 1, "s3": 0}


def test_a_schema_is_hidden_from_those_who_may_read_none_of_its_topics(reading: Reading) -> None:
    reading.world.catalog.create_schema("Secret")
    reading.world.catalog.create(draft(topic_name("secret", "t"), TopicSchema.declare(SCHEMA)))
    assert list(reading.queries.schemas(reader())) == ["Secret", "s3"]
    assert list(reading.queries.schemas(GUEST)) == list(reading.queries.schemas(STRANGER)) == ["s3"]
    reading.authorizer.replace(Rules(write_groups=frozenset({"Guests"})))
    assert list(reading.queries.schemas(GUEST)) == ["Secret", "s3"]
