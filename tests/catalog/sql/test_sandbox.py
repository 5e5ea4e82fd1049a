"""The processes that evaluate expressions: bounded, replaced when they end, and told apart from the expression."""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from boilstream.catalog.sql import sandbox
from boilstream.catalog.sql.evaluation import ROWS, memory_limit
from boilstream.catalog.sql.expressions import _stream
from boilstream.catalog.sql.sandbox import EvaluationFailed, Sandbox, one_line
from boilstream.errors import ResourceExhausted, Unavailable

pytestmark = pytest.mark.slow  # the evaluator processes are real


ONE = pa.record_batch({"x": pa.array([1])})
STREAM = _stream(ONE.schema, ONE)


def rows(stream: bytes) -> list[object]:
    return list(pa.ipc.open_stream(stream).read_all().column(0).to_pylist())


def idle(box: Sandbox) -> list[int]:
    """Process ids of those that wait for work."""
    return [process._popen.pid for process in box._idle]


@pytest.fixture
def box() -> sandbox.Sandbox:
    return Sandbox(processes=2, wait_seconds=60)


def test_a_process_is_used_again_and_ends_with_its_sandbox(box: Sandbox) -> None:
    assert idle(box) == []
    assert rows(box.values("SELECT 1")) == [1]
    (pid,) = idle(box)
    assert rows(box.values("SELECT 2")) == [2]
    assert idle(box) == [pid]
    box.close()
    assert idle(box) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_there_are_never_more_processes_than_allowed(box: Sandbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: rows(box.values(f"SELECT {number}")), range(40)))
    assert found == [[number] for number in range(40)]
    assert 1 <= len(idle(box)) <= 2
    box.close()


def test_a_process_that_was_killed_is_replaced_unnoticed(box: Sandbox) -> None:
    box.values("SELECT 1")
    (pid,) = idle(box)
    os.kill(pid, signal.SIGKILL)
    assert rows(box.values("SELECT 2")) == [2]
    assert idle(box) != [pid]
    box.close()


def test_all_idle_processes_were_killed(box: Sandbox) -> None:
    barrier = threading.Barrier(2)

    def ask(number: int) -> None:
        barrier.wait()
        box.values(f"SELECT levenshtein(repeat('ab', 4000), repeat('ba', 4000 + {number}))")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, range(2)))
    for pid in idle(box):
        os.kill(pid, signal.SIGKILL)
    assert rows(box.values("SELECT 2")) == [2]
    box.close()


def test_an_error_of_the_expression_keeps_the_process(box: Sandbox) -> None:
    box.values("SELECT 1")
    pids = idle(box)
    with pytest.raises(EvaluationFailed, match="Could not convert string 'x'"):
        box.values("SELECT 'x'::INTEGER")
    assert idle(box) == pids
    box.close()


def test_a_lack_of_memory_replaces_the_process(box: Sandbox) -> None:
    with pytest.raises(EvaluationFailed, match="too much memory"):
        box.values("SELECT length(repeat('x', 2000000000))")
    assert idle(box) == []
    assert rows(box.values("SELECT 1")) == [1]
    box.close()


