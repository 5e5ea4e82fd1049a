"""Rebuilds the index from the commit log at start."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

from boilstream.log.index import LogIndex
from boilstream.log.records import LOG_PREFIX, DamagedRecord, Record, decode, parse_key
from boilstream.storage.base import ObjectMissing, ObjectStore
from boilstream.storage.retry import retrying

log = logging.getLogger("boilstream.log.recovery")

PARALLEL_READS = 32


def recover(store: ObjectStore, index: LogIndex, *, deadline: float) -> int:
    """Apply every record of the log to `index` and return how many there were.

    Foreign and damaged objects are reported and skipped, never removed. `deadline` is a time of
    `time.monotonic` for each store call. Raises StoreUnavailable.
    """
    places = []
    for info in retrying(lambda: list(store.list(LOG_PREFIX)), deadline=deadline):
        place = parse_key(info.key)
        if place is None:
            log.warning("%s is not a commit record; skipped", info.key)
        else:
            places.append((place, info.key))
    places.sort()

    def read(key: str) -> Record | None:
        try:
            return decode(key, retrying(lambda: store.get(key), deadline=deadline))
        except (DamagedRecord, ObjectMissing) as error:
            log.error("commit record %s cannot be read and is skipped: %s", key, error)
            return None

    applied = 0
    with ThreadPoolExecutor(PARALLEL_READS, thread_name_prefix="log-recovery") as pool:
        for record in pool.map(read, [key for _, key in places]):
            if record is not None:
                applied += index.apply(record)
    log.info("read %d commit records", applied)
    return applied
