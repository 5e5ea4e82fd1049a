"""Places are shared fairly among keys."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from boilstream.catalog.sql.turns import Turns


def waits_for(turns: Turns, key: str, count: int) -> None:
    """Until so many with that key wait."""
    while True:
        with turns._lock:
            if len(turns._waiting.get(key, ())) == count:
                return
        threading.Event().wait(0.001)


def test_one_key_leaves_a_place_to_the_others() -> None:
    turns = Turns(3)
    assert turns.acquire("a", 0)
    assert turns.acquire("a", 0)
    assert not turns.acquire("a", 0)
    assert turns.acquire("b", 0)
    assert not turns.acquire("b", 0)
    assert not turns.acquire("c", 0)
    turns.release("b")
    assert not turns.acquire("a", 0)
    turns.release("a")
    assert turns.acquire("a", 0)
    assert turns.acquire("c", 0)


def test_a_single_place_goes_to_the_keys_in_turn() -> None:
    turns, order = Turns(1), []
    assert turns.acquire("x", 0)

    def work(key: str) -> None:
        assert turns.acquire(key, 60)
        order.append(key)
        turns.release(key)

    with ThreadPoolExecutor(5) as pool:
        for key, waiting in (("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1)):
            pool.submit(work, key)
            waits_for(turns, key, waiting)
        turns.release("x")
    assert order == ["a", "b", "c", "a", "a"]


def test_without_places_nobody_gets_one() -> None:
    assert not Turns(0).acquire("a", 0.01)


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_places_are_neither_lost_nor_made(places: int, steps: list[tuple[str, bool]]) -> None:
    turns, held = Turns(places), list[str]()
    for key, takes in steps:
        if takes:
            most = max(1, places - 1)
            free = len(held) < places and held.count(key) < most
            assert turns.acquire(key, 0) == free
            held += [key] * free
        elif key in held:
            held.remove(key)
            turns.release(key)
    for key in held:
        turns.release(key)
    assert (turns._free, dict(turns._held), turns._waiting) == (places, {}, {})
