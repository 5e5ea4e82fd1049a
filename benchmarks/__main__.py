"""`python -m benchmarks [NAME ...]`: run all benchmarks, or those named."""

from __future__ import annotations

import sys

from benchmarks import durable_put, small_appends
from benchmarks.report import machine

ALL = {"durable_put": durable_put.main, "small_appends": small_appends.main}

if __name__ == "__main__":
    names = sys.argv[1:] or list(ALL)
    if unknown := [name for name in names if name not in ALL]:
        sys.exit(f"no benchmark {unknown[0]!r}; there are {', '.join(ALL)}")
    print(machine())
    for name in names:
        ALL[name]()
