"""The key cache: life time, rotation, outages, crowds."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from boilstream.auth import jwks as module
from boilstream.auth.errors import KeysUnavailable
from boilstream.auth.fetch import FetchFailed, HttpsFetcher
from boilstream.auth.jwks import KeyCache
from boilstream.errors import ConfigurationError
from tests.support.keyserver import KeyServer
from tests.support.tokens import FakeClock, FakeFetch, ec_key, jwk, jwks

URL = "https://company.okta.com/oauth2/default/v1/keys"
HOUR = 3600


def key(kid: str) -> dict[str, Any]:
    return jwk(ec_key(), kid)


def cache_of(fetch: Callable[[str], bytes], clock: FakeClock, **options: Any) -> KeyCache:
    return KeyCache(
        options.pop("url", URL),
        fetch=fetch,
        clock=clock,
        display_name="Okta",
        logger_name="boilstream.auth.okta",
        **options,
    )


def kids(cache: KeyCache, kid: str | None = None) -> list[str]:
    return [key["kid"] for key in cache.jwks_for(kid)["keys"]]


def until_quiet(cache: KeyCache) -> None:
    """Wait for a refresh in the background to end."""
    flight = cache._flight
    if flight is not None:
        assert flight.done.wait(30)


@pytest.fixture
def fetch() -> FakeFetch:
    return FakeFetch([key("a")])


@pytest.fixture
def cache(fetch: FakeFetch, clock: FakeClock) -> KeyCache:
    return cache_of(fetch, clock)


def test_making_a_cache_fetches_nothing(cache: KeyCache, fetch: FakeFetch) -> None:
    assert fetch.urls == []


def test_keys_are_fetched_once_and_logged(
    cache: KeyCache, fetch: FakeFetch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert [kids(cache, "a"), kids(cache, "a"), kids(cache, None)] == [["a"]] * 3
    assert fetch.urls == [URL]
    assert caplog.record_tuples == [
        ("boilstream.auth.okta", logging.DEBUG, f"Fetching JWKS from Okta: {URL}")
    ]


def test_keys_expire(cache: KeyCache, fetch: FakeFetch, clock: FakeClock) -> None:
    kids(cache, "a")
    fetch.publish(key("b"))
    clock.advance(HOUR)
    assert kids(cache, "a") == ["b"]
    assert len(fetch.urls) == 2


def test_a_use_late_in_their_life_refreshes_keys_in_the_background(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock
) -> None:
    kids(cache, "a")
    fetch.publish(key("a"), key("b"))
    clock.advance(0.8 * HOUR - 1)
    kids(cache, "a")
    assert len(fetch.urls) == 1
    clock.advance(1)
    kids(cache, "a")
    until_quiet(cache)
    assert kids(cache, "a") == ["a", "b"]
    assert len(fetch.urls) == 2


def test_a_rotated_key_is_found_at_once(cache: KeyCache, fetch: FakeFetch) -> None:
    kids(cache, "a")
    fetch.publish(key("a"), key("b"))
    assert kids(cache, "b") == ["a", "b"]


def test_unknown_key_ids_refresh_once_per_30_seconds(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock
) -> None:
    for number in range(100):
        assert kids(cache, f"invented-{number}") == ["a"]
    assert len(fetch.urls) == 1, "the first fetch was for an unknown id already"
    clock.advance(29.9)
    kids(cache, "invented")
    assert len(fetch.urls) == 1
    clock.advance(0.1)
    for number in range(100):
        kids(cache, f"invented-{number}")
    assert len(fetch.urls) == 2


def test_a_key_found_by_an_unknown_id_does_not_open_the_gate(cache: KeyCache, fetch: FakeFetch) -> None:
    kids(cache, "a")
    fetch.publish(key("a"), key("b"))
    kids(cache, "b")
    for number in range(100):
        kids(cache, f"invented-{number}")
    assert len(fetch.urls) == 2


def test_while_the_server_is_down_keys_serve_for_a_day(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock
) -> None:
    kids(cache, "a")
    fetch.error = FetchFailed("down")
    clock.advance(HOUR)
    for _ in range(24 * 60 - 1):
        clock.advance(60)
        assert kids(cache, "a") == ["a"]
        until_quiet(cache)
    clock.advance(60)
    with pytest.raises(KeysUnavailable, match="Okta"):
        kids(cache, "a")
    fetch.error = None
    clock.advance(30)
    assert kids(cache, "a") == ["a"]


def test_a_server_that_is_down_is_asked_every_30_seconds(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock
) -> None:
    kids(cache, "a")
    fetch.error = FetchFailed("down")
    clock.advance(HOUR)
    for _ in range(100):
        kids(cache, "a")
    assert len(fetch.urls) == 2
    clock.advance(30)
    kids(cache, "a")
    until_quiet(cache)
    kids(cache, "a")
    assert len(fetch.urls) == 3


def test_an_unknown_id_while_the_server_is_down_is_worth_a_retry(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock
) -> None:
    kids(cache, "a")
    fetch.error = FetchFailed("down")
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            kids(cache, "b")
    assert len(fetch.urls) == 2
    assert kids(cache, "a") == ["a"]
    fetch.publish(key("a"), key("b"))
    clock.advance(30)
    assert kids(cache, "b") == ["a", "b"]


def test_without_any_key_a_server_is_asked_every_5_seconds(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock
) -> None:
    fetch.error = FetchFailed("down")
    for _ in range(3):
        with pytest.raises(KeysUnavailable, match="try again"):
            kids(cache, "a")
    assert len(fetch.urls) == 1
    fetch.error = None
    clock.advance(5)
    assert kids(cache, "a") == ["a"]


def test_failures_are_logged_with_the_state(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    fetch.error = FetchFailed("HTTP status 500 instead of 200")
    assert not cache.preload(30)
    fetch.error = None
    clock.advance(5)
    kids(cache, "a")
    clock.advance(HOUR)
    fetch.error = RuntimeError("details")
    kids(cache, "a")
    assert caplog.messages == [
        f"Cannot fetch JWKS from Okta: {URL}: HTTP status 500 instead of 200 (no keys yet)",
        f"Cannot fetch JWKS from Okta: {URL}: defect: RuntimeError (last fetched 3600 s ago)",
    ]


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [1, null, {"kid": 1}]}',
     b'{"keys": [], "keys": []}', b"\xff", b"[" * 20_000],
    ids=repr,
)  # fmt: skip
def test_a_useless_answer_counts_as_a_failure(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock, body: bytes
) -> None:
    kids(cache, "a")
    fetch.body = body
    clock.advance(HOUR)
    assert kids(cache, "a") == ["a"]
    assert len(fetch.urls) == 2


def test_a_bad_key_does_not_spoil_the_others(cache: KeyCache, fetch: FakeFetch) -> None:
    odd: list[Any] = ["x", None, {"kid": ["a"]}, {"kty": "new"}, {"kid": "enc", "kty": "RSA", "use": "enc"}]
    fetch.body = json.dumps({"keys": [*odd, key("a"), {}]}).encode()
    assert key("a") in cache.jwks_for("a")["keys"]


def test_at_most_so_many_keys_are_kept(
    fetch: FakeFetch, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    fetch.publish(*(key(str(number)) for number in range(5)))
    assert kids(cache_of(fetch, clock, max_keys=3), "0") == ["0", "1", "2"]
    assert "JWKS_MAX_KEYS" in caplog.text


def test_other_life_times(fetch: FakeFetch, clock: FakeClock) -> None:
    cache = cache_of(fetch, clock, cache_seconds=60)
    kids(cache, "a")
    clock.advance(60)
    kids(cache, "a")
    assert len(fetch.urls) == 2


@pytest.mark.parametrize("url", ["http://company.okta.com/keys", "file:///etc/passwd", ""])
def test_only_https(fetch: FakeFetch, clock: FakeClock, url: str) -> None:
    with pytest.raises(ConfigurationError, match="https"):
        cache_of(fetch, clock, url=url)


class GatedFetch(FakeFetch):
    """A fetch that takes as long as the test wants."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        super().__init__(keys)
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()

    def __call__(self, url: str) -> bytes:
        self.entered.release()
        assert self.gate.wait(30)
        return super().__call__(url)


