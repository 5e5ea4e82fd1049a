"""Small files of the development folder, written so that readers never see half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from boilstream.errors import ConfigurationError

PRIVATE = 0o600
"""Mode of a file that holds a secret."""
PUBLIC = 0o644
"""Mode of a file that other users may read."""


def write_atomically(path: Path, data: bytes, *, mode: int) -> None:
    """Replace `path` by `data` in one step; missing folders are made.

    The bytes are never readable for more users than `mode` says, not even for a moment. Raises
    ConfigurationError when the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}."
        )  # created with mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
                os.fchmod(descriptor, mode)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {path}: {error.strerror}; make its folder writable, or set DATA_DIR to one that is"
        ) from None


def read_if_there(path: Path) -> bytes | None:
    """The bytes of `path`, None if there is no such file; raises ConfigurationError if it is unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror}; run as the user that owns it, or delete it"
        ) from None
