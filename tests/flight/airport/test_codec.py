"""The bodies of actions: what is read, what is refused, and the exact bytes of answers."""

from __future__ import annotations

from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.errors import InvalidArgument
from boilstream.flight.airport.codec import MAX_BODY_BYTES, Request, pack, pack_compressed


def as_client(value: Any) -> bytes:
    """msgpack as the client writes it: texts and binaries are str."""
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed


def request(value: Any) -> Request:
    return Request.parse("endpoints", as_client(value))


def test_members_are_read_as_the_client_packs_them() -> None:
    descriptor = flight.FlightDescriptor.for_path("boilstream", "s3", "t%C3%A4ulu", "x.1")
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False)])
    body = request(
        {
            "name": "täulu",
            "nothing": None,
            "flag": True,
            "numbers": [0, 2**64 - 1],
            "texts": ["a", "b"],
            "descriptor": descriptor.serialize(),
            "schema": schema.serialize().to_pybytes(),
            "inner": {"x": "y"},
        }
    )
    assert body.text("name") == "täulu"
    assert body.optional_text("nothing") == body.optional_text("absent") == ""
    assert body.flag("flag") is True
    assert body.flag("absent") is False
    assert body.numbers("numbers") == [0, 2**64 - 1]
    assert body.texts("texts") == ["a", "b"]
    assert body.texts("nothing") == []
    assert body.descriptor("descriptor") == descriptor
    assert body.schema("schema") == schema
    assert body.field("schema") == schema.field(0)
    assert body.part("inner").text("x") == "y"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        as_client({"a": "b"})[:-1],
        as_client({"a": "b"}) + b"\x00",
        as_client(["a"]),
        as_client("a"),
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x81\x90\xc0",
    ],
)
def test_what_is_no_map_in_msgpack_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgument, match="action endpoints"):
        Request.parse("endpoints", body)


def test_a_body_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(InvalidArgument, match=f"at most {MAX_BODY_BYTES}"):
        Request.parse("endpoints", memoryview(bytes(MAX_BODY_BYTES + 1)))


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("text", 5),
        ("text", None),
        ("text", b"\xff"),
        ("optional_text", [1]),
        ("binary", 1),
        ("flag", "yes"),
        ("flag", 1),
        ("numbers", [-1]),
        ("numbers", [True]),
        ("numbers", "ab"),
        ("texts", [1]),
        ("texts", [b"\xff"]),
        ("part", "text"),
        ("schema", b"\xff\xff\xff\xff\x00\x00\x00\x00"),
        ("schema", b"junk"),
        ("field", pa.schema([("a", pa.int8()), ("b", pa.int8())]).serialize().to_pybytes()),
        ("descriptor", b"\xff\xff"),
    ],
)
def test_a_member_of_another_kind_is_refused_by_name(method: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match="endpoints"):
        getattr(request({"it": value}), method)("it")


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    try:
        parsed = Request.parse("endpoints", data)
        parsed.schema("a")
    except InvalidArgument:
        pass


def test_answers_have_the_bytes_of_the_protocol() -> None:
    assert pack({"identifier": None}) == bytes.fromhex("81aa") + b"identifier" + b"\xc0"
    assert pack({"total_changed": 3}) == bytes.fromhex("81ad") + b"total_changed" + b"\x03"
    length, frame = msgpack.unpackb(pack_compressed([]))
    assert length == 1
    assert frame[:4] == bytes.fromhex("28b52ffd")
    assert pa.decompress(frame, decompressed_size=1, codec="zstd", asbytes=True) == b"\x90"
