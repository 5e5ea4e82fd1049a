from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from boilstream.dev.files import PRIVATE, PUBLIC, read_if_there, write_atomically
from boilstream.errors import ConfigurationError


@pytest.mark.parametrize("mode", [PRIVATE, PUBLIC])
def test_the_file_has_the_mode_and_no_other_file_stays(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, b"one", mode=mode)
    write_atomically(path, b"two", mode=mode)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert list(path.parent.iterdir()) == [path]


def test_no_other_user_can_read_the_bytes_while_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []

    def observed_fsync(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))

    monkeypatch.setattr(os, "fsync", observed_fsync)
    previous = os.umask(0)
    try:
        write_atomically(tmp_path / "secret", b"x", mode=PRIVATE)
    finally:
        os.umask(previous)
    assert modes == [0o600]


def test_a_failure_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old", mode=PUBLIC)

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(ConfigurationError, match=r"cannot write .*file: No space left on device"):
        write_atomically(path, b"new", mode=PUBLIC)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="DATA_DIR"):
        write_atomically(tmp_path / "file" / "below", b"", mode=PUBLIC)


def test_reading_tells_absent_from_unreadable(tmp_path: Path) -> None:
    assert read_if_there(tmp_path / "absent") is None
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_if_there(tmp_path)
