"""What every store promises, tried on a local folder and on a real S3 server."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boilstream.storage.base import ObjectExists, ObjectMissing, ObjectStore
from boilstream.storage.checks import PROBE_PREFIX
from boilstream.storage.local import LocalStore
from boilstream.storage.s3 import S3Store

KEYS = [
    "_log/w/00000000000000000001.json",
    "a",
    "data/s3/t%C3%A4ulu%20%2F%201/part-1.parquet",
    "data/day=2026-01-01/x.parquet",
    "...",
    "/".join(["segment-" + "x" * 200] * 4) + "/end",
]
ILLEGAL = [
    "",
    "/",
    "/etc/passwd",
    "../a",
    "a/../b",
    "a/..",
    ".",
    "a//b",
    "a/",
    "a b",
    "ä",
    "a\\b",
    "a\0",
    "~tmp/a",
]


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectStore]:
    made: ObjectStore
    if request.param == "local":
        made = LocalStore(tmp_path / "store")
    else:
        environment: dict[str, str] = request.getfixturevalue("s3_env")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        made = S3Store(environment["S3_BUCKET"], "some/prefix", endpoint_url=environment["S3_ENDPOINT_URL"])
    yield made
    made.close()


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_an_object_comes_back_as_it_was_put(store: ObjectStore, key: str) -> None:
    store.put(key, b"content of " + key.encode())
    assert store.get(key) == b"content of " + key.encode()
    with store.open(key) as file:
        assert file.read() == b"content of " + key.encode()
    assert keys(store) == [key]


@pytest.mark.parametrize(
    "data", [b"", pa.py_buffer(b""), b"\0\xff", pa.py_buffer(b"\0\xff" * 9)], ids=range(4)
)
def test_bytes_and_buffers_of_any_size(store: ObjectStore, data: pa.Buffer | bytes) -> None:
    store.put("k", data)
    content = bytes(memoryview(data))
    assert store.get("k") == content
    with store.open("k") as file:
        assert file.size() == len(content)
        assert file.read() == content
    assert [info.size for info in store.list()] == [len(content)]


@pytest.mark.parametrize("buffer", [False, True])
def test_a_large_object(store: ObjectStore, buffer: bool) -> None:
    content = os.urandom(16 * 1024 * 1024 + 1)
    store.put("large", pa.py_buffer(content) if buffer else content)
    assert store.get("large") == content
    with store.open("large") as file:
        assert file.size() == len(content)
        assert file.read_at(1000, 5_000_000) == content[5_000_000:5_001_000]
        assert file.read_at(1000, len(content) - 10) == content[-10:]
        assert file.read_at(200_000, len(content) - 100_000) == content[-100_000:]


def test_a_slice_of_a_buffer(store: ObjectStore) -> None:
    content = os.urandom(3 * 1024 * 1024)
    store.put("slice", pa.py_buffer(content).slice(7, 2_000_000))
    assert store.get("slice") == content[7:2_000_007]


def test_a_put_replaces(store: ObjectStore) -> None:
    store.put("k", b"first, and longer")
    store.put("k", b"second")
    assert store.get("k") == b"second"
    assert keys(store) == ["k"]


def test_a_conditional_put_never_replaces(store: ObjectStore) -> None:
    store.put("k", b"first", if_absent=True)
    with pytest.raises(ObjectExists):
        store.put("k", b"second", if_absent=True)
    assert store.get("k") == b"first"


def test_a_deleted_key_can_be_created_again(store: ObjectStore) -> None:
    store.put("k", b"first", if_absent=True)
    store.delete("k")
    store.put("k", b"second", if_absent=True)
    assert store.get("k") == b"second"


def test_exactly_one_of_many_creators_wins(store: ObjectStore) -> None:
    threads = 16
    for number in range(3):
        key, barrier = f"race/{number}", threading.Barrier(threads)

        def create(me: int, key: str = key, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            try:
                store.put(key, str(me).encode(), if_absent=True)
            except ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(threads) as pool:
            won = list(pool.map(create, range(threads)))
        assert won.count(True) == 1
        assert store.get(key) == str(won.index(True)).encode()


def test_what_is_missing(store: ObjectStore) -> None:
    store.put("there/1", b"x")
    for key in ("missing", "there", "there/2", "there/1/below"):
        with pytest.raises(ObjectMissing):
            store.get(key)
        with pytest.raises(ObjectMissing):
            store.open(key)


def test_deleting_twice_is_no_error(store: ObjectStore) -> None:
    store.put("a/k", b"x")
    for _ in range(2):
        store.delete("a/k")
    store.delete("never/there")
    store.delete("a")
    assert keys(store) == []


def test_a_listing_is_in_byte_order_of_whole_keys(store: ObjectStore) -> None:
    written = ["a/b", "a-b", "a.b", "a/b.c/d", "a=b", "aa", "A", "a%2F", "a/b-c", "a_b/x", "0", "a/c"]
    for key in written:
        store.put(key, key.encode())
    assert keys(store) == sorted(written)
    assert [(info.key, info.size) for info in store.list("a/")] == [
        ("a/b", 3),
        ("a/b-c", 5),
        ("a/b.c/d", 7),
        ("a/c", 3),
    ]
    assert keys(store, "a/b") == ["a/b", "a/b-c", "a/b.c/d"]
    assert keys(store, "a/b.") == ["a/b.c/d"]
    assert keys(store, "nothing/here") == []


def test_a_listing_of_more_than_one_page_is_complete(store: ObjectStore) -> None:
    written = [f"n/{number % 5}/{number}" for number in range(600)] + [
        f"n/{number}-f" for number in range(600)
    ]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.put(key, b""), written))
    assert keys(store, "n/") == sorted(written)


def test_a_listing_tells_when_an_object_was_written(store: ObjectStore) -> None:
    before = time.time()
    store.put("k", b"")
    (info,) = store.list()
    assert before - 5 < info.modified_at < time.time() + 5  # stores round, and have clocks of their own


@pytest.mark.parametrize("key", ILLEGAL)
def test_illegal_keys_are_refused_everywhere(store: ObjectStore, key: str) -> None:
    for call in (
        lambda: store.put(key, b"x"),
        lambda: store.get(key),
        lambda: store.open(key),
        lambda: store.delete(key),
        lambda: store.url(key),
    ):
        with pytest.raises(ValueError, match="illegal object key"):
            call()


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", "a b", "~tmp/"])
def test_illegal_prefixes_are_refused(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(ValueError, match="illegal object key"):
        store.list(prefix)


def test_check_passes_and_leaves_nothing(store: ObjectStore) -> None:
    store.check()
    assert keys(store) == []
    assert keys(store, PROBE_PREFIX) == []


def test_a_parquet_file_is_read_by_several_threads(store: ObjectStore) -> None:
    table = pa.table({"n": range(200_000), "text": [str(n * 7919) for n in range(200_000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=20_000)
    store.put("t.parquet", sink.getvalue())
    with store.open("t.parquet") as file:

        def group(number: int) -> pa.Table:
            assert file.size() == sink.getvalue().size
            # A reader each: Arrow crashes when threads share one that pre-buffers, whatever the file.
            return pq.ParquetFile(file, pre_buffer=True).read_row_group(number, use_threads=True)

        with ThreadPoolExecutor(4) as pool:
            groups = list(pool.map(group, range(10)))
    assert pa.concat_tables(groups).equals(table)
