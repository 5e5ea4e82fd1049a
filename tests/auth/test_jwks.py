"""The key cache: life time, rotation, outages, crowds."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from boilstream.auth import jwks as module
from boilstream.auth.errors import KeysUnavailable
from boilstream.auth.fetch import FetchFailed, HttpsFetcher
from boilstream.auth.jwks import KeyCache
from boilstream.errors import ConfigurationError
from boilstream.observe.metrics import Metrics
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
        lot=options.pop("lot", lambda: 0.0),
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


def test_an_answer_with_fewer_keys_replaces_the_set(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock
) -> None:
    fetch.publish(key("a"), key("b"), key("c"))
    assert kids(cache, "a") == ["a", "b", "c"]
    fetch.publish(key("c"))
    clock.advance(0.8 * HOUR)
    cache.refresh_if_due()
    until_quiet(cache)
    assert kids(cache, "c") == ["c"]
    assert kids(cache, "a") == ["c"], "a withdrawn key is gone"


def test_the_set_stays_the_same_object_until_the_issuer_changes_it(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock
) -> None:
    before = cache.jwks_for("a")
    clock.advance(HOUR)
    assert cache.jwks_for("a") is before
    assert cache.state().age_seconds == 0
    fetch.publish(key("a"), key("b"))
    clock.advance(HOUR)
    assert cache.jwks_for("a") is not before


def test_keys_are_refreshed_in_the_background_without_any_use(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock
) -> None:
    cache.refresh_if_due()
    until_quiet(cache)
    assert cache.refresh_if_due() == 0.8 * HOUR
    clock.advance(0.8 * HOUR - 1)
    assert cache.refresh_if_due() == 1
    assert len(fetch.urls) == 1
    clock.advance(1)
    cache.refresh_if_due()
    until_quiet(cache)
    assert cache.refresh_if_due() == 0.8 * HOUR
    assert len(fetch.urls) == 2


@given(lot=st.floats(0, 1, exclude_max=True))
def test_many_nodes_do_not_refresh_at_once(lot: float) -> None:
    clock = FakeClock(0)
    cache = cache_of(FakeFetch([key("a")]), clock, lot=lambda: lot)
    cache.preload(30)
    assert cache.refresh_if_due() == pytest.approx(HOUR * (0.8 - 0.2 * lot))
    cache = cache_of(down := FakeFetch(), clock, lot=lambda: lot)
    down.error = FetchFailed("down")
    cache.preload(30)
    assert cache.refresh_if_due() == pytest.approx(module.EMPTY_RETRY_SECONDS * (1 + 0.2 * lot))


def test_a_failed_refresh_is_tried_again_by_the_rules_of_retries(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock
) -> None:
    fetch.error = FetchFailed("down")
    cache.refresh_if_due()
    until_quiet(cache)
    assert cache.refresh_if_due() == module.EMPTY_RETRY_SECONDS
    fetch.error = None
    clock.advance(module.EMPTY_RETRY_SECONDS)
    cache.refresh_if_due()
    until_quiet(cache)
    fetch.error = FetchFailed("down")
    clock.advance(0.8 * HOUR)
    cache.refresh_if_due()
    until_quiet(cache)
    clock.advance(10)
    assert cache.refresh_if_due() == module.RETRY_SECONDS - 10
    assert len(fetch.urls) == 3


def test_a_failed_fetch_for_an_unknown_id_does_not_put_off_the_next_refresh(
    cache: KeyCache, fetch: FakeFetch
) -> None:
    kids(cache, "a")
    fetch.error = FetchFailed("down")
    with pytest.raises(KeysUnavailable):
        kids(cache, "b")
    assert cache.refresh_if_due() == 0.8 * HOUR


@given(
    outages=st.lists(st.tuples(st.integers(0, 12 * HOUR), st.integers(1, 600)), max_size=4),
    lots=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5),
)
@settings(max_examples=20, deadline=None)
def test_whoever_follows_the_answers_never_has_expired_keys(
    outages: list[tuple[int, int]], lots: list[float]
) -> None:
    clock, fetch = FakeClock(0), FakeFetch([key("a")])
    cache = cache_of(fetch, clock, lot=functools.partial(next, itertools.cycle(lots)))
    cache.preload(30)
    down_seconds = sum(length for _, length in outages)
    while clock.now < 12 * HOUR:
        if any(start <= clock.now < start + length for start, length in outages):
            fetch.error = FetchFailed("down")
        else:
            fetch.error = None
        cache.refresh_if_due()
        until_quiet(cache)
        age = cache.state().age_seconds
        assert age is not None
        # all outages together fit into the time between the latest refresh and the expiry
        assert age < HOUR or down_seconds > 600
        seconds = cache.refresh_if_due()
        assert 0 < seconds < HOUR
        clock.advance(seconds)
    assert len(fetch.urls) <= 12 / 0.6 + 1 + down_seconds / module.RETRY_SECONDS + len(outages)


def test_a_closed_cache_is_never_due(cache: KeyCache, fetch: FakeFetch) -> None:
    cache.close()
    assert cache.refresh_if_due() == float("inf")
    assert fetch.urls == []


def test_a_machine_without_threads_to_spare_serves_the_keys_at_hand(
    cache: KeyCache,
    fetch: FakeFetch,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(KeysUnavailable):
            kids(cache, "a")
        assert "can't start new thread" in caplog.text
    clock.advance(module.EMPTY_RETRY_SECONDS)
    assert kids(cache, "a") == ["a"]
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        clock.advance(HOUR)
        assert kids(cache, "a") == ["a"]
        clock.advance(module.RETRY_SECONDS)
        assert cache.refresh_if_due() == module.RETRY_SECONDS
    clock.advance(module.RETRY_SECONDS)
    cache.refresh_if_due()
    until_quiet(cache)
    assert len(fetch.urls) == 2


def test_fetches_and_the_state_are_measured(fetch: FakeFetch, clock: FakeClock) -> None:
    metrics = Metrics()

    def two_seconds(url: str) -> bytes:
        clock.advance(2)
        return fetch(url)

    cache = cache_of(two_seconds, clock, metrics=metrics.for_keys("okta", URL))

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"boilstream_auth_{name}", {"provider": "okta", **labels})

    assert [value("keys", url=URL), value("key_age_seconds", url=URL)] == [0, None]
    fetch.error = FetchFailed("down")
    cache.preload(30)
    fetch.publish(key("a"), key("b"))
    clock.advance(30)
    cache.preload(30)
    clock.advance(100)
    assert [value("keys", url=URL), value("key_age_seconds", url=URL)] == [2, 100]
    assert [value("key_fetches_total", outcome=outcome) for outcome in ("ok", "failed")] == [1, 1]
    assert [value("key_fetch_seconds_count"), value("key_fetch_seconds_sum")] == [2, 4]
    fetch.error = RuntimeError()
    clock.advance(HOUR)
    cache.refresh_if_due()
    until_quiet(cache)
    assert value("key_fetches_total", outcome="failed") == 2
    assert value("key_age_seconds", url=URL) == HOUR + 102


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
    [b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [1, null, {"kid": 1}]}',
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


def test_an_issuer_that_withdraws_all_its_keys_is_heard(
    cache: KeyCache, fetch: FakeFetch, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    kids(cache, "a")
    fetch.body = b'{"keys": []}'
    clock.advance(HOUR)
    assert kids(cache, "a") == []
    assert "publishes no key" in caplog.text


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


def test_cached_keys_never_wait_for_a_refresh_that_hangs(clock: FakeClock) -> None:
    fetch = GatedFetch(key("a"))
    fetch.gate.set()
    cache = cache_of(fetch, clock)
    cache.preload(30)
    assert fetch.entered.acquire(timeout=30)

    fetch.gate.clear()
    clock.advance(0.8 * HOUR)
    cache.refresh_if_due()
    assert fetch.entered.acquire(timeout=30)
    for _ in range(100):  # all of this on one thread: whatever waited would never come back
        assert kids(cache, "a") == ["a"]
        assert cache.refresh_if_due() == module.IN_FLIGHT_SECONDS
        assert cache.preload() is True
        assert cache.state().keys == 1
    fetch.error = FetchFailed("down")
    fetch.gate.set()
    until_quiet(cache)

    fetch.gate.clear()
    clock.advance(HOUR)
    cache.refresh_if_due()
    assert fetch.entered.acquire(timeout=30)
    assert kids(cache, "a") == ["a"], "also expired keys, after a failure"
    assert not fetch.entered.acquire(blocking=False), "one fetch at a time"
    fetch.gate.set()
    until_quiet(cache)
    assert len(fetch.urls) == 3


def test_a_background_refresh_and_a_crowd_share_one_fetch(clock: FakeClock) -> None:
    fetch = GatedFetch(key("a"))
    cache = cache_of(fetch, clock)
    with ThreadPoolExecutor(33) as pool:
        pool.submit(cache.refresh_if_due)
        assert fetch.entered.acquire(timeout=30)
        waiting = [pool.submit(kids, cache, "a") for _ in range(32)]
        assert cache.refresh_if_due() == module.IN_FLIGHT_SECONDS
        fetch.gate.set()
        assert [future.result(30) for future in waiting] == [["a"]] * 32
    assert len(fetch.urls) == 1


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
        self.cache = cache_of(self._timed_fetch, self.clock, lot=random.random)
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

    @rule()
    def refresh(self) -> None:
        assert self.cache.refresh_if_due() >= 0
        until_quiet(self.cache)

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
