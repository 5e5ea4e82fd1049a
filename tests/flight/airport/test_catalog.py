"""How tables are told to DuckDB: the worked example of the protocol byte by byte, and the rules around it."""

from __future__ import annotations

import uuid
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.flight as flight
import pytest

from boilstream.catalog.constraints import Constraints
from boilstream.catalog.duckdb_types import published
from boilstream.catalog.names import TopicName
from boilstream.catalog.topics import Topic
from boilstream.catalog.types import TopicSchema
from boilstream.errors import InvalidArgument, NotFound
from boilstream.flight.airport import catalog
from boilstream.flight.airport.catalog import (
    catalog_listing,
    flight_info,
    require_catalog,
    schema_contents,
    table_info,
    table_version,
    version_info,
    with_row_id,
)
from boilstream.flight.airport.codec import pack

PEOPLE = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("rowid", pa.int64(), metadata={"is_rowid": "1"}),
    ]
)


def topic(schema: pa.Schema, name: tuple[str, str] = ("s3", "people"), **known: Any) -> Topic:
    declared = TopicSchema.declare(schema)
    known.setdefault("id", str(uuid.uuid4()))
    known.setdefault("version", 1)
    known.setdefault("constraints", Constraints())
    return Topic(
        name=TopicName(*name),
        schema=declared,
        location="tables/s3/people-1",
        history={known["version"]: declared},
        **known,
    )


def info(topic: Topic, catalog: str = "boilstream", schema_name: str = "s3") -> flight.FlightInfo:
    return flight.FlightInfo.deserialize(table_info(topic, catalog, schema_name))


def unzip(packed: bytes) -> bytes:
    length, frame = msgpack.unpackb(packed)
    data: bytes = pa.decompress(frame, decompressed_size=length, codec="zstd", asbytes=True)
    return data


def test_the_worked_example_of_the_protocol() -> None:
    """Section 3.7 of the wire reference: `people(id BIGINT NOT NULL, name VARCHAR)`."""
    info = flight_info(PEOPLE.serialize().to_pybytes(), ["s3", "people"], "boilstream", "s3", "people")
    assert len(info) == 477
    assert info[:3] == bytes.fromhex("0ac002")
    assert info[3:11] == bytes.fromhex("ffffffff38010000")
    after_schema = info[3 + 320 :]
    minus_one = bytes.fromhex("ffffffffffffffffff01")
    expected_metadata = (
        b"\x89\xa4type\xa5table\xa6schema\xa2s3\xa7catalog\xaaboilstream\xa4name\xa6people"
        b"\xa7comment\xc0\xacinput_schema\xc0\xabaction_name\xc0\xabdescription\xc0\xaaextra_data\xc0"
    )
    assert len(expected_metadata) == 114
    assert after_schema == (
        bytes.fromhex("120e0801") + b"\x1a\x02s3\x1a\x06people" + b"\x20" + minus_one + b"\x28" + minus_one
        + bytes.fromhex("3a72") + expected_metadata
    )  # fmt: skip
    listed = pack([info])
    assert len(listed) == 481
    assert listed[:4] == bytes.fromhex("91c501dd")
    assert pack({"identifier": None}).hex() == "81aa" + b"identifier".hex() + "c0"
    assert pack(version_info(7)) == b"\x82\xafcatalog_version\x07\xa8is_fixed\xc2"
    endpoint = flight.FlightEndpoint(b"T1", ["arrow-flight-reuse-connection://?"]).serialize()
    assert (
        pack([endpoint]) == b"\x91\xc4\x2b\x0a\x04\x0a\x02T1\x12\x23\x0a\x21arrow-flight-reuse-connection://?"
    )


def test_a_listing_has_the_members_of_the_protocol_in_their_order() -> None:
    listing = unzip(catalog_listing({"s3": []}, "boilstream", 1))
    contents = schema_contents([], "boilstream", "s3")["serialized"]
    assert unzip(contents) == b"\x90"
    assert listing == (
        b"\x83\xa8contents\x83\xa6sha256\xa0\xa3url\xc0\xaaserialized\xc0"
        b"\xa7schemas\x91\x85\xa4name\xa2s3\xabdescription\xa0\xa4tags\x80"
        b"\xa8contents\x83\xa6sha256\xa0\xa3url\xc0\xaaserialized\xc4" + bytes([len(contents)]) + contents +
        b"\xaais_default\xc3"
        b"\xacversion_info\x82\xafcatalog_version\x01\xa8is_fixed\xc2"
    )  # fmt: skip


def test_the_pseudo_column_comes_last() -> None:
    schema = info(topic(pa.schema([("a", pa.int32())]))).schema
    assert schema.names == ["a", "rowid"]
    assert schema.field("rowid").metadata == {b"is_rowid": b"1"}
    assert schema.field("rowid").type == pa.int64()


