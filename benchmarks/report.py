"""How results are printed."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pyarrow as pa


def machine() -> str:
    """What the numbers were made on."""
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or "unknown processor",
    )
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, pyarrow {pa.__version__}"


def ratio(name: str, value: float, reference: str, target: str) -> None:
    """One result, as a ratio against a named reference of the same run."""
    print(f"  => {name}: {value:.2f} of {reference} (target {target})", flush=True)


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