def test_a_crowd_shares_one_fetch_and_cached_keys_do_not_wait_for_it(clock: FakeClock) -> None:
    fetch = GatedFetch(key("a"))
    cache = cache_of(fetch, clock)
    with ThreadPoolExecutor(32) as pool:
        first = [pool.submit(kids, cache, "a") for _ in range(32)]
        assert fetch.entered.acquire(timeout=30)
        fetch.gate.set()
        assert [future.result(30) for future in first] == [["a"]] * 32
        assert len(fetch.urls) == 1

        fetch.gate.clear()
        misses = [pool.submit(kids, cache, f"invented-{number}") for number in range(31)]
        assert fetch.entered.acquire(timeout=30)
        assert kids(cache, "a") == ["a"], "a cached key is served while a fetch hangs"
        fetch.gate.set()
        assert [future.result(30) for future in misses] == [["a"]] * 31
    assert len(fetch.urls) == 2


def test_preload_does_not_wait_unless_told(clock: FakeClock) -> None:
    fetch = GatedFetch(key("a"))
    cache = cache_of(fetch, clock)
    assert cache.preload() is False
    assert fetch.entered.acquire(timeout=30)
    fetch.gate.set()
    assert cache.preload(30) is True
    assert cache.preload() is True
    assert len(fetch.urls) == 1


