"""`python -m benchmarks [NAME ...]`: run all benchmarks, or those named."""

from __future__ import annotations

import sys

from benchmarks import airport, cached_call, durable_put, key_rotation, small_appends, token_verify
from benchmarks.report import machine

ALL = {
    "durable_put": durable_put.main,
    "small_appends": small_appends.main,
    "airport": airport.main,
    "cached_call": cached_call.main,
    "token_verify": token_verify.main,
    "key_rotation": key_rotation.main,
}

if __name__ == "__main__":
    names = sys.argv[1:] or list(ALL)
    if unknown := [name for name in names if name not in ALL]:
        sys.exit(f"no benchmark {unknown[0]!r}; there are {', '.join(ALL)}")
    print(machine())
    for name in names:
        ALL[name]()
