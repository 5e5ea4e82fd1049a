"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes
import logging
import os
import platform

from boilstream.settings import MIB

log = logging.getLogger("boilstream.allocator")

# Parameter numbers of mallopt, from malloc.h of the GNU C library.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


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
