"""The processes that evaluate expressions: bounded, replaced when they end, and told apart from the expression."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from boilstream.catalog.sql import sandbox
from boilstream.catalog.sql.sandbox import EvaluationFailed, Sandbox, one_line
from boilstream.errors import ResourceExhausted, Unavailable

pytestmark = pytest.mark.slow  # the evaluator processes are real


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


def test_a_process_that_always_ends_is_no_endless_loop(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_COMMAND", [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(EvaluationFailed, match="ended unexpectedly"):
        box.values("SELECT 1")
    assert idle(box) == []


def test_a_process_that_writes_nonsense_is_ended(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_COMMAND", [sys.executable, "-c", "print('x' * 1000)"])
    with pytest.raises(EvaluationFailed):
        box.values("SELECT 1")
    assert idle(box) == []


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
