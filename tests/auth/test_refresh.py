"""The thread that refreshes keys ahead of their expiry."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from boilstream.auth.fetch import HttpsFetcher
from boilstream.auth.jwks import KeyCache
from boilstream.auth.refresh import KeyRefresher
from tests.support.keyserver import KeyServer
from tests.support.tokens import ec_key, jwk, jwks


class Asked:
    """A cache that gives these answers, the last one for ever, and tells when it gave them all."""

    def __init__(self, *answers: float | Exception) -> None:
        self.url = "https://company.okta.com/keys"
        self.times = 0
        self.all_asked = threading.Event()
        self._answers = answers

    def refresh_if_due(self) -> float:
        answer = self._answers[min(self.times, len(self._answers) - 1)]
        self.times += 1
        if self.times >= len(self._answers):
            self.all_asked.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


def thread_of(refresher: KeyRefresher) -> threading.Thread:
    return refresher._thread


def test_it_asks_again_when_the_next_cache_is_due_and_then_sleeps() -> None:
    soon, late = Asked(0.0, 0.01, 0.01, 3600), Asked(3600)
    refresher = KeyRefresher([late, soon])
    refresher.start()
    assert soon.all_asked.wait(30)
    refresher.stop()
    assert not thread_of(refresher).is_alive()
    assert (soon.times, late.times) == (4, 4)


@pytest.mark.parametrize("answer", [3600.0, 1e300, float("inf")])
def test_stop_does_not_wait_for_what_is_due_later(answer: float) -> None:
    cache = Asked(answer)
    refresher = KeyRefresher([cache])
    refresher.start()
    assert cache.all_asked.wait(30)
    refresher.stop()
    assert not thread_of(refresher).is_alive()
    assert cache.times == 1


def test_without_caches_it_idles() -> None:
    refresher = KeyRefresher([])
    refresher.start()
    assert thread_of(refresher).is_alive()
    refresher.stop()
    assert not thread_of(refresher).is_alive()


def test_stop_without_a_start_and_twice_is_fine() -> None:
    refresher = KeyRefresher([Asked(1.0)])
    refresher.stop()
    refresher.stop()
    assert not thread_of(refresher).is_alive()


def test_it_does_not_keep_the_process_alive() -> None:
    assert thread_of(KeyRefresher([])).daemon


def test_a_defect_in_one_cache_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    broken, fine = Asked(ValueError("details")), Asked(0.0, 0.0, 3600)
    refresher = KeyRefresher([broken, fine])
    with caplog.at_level(logging.ERROR):
        refresher.start()
        assert fine.all_asked.wait(30)
        refresher.stop()
    assert broken.times == 3
    assert set(caplog.messages) == {f"Cannot refresh the keys of {broken.url}: defect: ValueError"}


@pytest.mark.slow
def test_a_key_server_that_hangs_does_not_hold_up_another(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (
        KeyServer(jwks(jwk(ec_key(), "a")), tmp_path / "a", "hang") as hanging,
        KeyServer(jwks(jwk(ec_key(), "b")), tmp_path / "b") as answering,
    ):
        refreshed = threading.Event()

        def cache_of(server: KeyServer) -> KeyCache:
            fetcher = HttpsFetcher(server.ca_file, timeout_seconds=30)

            def fetch(url: str) -> bytes:
                body = fetcher(url)
                if len(server.paths) == 2:
                    refreshed.set()
                return body

            return KeyCache(
                server.url(),
                fetch=fetch,
                display_name="Okta",
                logger_name="boilstream.auth.okta",
                cache_seconds=0.2,
            )

        caches = [cache_of(hanging), cache_of(answering)]
        refresher = KeyRefresher(caches)
        refresher.start()
        assert refreshed.wait(60), "two fetches from one server, and the other has not answered once"
        refresher.stop()
        assert len(hanging.paths) <= 1
        assert caches[0].state().keys == 0
        assert caches[1].state().keys == 1
        for cache in caches:
            cache.close()
