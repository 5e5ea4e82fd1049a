"""Whether the store does what BoilStream needs of it, and how fast."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from boilstream.doctor.findings import Finding, fail, ok, split_advice
from boilstream.errors import BoilStreamError
from boilstream.settings import Settings
from boilstream.storage.base import ObjectStore
from boilstream.storage.checks import PROBE_STEPS, probe

OpenStore = Callable[[Settings], ObjectStore]

_FIX_DATA_DIR = "set DATA_DIR to a folder that the server's user can write, or give it the right"


def check_data_folder(data_dir: Path) -> Finding:
    """Whether a server could use the folder DATA_DIR; it is neither made nor locked."""
    folder, is_there = data_dir.absolute(), data_dir.is_dir()
    usable = next(path for path in (folder, *folder.parents) if path.exists())
    if not usable.is_dir():
        return fail("data folder", f"{usable} is not a folder", _FIX_DATA_DIR)
    if not os.access(usable, os.R_OK | os.W_OK | os.X_OK):
        return fail("data folder", f"{usable} is not writable for this user", _FIX_DATA_DIR)
    return ok("data folder", str(folder) if is_there else f"{folder} will be made at the first start")


def check_store(settings: Settings, open_store: OpenStore, ticks: Callable[[], float]) -> Iterator[Finding]:
    """Write, read, list, conditionally create and delete a probe object; `ticks` gives seconds.

    A local store that is not there yet is left so: the first start makes it.
    """
    if settings.s3_bucket is None and not (settings.data_dir / "store").is_dir():
        yield ok("store", "a local folder in DATA_DIR, which will be made at the first start")
        return
    passed_at: list[float] = []
    try:
        store = open_store(settings)
    except BoilStreamError as error:
        yield fail("store", *_problem(error, settings))
        return
    try:
        begun_at = ticks()
        probe(store, lambda: passed_at.append(ticks()))
        problem = None
    except BoilStreamError as error:
        problem = _problem(error, settings)
    finally:
        store.close()
    for step, start, end in zip(PROBE_STEPS, [begun_at, *passed_at], passed_at, strict=False):
        yield ok(f"store {step}", f"{(end - start) * 1000:.0f} ms{_NOTES.get(step, '')}")
    if problem is not None:
        yield fail(f"store {PROBE_STEPS[len(passed_at)]}", *problem)


_NOTES = {"conditional create": ", the second one was refused as it must be"}


def _problem(error: BoilStreamError, settings: Settings) -> tuple[str, str]:
    if settings.s3_bucket is None:
        otherwise = "see that the disk of DATA_DIR has room and works, or set another folder"
    elif error.retryable:
        otherwise = "see that the store is up and can be reached from this machine, and try again"
    else:
        otherwise = "check S3_BUCKET, S3_ENDPOINT_URL and the credentials of this process"
    return split_advice(error.message, otherwise)
