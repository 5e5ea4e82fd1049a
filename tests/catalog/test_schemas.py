"""Schemas: made, listed and dropped on their own, or there because of topics."""

from __future__ import annotations

from pathlib import Path

import pytest

from boilstream.catalog.topics import TopicCatalog
from boilstream.errors import InvalidArgument, NotFound, Unavailable
from tests.catalog.world import World, names, new


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def both(world: World) -> tuple[TopicCatalog, TopicCatalog]:
    """What this process knows, and what one that starts now does."""
    return world.catalog, world.open()


def test_the_default_schema_is_always_there(world: World) -> None:
    assert world.catalog.schemas() == ["s3"]
    version = world.catalog.version
    assert world.catalog.create_schema("S3") is False
    world.make("S3", "events")
    for catalog in both(world):
        assert catalog.schemas() == ["s3"]
        with pytest.raises(InvalidArgument, match="schema s3 is always there"):
            catalog.drop_schema("S3")
    world.catalog.drop(world.catalog.list()[0])
    assert world.open().schemas() == ["s3"]
    assert world.catalog.version > version


def test_a_schema_is_there_from_create_to_drop(world: World) -> None:
    version = world.catalog.version
    assert world.catalog.create_schema("Täulu / 1.x ") is True
    assert world.catalog.version > version
    version = world.catalog.version
    for catalog in both(world):
        assert catalog.schemas() == ["Täulu / 1.x ", "s3"]
        before = catalog.version
        assert catalog.create_schema("täulu / 1.X ") is False
        assert catalog.version == before
        assert catalog.schemas() == ["Täulu / 1.x ", "s3"]
    world.catalog.drop_schema("TÄULU / 1.x ")
    assert world.catalog.version > version
    for catalog in both(world):
        assert catalog.schemas() == ["s3"]
        with pytest.raises(NotFound, match=r"schema Täulu / 1\.x  does not exist"):
            catalog.drop_schema("Täulu / 1.x ")


def test_topics_make_their_schemas(world: World) -> None:
    topic = world.make("Prod", "a")
    other = world.make("PROD", "b")
    for catalog in both(world):
        assert catalog.schemas() == ["Prod", "s3"]
        assert catalog.create_schema("prod") is False
        with pytest.raises(InvalidArgument, match="schema prod is not empty; drop its tables first"):
            catalog.drop_schema("prod")
    world.catalog.drop(topic)
    with pytest.raises(InvalidArgument):
        world.catalog.drop_schema("Prod")
    world.catalog.drop(other)
    assert world.catalog.schemas() == ["Prod", "s3"]
    world.catalog.drop_schema("prod")
    assert world.open().schemas() == ["s3"]


def test_a_topic_may_be_made_in_a_schema_that_was_dropped(world: World) -> None:
    world.catalog.create_schema("x")
    world.catalog.drop_schema("x")
    world.make("X", "t")
    for catalog in both(world):
        assert catalog.schemas() == ["X", "s3"]


@pytest.mark.parametrize("name", ["", "..", "a\x00b", "x" * 256, "\u2028"])
def test_bad_names_are_refused(world: World, name: str) -> None:
    for call in (world.catalog.create_schema, world.catalog.drop_schema):
        with pytest.raises(InvalidArgument, match="the schema name"):
            call(name)
    assert world.open().schemas() == ["s3"]


@pytest.mark.parametrize("written", ["a.b", "a%2eb", "a_b", "ab%", " ", "a"])
def test_names_that_are_patterns_to_a_database_do_not_hide_each_other(world: World, written: str) -> None:
    others = [name for name in ("a.b", "a%2eb", "a_b", "axb", "ab%", "a%", " ", "  ", "a") if name != written]
    for name in others:
        assert world.catalog.create_schema(name) is True
    assert world.catalog.create_schema(written) is True
    assert world.open().schemas() == sorted([*others, written, "s3"])
    world.catalog.drop_schema(written)
    assert world.open().schemas() == sorted([*others, "s3"])


def test_schemas_of_earlier_releases_are_called_as_their_topics_say(world: World) -> None:
    world.make("Prod", "a")
    world.make("Old.1", "b")
    world.catalog.drop(world.catalog.list()[0])
    world.sql("UPDATE iceberg_namespace_properties SET property_key = 'exists', property_value = 'true'")
    catalog = world.open()
    assert names(catalog) == ["Prod.a"]
    assert catalog.schemas() == ["Prod", "old.1", "s3"]
    catalog.drop_schema("OLD.1")
    assert world.open().schemas() == ["Prod", "s3"]


def test_namespaces_of_other_engines(world: World) -> None:
    plain = world.plain_iceberg(elsewhere=False)
    for namespace in [("analytics",), ("Upper",), ("a%",), ("nested", "inner")]:
        plain.create_namespace(namespace)
    catalog = world.open()
    assert catalog.schemas() == ["analytics", "nested", "s3"], "only what a topic can be in"
    for name in ("analytics", "nested"):
        assert catalog.create_schema(name) is False


def test_a_schema_of_another_process_is_there_when_it_is_made_again(world: World) -> None:
    other = world.open()
    other.create_schema("Mine")
    assert world.catalog.create_schema("MINE") is False
    assert world.catalog.schemas() == ["Mine", "s3"]
    other.drop_schema("mine")
    with pytest.raises(NotFound):
        world.catalog.drop_schema("mine")
    assert world.catalog.schemas() == ["s3"]


def test_a_topic_found_later_brings_its_schema(world: World) -> None:
    other = world.open()
    topic = world.make("Fresh", "t")
    assert other.schemas() == ["s3"]
    other.get(topic.name)
    assert other.schemas() == ["Fresh", "s3"]


def test_a_schema_with_tables_of_other_engines_stays(world: World) -> None:
    plain = world.plain_iceberg(elsewhere=False)
    plain.create_namespace("analytics")
    plain.create_table(("analytics", "t"), new("s3", "x").schema.iceberg)
    catalog = world.open()
    with pytest.raises(InvalidArgument, match="is not empty"):
        catalog.drop_schema("analytics")
    assert catalog.schemas() == ["analytics", "s3"]


def test_a_broken_database_is_unavailable(world: World) -> None:
    world.sql("DROP TABLE iceberg_namespace_properties")
    for call in (world.catalog.create_schema, world.catalog.drop_schema):
        with pytest.raises(Unavailable):
            call("x")
    assert world.catalog.schemas() == ["s3"]
