"""What the server and its evaluator processes agree on."""

from __future__ import annotations

import struct
from typing import Final

LENGTHS: Final = struct.Struct("<II")
"""Begins a message: the bytes of a JSON header and of the payload that follow."""

ROWS: Final = "__boilstream_rows"
"""The table that a check reads."""

CPU_SECONDS: Final = 5.0
"""Processor time of one request."""

WALL_SECONDS: Final = 20.0
"""Time of one request on the clock, for a machine that is busy with other things."""

MIN_MEMORY_BYTES: Final = 256 * 1024 * 1024
MAX_MEMORY_BYTES: Final = 1024 * 1024 * 1024
"""Bounds of the address space of a process beyond what it takes when idle."""

MEMORY_PART: Final = 16
"""Between them it is this part of the memory of the machine or container."""


def memory_limit(memory: int) -> int:
    """Bytes of address space that a process gets where there is so much memory."""
    return max(MIN_MEMORY_BYTES, min(MAX_MEMORY_BYTES, memory // MEMORY_PART))
