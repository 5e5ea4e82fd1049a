"""Topics over a real SQLite catalog, with their metadata in a store in memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

from boilstream.catalog.changes import AddColumn
from boilstream.catalog.factory import open_catalog
from boilstream.catalog.names import TopicName, topic_name
from boilstream.catalog.topics import Topic, TopicCatalog
from boilstream.errors import AlreadyExists, ConfigurationError, NotFound, Unavailable
from tests.catalog.world import NUMBERS, World, names, new
from tests.support.stores import MemoryStore, failing


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_topic_is_there_from_create_to_drop(world: World) -> None:
    name = topic_name("s3", "events")
    assert world.catalog.find(name) is None
    with pytest.raises(NotFound, match=r"s3\.events does not exist"):
        world.catalog.get(name)
    wanted = new("s3", "events")
    topic = world.catalog.create(wanted)
    assert world.catalog.find(name) is topic
    assert world.catalog.get(name) is topic
    assert world.catalog.list() == [topic]
    assert (topic.name, topic.location) == (name, wanted.location)
    assert topic.schema.declared.equals(NUMBERS)
    world.catalog.drop(topic)
    assert world.catalog.find(name) is None
    assert world.catalog.list() == []


def test_a_dropped_name_can_be_given_again_to_another_topic(world: World) -> None:
    first = world.make("s3", "events")
    world.catalog.drop(first)
    second = world.make("s3", "EVENTS")
    assert second.id != first.id
    assert second.location != first.location
    assert names(world.open()) == ["s3.EVENTS"]


def test_topics_are_found_by_id_from_create_to_drop_and_a_while_after(world: World) -> None:
    assert world.catalog.by_id("nothing") is None
    assert world.catalog.recently("nothing") is None
    first = world.make("s3", "events")
    assert world.catalog.by_id(first.id) is world.catalog.recently(first.id) is first
    assert same_id(world.open().by_id(first.id), first)
    world.catalog.drop(first)
    assert world.catalog.by_id(first.id) is None
    assert world.catalog.recently(first.id) is first
    assert world.open().recently(first.id) is None
    second = world.make("s3", "events")
    assert world.catalog.recently(first.id) is first
    assert world.catalog.by_id(second.id) is second


def same_id(found: Topic | None, topic: Topic) -> bool:
    return found is not None and found.id == topic.id


def test_the_first_of_many_dropped_topics_are_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boilstream.catalog.topics.MAX_DROPPED", 3)
    topics = [world.make("s3", f"t{number}") for number in range(5)]
    for topic in topics:
        world.catalog.drop(topic)
        world.catalog.drop(topic)
    assert [world.catalog.recently(topic.id) for topic in topics] == [None, None, *topics[2:]]


def test_the_catalogs_version_grows_with_each_change_and_starts_with_the_clock(world: World) -> None:
    catalog = TopicCatalog(world.catalog._catalog, world.store, clock=lambda: 1234.5)
    seen = [catalog.version]
    assert seen == [1_234_500]
    topic = catalog.create(new("s3", "events"))
    seen.append(catalog.version)
    catalog.alter(topic.id, AddColumn(pa.field("more", pa.int8())))
    seen.append(catalog.version)
    other = world.open()
    theirs = other.create(new("s3", "theirs"))
    catalog.get(theirs.name)
    seen.append(catalog.version)
    catalog.drop(topic)
    seen.append(catalog.version)
    assert seen == sorted(set(seen))
    for call in (lambda: catalog.get(theirs.name), catalog.list, catalog.load, lambda: catalog.drop(topic)):
        call()
        assert catalog.version == seen[-1]


def test_a_second_drop_is_no_error(world: World) -> None:
    topic = world.make("s3", "events")
    world.catalog.drop(topic)
    world.catalog.drop(topic)
    assert world.catalog.list() == []


def test_a_drop_leaves_the_other_topics_of_its_schema(world: World) -> None:
    topic, other = world.make("s3", "a"), world.make("s3", "b")
    world.catalog.drop(topic)
    assert world.catalog.list() == [other]
    assert names(world.open()) == ["s3.b"]


def test_topics_are_listed_by_name(world: World) -> None:
    for table in ("b", "A", "c"):
        world.make("s3", table)
    world.make("S2", "z")
    assert names(world.catalog) == ["S2.z", "s3.A", "s3.b", "s3.c"]
    assert names(world.open()) == names(world.catalog)


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        (("s3", "events"), ("S3", "EVENTS")),
        (("Prod", "User_Events"), ("pROD", "uSER_eVENTS")),
        (("s3", "Straße"), ("s3", "STRASSE")),
        (("s3", "TÄULU"), ("s3", "ta\u0308ulu")),
    ],
)
def test_names_that_differ_in_case_are_one_name(
    world: World, written: tuple[str, str], asked: tuple[str, str]
) -> None:
    topic = world.make(*written)
    assert world.catalog.get(topic_name(*asked)) is topic
    for catalog in (world.catalog, world.open()):
        with pytest.raises(AlreadyExists, match="exists already"):
            catalog.create(new(*asked))
        assert names(catalog) == [".".join(written)]


def test_a_refused_create_leaves_the_first_topic_as_it_was(world: World) -> None:
    topic = world.make("s3", "events")
    with pytest.raises(AlreadyExists):
        world.catalog.create(new("s3", "Events", pa.schema([pa.field("other", pa.string())])))
    for catalog in (world.catalog, world.open()):
        found = catalog.get(topic.name)
        assert (found.id, found.location) == (topic.id, topic.location)
        assert found.schema.declared.equals(NUMBERS)


@pytest.mark.parametrize(
    ("schema", "table"),
    [
        ("täulu / 1", "ß"),
        ("%", "_"),
        ("'; DROP TABLE iceberg_tables; --", '"q"'),
        ("\\", "..\\..\\x"),
        ("e" * 255, "ü" * 127),
        ("s3", "a.b.c"),
        ("s3", "..x"),
        ("s3", " "),
        ("😀", "İ"),
        ("S3 ", " Leading"),
        ("tables", "metadata"),
        ("../../etc", "passwd"),
        ("a.b", "c"),
        ("a..b", "c"),
        (".a", "c"),
        (" ", "c"),
    ],
)
def test_strange_names_are_kept_as_written(world: World, schema: str, table: str) -> None:
    topic = world.make(schema, table)
    catalog = world.open()
    assert [found.name for found in catalog.list()] == [TopicName(schema, table)]
    assert catalog.get(topic_name(schema.upper(), table.upper())).id == topic.id
    assert all(key.startswith("tables/") for key in world.store.objects)
    catalog.drop(catalog.get(topic.name))
    assert names(world.open()) == []


def test_names_that_are_patterns_to_a_database_do_not_hide_each_other(world: World) -> None:
    written = [
        ("a_c", "t"), ("abc", "t"), ("a%", "t"), ("a", "t"), ("s3", "x_y"), ("s3", "xzy"), ("s3", "x%"),
        ("a.b", "c"), ("a", "b.c"), ("a%2eb", "c"), ("a%2Eb", "d"), ("a%252eb", "c"), ("a b", "c"), ("a%20b", "c"),
        ("a", "b%2ec"), (" ", "c"), ("%20", "c"), ("  ", "c"),
    ]  # fmt: skip
    ids = {world.make(*name).id for name in written}
    assert len(ids) == len(written)
    catalog = world.open()
    assert {(topic.name.schema, topic.name.table) for topic in catalog.list()} == set(written)
    for name in written:
        assert catalog.get(topic_name(*name)).name == TopicName(*name)


DECLARED = pa.schema(
    [
        pa.field("small", pa.int8(), nullable=False),
        pa.field("unsigned", pa.uint64()),
        pa.field("half", pa.float16()),
        pa.field("money", pa.decimal128(38, 4)),
        pa.field("nanos", pa.timestamp("ns", "Europe/Helsinki")),
        pa.field("local", pa.timestamp("s")),
        pa.field("day", pa.date64()),
        pa.field("clock", pa.time32("ms")),
        pa.field("span", pa.duration("us")),
        pa.field("months", pa.month_day_nano_interval()),
        pa.field("id", pa.uuid()),
        pa.field("document", pa.json_()),
        pa.field("Kind", pa.dictionary(pa.int8(), pa.string())),
        pa.field("view", pa.string_view()),
        pa.field("fixed", pa.binary(7)),
        pa.field("nested", pa.struct([pa.field("List", pa.large_list(pa.uint8())), ("b", pa.bool_())])),
        pa.field("map", pa.map_(pa.string(), pa.uint16())),
        pa.field("vector", pa.list_(pa.float32(), 3)),
    ]
)


def test_the_declared_schema_survives_a_reload(world: World) -> None:
    created = world.catalog.create(new("s3", "types", DECLARED))
    found = world.open().get(created.name)
    for topic in (created, found):
        assert topic.schema.declared.equals(created.schema.declared, check_metadata=True)
        assert topic.schema.stored.equals(created.schema.stored, check_metadata=True)
    assert created.schema.declared.field("small").nullable is False
    for name in ("unsigned", "nanos", "months", "id", "document", "view", "vector"):
        assert found.schema.declared.field(name).type.equals(DECLARED.field(name).type)


def at_once(work: list[Callable[[], Any]]) -> list[Any]:
    """Results or errors of all calls, started at the same moment."""
    barrier = threading.Barrier(len(work))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work))


def test_of_many_threads_that_create_one_topic_one_wins(world: World) -> None:
    def create(number: int) -> Callable[[], Topic]:
        name = "".join(c.upper() if number >> i & 1 else c for i, c in enumerate("race"))
        return lambda: world.catalog.create(new("fresh", name))

    answers = at_once([create(number) for number in range(16)])
    won = [answer for answer in answers if isinstance(answer, Topic)]
    assert len(won) == 1
    assert [type(answer) for answer in answers].count(AlreadyExists) == 15, answers
    assert [topic.id for topic in world.open().list()] == [won[0].id]


def test_many_threads_create_topics_in_one_new_schema(world: World) -> None:
    answers = at_once([lambda n=n: world.make("fresh", f"t{n}") for n in range(16)])  # type: ignore[misc]
    assert [type(answer) for answer in answers] == [Topic] * 16, answers
    assert sorted(names(world.open())) == sorted(f"fresh.t{n}" for n in range(16))


def test_many_processes_create_topics_in_one_new_schema(world: World) -> None:
    catalogs = [world.open() for _ in range(8)]  # each with a connection and a lock of its own
    answers = at_once(
        [lambda n=n, own=own: own.create(new("fresh", f"t{n}")) for n, own in enumerate(catalogs)]  # type: ignore[misc]
    )
    assert [type(answer) for answer in answers] == [Topic] * 8, answers
    assert sorted(names(world.open())) == sorted(f"fresh.t{n}" for n in range(8))


def test_of_many_processes_that_create_one_topic_one_wins(world: World) -> None:
    catalogs = [world.open() for _ in range(8)]
    answers = at_once([lambda own=own: own.create(new("fresh", "race")) for own in catalogs])  # type: ignore[misc]
    won = [answer for answer in answers if isinstance(answer, Topic)]
    assert len(won) == 1, answers
    assert [type(answer) for answer in answers].count(AlreadyExists) == 7, answers
    for catalog in catalogs:
        assert catalog.get(topic_name("fresh", "race")).id == won[0].id


def test_threads_that_find_a_topic_get_the_same_one(world: World) -> None:
    world.make("s3", "events")
    other = world.open()
    found = at_once([lambda: other.get(topic_name("s3", "events"))] * 8)
    assert all(topic is found[0] for topic in found)


def test_two_processes_see_each_others_topics(world: World) -> None:
    other = world.open()
    mine, theirs = world.make("s3", "mine"), other.create(new("s3", "Theirs"))
    assert world.catalog.get(topic_name("s3", "THEIRS")).id == theirs.id
    assert other.get(topic_name("S3", "mine")).id == mine.id
    assert names(world.catalog) == names(other) == ["s3.mine", "s3.Theirs"]
    with pytest.raises(AlreadyExists):
        other.create(new("s3", "MINE"))


def test_a_drop_in_one_process_can_be_repeated_in_another(world: World) -> None:
    topic, other = world.make("s3", "events"), world.open()
    world.catalog.drop(topic)
    other.drop(other.get(topic.name))
    assert other.find(topic.name) is None


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_table_of_somebody_else_is_reported_and_left_out(
    world: World, caplog: pytest.LogCaptureFixture, elsewhere: bool
) -> None:
    world.make("s3", "ours")
    plain = world.plain_iceberg(elsewhere=elsewhere)
    plain.create_table(("s3", "foreign"), Schema(NestedField(1, "n", LongType(), required=False)))
    with caplog.at_level(logging.WARNING, "boilstream"):
        catalog = world.open()
    assert names(catalog) == ["s3.ours"]
    assert "Iceberg table s3.foreign is not served" in caplog.text
    assert catalog.find(topic_name("s3", "foreign")) is None
    with pytest.raises(AlreadyExists):
        catalog.create(new("s3", "foreign"))
    assert plain.table_exists(("s3", "foreign"))


@pytest.mark.parametrize(
    "change",
    [
        {"boilstream.declared-schema": "%%%"},
        {"boilstream.declared-schema": ""},
        {"boilstream.declared-schema": "AAAA"},
    ],
)
def test_a_topic_whose_properties_were_damaged_is_reported_and_left_out(
    world: World, caplog: pytest.LogCaptureFixture, change: dict[str, str]
) -> None:
    world.make("s3", "good")
    world.make("s3", "damaged")
    world.catalog._catalog.load_table(("s3", "damaged")).transaction().set_properties(
        change
    ).commit_transaction()
    with caplog.at_level(logging.WARNING, "boilstream"):
        assert names(world.open()) == ["s3.good"]
    assert "Iceberg table s3.damaged is not served" in caplog.text


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b"\x00junk"], ids=["missing", "empty", "other", "junk"]
)
def test_a_topic_whose_metadata_cannot_be_read_is_reported_and_left_out(
    world: World, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    world.make("s3", "good")
    damaged = world.make("s3", "damaged")
    for key in [key for key in world.store.objects if key.startswith(damaged.location)]:
        if content is None:
            del world.store.objects[key]
        else:
            world.store.objects[key] = content
    with caplog.at_level(logging.WARNING, "boilstream"):
        assert names(world.open()) == ["s3.good"]
    assert "s3.damaged" in caplog.text


@pytest.mark.parametrize("table", ["iceberg_tables", "iceberg_namespace_properties"])
def test_a_broken_database_is_unavailable(world: World, table: str) -> None:
    topic = world.make("s3", "events")
    world.sql(f"DROP TABLE {table}")
    calls: list[Callable[[], object]] = [lambda: world.catalog.create(new("fresh", "t"))]
    if table == "iceberg_tables":
        calls += [
            world.catalog.load,
            lambda: world.catalog.find(topic_name("s3", "other")),
            lambda: world.catalog.drop(topic),
        ]
    for call in calls:
        with pytest.raises(Unavailable, match="catalog does not answer") as caught:
            call()
        assert "SELECT" not in caught.value.message
        assert str(world.folder) not in caught.value.message
    assert world.catalog.list() == [topic], "what is known stays known"


def test_a_file_that_is_no_database_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(b"this is no database at all" * 200)
    with pytest.raises(ConfigurationError, match="ICEBERG_CATALOG_URI"):
        open_catalog(None, tmp_path, MemoryStore())


def test_metadata_is_stored_in_spite_of_passing_failures(world: World) -> None:
    world.store.before = failing(3, contains="/metadata/")
    topic = world.make("s3", "events")
    assert [key for key in world.store.puts if key.startswith(topic.location)]
    world.store.before = failing(2, method="get", contains="/metadata/")
    assert world.open().get(topic.name).id == topic.id


def test_a_lost_answer_of_the_store_does_not_spoil_a_create(world: World) -> None:
    world.store.after = failing(1, contains="/metadata/")
    topic = world.make("s3", "events")
    assert world.open().get(topic.name).id == topic.id


@pytest.mark.slow
def test_a_topic_that_could_not_be_stored_does_not_exist(
    world: World,
) -> None:
    world.store.before = failing(10**9, contains="/metadata/")
    with pytest.raises(Unavailable):
        world.make("s3", "events")
    world.store.before = failing(0)
    assert world.catalog.find(topic_name("s3", "events")) is None
    assert names(world.open()) == []
    world.make("s3", "events")
    assert names(world.open()) == ["s3.events"]


def test_a_late_drop_does_not_touch_a_topic_made_anew(world: World) -> None:
    first = world.make("s3", "events")
    world.catalog.drop(first)
    second = world.make("s3", "events")
    world.catalog.drop(first)
    assert world.catalog.get(second.name) is second
    assert [topic.id for topic in world.open().list()] == [second.id]


def test_a_load_that_a_drop_overtakes_does_not_bring_the_topic_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.make("s3", "events")
    catalog = world.open()
    fresh = open_catalog(None, world.folder, world.store)
    load = fresh._load

    def slow_load(identifier: tuple[str, ...]) -> Any:
        table = load(identifier)
        monkeypatch.setattr(fresh, "_load", load)
        fresh.drop(first)
        fresh.create(new("s3", "events"))
        return table

    monkeypatch.setattr(fresh, "_load", slow_load)
    found = fresh.find(first.name)
    assert found is not None
    assert found.id != first.id
    assert catalog.get(first.name).id == first.id, "another process keeps what it knows until it starts again"
