"""Iceberg's FileIO over an object store that fails on demand."""

from __future__ import annotations

import pytest

from boilstream.catalog.file_io import PATIENCE_PROPERTY, STORE_PROPERTY, StoreFileIO
from boilstream.storage.base import StoreUnavailable
from tests.support.stores import MemoryStore, failing

WHERE = "memory://tables/s3/t/metadata/1.json"
KEY = "tables/s3/t/metadata/1.json"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def io(store: MemoryStore) -> StoreFileIO:
    return StoreFileIO({STORE_PROPERTY: store, PATIENCE_PROPERTY: 5.0})


def write(io: StoreFileIO, data: bytes, *, overwrite: bool = False) -> None:
    with io.new_output(WHERE).create(overwrite=overwrite) as stream:
        half = len(data) // 2
        assert stream.write(data[:half]) == half
        stream.write(data[half:])


def test_what_is_written_can_be_read(io: StoreFileIO, store: MemoryStore) -> None:
    write(io, b"metadata")
    assert store.objects == {KEY: b"metadata"}
    found = io.new_input(WHERE)
    assert found.exists()
    assert (len(found), found.location) == (8, WHERE)
    with found.open() as stream:
        assert stream.read(4) == b"meta"
        assert stream.seek(0) == 0
        assert stream.read() == b"metadata"
    output = io.new_output(WHERE)
    assert output.exists()
    assert len(output) == 8
    assert output.to_input_file().open().read() == b"metadata"


def test_nothing_is_stored_before_the_end(io: StoreFileIO, store: MemoryStore) -> None:
    stream = io.new_output(WHERE).create()
    stream.write(b"metadata")
    assert store.objects == {}
    stream.close()
    stream.close()
    assert store.puts == [KEY]


def test_a_writer_that_fails_stores_nothing(io: StoreFileIO, store: MemoryStore) -> None:
    with pytest.raises(RuntimeError, match="half"), io.new_output(WHERE).create() as stream:
        stream.write(b"meta")
        raise RuntimeError("half written")
    stream.close()
    assert store.objects == {}


def test_an_object_is_replaced_only_on_request(io: StoreFileIO, store: MemoryStore) -> None:
    write(io, b"first")
    with pytest.raises(FileExistsError):
        write(io, b"second")
    assert store.objects[KEY] == b"first"
    write(io, b"second", overwrite=True)
    assert store.objects[KEY] == b"second"


def test_a_missing_object_is_missing(io: StoreFileIO) -> None:
    found = io.new_input(WHERE)
    assert not found.exists()
    assert not io.new_output(WHERE).exists()
    for read in (found.open, found.__len__):
        with pytest.raises(FileNotFoundError, match=r"metadata/1\.json"):
            read()


def test_objects_can_be_deleted_by_any_of_their_names(io: StoreFileIO, store: MemoryStore) -> None:
    for name in (WHERE, io.new_input(WHERE), io.new_output(WHERE)):
        write(io, b"x")
        io.delete(name)
        assert store.objects == {}
    io.delete(WHERE)


@pytest.mark.parametrize("where", ["file:///etc/passwd", "s3://other/x", "tables/x", ""])
def test_addresses_outside_the_store_are_refused(io: StoreFileIO, where: str) -> None:
    for call in (io.new_input, io.new_output, io.delete):
        with pytest.raises(ValueError, match="outside the object store"):
            call(where)


@pytest.mark.parametrize("where", ["memory://../x", "memory://a//b", "memory://a/../../b", "memory://"])
def test_addresses_that_try_to_leave_the_store_are_refused(io: StoreFileIO, where: str) -> None:
    with pytest.raises(ValueError, match="illegal object key"), io.new_output(where).create() as stream:
        stream.write(b"x")


@pytest.mark.slow
def test_passing_failures_are_repeated(io: StoreFileIO, store: MemoryStore) -> None:
    store.before = failing(3)
    write(io, b"metadata")
    store.before = failing(3, method="get")
    assert io.new_input(WHERE).open().read() == b"metadata"
    assert store.puts == [KEY]


def test_a_lost_answer_is_not_taken_for_a_stranger(io: StoreFileIO, store: MemoryStore) -> None:
    store.after = failing(1)
    write(io, b"metadata")
    assert store.objects[KEY] == b"metadata"


def test_a_strangers_object_is_not_taken_for_a_lost_answer(io: StoreFileIO, store: MemoryStore) -> None:
    store.objects[KEY] = b"stranger"
    store.before = failing(1)
    with pytest.raises(FileExistsError):
        write(io, b"metadata")
    assert store.objects[KEY] == b"stranger"


def test_patience_ends(store: MemoryStore) -> None:
    io = StoreFileIO({STORE_PROPERTY: store, PATIENCE_PROPERTY: 0.0})
    store.before = failing(1)
    with pytest.raises(StoreUnavailable):
        write(io, b"metadata")
    store.before = failing(1, method="get")
    with pytest.raises(StoreUnavailable):
        io.new_input(WHERE).exists()
