"""Rules that every store applies alike: legal listing prefixes and the probe at start."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from typing import Final

from boilstream.errors import BoilStreamError
from boilstream.storage.base import (
    ObjectExists,
    ObjectMissing,
    ObjectStore,
    StoreMisconfigured,
    StoreUnavailable,
    validate_key,
)

PROBE_PREFIX = "_probe/"
"""Where `probe` puts its object; anything that is left there by a crash may be deleted."""

PROBE_STEPS: Final = ("write", "read", "list", "conditional create", "delete")
"""What `probe` does, in this order."""


def is_key(name: str) -> bool:
    """Whether `name` is a legal key; a listing leaves out what is not, since BoilStream never wrote it."""
    try:
        validate_key(name)
    except ValueError:
        return False
    return True


def validate_prefix(prefix: str) -> str:
    """Return `prefix` if some legal key can start with it; raise ValueError otherwise (a caller's defect)."""
    if prefix:
        validate_key(prefix + "x" if prefix.endswith(("/", ".")) else prefix)
    return prefix


def probe(store: ObjectStore, done: Callable[[], None] = lambda: None) -> None:
    """Do what `ObjectStore.check` promises, with the methods of the store alone.

    Lists the probe object too: recovery lists the log, and some permissions allow all but that. Calls `done`
    after each of PROBE_STEPS that went well.
    """
    key = f"{PROBE_PREFIX}{uuid.uuid4().hex}"
    try:
        _probe(store, key, done)
    except BaseException:
        with contextlib.suppress(BoilStreamError):
            store.delete(key)
        raise
    store.delete(key)
    done()


def _probe(store: ObjectStore, key: str, done: Callable[[], None]) -> None:
    content, where = key.encode(), store.url(key)
    try:
        store.put(key, content, if_absent=True)
    except ObjectExists as error:
        raise StoreUnavailable(f"{where}: a new object is reported as existing; try again") from error
    done()
    try:
        found = store.get(key)
    except ObjectMissing as error:
        raise StoreMisconfigured(
            f"{where}: an object cannot be read right after it was written; "
            "use a store with read-after-write consistency"
        ) from error
    if found != content:
        raise StoreMisconfigured(f"{where}: the store gave back other bytes than it was given")
    done()
    if [(info.key, info.size) for info in store.list(key)] != [(key, len(content))]:
        raise StoreMisconfigured(f"{where}: the store does not list an object that it has")
    done()
    try:
        store.put(key, content, if_absent=True)
    except ObjectExists:
        done()
        return
    raise StoreMisconfigured(
        f"{where}: the store overwrites an object in spite of 'If-None-Match: *', so two servers could "
        "destroy each other's commits; use a store with conditional writes"
    )
