"""What handlers know of their call."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import pytest

from boilstream.flight.call import MIDDLEWARE_KEY, CallMiddleware, CallMiddlewareFactory, Connection, header


class Context:
    """A call whose context may not be touched once its handler has returned."""

    def __init__(self, headers: Mapping[str, Sequence[str | bytes]] | None = None) -> None:
        self.cancelled = False
        self.returned = False
        self._middleware = CallMiddlewareFactory().start_call(object(), headers or {})

    def is_cancelled(self) -> bool:
        assert not self.returned, "the context was touched after its call"
        return self.cancelled

    def get_middleware(self, key: str) -> CallMiddleware:
        assert key == MIDDLEWARE_KEY
        return self._middleware


def test_a_caller_is_there_until_it_cancels() -> None:
    context = Context()
    with Connection(context) as connection:
        assert not connection.has_gone()
        context.cancelled = True
        assert connection.has_gone()


def test_a_caller_has_gone_after_the_block_and_the_context_is_left_alone() -> None:
    context = Context()
    with Connection(context) as connection:
        assert not connection.has_gone()
    context.returned = True
    assert connection.has_gone()


def test_a_caller_has_gone_after_a_handler_that_failed() -> None:
    context, caught = Context(), None
    with pytest.raises(RuntimeError, match="handler"), Connection(context) as connection:
        caught = connection
        raise RuntimeError("handler")
    context.returned = True
    assert caught is not None
    assert caught.has_gone()


def test_no_thread_touches_the_context_after_the_handler() -> None:
    context = Context()
    failures: list[BaseException] = []
    asked = threading.Event()

    def ask(connection: Connection) -> None:
        try:
            while not connection.has_gone():
                asked.set()
        except BaseException as error:
            failures.append(error)

    with Connection(context) as connection:
        threads = [threading.Thread(target=ask, args=(connection,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert asked.wait(10)
    context.returned = True
    for thread in threads:
        thread.join(10)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"other": ["x"]}, None),
        ({"boilstream-stream-id": []}, None),
        ({"boilstream-stream-id": ["a"]}, "a"),
        ({"Boilstream-Stream-ID": ["a"]}, "a"),
        ({"boilstream-stream-id": ["a", "b"]}, "a"),
        ({"boilstream-stream-id": [b"a"]}, "a"),
        ({"boilstream-stream-id": [""]}, ""),
        ({"boilstream-stream-id": ["ä".encode()]}, "ä"),
        ({"boilstream-stream-id": [b"\xff"]}, "\ufffd"),
    ],
)
def test_headers_are_found_in_any_letter_case(
    headers: Mapping[str, Sequence[str | bytes]], expected: str | None
) -> None:
    assert header(Context(headers), "boilstream-stream-id") == expected
