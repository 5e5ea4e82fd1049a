"""Processes that evaluate SQL expressions of clients, apart from the server.

`boilstream.catalog.sql.evaluator` is their program and says why they are apart. A process is started when
it is first needed, answers one request at a time and is replaced when an expression ended it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final

from boilstream.catalog.sql.evaluation import CPU_SECONDS, LENGTHS, WALL_SECONDS
from boilstream.catalog.sql.turns import Turns
from boilstream.errors import ResourceExhausted, Unavailable

log = logging.getLogger("boilstream.catalog.sql.sandbox")

PROCESSES: Final = min(4, os.cpu_count() or 1)
"""Most processes at once."""

MAX_IDLE_BYTES: Final = 192 * 1024 * 1024
"""Memory of its own above which a process that has answered is ended and replaced."""

START_SECONDS: Final = 60.0
"""Longest time until a process is ready."""

WAIT_SECONDS: Final = 30.0
"""Longest wait for a process that is free."""

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
"""Longest payload of an answer."""

_COMMAND: Final = [str(Path(sys.executable).absolute()), "-P", "-s", "-m", "boilstream.catalog.sql.evaluator"]
_ENVIRONMENT: Final = {
    "PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path),
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # no caches that count as address space
}
_TIME_OVER = (-signal.SIGPROF, -signal.SIGALRM)
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
_PIPE_BYTES = 65_536
"""What a pipe holds: more is not written before a process is ready."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_NOT_STARTED = "the server cannot start the process that evaluates CHECK and DEFAULT; try again later"
_POISONED = frozenset(["FatalException", "InternalException", "MemoryError"])
"""Kinds of failures after which a process is not used again."""


class EvaluationFailed(Exception):
    """An expression cannot be evaluated; `reason` is one short line for its author.

    `row` is the first row that it fails for, where that is known.
    """

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.row = row


