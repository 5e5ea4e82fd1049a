"""Objects as files below one folder, as durable as the disk that holds them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from boilstream.errors import BoilStreamError
from boilstream.storage.base import (
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    StoreMisconfigured,
    StoreUnavailable,
    validate_key,
)
from boilstream.storage.checks import is_key, probe, validate_prefix

LEFTOVER_SECONDS = 86_400.0
"""A temporary file that is older than this belongs to a process that died."""

_TEMPORARY = "~tmp"  # "~" is no character of keys, so neither name below can be one
_NAME_BYTES = 250  # file systems end at 255
_CUT = "~"

_PERMANENT = {
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EISDIR: "a folder is in the place of the object",
    errno.ENAMETOOLONG: "the path is too long",
    errno.ELOOP: "symbolic links go round in a circle",
    errno.EOPNOTSUPP: "the file system lacks an operation that the store needs (hard links?)",
    errno.EMLINK: "the file system lacks an operation that the store needs (hard links?)",
}
_PASSING = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EIO: "the disk reports an error",
    errno.EMFILE: "this process has too many open files",
    errno.ENFILE: "this machine has too many open files",
    errno.ENOENT: "a folder of the store has been removed",
}
_NO_OBJECT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class LocalStore(ObjectStore):
    """A store in the folder `root`, which is made if it is missing.

    The file of a key is `root/key`. Segments over 250 bytes are cut into folders whose names end in
    `~`, so every legal key has a file. A key cannot be the folder of another one: a put that would
    make it so raises StoreMisconfigured. Several processes may share a root on a local file system.

    A file is written aside, synced, and then moved or linked into place; then the folder is synced. So an
    object is there whole or not at all after any crash, and durable when `put` returns.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` tells seconds since the epoch. Raises StoreMisconfigured and StoreUnavailable."""
        self._root = Path(os.path.abspath(root))  # noqa: PTH100 - resolve() would follow links, which may change
        if any(character in "#?" or not character.isprintable() for character in str(self._root)):
            raise StoreMisconfigured(
                f"local store {str(self._root)!r}: Iceberg addresses cannot hold '#', '?' or "
                "characters that do not print; set DATA_DIR to a folder without them"
            )
        self._temporary = self._root / _TEMPORARY
        self._durable: set[Path] = set()
        with self._translated("open", self._root):
            _make_root(self._root)
            self._durable.add(self._root)
            self._make_durable(self._temporary)
            self._remove_leftovers(clock())

    def url(self, key: str) -> str:
        """`file://` and the absolute path as it is: Iceberg readers do not decode percent signs in it."""
        return f"file://{self._path(key)}"

    def put(self, key: str, data: pa.Buffer | bytes, *, if_absent: bool = False) -> None:
        """See ObjectStore. ObjectExists, too, is raised only when the object that won is durable."""
        path = self._path(key)
        with self._translated("write", path):
            self._make_durable(path.parent)
            aside = self._temporary / uuid.uuid4().hex
            try:
                _write(aside, memoryview(data))
                if if_absent:
                    self._link(aside, path)
                else:
                    os.replace(aside, path)  # noqa: PTH105 - the system call that is meant
            finally:
                with contextlib.suppress(OSError):
                    aside.unlink(missing_ok=True)
            _sync_folder(path.parent)

    def get(self, key: str) -> bytes:
        """See ObjectStore."""
        path = self._path(key)
        with self._translated("read", path):
            try:
                return path.read_bytes()
            except _NO_OBJECT:
                raise self._missing(key) from None

    def open(self, key: str) -> pa.NativeFile:
        """See ObjectStore. A file that is deleted meanwhile stays readable until it is closed.

        Reads use pread and are safe from several threads; a failing disk makes them raise OSError. (In a
        memory map it would kill the process.)
        """
        path = self._path(key)
        with self._translated("read", path):
            try:
                if path.is_dir():
                    raise self._missing(key)
                return pa.OSFile(str(path), "rb")
            except _NO_OBJECT:
                raise self._missing(key) from None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See ObjectStore. Files whose path is no legal key are left out."""
        folder = validate_prefix(prefix).rpartition("/")[0]
        start = self._path(folder) if folder else self._root
        with self._translated("list", start):
            if not self._root.is_dir():
                raise self._gone()
            found = list(_walk(start, f"{folder}/" if folder else "", prefix))
        return iter(sorted(found, key=lambda info: info.key))

    def delete(self, key: str) -> None:
        """See ObjectStore. A crash of the machine right after may bring the object back."""
        path = self._path(key)
        with self._translated("delete", path), contextlib.suppress(*_NO_OBJECT):
            path.unlink()

    def check(self) -> None:
        """See ObjectStore."""
        probe(self)

    def close(self) -> None:
        """Nothing is held open."""

    def _path(self, key: str) -> Path:
        return self._root.joinpath(*(part for name in validate_key(key).split("/") for part in _cut(name)))

    def _make_durable(self, folder: Path) -> None:
        """Make `folder` and its parents, and sync each entry once in the life of this process.

        That a folder exists does not mean that its entry is on the disk: another process may have died
        between making and syncing it.
        """
        if folder in self._durable:
            return
        self._make_durable(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        _sync_folder(folder.parent)
        self._durable.add(folder)

    def _link(self, aside: Path, path: Path) -> None:
        try:
            os.link(aside, path)
        except FileExistsError:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a folder") from None
            _sync_folder(path.parent)
            raise ObjectExists(f"{path} exists already") from None

    def _remove_leftovers(self, now: float) -> None:
        for leftover in self._temporary.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if now - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                    leftover.unlink()

    def _missing(self, key: str) -> BoilStreamError:
        return ObjectMissing(f"no object {key}") if self._root.is_dir() else self._gone()

    def _gone(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"local store: the folder {self._root} is gone; is the file system of DATA_DIR mounted?"
        )

    @contextmanager
    def _translated(self, doing: str, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            number = error.errno or 0
            where = f"local store: cannot {doing} {path}"
            if number in _PERMANENT:
                raise StoreMisconfigured(
                    f"{where}: {_PERMANENT[number]}; set DATA_DIR to a folder that this user can write"
                ) from error
            if number == errno.ENOENT:
                if not self._root.is_dir():
                    raise self._gone() from error
                self._durable = {self._root}  # so that the next attempt makes the folders again
            reason = _PASSING.get(number) or os.strerror(number)
            raise StoreUnavailable(f"{where}: {reason}") from error


def _cut(name: str) -> list[str]:
    """The parts of a path that stand for one segment of a key."""
    parts = [name[start : start + _NAME_BYTES] for start in range(0, len(name), _NAME_BYTES)]
    return [*(part + _CUT for part in parts[:-1]), parts[-1]]


def _walk(folder: Path, key_of_folder: str, prefix: str) -> Iterator[ObjectInfo]:
    """Files below `folder` whose keys start with `prefix`, in no order; what vanishes is skipped."""
    try:
        entries = list(os.scandir(folder))
    except _NO_OBJECT:
        return
    for entry in entries:
        key = key_of_folder + entry.name
        if entry.is_dir(follow_symlinks=False):
            long = entry.name.endswith(_CUT) and len(entry.name) == _NAME_BYTES + len(_CUT)
            key = key.removesuffix(_CUT) if long else key + "/"
            if entry.name != _TEMPORARY and (key.startswith(prefix) or prefix.startswith(key)):
                yield from _walk(Path(entry.path), key, prefix)
        elif key.startswith(prefix) and is_key(key):
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat()
                yield ObjectInfo(key, status.st_size, status.st_mtime)


def _make_root(root: Path) -> None:
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        _sync_folder(folder.parent)
    if not root.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder")
    if not missing:
        with contextlib.suppress(PermissionError):  # then someone else made the folder, long ago
            _sync_folder(root.parent)


def _write(path: Path, view: memoryview) -> None:
    """Make the file `path` with all bytes of `view` and sync it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        written = 0
        while written < view.nbytes:
            written += os.write(descriptor, view[written:])
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Wait until the disk has it. On macOS fsync stops at the drive's cache; F_FULLFSYNC does not."""
    full_sync: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        try:
            fcntl.fcntl(descriptor, full_sync)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL):
                raise  # not every file system knows the call; all else is a failure to sync
    os.fsync(descriptor)
