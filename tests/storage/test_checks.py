from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.storage.base import (
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    StoreMisconfigured,
    StoreUnavailable,
    validate_key,
)
from boilstream.storage.checks import is_key, probe, validate_prefix
from tests.support.stores import MemoryStore


def test_a_sound_store_passes_and_is_left_empty() -> None:
    store = MemoryStore()
    probe(store)
    assert store.puts
    assert store.objects == {}


class Overwriting(MemoryStore):
    def put(self, key: str, data: pa.Buffer | bytes, *, if_absent: bool = False) -> None:
        super().put(key, data)


class Garbling(MemoryStore):
    def get(self, key: str) -> bytes:
        return super().get(key)[1:]


class Hiding(MemoryStore):
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter([])


class Forgetting(MemoryStore):
    def get(self, key: str) -> bytes:
        raise ObjectMissing(key)


@pytest.mark.parametrize(
    ("store", "says"),
    [
        (Overwriting(), "in spite of 'If-None-Match"),
        (Garbling(), "other bytes"),
        (Hiding(), "does not list"),
        (Forgetting(), "right after it was written"),
    ],
    ids=["overwriting", "garbling", "hiding", "forgetting"],
)
def test_an_unsound_store_is_refused_and_left_empty(store: MemoryStore, says: str) -> None:
    with pytest.raises(StoreMisconfigured, match=says):
        probe(store)
    assert store.objects == {}


class Full(MemoryStore):
    def put(self, key: str, data: pa.Buffer | bytes, *, if_absent: bool = False) -> None:
        raise ObjectExists(key)


def test_a_new_object_that_exists_is_worth_another_try() -> None:
    with pytest.raises(StoreUnavailable, match="try again"):
        probe(Full())


def test_the_first_error_is_told_even_if_cleaning_up_fails() -> None:
    store = MemoryStore()

    def before(method: str, key: str) -> None:
        if method in ("get", "delete"):
            raise StoreUnavailable(f"no {method}")

    store.before = before
    with pytest.raises(StoreUnavailable, match="no get"):
        probe(store)


@given(st.from_regex(r"[a-c._%=-]{1,5}(/[a-c._%=-]{1,5}){0,3}", fullmatch=True), st.integers(0, 30))
def test_every_beginning_of_a_key_is_a_prefix(key: str, length: int) -> None:
    if is_key(key):
        assert validate_prefix(key[:length]) == key[:length]
    else:
        with pytest.raises(ValueError):
            validate_key(key)
