"""What changes make of a definition, and that rows of every version are read as the newest says."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.schema import Schema

from boilstream.catalog.changes import (
    AddColumn,
    Change,
    ChangeType,
    DropColumn,
    DropNotNull,
    RenameColumn,
    RenameTopic,
    SetDefault,
    SetNotNull,
    apply,
)
from boilstream.catalog.constraints import Constraints
from boilstream.catalog.definition import MAX_VERSIONS, Definition
from boilstream.catalog.names import TopicName, topic_name
from boilstream.catalog.types import TopicSchema
from boilstream.errors import AlreadyExists, BoilStreamError, InvalidArgument, NotFound
from tests.catalog.model import KINDS, Model, after_type, changes, expected, follow, words

COLUMNS = pa.schema(
    [
        pa.field("Id", pa.int32(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("tags", pa.list_(pa.struct([("key", pa.string())]))),
    ]
)


def defined(schema: pa.Schema = COLUMNS, constraints: Constraints | None = None) -> Definition:
    made = TopicSchema.declare(schema)
    return Definition(topic_name("s3", "Events"), made, constraints or Constraints())


def altered(change: Change, before: Definition | None = None) -> Definition:
    return apply(change, before or defined(), words)


def ids(definition: Definition) -> dict[str, int]:
    return {column.name: column.field_id for column in definition.schema.iceberg.fields}


def test_a_new_column_comes_last_with_ids_that_were_never_used() -> None:
    before = altered(DropColumn("tags"))
    kind = pa.struct([("x", pa.int8()), ("l", pa.list_(pa.uint64()))])
    after = altered(AddColumn(pa.field("extra", kind)), before)
    assert after.schema.declared.equals(pa.schema([*list(COLUMNS)[:2], pa.field("extra", after_type(kind))]))
    highest = TopicSchema.declare(COLUMNS).iceberg.highest_field_id
    assert ids(after) == {"Id": 1, "name": 2, "extra": highest + 1}
    assert min(set(after.schema.iceberg.field_ids) - {1, 2}) == highest + 1
    assert (after.version, after.last_column_id) == (3, highest + 4)
    assert after.schema.stored.field("extra").metadata == {b"PARQUET:field_id": str(highest + 1).encode()}


def test_a_column_added_after_its_namesake_was_dropped_is_another_one() -> None:
    after = altered(AddColumn(pa.field("name", pa.string())), altered(DropColumn("name")))
    assert ids(after)["name"] > max(ids(defined()).values())


def test_the_names_of_columns_are_compared_ignoring_case() -> None:
    assert "Id" not in altered(DropColumn("ID")).schema.declared.names
    assert altered(RenameColumn("NAME", "title")).schema.declared.names == ["Id", "title", "tags"]
    with pytest.raises(AlreadyExists, match=r"topic s3\.Events has a column 'Id' already"):
        altered(AddColumn(pa.field("iD", pa.int8())))
    with pytest.raises(AlreadyExists, match="has a column 'NAME' already"):
        altered(RenameColumn("id", "NAME"))
    assert altered(RenameColumn("name", "NAME")).schema.declared.names == ["Id", "NAME", "tags"]


@pytest.mark.parametrize(
    "change",
    [
        AddColumn(pa.field("ID", pa.string()), if_not_exists=True),
        DropColumn("nothing", if_exists=True),
        RenameColumn("name", "name"),
        RenameTopic("Events"),
        ChangeType("NAME", pa.string()),
        ChangeType("name", pa.dictionary(pa.int8(), pa.string())),
        SetNotNull("id"),
        DropNotNull("name"),
        SetDefault("name", None),
    ],
    ids=lambda change: type(change).__name__,
)
def test_what_is_so_already_is_no_change(change: Change) -> None:
    before = defined()
    assert altered(change, before) is before


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (DropColumn("nothing"), NotFound, r"topic s3\.Events has no column 'nothing'"),
        (RenameColumn("nothing", "x"), NotFound, "no column 'nothing'"),
        (ChangeType("nothing", pa.int8()), NotFound, "no column 'nothing'"),
        (SetNotNull("nothing"), NotFound, "no column 'nothing'"),
        (DropNotNull("tags.key"), NotFound, "no column 'tags.key'"),
        (SetDefault("nothing", "1"), NotFound, "no column 'nothing'"),
        (AddColumn(pa.field("x", pa.int8(), nullable=False)), InvalidArgument, "'x': it is null in the rows"),
        (AddColumn(pa.field("", pa.int8())), InvalidArgument, "the name is empty"),
        (AddColumn(pa.field("x", pa.null())), InvalidArgument, "'x': it has no type"),
        (AddColumn(pa.field("x", pa.struct([]))), InvalidArgument, "a struct needs at least one child"),
        (AddColumn(pa.field("tags.element", pa.int8())), InvalidArgument, "the same dotted path"),
        (RenameColumn("name", "a\nb"), InvalidArgument, "has a control character"),
        (RenameColumn("name", ""), InvalidArgument, "the name is empty"),
        (RenameColumn("name", "x" * 256), InvalidArgument, "more than 255 bytes"),
        (RenameColumn("name", "tags.element"), InvalidArgument, "the same dotted path"),
        (RenameTopic(""), InvalidArgument, "the table name '' is empty"),
        (RenameTopic("a\x00"), InvalidArgument, "control character"),
        (ChangeType("id", pa.int16()), InvalidArgument, "int32 cannot become int16, .* can become int64$"),
        (ChangeType("id", pa.string()), InvalidArgument, "int32 cannot become string"),
        (ChangeType("name", pa.json_()), InvalidArgument, "it can become large_string$"),
        (
            ChangeType("name", pa.opaque(pa.binary(16), "hugeint", "DuckDB")),
            InvalidArgument,
            "'name': string cannot become HUGEINT, because",
        ),
        (
            ChangeType("name", pa.opaque(pa.binary(8), "time_tz", "DuckDB")),
            InvalidArgument,
            "cannot become TIME WITH TIME ZONE, because",
        ),
        (ChangeType("tags", pa.int8()), InvalidArgument, "it can become no other type$"),
        (ChangeType("id", pa.null()), InvalidArgument, "'Id': it has no type"),
    ],
    ids=lambda value: str(value)[:60] if not isinstance(value, type) else "",
)
def test_what_cannot_be_is_refused_in_one_sentence(
    change: Change, error: type[BoilStreamError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        altered(change)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400


def test_the_last_column_stays() -> None:
    with pytest.raises(
        InvalidArgument, match=r"column 'n' is the only one of topic s3\.Events; drop the topic"
    ):
        altered(DropColumn("N"), defined(pa.schema([("n", pa.int8())])))


def test_a_column_that_a_check_names_is_neither_dropped_nor_renamed() -> None:
    before = defined(constraints=Constraints(checks=("tags", "NAME id")))
    with pytest.raises(InvalidArgument, match=r"'name' cannot be dropped, because CHECK \(NAME id\)"):
        altered(DropColumn("name"), before)
    with pytest.raises(InvalidArgument, match="'Id' cannot be renamed, because CHECK"):
        altered(RenameColumn("id", "other"), before)
    unchecked = defined(constraints=Constraints(checks=("tags",)))
    assert altered(DropColumn("name"), unchecked).constraints.checks == ("tags",)


def test_a_type_does_not_change_if_a_check_has_no_meaning_then() -> None:
    def columns(sql: str, schema: TopicSchema) -> Collection[str]:
        if schema.declared.field("Id").type == pa.int64():
            raise InvalidArgument("CHECK (id): no function takes BIGINT")
        return ["Id"]

    before = defined(constraints=Constraints(checks=("id",)))
    with pytest.raises(InvalidArgument, match="no function takes BIGINT"):
        apply(ChangeType("id", pa.int64()), before, columns)


def test_defaults_belong_to_columns_whatever_their_names() -> None:
    after = altered(SetDefault("NAME", "'x'"))
    assert after.constraints.defaults == {2: "'x'"}
    assert after.schema is defined().schema or after.schema == defined().schema
    after = altered(SetDefault("id", "7"), altered(RenameColumn("name", "title"), after))
    assert after.constraints.defaults == {1: "7", 2: "'x'"}
    assert altered(SetDefault("title", None), after).constraints.defaults == {1: "7"}
    assert altered(DropColumn("title"), after).constraints.defaults == {1: "7"}
    assert altered(ChangeType("id", pa.int64()), after).constraints.defaults == {1: "7", 2: "'x'"}


def test_nullability_changes_in_all_forms() -> None:
    after = altered(SetNotNull("name"), altered(DropNotNull("id")))
    for name, required in (("Id", False), ("name", True)):
        assert after.schema.declared.field(name).nullable is not required
        assert after.schema.stored.field(name).nullable is not required
        assert after.schema.iceberg.find_field(name).required is required


def test_a_type_changes_where_iceberg_sees_no_difference_too() -> None:
    before = defined(pa.schema([pa.field("a", pa.int8()), pa.field("l", pa.list_(pa.int8()))]))
    after = altered(ChangeType("a", pa.int32()), before)
    assert after.version == 2
    assert after.schema.declared.field("a").type == pa.int32()
    assert after.schema.iceberg == before.schema.iceberg
    after = altered(ChangeType("L", pa.large_list(pa.int8())), after)
    assert after.schema.declared.field("l").type == after_type(pa.large_list(pa.int8()))
    assert after.version == 3


def test_the_name_of_the_topic_changes_and_nothing_else() -> None:
    before = defined()
    after = altered(RenameTopic("Visits"), before)
    assert (after.name, after.version) == (TopicName("s3", "Visits"), 2)
    assert after.schema is before.schema


def test_the_last_versions_are_kept() -> None:
    definition = defined()
    made = {1: definition.schema}
    for number in range(20):
        definition = altered(AddColumn(pa.field(f"c{number}", pa.int8())), definition)
        made[definition.version] = definition.schema
    assert definition.version == 21
    assert definition.versions == {version: made[version] for version in range(22 - MAX_VERSIONS, 22)}


def test_identifier_fields_of_another_engine_stay_legal() -> None:
    declared = TopicSchema.declare(pa.schema([pa.field(n, pa.int8(), nullable=False) for n in "abc"]))
    iceberg = Schema(*declared.iceberg.fields, identifier_field_ids=[1, 2, 3])
    before = Definition(topic_name("s3", "t"), TopicSchema(declared.declared, iceberg, declared.stored))
    after = altered(DropNotNull("b"), altered(DropColumn("a"), before))
    assert after.schema.iceberg.identifier_field_ids == [3]


# Random sequences of changes


def has_nulls(model: Model, name: str) -> bool:
    """What ingestion asks before a column becomes NOT NULL."""
    column = model.column(name)
    return column is None or any(expected(file, column).null_count for file in model.files)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_rows_of_all_versions_are_read_by_field_id(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(KINDS, min_size=1, max_size=3))
    declared = pa.schema([pa.field(name, kind) for name, kind in zip("abc", kinds, strict=False)])
    model = Model(defined(declared))
    model.write(data, 1)
    for _ in range(data.draw(st.integers(6, 14))):
        change = data.draw(changes(model))
        before = model.definition
        if isinstance(change, SetNotNull) and has_nulls(model, change.name):
            continue
        try:
            model.definition = apply(change, before, words)
        except (InvalidArgument, AlreadyExists, NotFound):
            continue
        if model.definition is before:
            continue
        assert model.definition.version == before.version + 1
        follow(model, change)
        model.note_ids()
        if not isinstance(change, SetNotNull) and data.draw(st.booleans()):
            version = data.draw(st.sampled_from(sorted(model.definition.versions)))
            required_now = {c.field_id for c in model.definition.schema.iceberg.fields if c.required}
            then = model.definition.versions[version].iceberg
            if required_now <= {
                c.field_id for c in then.fields if c.required
            }:  # else ingestion refuses the rows
                model.write(data, version)
        model.check()
    model.check()
