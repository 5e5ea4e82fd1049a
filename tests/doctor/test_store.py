from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from boilstream.doctor.findings import Finding, Level, ok
from boilstream.doctor.store import check_data_folder, check_store
from boilstream.settings import Settings
from boilstream.storage.base import ObjectStore, StoreMisconfigured, StoreUnavailable
from boilstream.storage.checks import PROBE_STEPS
from tests.support.stores import MemoryStore, failing

SETTINGS = Settings(s3_bucket="my-data-bucket")


def ticking() -> Iterator[float]:
    return itertools.count(0, 0.25)


def found(store: ObjectStore, settings: Settings = SETTINGS) -> list[Finding]:
    clock = ticking()
    return list(check_store(settings, lambda _: store, lambda: next(clock)))


def test_a_sound_store_has_a_line_with_its_time_per_step() -> None:
    store = MemoryStore()
    findings = found(store)
    assert [finding.what for finding in findings] == [f"store {step}" for step in PROBE_STEPS]
    assert all(finding.level is Level.OK and finding.detail.startswith("250 ms") for finding in findings)
    assert "refused as it must be" in findings[3].detail
    assert store.objects == {}


def test_a_store_that_cannot_be_written() -> None:
    store = MemoryStore()

    def read_only(method: str, key: str) -> None:
        if method == "put":
            raise StoreMisconfigured("cannot write s3://b/k: AccessDenied: no permission: allow s3:PutObject")

    store.before = read_only
    (finding,) = found(store)
    assert (finding.level, finding.what, finding.fix) == (Level.FAIL, "store write", "allow s3:PutObject")


class Overwriting(MemoryStore):
    def put(self, key: str, data: pa.Buffer | bytes, *, if_absent: bool = False) -> None:
        super().put(key, data)


def test_a_store_without_conditional_create() -> None:
    store = Overwriting()
    findings = found(store)
    assert [finding.level for finding in findings] == [Level.OK] * 3 + [Level.FAIL]
    assert findings[-1].what == "store conditional create"
    assert "If-None-Match" in findings[-1].detail
    assert findings[-1].fix == "use a store with conditional writes"
    assert store.objects == {}


@pytest.mark.parametrize(("method", "passed"), [("put", 0), ("get", 1), ("list", 2), ("delete", 4)])
def test_the_step_that_fails_is_named(method: str, passed: int) -> None:
    store = MemoryStore()
    store.before = failing(1, method=method)
    findings = found(store)
    assert len(findings) == passed + 1
    assert (findings[-1].level, findings[-1].what) == (Level.FAIL, f"store {PROBE_STEPS[passed]}")
    assert "try again" in str(findings[-1].fix)


def test_a_store_that_cannot_be_opened() -> None:
    def refuse(_: Settings) -> ObjectStore:
        raise StoreUnavailable("no store")

    (finding,) = check_store(SETTINGS, refuse, lambda: 0.0)
    assert (finding.level, finding.what, finding.detail) == (Level.FAIL, "store", "no store")


def test_a_local_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    (finding,) = check_store(settings, lambda _: pytest.fail("opened"), lambda: 0.0)
    assert finding.level is Level.OK
    assert "first start" in finding.detail
    assert list(tmp_path.iterdir()) == []


def test_the_data_folder(tmp_path: Path) -> None:
    assert check_data_folder(tmp_path) == ok("data folder", str(tmp_path))
    assert "first start" in check_data_folder(tmp_path / "a" / "b").detail
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    taken = check_data_folder(tmp_path / "file" / "data")
    assert taken.level is Level.FAIL
    assert "not a folder" in taken.detail
    monkeypatch.setattr(os, "access", lambda path, mode: os.fspath(path) != str(tmp_path))
    closed = check_data_folder(tmp_path / "data")
    assert closed.level is Level.FAIL
    assert "not writable" in closed.detail
    assert "DATA_DIR" in str(closed.fix)
