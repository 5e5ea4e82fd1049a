"""The cache of bytes: what is kept, and how much."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from boilstream.flight.airport.cache import BytesCache


class Maker:
    """Makes values and counts how often."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def of(self, key: str, size: int = 10) -> Callable[[], bytes]:
        def make() -> bytes:
            self.made.append(key)
            return key[:1].encode() * size

        return make


def test_a_value_is_made_once() -> None:
    cache, maker = BytesCache(100), Maker()
    for key in "abab":
        assert cache.get(key, maker.of(key)) == key.encode() * 10
    assert maker.made == ["a", "b"]


def test_what_was_used_longest_ago_makes_room() -> None:
    cache, maker = BytesCache(30), Maker()
    for key in "abcadbac":
        cache.get(key, maker.of(key))
    assert maker.made == ["a", "b", "c", "d", "b", "c"]
    assert cache.size == 30


def test_a_value_that_is_too_large_is_given_and_not_kept() -> None:
    cache, maker = BytesCache(30), Maker()
    assert len(cache.get("a", maker.of("a", 31))) == 31
    assert cache.size == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 40)), max_size=40))
def test_the_size_is_bounded(asked: list[tuple[str, int]]) -> None:
    cache, maker = BytesCache(64), Maker()
    for key, size in asked:
        assert set(cache.get(key, maker.of(key, size))) <= {ord(key)}
        assert cache.size <= 64
        assert cache.size == sum(map(len, cache._values.values()))


def test_threads_that_make_the_same_value_count_it_once() -> None:
    cache, together = BytesCache(100), threading.Barrier(4)

    def make() -> bytes:
        together.wait(10)
        return b"value"

    threads = [threading.Thread(target=cache.get, args=("key", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.size == 5
    assert cache.get("key", bytes) == b"value"
