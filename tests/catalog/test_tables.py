"""Changes of a definition in its Iceberg table: all or nothing, one after the other, legal for other engines."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import parquet_files_to_data_files
from pyiceberg.table.metadata import TableMetadataUtil
from pyiceberg.types import LongType
from sqlalchemy.exc import OperationalError

from boilstream.catalog.changes import (
    AddColumn,
    Change,
    ChangeType,
    DropColumn,
    RenameColumn,
    RenameTopic,
    SetDefault,
    SetNotNull,
    apply,
)
from boilstream.catalog.constraints import Constraints
from boilstream.catalog.definition import MAX_VERSIONS, Definition
from boilstream.catalog.factory import open_catalog
from boilstream.catalog.names import topic_name
from boilstream.catalog.sql.expressions import Check
from boilstream.catalog.topics import Topic, TopicCatalog
from boilstream.catalog.types import TopicSchema
from boilstream.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from boilstream.storage.base import StoreMisconfigured
from boilstream.storage.local import LocalStore
from tests.catalog.model import KINDS, Model, changes, follow, words
from tests.catalog.world import World, names, new
from tests.support.stores import failing

LOADED = pa.schema([pa.field("id", pa.int32(), nullable=False), ("note", pa.string()), ("size", pa.int32())])
COLUMNS = pa.schema([pa.field("id", pa.int8(), nullable=False), ("note", pa.string()), ("size", pa.uint8())])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def topic(world: World) -> Topic:
    return world.catalog.create(new("s3", "Events", COLUMNS, Constraints({3: "7"}, ("id > 0",))))


def same(one: Topic, other: Topic) -> bool:
    return (one.id, one.name, one.schema, one.location, one.version, one.constraints, dict(one.history)) == (
        other.id,
        other.name,
        other.schema,
        other.location,
        other.version,
        other.constraints,
        dict(other.history),
    )


def field_ids(schema: TopicSchema) -> dict[str, int]:
    return {field.name: field.field_id for field in schema.iceberg.fields}


def test_a_new_topic_has_version_1_and_its_constraints(world: World, topic: Topic) -> None:
    assert (topic.version, dict(topic.history)) == (1, {1: topic.schema})
    assert topic.constraints == Constraints({3: "7"}, ("id > 0",))
    assert same(topic, world.open().get(topic.name))


def test_a_table_of_an_earlier_release_is_version_1(world: World, topic: Topic) -> None:
    table = world.catalog._catalog.load_table(("s3", "events"))
    newer = ("version", "schema-id", "constraints", "history")
    table.transaction().remove_properties(*(f"boilstream.{name}" for name in newer)).commit_transaction()
    catalog = world.open()
    found = catalog.get(topic.name)
    assert (found.version, found.constraints, dict(found.history)) == (1, Constraints(), {1: topic.schema})
    assert catalog.alter(topic.id, DropColumn("note")).version == 2
    assert same(world.open().get(topic.name), catalog.get(topic.name))


STEPS: list[tuple[Change, list[str]]] = [
    (AddColumn(pa.field("l", pa.list_(pa.struct([("x", pa.uint64())])))), ["id", "note", "size", "l"]),
    (ChangeType("size", pa.int32()), ["id", "note", "size", "l"]),
    (ChangeType("size", pa.int64()), ["id", "note", "size", "l"]),
    (RenameColumn("note", "Text"), ["id", "Text", "size", "l"]),
    (DropColumn("text"), ["id", "size", "l"]),
    (AddColumn(pa.field("note", pa.timestamp("ns"))), ["id", "size", "l", "note"]),
    (SetNotNull("size"), ["id", "size", "l", "note"]),
    (SetDefault("SIZE", "1 + 1"), ["id", "size", "l", "note"]),
    (RenameTopic("Visits"), ["id", "size", "l", "note"]),
    (RenameTopic("VISITS"), ["id", "size", "l", "note"]),
    (RenameColumn("note", "when"), ["id", "size", "l", "when"]),
    (RenameColumn("when", "note"), ["id", "size", "l", "note"]),
]


def test_every_change_is_durable_and_keeps_what_was_before(world: World, topic: Topic) -> None:
    made = {1: topic.schema}
    before = world.catalog.version
    for version, (change, columns) in enumerate(STEPS, 2):
        found = world.catalog.alter(topic.id, change)
        assert (found.id, found.location, found.version) == (topic.id, topic.location, version)
        assert found.schema.declared.names == found.schema.stored.names == columns
        made[version] = found.schema
        assert dict(found.history) == {v: made[v] for v in sorted(made)[-MAX_VERSIONS:]}
        assert world.catalog.version > before
        before = world.catalog.version
        assert world.catalog.by_id(topic.id) is found
        assert same(found, world.open().get(found.name))
        for known in found.history.values():
            assert [int(f.metadata[b"PARQUET:field_id"]) for f in known.stored] == list(
                field_ids(known).values()
            )
    assert names(world.catalog) == ["s3.VISITS"]
    assert found.constraints == Constraints({3: "1 + 1"}, ("id > 0",))
    assert field_ids(found.schema) == {"id": 1, "size": 3, "l": 4, "note": 7}
    assert (topic.version, topic.schema.declared.names) == (1, ["id", "note", "size"]), "the old object stays"


@pytest.mark.slow
@settings(
    deadline=None,
    max_examples=25,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_random_changes_are_kept_exactly(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        world = World(Path(folder))
        columns = pa.schema([pa.field("a", data.draw(KINDS)), pa.field("b", data.draw(KINDS))])
        topic = world.catalog.create(new("s3", "events", columns))
        model = Model(Definition(topic.name, topic.schema))
        for _ in range(data.draw(st.integers(4, 10))):
            change = data.draw(changes(model))
            try:
                after = apply(change, model.definition, words)
            except (InvalidArgument, AlreadyExists) as refused:
                with pytest.raises(type(refused)):
                    world.catalog.alter(topic.id, change)
                continue
            is_new = after is not model.definition
            found = world.catalog.alter(topic.id, change)
            model.definition = after
            if is_new:
                follow(model, change)
            for kept in (found, world.open().list()[0]):
                assert (kept.name, kept.schema, kept.constraints) == (
                    after.name,
                    after.schema,
                    after.constraints,
                )
                assert (kept.version, dict(kept.history)) == (after.version, after.versions)


def test_what_is_so_already_is_not_written(world: World, topic: Topic) -> None:
    puts, version = len(world.store.puts), world.catalog.version
    assert world.catalog.alter(topic.id, SetNotNull("id")) is topic
    assert (len(world.store.puts), world.catalog.version) == (puts, version)


def test_the_properties_of_many_changes_stay_small(world: World, topic: Topic) -> None:
    def size() -> int:
        return sum(map(len, world.catalog._catalog.load_table(("s3", "events")).properties.values()))

    for number in range(MAX_VERSIONS):
        world.catalog.alter(topic.id, SetDefault("size", str(number)))
    before = size()
    for number in range(2 * MAX_VERSIONS):
        world.catalog.alter(topic.id, SetDefault("size", str(number % 10)))
    assert size() < before + 20


def test_constraints_that_are_too_long_are_refused(world: World, topic: Topic) -> None:
    long = f"'{'x' * 300_000}'"
    with pytest.raises(InvalidArgument, match="take more than 262144 bytes"):
        world.catalog.alter(topic.id, SetDefault("note", long))
    with pytest.raises(InvalidArgument, match="take more than 262144 bytes"):
        world.catalog.create(new("s3", "other", COLUMNS, Constraints(checks=(long,))))
    assert names(world.open()) == ["s3.Events"]
    assert same(topic, world.open().get(topic.name))


def test_a_check_holds_its_columns(world: World, topic: Topic) -> None:
    with pytest.raises(InvalidArgument, match=r"'id' cannot be renamed, because CHECK \(id > 0\)"):
        world.catalog.alter(topic.id, RenameColumn("ID", "key"))
    assert world.catalog.get(topic.name) is topic
    assert world.catalog.alter(topic.id, ChangeType("id", pa.int64())).version == 2


@pytest.mark.parametrize(
    "change", [DropColumn("note"), RenameColumn("note", "text"), ChangeType("id", pa.int16())], ids=repr
)
def test_nobody_waits_while_a_check_is_evaluated(
    world: World, topic: Topic, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = watch_checks(monkeypatch, lambda: world.make("other", f"t{len(compiled)}"))
    assert world.catalog.alter(topic.id, change).version == 2
    assert compiled == ["id > 0"]
    assert names(world.catalog) == ["other.t1", "s3.Events"]


def test_a_check_is_asked_again_if_the_topic_was_altered_meanwhile(
    world: World, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, wider = world.open(), [pa.int32(), pa.int16()]

    def alter() -> None:
        if wider:
            other.alter(topic.id, AddColumn(pa.field(f"c{len(wider)}", wider.pop())))

    compiled = watch_checks(monkeypatch, alter)
    changed = world.catalog.alter(topic.id, RenameColumn("note", "text"))
    assert changed.version == 4
    assert changed.schema.declared.names == ["id", "text", "size", "c2", "c1"]
    assert compiled == ["id > 0"] * 3


def test_a_check_that_cannot_be_evaluated_leaves_the_catalog_free(
    world: World, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy() -> None:
        raise ResourceExhausted("busy")

    watch_checks(monkeypatch, busy)
    with pytest.raises(ResourceExhausted):
        world.catalog.alter(topic.id, DropColumn("note"))
    assert world.catalog.alter(topic.id, AddColumn(pa.field("c", pa.int8()))).version == 2


def watch_checks(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> list[str]:
    """The texts that are compiled from now on; `meanwhile` runs in each."""
    compiled: list[str] = []
    compile_check = Check.compile

    def watched(sql: str, schema: TopicSchema) -> Check:
        compiled.append(sql)
        meanwhile()
        return compile_check(sql, schema)

    monkeypatch.setattr(Check, "compile", watched)
    return compiled


def test_a_topic_has_a_bounded_number_of_checks() -> None:
    checks = tuple(f"id > {number}" for number in range(33))
    assert Constraints(checks=checks[:32]).checks == checks[:32]
    with pytest.raises(InvalidArgument, match="would have 33 CHECKs and may have 32"):
        Constraints(checks=checks)


# What a table leaves behind


def test_the_metadata_of_a_table_does_not_grow_without_end(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    catalog = open_catalog(None, tmp_path, store)
    catalog.load()
    topic = catalog.create(new("s3", "Events", COLUMNS))

    def files() -> list[Path]:
        return sorted((tmp_path / "store" / topic.location).rglob("*.metadata.json"))

    sizes = []
    for number in range(30):
        column = f"c{number % 3}"
        catalog.alter(topic.id, AddColumn(pa.field(column, pa.int8())))
        catalog.alter(topic.id, DropColumn(column))
        sizes.append(sum(path.stat().st_size for path in files()))
    assert len(files()) == 11, "the current one and ten before it"
    assert sizes[-1] < sizes[10] * 1.1
    table = catalog._catalog.load_table(("s3", "events"))
    assert {entry.metadata_file for entry in table.metadata.metadata_log} == {
        store.url(path.relative_to(tmp_path / "store").as_posix()) for path in files()
    } - {table.metadata_location}
    again = open_catalog(None, tmp_path, store)
    again.load()
    assert same(again.get(topic.name), catalog.get(topic.name))


def test_schemas_of_kept_versions_and_of_snapshots_stay(world: World, topic: Topic) -> None:
    plain = world.plain_iceberg(elsewhere=False)
    plain.load_table(("s3", "events")).append(
        pa.table({"id": pa.array([1], pa.int32()), "note": ["x"], "size": pa.array([2], pa.int32())}, LOADED)
    )
    given = set()
    for number in range(2 * MAX_VERSIONS):
        changed = world.catalog.alter(topic.id, AddColumn(pa.field(f"c{number}", pa.int8())))
        used = changed.schema.iceberg.schema_id
        assert used not in given, "an id is given once"
        given.add(used)
    metadata = world.catalog._catalog.load_table(("s3", "events")).metadata
    kept = {schema.iceberg.schema_id for schema in changed.history.values()}
    assert {schema.schema_id for schema in metadata.schemas} == {0, *kept}
    assert len(kept) == MAX_VERSIONS
    assert plain.load_table(("s3", "events")).scan().to_arrow()["note"].to_pylist() == ["x"]


def test_an_old_file_that_cannot_be_deleted_is_no_failure(
    world: World, topic: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    deleted: list[str] = []

    def fail(method: str, key: str) -> None:
        if method == "delete":
            deleted.append(key)
            raise StoreMisconfigured("no right to delete")

    world.store.before = fail
    for number in range(15):
        assert world.catalog.alter(topic.id, SetDefault("size", str(number))).version == number + 2
    assert deleted
    assert "cannot be deleted" in caplog.text
    assert same(world.open().get(topic.name), world.catalog.get(topic.name))


def test_the_new_name_must_be_free(world: World, topic: Topic) -> None:
    world.make("s3", "Taken")
    world.make("other", "free")
    for name in ("taken", "TAKEN"):
        with pytest.raises(AlreadyExists, match=f"topic s3.{name} exists already"):
            world.catalog.alter(topic.id, RenameTopic(name))
    assert same(topic, world.open().get(topic.name))
    renamed = world.catalog.alter(topic.id, RenameTopic("free"))
    for catalog in (world.catalog, world.open()):
        assert names(catalog) == ["other.free", "s3.free", "s3.Taken"]
        assert catalog.find(topic.name) is None
        assert catalog.get(topic_name("S3", "FREE")).id == topic.id
    again = world.make("s3", "events")
    assert again.id != topic.id
    assert again.location != renamed.location
    assert names(world.open()) == ["other.free", "s3.events", "s3.free", "s3.Taken"]


def test_a_topic_is_dropped_under_the_name_that_it_has_by_then(world: World, topic: Topic) -> None:
    world.catalog.alter(topic.id, RenameTopic("Visits"))
    world.catalog.drop(topic)
    assert names(world.catalog) == names(world.open()) == []
    with pytest.raises(NotFound):
        world.catalog.alter(topic.id, DropColumn("note"))


def test_a_drop_in_another_process_is_seen_by_a_change(world: World, topic: Topic) -> None:
    world.open().drop(topic)
    with pytest.raises(NotFound, match="was dropped or renamed by another server"):
        world.catalog.alter(topic.id, DropColumn("note"))


def test_a_topic_made_anew_elsewhere_is_not_changed_by_mistake(world: World, topic: Topic) -> None:
    other = world.open()
    other.drop(other.get(topic.name))
    anew = other.create(new("s3", "Events", COLUMNS))
    with pytest.raises(NotFound):
        world.catalog.alter(topic.id, DropColumn("note"))
    assert same(world.open().get(topic.name), anew)


# Failures half-way


@pytest.mark.parametrize(
    ("change", "puts"),
    [
        (DropColumn("note"), 0),
        (SetDefault("note", "'x'"), 0),
        (RenameTopic("Visits"), 0),
        (RenameTopic("Visits"), 1),
    ],
    ids=repr,
)
def test_a_store_that_fails_leaves_the_old_or_the_new(
    world: World, topic: Topic, change: Change, puts: int
) -> None:
    left = [puts]

    def fail(method: str, key: str) -> None:
        if method == "put":
            left[0] -= 1
            if left[0] < 0:
                failing(1)(method, key)

    catalog = world.open(patience=0.05)
    world.store.before = fail
    if puts:
        changed = catalog.alter(topic.id, change)  # the name was given; only tidying failed
    else:
        with pytest.raises(Unavailable):
            catalog.alter(topic.id, change)
        changed = topic
    world.store.before = failing(0)
    assert same(world.open().list()[0], changed)
    assert world.open().alter(topic.id, change).version == 2
    assert [found.version for found in world.open().list()] == [2]


class Killed(BaseException):
    """The process ends here."""


def killed(*_: Any) -> None:
    raise Killed


def test_a_rename_that_ended_before_the_name_was_given_did_not_happen(
    world: World, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.catalog._catalog, "rename_table", killed)
    with pytest.raises(Killed):
        world.catalog.alter(topic.id, RenameTopic("Visits"))
    catalog = world.open()
    assert same(catalog.get(topic.name), topic)
    assert catalog.find(topic_name("s3", "visits")) is None
    assert catalog.alter(topic.id, DropColumn("note")).version == 2
    assert names(world.open()) == ["s3.Events"]
    world.make("s3", "visits")


def test_a_rename_that_ended_after_the_name_was_given_did_happen(
    world: World, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("boilstream.catalog.tables.commit", killed)
        with pytest.raises(Killed):
            world.catalog.alter(topic.id, RenameTopic("Visits"))
    catalog = world.open()
    found = catalog.get(topic_name("s3", "visits"))
    assert (str(found.name), found.id, found.version) == ("s3.Visits", topic.id, 2)
    assert dict(found.history) == {1: topic.schema, 2: topic.schema}
    assert catalog.find(topic.name) is None
    third = catalog.alter(topic.id, DropColumn("note"))
    assert (third.version, sorted(third.history)) == (3, [1, 2, 3])
    assert same(world.open().get(found.name), third)
    assert "boilstream.rename-to" not in catalog._catalog.load_table(("s3", "visits")).properties


@pytest.mark.parametrize("change", [DropColumn("note"), SetDefault("note", "'x'")], ids=repr)
def test_a_lost_answer_of_the_database_does_not_hide_the_change(
    world: World, topic: Topic, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = world.catalog._catalog.commit_table

    def lost(*args: Any) -> None:
        commit(*args)
        raise OperationalError("COMMIT", None, Exception("connection lost"))

    with monkeypatch.context() as patch:
        patch.setattr(world.catalog._catalog, "commit_table", lost)
        with pytest.raises(Unavailable, match="does not answer"):
            world.catalog.alter(topic.id, change)
    assert world.catalog.get(topic.name).version == 2
    assert same(world.catalog.get(topic.name), world.open().get(topic.name))


# Several processes


def test_a_change_sees_those_of_other_processes(world: World, topic: Topic) -> None:
    other = world.open()
    world.catalog.alter(topic.id, RenameColumn("note", "text"))
    with pytest.raises(NotFound, match="no column 'note'"):
        other.alter(topic.id, DropColumn("note"))
    changed = other.alter(topic.id, DropColumn("text"))
    assert (changed.version, changed.schema.declared.names) == (3, ["id", "size"])
    assert other.by_id(topic.id) is changed


def interfere(
    monkeypatch: pytest.MonkeyPatch, catalog: TopicCatalog, interferences: list[Callable[[], object]]
) -> None:
    """Run one of the others between the check of a commit here and the commit itself."""
    commit = catalog._catalog.commit_table

    def late(*args: Any) -> Any:
        if interferences:
            interferences.pop(0)()
        return commit(*args)

    monkeypatch.setattr(catalog._catalog, "commit_table", late)


@pytest.mark.parametrize(
    "mine",
    [SetDefault("note", "'mine'"), DropColumn("size", if_exists=True), RenameTopic("EVENTS")],
    ids=repr,
)
@pytest.mark.parametrize("theirs", [SetDefault("id", "9"), ChangeType("id", pa.int16())], ids=repr)
def test_no_change_is_lost_when_two_processes_make_one_at_once(
    world: World, topic: Topic, mine: Change, theirs: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = world.open()
    interfere(monkeypatch, world.catalog, [lambda: other.alter(topic.id, theirs)])
    changed = world.catalog.alter(topic.id, mine)
    assert changed.version == 3
    expected = world.open()
    assert same(expected.get(topic.name), changed)
    for change in (mine, theirs):
        assert expected.alter(topic.id, change).version == 3, "it is so already"


def test_a_change_in_the_middle_of_a_rename_is_kept(
    world: World, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = world.open()
    rename = world.catalog._catalog.rename_table

    def late(*args: Any) -> Any:
        other.alter(topic.id, DropColumn("note"))
        return rename(*args)

    monkeypatch.setattr(world.catalog._catalog, "rename_table", late)
    changed = world.catalog.alter(topic.id, RenameTopic("Visits"))
    assert (str(changed.name), changed.version) == ("s3.Visits", 3)
    assert changed.schema.declared.names == ["id", "size"]
    assert sorted(changed.history) == [1, 2, 3]
    assert same(world.open().get(changed.name), changed)


def test_a_topic_that_others_change_all_the_time_is_unavailable(
    world: World, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = world.open()

    def change(number: int) -> Callable[[], object]:
        return lambda: other.alter(topic.id, SetDefault("id", str(number)))

    others = [change(number) for number in range(100)]
    interfere(monkeypatch, world.catalog, others)
    with pytest.raises(Unavailable, match="other servers are changing the topic"):
        world.catalog.alter(topic.id, DropColumn("note"))
    assert 90 < len(others) < 100


def test_a_drop_during_a_change_wins(world: World, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    other = world.open()
    interfere(monkeypatch, world.catalog, [lambda: other.drop(topic)])
    with pytest.raises(NotFound):
        world.catalog.alter(topic.id, DropColumn("note"))
    assert names(world.open()) == []


def test_many_threads_change_one_topic_one_after_the_other(world: World, topic: Topic) -> None:
    barrier = threading.Barrier(8)

    def add(number: int) -> int:
        barrier.wait()
        return world.catalog.alter(topic.id, AddColumn(pa.field(f"c{number}", pa.int8()))).version

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(add, range(8))) == list(range(2, 10))
    found = world.open().get(topic.name)
    assert set(found.schema.declared.names) == {"id", "note", "size", *(f"c{n}" for n in range(8))}
    assert len(set(field_ids(found.schema).values())) == 11


# Other engines


def test_an_iceberg_reader_reads_files_of_all_versions(world: World, topic: Topic) -> None:
    batch = pa.record_batch([[1, 2], ["a", None], [200, None]], schema=COLUMNS)
    current, identifier = topic, ("s3", "events")
    changes: list[Change] = [
        AddColumn(pa.field("l", pa.list_(pa.struct([("x", pa.uint64())])))),
        ChangeType("size", pa.uint32()),
        RenameColumn("note", "Text"),
        DropColumn("text"),
        AddColumn(pa.field("note", pa.float32())),
        ChangeType("note", pa.float64()),
        RenameTopic("Visits"),
        ChangeType("id", pa.int64()),
    ]
    plain = world.plain_iceberg(elsewhere=False)
    append(world, plain, identifier, current, batch)
    for change in changes:
        current = world.catalog.alter(topic.id, change)
        if isinstance(change, RenameTopic):
            identifier = ("s3", "visits")
        table = plain.load_table(identifier)
        assert table.schema().as_struct() == current.schema.iceberg.as_struct()
        seen = table.scan().to_arrow()
        assert seen.num_rows == 2
        assert seen.column("id").to_pylist() == [1, 2]
        assert seen.column("size").to_pylist() == [200, None]
        if "note" in seen.column_names:
            is_old = current.schema.declared.field("note").type == pa.string()
            assert seen.column("note").to_pylist() == (["a", None] if is_old else [None, None])
        metadata = bytes(world.store.objects[table.metadata_location.removeprefix("memory://")])
        assert TableMetadataUtil.parse_raw(metadata.decode()) == table.metadata
    wide = pa.record_batch([[2**40], [2**31], [[{"x": 2**64 - 1}]], [0.1]], schema=current.schema.declared)
    append(world, plain, identifier, current, wide)
    seen = plain.load_table(identifier).scan().to_arrow().sort_by("id").slice(2).to_pylist()
    assert seen == [{"id": 2**40, "size": 2**31, "l": [{"x": 2**64 - 1}], "note": 0.1}]


def append(
    world: World, plain: SqlCatalog, identifier: tuple[str, str], topic: Topic, batch: pa.RecordBatch
) -> None:
    """Publish a file of the rows, as another Iceberg client does."""
    sink = pa.BufferOutputStream()
    stored = topic.schema.conform(batch.schema).to_stored(batch)
    with pq.ParquetWriter(sink, stored.schema, store_schema=False, store_decimal_as_integer=True) as writer:
        writer.write_batch(stored)
    key = f"{topic.location}/data/{topic.version}.parquet"
    world.store.put(key, sink.getvalue())
    table = plain.load_table(identifier)
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as fast:
        for file in parquet_files_to_data_files(table.io, table.metadata, iter([world.store.url(key)])):
            fast.append_data_file(file)


def test_changes_of_another_engine_are_later_versions(world: World, topic: Topic) -> None:
    plain = world.plain_iceberg(elsewhere=False)
    with plain.load_table(("s3", "events")).update_schema() as update:
        update.rename_column("size", "bulk").add_column("extra", LongType())
    with plain.load_table(("s3", "events")).update_schema() as update:
        update.delete_column("note")
    catalog = world.open()
    found = catalog.get(topic.name)
    assert found.version == 3
    expected = pa.schema(
        [pa.field("id", pa.int8(), nullable=False), ("bulk", pa.uint8()), ("extra", pa.int64())]
    )
    assert found.schema.declared.equals(expected)
    assert dict(found.history) == {1: topic.schema, 3: found.schema}
    changed = catalog.alter(topic.id, RenameColumn("bulk", "size"))
    assert (changed.version, sorted(changed.history)) == (4, [1, 3, 4])
    assert changed.history[3] == found.schema
    assert same(world.open().get(topic.name), changed)
    assert changed.constraints == topic.constraints


def test_a_table_that_another_engine_renamed_is_served_by_that_name(world: World, topic: Topic) -> None:
    plain = world.plain_iceberg(elsewhere=False)
    plain.rename_table(("s3", "events"), ("s3", "visits%2E"))
    catalog = world.open()
    assert names(catalog) == ["s3.visits."]
    found = catalog.list()[0]
    assert (found.id, found.version) == (topic.id, 2)
    assert catalog.alter(topic.id, DropColumn("note")).version == 3
    assert names(world.open()) == ["s3.visits."]


@pytest.mark.parametrize("identifier", [("s3", "Visits"), ("s3", "a%"), ("else", "where", "x")], ids=str)
def test_a_table_that_another_engine_renamed_to_what_no_topic_is_called_is_left_out(
    world: World, topic: Topic, identifier: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    plain = world.plain_iceberg(elsewhere=False)
    if len(identifier) == 3:
        plain.create_namespace(identifier[:2])
    plain.rename_table(("s3", "events"), identifier)
    assert names(world.open()) == []
    if len(identifier) == 2:
        assert "renamed from s3.Events to a name that no topic can have" in caplog.text


def test_a_column_that_another_engine_partitions_by_stays(world: World, topic: Topic) -> None:
    plain = world.plain_iceberg(elsewhere=False)
    with plain.load_table(("s3", "events")).update_spec() as update:
        update.add_identity("note")
    with pytest.raises(InvalidArgument, match="another engine partitions or sorts its table by the column"):
        world.catalog.alter(topic.id, DropColumn("note"))
    assert same(world.open().get(topic.name), topic)
    assert world.catalog.alter(topic.id, RenameColumn("note", "text")).version == 2


DAMAGED = [
    {"boilstream.version": "one"},
    {"boilstream.version": "-1"},
    {"boilstream.schema-id": ""},
    {"boilstream.constraints": "{"},
    {"boilstream.constraints": "[]"},
    {"boilstream.constraints": '{"defaults": {"x": "1"}, "checks": []}'},
    {"boilstream.constraints": '{"defaults": {}, "checks": [1]}'},
    {"boilstream.constraints": json.dumps({"defaults": {}, "checks": ["true"] * 33})},
    {"boilstream.history": "%%%"},
    {"boilstream.history": "AAAA"},
    {"boilstream.history": "eJyrVgIAAWAAvw=="},
]


@pytest.mark.parametrize("change", DAMAGED, ids=str)
def test_damaged_properties_are_reported_and_change_nothing(
    world: World, topic: Topic, change: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    world.catalog._catalog.load_table(("s3", "events")).transaction().set_properties(
        change
    ).commit_transaction()
    assert names(world.open()) == []
    assert "Iceberg table s3.events is not served" in caplog.text
    with pytest.raises(Unavailable, match="cannot be read"):
        world.catalog.alter(topic.id, DropColumn("note"))


def test_a_version_whose_iceberg_schema_was_removed_is_forgotten(world: World, topic: Topic) -> None:
    changed = world.catalog.alter(topic.id, DropColumn("note"))
    table = world.catalog._catalog.load_table(("s3", "events"))
    key = table.metadata_location.removeprefix("memory://")
    kept = table.metadata.model_copy(update={"schemas": [table.schema()]})
    world.store.objects[key] = kept.model_dump_json().encode()
    assert dict(world.open().get(topic.name).history) == {2: changed.schema}
