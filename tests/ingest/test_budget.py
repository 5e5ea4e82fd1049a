from __future__ import annotations

import threading
import time

import pytest

from boilstream.errors import InvalidArgument, ResourceExhausted
from boilstream.ingest.budget import MemoryBudget


def later() -> float:
    return time.monotonic() + 10


def test_bytes_are_counted() -> None:
    budget = MemoryBudget(100)
    budget.reserve(60, deadline=later())
    budget.reserve(40, deadline=later())
    assert budget.used == 100
    budget.release(100)
    assert budget.used == 0


def test_what_can_never_fit_is_an_argument_error() -> None:
    with pytest.raises(InvalidArgument, match="MEMORY_LIMIT_MB"):
        MemoryBudget(100).reserve(101, deadline=later())


def test_a_full_budget_fails_as_retryable_at_the_deadline() -> None:
    budget = MemoryBudget(100)
    budget.reserve(100, deadline=later())
    with pytest.raises(ResourceExhausted) as caught:
        budget.reserve(1, deadline=time.monotonic())
    assert caught.value.retryable
    assert budget.used == 100


def test_who_waits_gets_the_bytes_that_another_releases() -> None:
    budget = MemoryBudget(100)
    budget.reserve(100, deadline=later())
    waiter = threading.Thread(target=budget.reserve, args=(50,), kwargs={"deadline": later()})
    waiter.start()
    budget.release(100)
    waiter.join(10)
    assert not waiter.is_alive()
    assert budget.used == 50


def test_pressure_is_reported_and_can_free_memory() -> None:
    budget = MemoryBudget(100, on_pressure=lambda: budget.release(70))
    budget.reserve(100, deadline=later())
    budget.reserve(50, deadline=later())
    assert budget.used == 80


def test_the_limit_holds_with_many_threads() -> None:
    budget = MemoryBudget(10)
    highest = []

    def work() -> None:
        for _ in range(50):
            budget.reserve(3, deadline=later())
            highest.append(budget.used)
            budget.release(3)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(highest) == 400
    assert max(highest) <= 10
    assert budget.used == 0
