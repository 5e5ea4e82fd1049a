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

MEMORY_BYTES: Final = 1024 * 1024 * 1024
"""Address space of a process beyond what it takes when idle."""
