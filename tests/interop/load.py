"""Streams that go on while something happens to the provider."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import pyarrow as pa
import pyarrow.flight as flight

from tests.support.oidc_provider import OidcProvider
from tests.support.server import Client, ServerProcess

MAX_STREAMS = 16
FILLED_BATCHES, FILLED_BATCH_ROWS = 64, 65_536
DEADLINE_SECONDS = 60


@contextmanager
def calling(server: ServerProcess, provider: OidcProvider, token: str) -> Iterator[Client]:
    """A client with this token."""
    with closing(Client(server.location, token, provider.ca_cert)) as client:
        yield client


def until(condition: Callable[[], bool]) -> None:
    """Wait for the condition; an AssertionError when it stays away."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.01)


class Writing:
    """A DoPut in a thread of its own that goes on until `finish`."""

    def __init__(self, client: Client, topic: list[str], number: int) -> None:
        self._client = client
        self._topic = topic
        self._number = number
        self._finish = threading.Event()
        self.batches = 0

    def run(self) -> int:
        """Write; the rows that the server has acknowledged."""
        schema = pa.schema({"stream": pa.int64(), "n": pa.int64()})
        descriptor = flight.FlightDescriptor.for_path(*self._topic)
        writer, reader = self._client.connection.do_put(descriptor, schema, self._client.options)
        rows = 10
        acknowledged = 0
        with writer:
            while not self._finish.wait(0.01):
                first = self.batches * rows
                numbers = pa.array(range(first, first + rows), pa.int64())
                writer.write_batch(
                    pa.record_batch([pa.repeat(pa.scalar(self._number), rows), numbers], schema=schema)
                )
                self.batches += 1
            writer.done_writing()
            while (answer := reader.read()) is not None:
                acknowledged = json.loads(answer.to_pybytes())["ack_up_to_records"]
        assert acknowledged == self.batches * rows
        return acknowledged

    def finish(self) -> None:
        self._finish.set()


class Load:
    """Streams that write to one topic, and others that have read only part of another one."""

    def __init__(self, server: ServerProcess, provider: OidcProvider, stack: ExitStack) -> None:
        self._server = server
        self._provider = provider
        self._stack = stack
        self._pool = stack.enter_context(ThreadPoolExecutor(MAX_STREAMS))
        self._writing: list[tuple[Writing, Future[int]]] = []
        self._reading: list[tuple[flight.FlightStreamReader, int]] = []
        stack.callback(self._end)

    def _client(self, token: str) -> Client:
        return self._stack.enter_context(calling(self._server, self._provider, token))

    def write(self, token: str) -> None:
        """Begin a stream."""
        stream = Writing(self._client(token), ["s3", "written"], len(self._writing))
        self._writing.append((stream, self._pool.submit(stream.run)))

    def fill(self, token: str) -> None:
        """Make a topic of 32 MiB, more than the transport holds in its buffers."""
        batch = pa.record_batch({"n": pa.array(range(FILLED_BATCH_ROWS), pa.int64())})
        self._client(token).put(["s3", "filled"], [batch] * FILLED_BATCHES)

    def read(self, token: str) -> None:
        """Begin to read all of what `fill` wrote."""
        client = self._client(token)
        [endpoint] = client.info(["s3", "filled"]).endpoints
        reader = client.connection.do_get(endpoint.ticket, client.options)
        self._reading.append((reader, reader.read_chunk().data.num_rows))

    def _end(self) -> None:
        for stream, _ in self._writing:
            stream.finish()

    def advance(self) -> None:
        """Wait until every stream has written some more batches; raises the error of one that failed."""
        marks = [stream.batches + 3 for stream, _ in self._writing]

        def advanced() -> bool:
            for _, done in self._writing:
                assert not done.done(), done.exception()
            return all(stream.batches >= mark for (stream, _), mark in zip(self._writing, marks, strict=True))

        until(advanced)

    def finish(self, token: str) -> None:
        """End all streams, then check that every row is there."""
        self._end()
        expected = [(i, n) for i, (_, done) in enumerate(self._writing) for n in range(done.result(60))]
        stored = self._client(token).get(["s3", "written"])
        pairs = zip(stored["stream"].to_pylist(), stored["n"].to_pylist(), strict=True)
        assert sorted(pairs) == expected
        for reader, rows in self._reading:
            assert rows + reader.read_all().num_rows == FILLED_BATCHES * FILLED_BATCH_ROWS
