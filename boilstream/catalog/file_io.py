"""Iceberg's FileIO over the object store seam.

pyiceberg writes table metadata through this class, so that it lands with the same credentials,
time limits and durability (synced to disk, or on S3) as the rows that it describes.
"""

from __future__ import annotations

import io
import time
from functools import partial
from typing import Any

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream
from pyiceberg.typedef import EMPTY_DICT, Properties

from boilstream.storage.base import ObjectExists, ObjectMissing, ObjectStore
from boilstream.storage.retry import retrying

STORE_PROPERTY = "boilstream.object-store"
"""Catalog property that holds the ObjectStore itself (an object, not a text)."""


PATIENCE_PROPERTY = "boilstream.patience-seconds"
"""Catalog property: how long reading or writing metadata waits for a store that does not answer."""


class StoreFileIO(FileIO):
    """FileIO whose locations are addresses of one ObjectStore (`ObjectStore.url`).

    pyiceberg builds it by its class path (`py-io-impl`) and hands it the catalog's properties.
    """

    def __init__(self, properties: Properties = EMPTY_DICT) -> None:
        super().__init__(properties)
        store: ObjectStore = properties[STORE_PROPERTY]
        self._objects = _Objects(store, properties[PATIENCE_PROPERTY])
        self._root = store.url("x").removesuffix("x")

    def new_input(self, location: str) -> InputFile:
        """The object at `location`, to be read."""
        return _Input(self._objects, self._key(location), location)

    def new_output(self, location: str) -> OutputFile:
        """The object at `location`, to be written."""
        return _Output(self._objects, self._key(location), location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Remove the object; no error if there is none."""
        self._objects.delete(self._key(location if isinstance(location, str) else location.location))

    def _key(self, location: str) -> str:
        if not location.startswith(self._root):
            raise ValueError(f"{location!r} is outside the object store {self._root!r}")
        return location[len(self._root) :]


class _Objects:
    """The store, asked again for `patience` seconds while it does not answer, with the errors of Python's files."""

    def __init__(self, store: ObjectStore, patience: float) -> None:
        self._store = store
        self._patience = patience

    def get(self, key: str) -> bytes:
        try:
            return retrying(partial(self._store.get, key), deadline=self._deadline())
        except ObjectMissing as error:
            raise FileNotFoundError(key) from error

    def put(self, key: str, data: bytes, *, if_absent: bool) -> None:
        try:
            retrying(partial(self._store.put, key, data, if_absent=if_absent), deadline=self._deadline())
        except ObjectExists as error:
            # It may be our own, from an attempt whose answer was lost.
            if self.get(key) != data:
                raise FileExistsError(key) from error

    def delete(self, key: str) -> None:
        retrying(partial(self._store.delete, key), deadline=self._deadline())

    def _deadline(self) -> float:
        return time.monotonic() + self._patience


class _Input(InputFile):
    def __init__(self, objects: _Objects, key: str, location: str) -> None:
        super().__init__(location)
        self._objects, self._key = objects, key

    def __len__(self) -> int:
        return len(self._objects.get(self._key))

    def exists(self) -> bool:
        try:
            self._objects.get(self._key)
        except FileNotFoundError:
            return False
        return True

    def open(self, seekable: bool = True) -> InputStream:  # noqa: ARG002 - always seekable
        return io.BytesIO(self._objects.get(self._key))


class _Output(OutputFile):
    def __init__(self, objects: _Objects, key: str, location: str) -> None:
        super().__init__(location)
        self._objects, self._key = objects, key

    def __len__(self) -> int:
        return len(self.to_input_file())

    def exists(self) -> bool:
        return self.to_input_file().exists()

    def to_input_file(self) -> InputFile:
        return _Input(self._objects, self._key, self.location)

    def create(self, overwrite: bool = False) -> OutputStream:
        return _Stream(self._objects, self._key, if_absent=not overwrite)


class _Stream(io.BytesIO):
    """Collects what is written and puts it as one object on close, unless the writer failed."""

    def __init__(self, objects: _Objects, key: str, *, if_absent: bool) -> None:
        super().__init__()
        self._objects, self._key, self._if_absent = objects, key, if_absent

    def __exit__(self, exc_type: Any, exc: Any, traceback: Any) -> None:
        if exc_type is None:
            self.close()
        else:
            super().close()

    def close(self) -> None:
        if self.closed:
            return
        data = self.getvalue()
        super().close()
        self._objects.put(self._key, data, if_absent=self._if_absent)
