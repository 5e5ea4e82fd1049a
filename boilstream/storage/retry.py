"""Repeats a store call that may succeed later: exponential backoff with full jitter, up to a deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from boilstream.storage.base import StoreUnavailable

T = TypeVar("T")

FIRST_DELAY = 0.05
"""Longest wait before the second attempt, seconds; it doubles with every attempt."""

LONGEST_DELAY = 2.0
"""Ceiling of the waits, seconds."""


def retrying(
    call: Callable[[], T],
    *,
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    rng: Callable[[], float] = random.random,
) -> T:
    """Return the first result of `call` that is not StoreUnavailable.

    `deadline` is a time of `clock`, seconds. The first attempt is always made; no wait reaches the
    deadline, and when the next one would, the last StoreUnavailable is raised at once. Every other
    exception ends the attempts. An attempt that began before the deadline may end after it.

    The outcome of a failed attempt is not known. So a repeated conditional create can meet the
    object of its own earlier attempt: who retries one must look at what ObjectExists found.

    The wait before attempt n + 1 is uniform in [0, min(2, 0.05 * 2^(n-1))) seconds: full jitter, as in
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    ceiling = FIRST_DELAY
    while True:
        try:
            return call()
        except StoreUnavailable:
            delay = rng() * ceiling
            if clock() + delay >= deadline:
                raise
        sleep(delay)
        ceiling = min(LONGEST_DELAY, ceiling * 2)