class _Died(Exception):
    """The process ended without an answer; `status` is that of Popen."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Process:
    """One process of the evaluator, ready for requests."""

    def __init__(self) -> None:
        """Raises Unavailable."""
        try:
            self._popen = subprocess.Popen(  # noqa: S603  our own program
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the server, which still drains
            )
        except OSError as problem:
            log.error("cannot start a process that evaluates expressions: %s", problem)
            raise Unavailable(_NOT_STARTED) from None
        try:
            self._answer(START_SECONDS)
        except (_Died, EvaluationFailed):
            words = self._last_words()
            self.end()
            status = self._popen.returncode
            log.error(
                "a process that evaluates expressions ended with status %d before it was ready: %s",
                status,
                words,
            )
            raise Unavailable(_NOT_STARTED) from None
        assert self._popen.stderr is not None
        self._popen.stderr.close()

    def _last_words(self) -> str:
        """The end of what the process has written to standard error."""
        assert self._popen.stderr is not None
        os.set_blocking(self._popen.stderr.fileno(), False)
        try:
            return os.read(self._popen.stderr.fileno(), _PIPE_BYTES)[-2000:].decode(errors="replace").strip()
        except OSError:
            return ""

    def ask(self, header: Mapping[str, Any], payload: bytes | memoryview) -> tuple[dict[str, Any], bytes]:
        """The answer to a request; raises _Died, and EvaluationFailed for an answer that is too long."""
        stdin = self._popen.stdin
        assert stdin is not None
        text = json.dumps(header).encode()
        try:
            stdin.write(LENGTHS.pack(len(text), len(payload)) + text)
            stdin.write(payload)
            stdin.flush()
        except OSError:  # the pipe broke
            self._popen.kill()
            raise _Died(self._popen.wait()) from None
        return self._answer(2 * WALL_SECONDS)

    def _answer(self, seconds: float) -> tuple[dict[str, Any], bytes]:
        stdout = self._popen.stdout
        assert stdout is not None
        try:
            poll = select.poll()
            poll.register(stdout, select.POLLIN)
            if not poll.poll(1000 * seconds):  # its own timer did not end it
                self._popen.kill()
                self._popen.wait()
                raise _Died(-signal.SIGALRM)
            lengths = stdout.read(LENGTHS.size)
            if len(lengths) == LENGTHS.size:
                reply_length, data_length = LENGTHS.unpack(lengths)
                if data_length > MAX_ANSWER_BYTES:
                    raise EvaluationFailed(f"it gives more than {MAX_ANSWER_BYTES >> 20} MB")
                reply, data = stdout.read(reply_length), stdout.read(data_length)
                if len(data) == data_length:
                    return json.loads(reply), data
        except (OSError, ValueError):  # its answer is none
            self._popen.kill()
        raise _Died(self._popen.wait())

    def own_bytes(self) -> int:
        """Memory that the process has now and does not share; 0 where the system does not tell."""
        try:
            _, resident, shared, *_ = Path(f"/proc/{self._popen.pid}/statm").read_text().split()
        except (OSError, ValueError):
            return 0
        return (int(resident) - int(shared)) * _PAGE_BYTES

    def end(self) -> None:
        """Kill and reap it."""
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what was not flushed has no reader
                pipe.close()


class Sandbox:
    """A bounded set of such processes; every method may be called from many threads at once.

    Methods raise EvaluationFailed for what is the expression's fault, ResourceExhausted when no
    process is free for too long or the machine is too busy, Unavailable when none can be started or
    something else ends them.

    Requests with one key share what `Turns` gives a key; that of a request is its SQL text unless given.
    """

    def __init__(self, processes: int = PROCESSES, wait_seconds: float = WAIT_SECONDS) -> None:
        self._turns = Turns(processes)
        self._wait = wait_seconds
        self._lock = Lock()
        self._idle: list[_Process] = []

    def parse(self, sql: str) -> dict[str, Any]:
        """DuckDB's syntax tree of a text that holds SELECT statements; raises RecursionError for a deep one."""
        found: dict[str, Any] = json.loads(self._ask({"do": "parse", "sql": sql})[0]["tree"])
        if found["error"]:
            raise EvaluationFailed(one_line(found["error_message"]))
        return found

    def render(self, tree: Mapping[str, Any]) -> str:
        """The text of a syntax tree."""
        return str(self._ask({"do": "render", "tree": json.dumps(tree)})[0]["sql"])

    def first_zero(self, sql: str, stream: bytes | memoryview, key: str | None = None) -> int:
        """The first row of an Arrow stream for which `sql` selects zero, or -1.

        `sql` selects one int32 for each row of the table `evaluation.ROWS`.
        """
        return int(self._ask({"do": "check", "sql": sql}, stream, key)[0]["row"])

    def values(self, sql: str) -> bytes:
        """The rows that `sql` selects, as an Arrow stream."""
        return self._ask({"do": "values", "sql": sql})[1]

    def type_name(self, stream: bytes | memoryview) -> str:
        """What DuckDB calls the type of the only column of an Arrow stream."""
        return str(self._ask({"do": "type"}, stream)[0]["type"])

    def close(self) -> None:
        """End the processes that are idle; new ones start when they are needed."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def _ask(
        self, header: Mapping[str, Any], payload: bytes | memoryview = b"", key: str | None = None
    ) -> tuple[dict[str, Any], bytes]:
        key = key or header.get("sql", "")
        if not self._turns.acquire(key, self._wait):
            raise ResourceExhausted(
                "the server is busy with other CHECK and DEFAULT expressions; try again later"
            )
        try:
            try:
                reply, data = self._once(header, payload)
            except _Died as first:  # perhaps not by this request: the kernel ends processes, too
                if first.status in _TIME_OVER:
                    raise
                log.warning("an evaluator process ended with status %d; trying once more", first.status)
                reply, data = self._once(header, payload, anew=True)
        except _Died as death:
            raise _reason(death.status) from None
        finally:
            self._turns.release(key)
        if "error" in reply:
            raise EvaluationFailed(_explain(reply), reply.get("row"))
        return reply, data

    def _once(
        self, header: Mapping[str, Any], payload: bytes | memoryview, *, anew: bool = False
    ) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            process = self._idle.pop() if self._idle and not anew else None
        process = process or _Process()
        reusable = False
        try:
            reply, data = process.ask(header, payload)
            reusable = reply.get("kind") not in _POISONED and process.own_bytes() <= MAX_IDLE_BYTES
        finally:
            if reusable:
                with self._lock:
                    self._idle.append(process)
            else:
                process.end()
        return reply, data


def _reason(status: int) -> Exception:
    """What the end of a process means to the author of the request, by the status of Popen."""
    if status == -signal.SIGPROF:
        return EvaluationFailed(f"it takes longer than {CPU_SECONDS:g} s")
    if status == -signal.SIGALRM:  # and less processor time than is allowed
        return ResourceExhausted(
            f"a CHECK or DEFAULT expression was not evaluated in {WALL_SECONDS:g} s, because the server is busy "
            "with other things; try again later"
        )
    log.error("an evaluator process ended with status %d", status)
    if status in _FROM_OUTSIDE:
        return Unavailable(
            "the process that evaluates CHECK and DEFAULT was ended from outside, perhaps for lack of memory; "
            "try again later"
        )
    return EvaluationFailed("DuckDB ended unexpectedly while it evaluated this")


def one_line(text: str, length: int = 300) -> str:
    """The first line of a text from elsewhere, printable and bounded, for messages."""
    line = text.strip().split("\n", 1)[0].rstrip()
    shown = "".join(char if char.isprintable() else "?" for char in line[: length + 1])
    return shown if len(shown) <= length else f"{shown[: length - 3]}..."


def _explain(reply: Mapping[str, Any]) -> str:
    if reply["kind"] == "MemoryError":
        return "it takes too much memory"
    return one_line(reply["error"])


SHARED: Final = Sandbox()
"""The one of this server; it has no process until it is used."""

atexit.register(SHARED.close)
