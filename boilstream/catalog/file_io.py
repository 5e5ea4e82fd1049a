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


PATIENCE_SECONDS = 30.0
"""How long reading or writing metadata waits for a store that does not answer."""


class StoreFileIO(FileIO):
    """FileIO whose locations are addresses of one ObjectStore (`ObjectStore.url`).

    pyiceberg builds it by its class path (`py-io-impl`) and hands it the catalog's properties.
    """

    def __init__(self, properties: Properties = EMPTY_DICT) -> None:
        super().__init__(properties)
        self._store: ObjectStore = properties[STORE_PROPERTY]
        self._root = self._store.url("x").removesuffix("x")

    def new_input(self, location: str) -> InputFile:
        """The object at `location`, to be read."""
        return _StoreInput(self._store, self._key(location), location)

    def new_output(self, location: str) -> OutputFile:
        """The object at `location`, to be written."""
        return _StoreOutput(self._store, self._key(location), location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Remove the object; no error if there is none."""
        self._store.delete(self._key(location if isinstance(location, str) else location.location))

    def _key(self, location: str) -> str:
        if not location.startswith(self._root):
            raise ValueError(f"{location!r} is outside the object store {self._root!r}")
        return location[len(self._root) :]


class _StoreInput(InputFile):
    def __init__(self, store: ObjectStore, key: str, location: str) -> None:
        super().__init__(location)
        self._store, self._object_key = store, key

    def __len__(self) -> int:
        return len(self._read())

    def exists(self) -> bool:
        try:
            self._read()
        except FileNotFoundError:
            return False
        return True

    def open(self, seekable: bool = True) -> InputStream:  # noqa: ARG002 - always seekable
        return io.BytesIO(self._read())

    def _read(self) -> bytes:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            return retrying(partial(self._store.get, self._object_key), deadline=deadline)
        except ObjectMissing as error:
            raise FileNotFoundError(self.location) from error


class _StoreOutput(OutputFile):
    def __init__(self, store: ObjectStore, key: str, location: str) -> None:
        super().__init__(location)
        self._store, self._object_key = store, key

    def __len__(self) -> int:
        return len(self.to_input_file())

    def exists(self) -> bool:
        return self.to_input_file().exists()

    def to_input_file(self) -> InputFile:
        return _StoreInput(self._store, self._object_key, self.location)

    def create(self, overwrite: bool = False) -> OutputStream:
        return _StoreStream(self._store, self._object_key, if_absent=not overwrite)


class _StoreStream(io.BytesIO):
    """Collects what is written and puts it as one object on close, unless the writer failed."""

    def __init__(self, store: ObjectStore, key: str, *, if_absent: bool) -> None:
        super().__init__()
        self._store, self._object_key, self._if_absent = store, key, if_absent

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
        deadline = time.monotonic() + PATIENCE_SECONDS
        put = partial(self._store.put, self._object_key, data, if_absent=self._if_absent)
        try:
            retrying(put, deadline=deadline)
        except ObjectExists as error:
            # It may be our own, from an attempt whose answer was lost.
            if retrying(partial(self._store.get, self._object_key), deadline=deadline) != data:
                raise FileExistsError(self._object_key) from error