def test_an_answer_that_is_too_long_is_not_read(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_ANSWER_BYTES", 1 << 20)
    with pytest.raises(EvaluationFailed, match="more than 1 MB"):
        box.values("SELECT repeat('x', 2000000)")
    assert rows(box.values("SELECT 1")) == [1]
    box.close()


STARTS = {
    "it ends": "import sys; sys.exit('x' * 5000 + 'no such library')",
    "it writes nonsense": "import sys; print('no such library', file=sys.stderr, flush=True); print('x' * 1000)",
    "it writes little": "import sys; sys.stderr.write('no such library'); print('x')",
    "it hangs": "import sys, time; print('no such library', file=sys.stderr, flush=True); time.sleep(600)",
}


@pytest.mark.parametrize("program", STARTS.values(), ids=STARTS)
def test_a_process_that_does_not_become_ready_is_no_fault_of_the_expression(
    box: Sandbox, program: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sandbox, "_COMMAND", [sys.executable, "-c", program])
    monkeypatch.setattr(sandbox, "START_SECONDS", 5)
    with pytest.raises(Unavailable, match="cannot start the process"):
        box.values("SELECT 1")
    (record,) = caplog.records
    assert record.message.endswith("no such library")
    assert len(record.message) < 2200
    assert idle(box) == []


READY = """
import os, signal, sys
from boilstream.catalog.sql.evaluator import LENGTHS, _write
_write(sys.stdout.buffer, {"ready": True}, b"")
sys.stdin.buffer.read(LENGTHS.size)
"""


def afterwards(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every process do that with its first request."""
    monkeypatch.setattr(sandbox, "_COMMAND", [sys.executable, "-P", "-c", READY + program])


@pytest.mark.parametrize(
    ("ended_by", "error", "message"),
    [
        (signal.SIGKILL, Unavailable, "ended from outside"),
        (signal.SIGTERM, Unavailable, "ended from outside"),
        (signal.SIGALRM, ResourceExhausted, "not evaluated in 20 s, because the server is busy"),
        (signal.SIGPROF, EvaluationFailed, "takes longer than 5 s"),
        (signal.SIGABRT, EvaluationFailed, "ended unexpectedly"),
        (signal.SIGSEGV, EvaluationFailed, "ended unexpectedly"),
    ],
)
def test_how_a_process_ends_tells_whose_fault_it_was(
    box: Sandbox,
    ended_by: signal.Signals,
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    afterwards(f"os.kill(os.getpid(), {int(ended_by)})", monkeypatch)
    for _ in range(3):  # each one gives its place back
        with pytest.raises(error, match=message):
            box.values("SELECT 1")
    assert idle(box) == []


@pytest.mark.parametrize("program", ["sys.exit(3)", "print('x' * 1000)"])
def test_a_process_that_always_ends_or_writes_nonsense_is_no_endless_loop(
    box: Sandbox, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    afterwards(program, monkeypatch)
    with pytest.raises(EvaluationFailed):
        box.values("SELECT 1")
    assert idle(box) == []


def test_a_process_that_keeps_much_memory_is_replaced(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_IDLE_BYTES", 1 << 20)
    assert rows(box.values("SELECT 1")) == [1]
    assert idle(box) == []
    monkeypatch.setattr(sandbox, "MAX_IDLE_BYTES", 1 << 40)
    assert rows(box.values("SELECT 2")) == [2]
    assert len(idle(box)) == 1
    box.close()


def test_the_kernel_ends_an_evaluator_before_the_server(box: Sandbox) -> None:
    box.values("SELECT 1")
    (pid,) = idle(box)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
    box.close()


def test_a_request_gets_a_part_of_the_machines_memory() -> None:
    mib = 1 << 20
    assert [memory_limit(gib * 1024 * mib) // mib for gib in (1, 4, 8, 16, 64)] == [256, 256, 512, 1024, 1024]


def test_many_slow_requests_of_one_key_leave_room_for_another(box: Sandbox) -> None:
    slow = "SELECT levenshtein(repeat('ab', 4000), repeat('ba', 4000 + {}))"
    ended = threading.Event()

    def again(number: int) -> None:
        while not ended.is_set():
            box.first_zero(f"{slow.format(number)}::INTEGER FROM {ROWS}", STREAM, key="slow")

    with ThreadPoolExecutor(6) as pool:
        threads = [pool.submit(again, number) for number in range(6)]
        try:
            for number in range(20):
                assert rows(box.values(f"SELECT {number}")) == [number]
        finally:
            ended.set()
        for thread in threads:
            thread.result()
    box.close()


def test_no_process_can_be_started(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_COMMAND", ["/nowhere/python"])
    for _ in range(3):  # each one gives its place back
        with pytest.raises(Unavailable, match="cannot start the process"):
            box.values("SELECT 1")


def test_no_process_is_free() -> None:
    with pytest.raises(ResourceExhausted, match="busy"):
        Sandbox(processes=0, wait_seconds=0).values("SELECT 1")


def test_lines_of_others_become_short_and_printable() -> None:
    assert one_line("  a\x00b\tc\nsecond") == "a?b?c"
    assert one_line("") == ""
    assert one_line("x" * 400) == "x" * 297 + "..."
    assert one_line("x" * 300) == "x" * 300
