"""DEFAULT and CHECK on the rows of any writer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from boilstream.catalog.constraints import Constraints
from boilstream.catalog.names import topic_name
from boilstream.catalog.topics import Topic, draft
from boilstream.catalog.types import TopicSchema
from boilstream.errors import ConstraintViolated, InvalidArgument
from boilstream.ingest.rules import RowRules, rules_of
from tests.ingest.test_engine import World

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("age", pa.int32()), ("name", pa.string())])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.engine.close(5)
    assert world.engine.budget.used == 0


@pytest.fixture
def topic(world: World) -> Topic:
    constraints = Constraints({2: "40 + 2", 3: "'n/a'"}, ("age > 0", "id <> age"))
    return world.catalog.create(draft(topic_name("s3", "people"), TopicSchema.declare(SCHEMA), constraints))


def write(world: World, topic: Topic, *batches: pa.RecordBatch) -> int:
    append = world.engine.open(topic, batches[0].schema)
    try:
        for batch in batches:
            append.write(batch)
        return append.finish(lambda: False).rows
    finally:
        append.close()


def test_a_column_that_is_left_out_gets_its_default(world: World, topic: Topic) -> None:
    assert write(world, topic, pa.record_batch({"id": [1, 2]})) == 2
    file = world.index.files(topic.id)[0]
    assert (file.statistics[2].lower, file.statistics[2].upper, file.statistics[2].nulls) == (42, 42, 0)
    assert file.statistics[3].lower == "n/a"


def test_a_column_that_is_sent_keeps_its_nulls(world: World, topic: Topic) -> None:
    write(world, topic, pa.record_batch({"id": [1], "age": pa.array([None], pa.int32())}))
    assert world.index.files(topic.id)[0].statistics[2].nulls == 1


def test_a_row_that_breaks_a_check_is_named_and_nothing_is_kept(world: World, topic: Topic) -> None:
    good = pa.record_batch({"id": [1], "age": pa.array([5], pa.int32())})
    bad = pa.record_batch({"id": [7, 8, 9], "age": pa.array([5, -8, 9], pa.int32())})
    with pytest.raises(ConstraintViolated, match=r"CHECK \(age > 0\).*row 1"):
        write(world, topic, good, bad)
    assert world.index.files(topic.id) == ()


def test_a_null_in_a_required_column_is_a_broken_constraint(world: World, topic: Topic) -> None:
    with pytest.raises(ConstraintViolated, match="'id'"):
        write(world, topic, pa.record_batch({"id": pa.array([1, None])}))


def test_the_rules_of_a_version_are_made_once(topic: Topic) -> None:
    assert rules_of(topic) is rules_of(topic)


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(checks=("no_such_column > 0",)),
        Constraints(checks=("age >",)),
        Constraints(defaults={2: "(SELECT 1)"}),
        Constraints(defaults={2: "'text'"}),
    ],
)
def test_what_cannot_be_evaluated_is_refused(constraints: Constraints) -> None:
    with pytest.raises(InvalidArgument):
        RowRules(TopicSchema.declare(SCHEMA), constraints)
