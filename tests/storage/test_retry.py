from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.storage.base import ObjectExists, StoreUnavailable
from boilstream.storage.retry import FIRST_DELAY, LONGEST_DELAY, retrying


class World:
    """A clock that only sleeping and the calls themselves move."""

    def __init__(self, failures: int, call_seconds: float = 0.0) -> None:
        self.now = 100.0
        self.calls: list[float] = []
        self.sleeps: list[float] = []
        self.failures = failures
        self.call_seconds = call_seconds

    def call(self) -> str:
        self.calls.append(self.now)
        self.now += self.call_seconds
        if len(self.calls) <= self.failures:
            raise StoreUnavailable(f"failure {len(self.calls)}")
        return "done"

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def run(self, patience: float, jitter: float = 0.5) -> str:
        return retrying(
            self.call,
            deadline=self.now + patience,
            clock=self.clock,
            sleep=self.sleep,
            rng=lambda: jitter,
        )


def test_a_success_is_returned_without_waiting() -> None:
    world = World(failures=0)
    assert world.run(10) == "done"
    assert world.sleeps == []


def test_failures_are_repeated_until_success() -> None:
    world = World(failures=3)
    assert world.run(10) == "done"
    assert len(world.calls) == 4


def test_waits_double_up_to_the_ceiling() -> None:
    world = World(failures=9)
    world.run(1000, jitter=1.0)
    assert world.sleeps == [min(LONGEST_DELAY, FIRST_DELAY * 2**n) for n in range(9)]
    assert world.sleeps[-1] == LONGEST_DELAY


def test_the_last_failure_is_raised_at_the_deadline() -> None:
    world = World(failures=10**6)
    with pytest.raises(StoreUnavailable, match=r"failure \d+") as caught:
        world.run(5)
    assert caught.value.message == f"failure {len(world.calls)}"
    assert len(world.calls) > 2


def test_an_attempt_is_made_even_after_the_deadline() -> None:
    world = World(failures=1)
    with pytest.raises(StoreUnavailable, match="failure 1"):
        world.run(-1)
    assert world.sleeps == []


@pytest.mark.parametrize("error", [ObjectExists("there"), ValueError("defect")])
def test_other_errors_end_the_attempts(error: Exception) -> None:
    world = World(failures=0)

    def call() -> None:
        world.calls.append(world.now)
        raise error

    with pytest.raises(type(error)):
        retrying(call, deadline=1000, clock=world.clock, sleep=world.sleep)
    assert len(world.calls) == 1
    assert world.sleeps == []


@given(
    failures=st.integers(0, 60),
    call_seconds=st.floats(0, 3),
    patience=st.floats(-5, 60),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_no_wait_reaches_the_deadline(
    failures: int, call_seconds: float, patience: float, jitter: float
) -> None:
    world = World(failures, call_seconds)
    deadline = world.now + patience
    try:
        world.run(patience, jitter)
        assert len(world.calls) == failures + 1
    except StoreUnavailable:
        assert 1 <= len(world.calls) <= failures
    assert len(world.sleeps) == len(world.calls) - 1
    assert all(start < deadline for start in world.calls[1:])
    assert all(0 <= seconds < LONGEST_DELAY for seconds in world.sleeps)
