"""What the process asks of the machine that it runs on: its memory, and how the C library handles it."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
from pathlib import Path

log = logging.getLogger("boilstream.machine")

MIB = 1024 * 1024

# Memory limits of a container: cgroup version 2, then version 1. An unlimited one says `max` or a huge number.
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

# Parameter numbers of mallopt, from malloc.h of the GNU C library.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def memory_bytes() -> int:
    """Memory of the machine, or of the container if that has less."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP_LIMITS:
        try:
            sizes.append(int(path.read_text()))
        except (OSError, ValueError):
            continue  # not this version of cgroups, or no limit
    return min(sizes)


def keep_freed_memory() -> None:
    """Let the process reuse freed buffers instead of giving them back to the kernel at once.

    Every message that Flight receives is copied by gRPC into a buffer of its own. By default glibc
    returns such large buffers to the kernel when they are freed, and the next one costs a page
    fault per 4 KiB: more than Parquet encoding. Freed memory stays with the process, bounded by
    the most that was in use at once. Does nothing with other C libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    wanted = {
        _M_MMAP_THRESHOLD: 32 * MIB,  # the most that glibc takes
        _M_TRIM_THRESHOLD: 1024 * MIB,
        _M_ARENA_MAX: 2 * (os.cpu_count() or 2),  # else each of many threads keeps its own freed memory
    }
    if not all(mallopt(parameter, value) for parameter, value in wanted.items()):
        log.warning("the memory allocator did not take its settings; receiving will be slower")
