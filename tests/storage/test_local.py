from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.io.pyarrow import PyArrowFileIO

from boilstream.storage.base import (
    ObjectExists,
    ObjectMissing,
    StoreMisconfigured,
    StoreUnavailable,
    validate_key,
)
from boilstream.storage.local import LEFTOVER_SECONDS, LocalStore

SEGMENTS = st.text("abcABC09._%=-~/ \\\0ä", max_size=20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


class Trace:
    """Records the calls that make a put durable, in order, with the paths they are about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        self._paths: dict[int, str] = {}
        real_open, real_sync = os.open, os.fsync

        def opening(path: Any, *args: Any, **kwargs: Any) -> int:
            descriptor = real_open(path, *args, **kwargs)
            self._paths[descriptor] = str(path)
            return descriptor

        def syncing(descriptor: int) -> None:
            self.calls.append(("sync", self._paths[descriptor]))
            real_sync(descriptor)

        monkeypatch.setattr(os, "open", opening)
        monkeypatch.setattr(os, "fsync", syncing)
        for name in ("replace", "link", "mkdir"):
            monkeypatch.setattr(os, name, self._recorded(name, getattr(os, name)))

    def _recorded(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            real(*args, **kwargs)
            self.calls.append((name, str(args[0] if name == "mkdir" else args[1])))

        return call


@pytest.mark.parametrize("if_absent", [False, True])
def test_a_put_syncs_the_file_then_places_it_then_syncs_the_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch, if_absent: bool
) -> None:
    trace = Trace(monkeypatch)
    store = LocalStore(root)
    trace.calls.clear()
    store.put("a/b/k", b"x", if_absent=if_absent)
    first, trace.calls = trace.calls, []
    store.put("a/b/l", b"x", if_absent=if_absent)

    place = "link" if if_absent else "replace"
    (aside,) = {path for call, path in first if "~tmp" in path}
    assert first == [
        ("mkdir", f"{root}/a"),
        ("sync", f"{root}"),
        ("mkdir", f"{root}/a/b"),
        ("sync", f"{root}/a"),
        ("sync", aside),
        (place, f"{root}/a/b/k"),
        ("sync", f"{root}/a/b"),
    ]
    assert [call for call, _ in trace.calls] == ["sync", place, "sync"]
    assert trace.calls[1:] == [(place, f"{root}/a/b/l"), ("sync", f"{root}/a/b")]


def test_folders_of_an_earlier_process_are_synced_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LocalStore(root).put("a/b/k", b"x")
    trace = Trace(monkeypatch)
    store = LocalStore(root)
    trace.calls.clear()
    store.put("a/b/k", b"x")
    assert [path for call, path in trace.calls if call == "sync" and "~tmp" not in path] == [
        f"{root}", f"{root}/a", f"{root}/a/b",
    ]  # fmt: skip


def test_every_new_folder_above_the_root_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = Trace(monkeypatch)
    LocalStore(tmp_path / "x" / "y")
    assert trace.calls[:4] == [
        ("mkdir", f"{tmp_path}/x"),
        ("sync", f"{tmp_path}"),
        ("mkdir", f"{tmp_path}/x/y"),
        ("sync", f"{tmp_path}/x"),
    ]


def test_who_loses_a_race_knows_that_the_winner_is_durable(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Trace(monkeypatch)
    store = LocalStore(root)
    store.put("a/k", b"x")
    trace.calls.clear()
    with pytest.raises(ObjectExists):
        store.put("a/k", b"y", if_absent=True)
    assert trace.calls[-1] == ("sync", f"{root}/a")


def test_short_writes_are_continued(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, bytes(data)[:1000]))
    content = os.urandom(10_500)
    store.put("k", content)
    assert store.get("k") == content


@pytest.mark.parametrize(
    ("number", "expected", "says"),
    [
        (errno.ENOSPC, StoreUnavailable, "the disk is full"),
        (errno.EDQUOT, StoreUnavailable, "the disk quota is used up"),
        (errno.EIO, StoreUnavailable, "the disk reports an error"),
        (errno.EACCES, StoreMisconfigured, "permission denied; set DATA_DIR"),
        (errno.EROFS, StoreMisconfigured, "the file system is read-only; set DATA_DIR"),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_failed_put_tells_why_and_leaves_the_old_object(
    store: LocalStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    expected: type[Exception],
    says: str,
) -> None:
    store.put("k", b"old")

    def failing(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(expected, match=says) as caught:
            store.put("k", b"new")
    assert f"{root}/k" in str(caught.value)
    assert store.get("k") == b"old"
    assert files(root) == ["k"]


def test_a_disk_that_fills_up_in_the_middle(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write, count = os.write, itertools.count()

    def write(descriptor: int, data: memoryview) -> int:
        if next(count) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data[:10])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            store.put("k", b"x" * 100, if_absent=True)
    assert files(root) == []
    store.put("k", b"x" * 100, if_absent=True)
    assert store.get("k") == b"x" * 100


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreMisconfigured, match="set DATA_DIR to a folder"):
            LocalStore(root)


@pytest.mark.parametrize("name", ["a#b", "a?b", "a\nb"])
def test_a_root_that_iceberg_cannot_address_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreMisconfigured, match="Iceberg addresses cannot hold"):
        LocalStore(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_object_cannot_be_a_folder_too(store: LocalStore, root: Path) -> None:
    store.put("a", b"x")
    store.put("b/c", b"x")
    for key in ("a/below", "b"):
        for if_absent in (False, True):
            with pytest.raises(StoreMisconfigured):
                store.put(key, b"y", if_absent=if_absent)
    assert files(root) == ["a", "b/c"]


def test_a_removed_folder_is_made_again(store: LocalStore, root: Path) -> None:
    store.put("a/b", b"x")
    store.delete("a/b")
    (root / "a").rmdir()
    with pytest.raises(StoreUnavailable, match="a folder of the store has been removed"):
        store.put("a/b", b"y")
    store.put("a/b", b"y")
    assert store.get("a/b") == b"y"


def test_a_vanished_root_is_never_taken_for_an_empty_store(store: LocalStore, root: Path) -> None:
    store.put("k", b"x")
    root.rename(root.with_name("unmounted"))
    for call in (
        lambda: store.list(),
        lambda: store.get("k"),
        lambda: store.open("k"),
        lambda: store.put("k", b"y"),
    ):
        with pytest.raises(StoreUnavailable, match="is the file system of DATA_DIR mounted"):
            call()
    assert not root.exists()


def test_temporary_and_foreign_files_are_not_listed(store: LocalStore, root: Path) -> None:
    store.put("a/k", b"x")
    (root / "~tmp" / "half").write_bytes(b"x")
    (root / "a" / "not a key").write_bytes(b"x")
    assert [info.key for info in store.list()] == ["a/k"]


def test_only_old_leftovers_are_removed_at_start(store: LocalStore, root: Path) -> None:
    written = 1_000_000.0
    for name, age in (("old", LEFTOVER_SECONDS + 1), ("young", LEFTOVER_SECONDS - 1)):
        path = root / "~tmp" / name
        path.write_bytes(b"x")
        os.utime(path, (written - age, written - age))
    LocalStore(root, clock=lambda: written)
    assert [path.name for path in (root / "~tmp").iterdir()] == ["young"]


def test_segments_longer_than_a_file_name(store: LocalStore) -> None:
    name = "x" * 250
    written = [f"{name}/y", f"{name}-", f"{name}z", "%E3%81%82" * 85, f"{'y' * 765}/{'z' * 200}/end"]
    for key in written:
        store.put(key, key.encode())
    listed = [info.key for info in store.list()]
    assert listed == sorted(written)
    assert [store.get(key) for key in listed] == [key.encode() for key in listed]
    assert [info.key for info in store.list("y" * 300)] == [written[-1]]
    assert [info.key for info in store.list("y" * 765 + "/z")] == [written[-1]]
    assert PyArrowFileIO().new_input(store.url(written[-1])).open().read() == written[-1].encode()


def test_an_open_file_outlives_its_deletion_and_replacement(store: LocalStore) -> None:
    for change in (store.delete, lambda key: store.put(key, b"new")):
        store.put("k", b"content")
        with store.open("k") as file:
            change("k")
            assert file.read() == b"content"


def test_iceberg_reads_the_url_of_a_key_with_percent_signs(store: LocalStore) -> None:
    key = "data/t%C3%A4ulu%20%2F%201/part%2520.parquet"
    store.put(key, b"content")
    assert store.url(key).startswith("file:///")
    assert store.url(key).endswith(key)
    source = PyArrowFileIO().new_input(store.url(key))
    assert len(source) == 7
    with source.open() as file:
        assert file.read() == b"content"


def test_urls_do_not_depend_on_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = LocalStore(Path("data/../here"))
    store.put("k", b"x")
    monkeypatch.chdir("/")
    assert store.url("k") == f"file://{tmp_path}/here/k"
    assert store.get("k") == b"x"


@given(key=SEGMENTS)
def test_no_key_leaves_the_root(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    root = tmp_path_factory.getbasetemp() / "hypothesis" / "store"
    store = LocalStore(root)
    try:
        validate_key(key)
    except ValueError:
        with pytest.raises(ValueError, match="illegal object key"):
            store.put(key, b"x")
        return
    path = urlsplit(store.url(key)).path
    assert os.path.normpath(path) == path
    assert path.startswith(f"{root}/")
    assert not path.startswith(f"{root}/~")
    try:
        store.put(key, b"x")
    except StoreMisconfigured:
        return  # another key of this run is its folder
    assert files(root) == [str(Path(path).relative_to(root))]
    store.delete(key)
    with pytest.raises(ObjectMissing):
        store.get(key)