def test_where_its_name_is_taken_the_pseudo_column_has_another() -> None:
    schema = with_row_id(pa.schema([("RowID", pa.string()), ("_rowid", pa.int8())]))
    assert schema.names == ["RowID", "_rowid", "__rowid"]
    assert schema.field(2).metadata == {b"is_rowid": b"1"}


def test_defaults_and_checks_are_published() -> None:
    people = topic(
        pa.schema([("id", pa.int64()), ("age", pa.int32())]),
        constraints=Constraints({2: "40 + 2"}, ("age > 0", "id < 10")),
    )
    schema = info(people).schema
    assert schema.field("age").metadata == {b"default": b"40 + 2"}
    assert schema.field("id").metadata is None
    assert msgpack.unpackb(schema.metadata[b"check_constraints"]) == {"constraints": ["age > 0", "id < 10"]}


@pytest.mark.parametrize("name", ["täulu / 1", 'with "quotes"', "a%2Fb", "x" * 255, "日本"])
def test_descriptors_are_ascii_and_lead_back_to_the_version(name: str) -> None:
    table = topic(pa.schema([("a", pa.int32())]), ("ä", name), version=17)
    found = info(table, schema_name="ä")
    path = [part.decode("ascii") for part in found.descriptor.path]
    assert all(part.isprintable() and "/" not in part and " " not in part for part in path)
    assert path[0] == "boilstream"
    known = table_version(flight.FlightDescriptor.deserialize(found.descriptor.serialize()))
    assert (known.topic_id, known.version) == (table.id, 17)
    assert msgpack.unpackb(found.app_metadata)["name"] == name


@pytest.mark.parametrize("columns", [0, 1, 3, 300])
def test_the_message_is_the_one_that_flight_makes(columns: int) -> None:
    schema = pa.schema([(f"c{n}", pa.int32()) for n in range(columns)])
    made = flight_info(schema.serialize().to_pybytes(), ["c", "ä", "t"], "c", "ä", "t")
    descriptor = flight.FlightDescriptor.for_path("c", "%C3%A4", "t")
    metadata = flight.FlightInfo.deserialize(made).app_metadata
    assert made == flight.FlightInfo(schema, descriptor, [], -1, -1, app_metadata=metadata).serialize()


def test_a_schema_is_made_once_for_all_spellings_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[TopicSchema] = []

    def watched(schema: TopicSchema) -> TopicSchema:
        made.append(schema)
        return published(schema)

    monkeypatch.setattr(catalog, "published", watched)
    table = topic(pa.schema([("a", pa.int32())]))
    infos = [
        info(table, *names) for names in [("boilstream", "s3"), ("BoilStream", "S3"), ("boilstream", "s3")]
    ]
    assert [msgpack.unpackb(info.app_metadata)["catalog"] for info in infos] == [
        "boilstream",
        "BoilStream",
        "boilstream",
    ]
    assert [info.descriptor.path[1] for info in infos] == [b"s3", b"S3", b"s3"]
    assert len(made) == 1


def test_another_version_or_topic_has_a_schema_of_its_own() -> None:
    first = topic(pa.schema([("a", pa.int32())]))
    altered = topic(pa.schema([("b", pa.int32())]), id=first.id, version=2)
    tables = [first, altered, topic(pa.schema([("c", pa.int32())]))]
    assert [info(table).schema.names[0] for _ in range(2) for table in tables] == 2 * ["a", "b", "c"]


@pytest.mark.parametrize(
    "descriptor",
    [
        flight.FlightDescriptor.for_command(b"s3"),
        flight.FlightDescriptor.for_path(),
        flight.FlightDescriptor.for_path("s3", "people"),
        flight.FlightDescriptor.for_path("boilstream", "s3", "people", "nothing"),
        flight.FlightDescriptor.for_path("boilstream", "s3", "people", "id.x"),
        flight.FlightDescriptor.for_path("boilstream", "s3", "people", b"\xff.1"),
        flight.FlightDescriptor.for_path("boilstream", "s3", "people", "id.1", "more"),
    ],
)
def test_other_descriptors_are_refused(descriptor: flight.FlightDescriptor) -> None:
    with pytest.raises(InvalidArgument, match="ATTACH again"):
        table_version(descriptor)


def test_the_catalog_has_one_name_in_any_letter_case() -> None:
    assert require_catalog("BoilStream") == "BoilStream"
    for other in ("", "main", "boilstream2", "ü" * 10_000):
        with pytest.raises(NotFound, match="ATTACH 'boilstream'") as caught:
            require_catalog(other)
        assert len(caught.value.message) < 300