def test_close_frees_those_who_wait_and_fetches_no_more(clock: FakeClock) -> None:
    fetch = GatedFetch(key("a"))
    cache = cache_of(fetch, clock)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(kids, cache, "a")
        assert fetch.entered.acquire(timeout=30)
        cache.close()
        with pytest.raises(KeysUnavailable):
            waiting.result(30)
    with pytest.raises(KeysUnavailable):
        kids(cache, "a")
    fetch.gate.set()
    until_quiet(cache)
    assert len(fetch.urls) <= 1


def test_closing_keeps_the_keys(cache: KeyCache, fetch: FakeFetch) -> None:
    kids(cache, "a")
    cache.close()
    assert kids(cache, "a") == ["a"]
    assert kids(cache, "b") == ["a"]
    assert len(fetch.urls) == 1


def test_over_a_real_network(tmp_path: Path, clock: FakeClock) -> None:
    with KeyServer(jwks(key("a")), tmp_path) as server:
        cache = cache_of(HttpsFetcher(server.ca_file), clock, url=server.url())
        assert kids(cache, "a") == ["a"]
        server.jwks = jwks(key("b"))
        assert kids(cache, "b") == ["b"]
        server.mode = "redirect"
        clock.advance(HOUR)
        assert kids(cache, "b") == ["b"]
        assert set(server.paths) == {"/oauth2/default/v1/keys"}


class CacheMachine(RuleBasedStateMachine):
    """Whatever happens: a known key within its life is served, and the key server is not hammered."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(0)
        self.fetch = FakeFetch([key("0")])
        self.cache = cache_of(self._timed_fetch, self.clock)
        self.times: list[float] = []
        self.answered_at: float | None = None
        self.answer = "0"
        self.latest = 0

    def _timed_fetch(self, url: str) -> bytes:
        self.times.append(self.clock.now)
        body = self.fetch(url)
        self.answered_at, self.answer = self.clock.now, str(self.latest)
        return body

    @rule(seconds=st.sampled_from([0.5, 10, 29, 31, 900, 3000, 3601, 90_000]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(down=st.booleans())
    def server(self, down: bool) -> None:
        self.fetch.error = FetchFailed("down") if down else None

    @rule()
    def rotate(self) -> None:
        self.latest += 1
        self.fetch.body = json.dumps(jwks(key(str(self.latest)))).encode()

    @rule(known=st.booleans())
    def ask(self, known: bool) -> None:
        kid = self.answer if known else "invented"
        age = float("inf") if self.answered_at is None else self.clock.now - self.answered_at
        try:
            keys = self.cache.jwks_for(kid)["keys"]
        except KeysUnavailable:
            assert not known or age >= HOUR + module.MAX_STALE_SECONDS or self.answered_at is None
            assert self.fetch.error is not None or self.times[-1] <= self.clock.now
        else:
            assert len(keys) == 1
            assert self.answered_at is not None
            assert self.clock.now - self.answered_at < HOUR + module.MAX_STALE_SECONDS
        until_quiet(self.cache)

    @invariant()
    def not_hammered(self) -> None:
        # an expiry and an unknown id may coincide; a third fetch never follows at once
        assert all(
            third - first >= module.EMPTY_RETRY_SECONDS
            for first, third in zip(self.times, self.times[2:], strict=False)
        )


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
