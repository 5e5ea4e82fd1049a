from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.errors import ConfigurationError
from boilstream.observe.audit import (
    MAX_REASON_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    REPORT_SECONDS,
    AuditEvent,
    AuditLog,
)
from tests.support.tokens import FakeClock

DENIED = AuditEvent(
    decision="denied",
    call="action drop_topic",
    action="admin",
    topic="s3.user_events",
    provider="okta",
    subject="00u123456789abcdef",
    client="0oa123456789abcdef",
    peer="ipv4:192.0.2.7:41234",
    reason="needs admin on s3.user_events: member of one of ADMIN_GROUPS",
    error_id="9f2c",
)
WRITTEN = AuditEvent(decision="allowed", call="DoPut", reason="group ETL", rows=12, commit="w1/7")

TEXT_FIELDS = [item.name for item in fields(AuditEvent) if item.name not in ("decision", "rows")]
LINE_BYTES = 4096


def event(**values: Any) -> AuditEvent:
    return AuditEvent(**{"decision": "allowed", "call": "DoPut", "reason": "group ETL", **values})


def lines(path: Path) -> list[dict[str, Any]]:
    """Every line of the file, each of which must be an object and have its end."""
    data = path.read_bytes()
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def calls(path: Path) -> list[str]:
    return [line["call"] for line in lines(path)]


@contextmanager
def opened(path: Path | str, clock: FakeClock | None = None) -> Iterator[AuditLog]:
    log = AuditLog.open(str(path), clock or FakeClock())
    try:
        yield log
    finally:
        log.close()


@contextmanager
def room_for(path: Path, more: int) -> Iterator[None]:
    """Let files of this process grow to the size of `path` and so many bytes more, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_lines_have_the_documented_form(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with opened(path, FakeClock(1_800_000_000.25)) as log:
        log.write(DENIED)
        log.write(WRITTEN)
        assert log.lost == 0
    assert path.read_text() == (
        '{"time": "2027-01-15T08:00:00.250Z", "decision": "denied", "call": "action drop_topic", '
        '"action": "admin", "topic": "s3.user_events", "provider": "okta", "subject": "00u123456789abcdef", '
        '"client": "0oa123456789abcdef", "peer": "ipv4:192.0.2.7:41234", '
        '"reason": "needs admin on s3.user_events: member of one of ADMIN_GROUPS", '
        '"rows": null, "commit": null, "error_id": "9f2c"}\n'
        '{"time": "2027-01-15T08:00:00.250Z", "decision": "allowed", "call": "DoPut", '
        '"action": null, "topic": null, "provider": null, "subject": null, "client": null, "peer": null, '
        '"reason": "group ETL", "rows": 12, "commit": "w1/7", "error_id": null}\n'
    )


def test_an_event_has_no_place_for_a_token_or_for_personal_data() -> None:
    assert {item.name for item in fields(AuditEvent)} == {
        *("decision", "call", "action", "topic", "provider", "subject", "client", "peer", "reason"),
        *("rows", "commit", "error_id"),
    }


def test_a_whole_second_has_its_milliseconds_too(tmp_path: Path) -> None:
    with opened(tmp_path / "a", FakeClock(0)) as log:
        log.write(WRITTEN)
    assert lines(tmp_path / "a")[0]["time"] == "1970-01-01T00:00:00.000Z"


def test_a_line_is_in_the_file_when_write_returns(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as log:
        log.write(WRITTEN)
        assert calls(tmp_path / "a") == ["DoPut"]


def test_without_a_target_nothing_is_written(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    log = AuditLog.open(None)
    log.write(DENIED)
    log.reopen()
    log.close()
    log.write(DENIED)
    assert log.lost == 0
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_dash_is_standard_output_which_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    log = AuditLog.open("-", FakeClock())
    log.write(DENIED)
    log.reopen()
    log.write(WRITTEN)
    log.close()
    os.write(1, b"after\n")
    first, second, rest = capfd.readouterr().out.splitlines()
    assert [json.loads(first)["call"], json.loads(second)["call"], rest] == [
        DENIED.call,
        WRITTEN.call,
        "after",
    ]


def test_a_process_without_standard_output_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "__stdout__", None)
    with pytest.raises(ConfigurationError, match=r"^AUDIT_LOG: cannot write to -: .* no standard output"):
        AuditLog.open("-")


def test_a_new_file_is_not_for_everyone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        AuditLog.open(str(tmp_path / "a")).close()
    finally:
        os.umask(umask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_file_that_is_there_keeps_its_lines_and_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text('{"call": "before"}\n')
    path.chmod(0o600)
    with opened(path) as log:
        log.write(WRITTEN)
    assert calls(path) == ["before", "DoPut"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["none/audit.jsonl", ".", "pipe"])
def test_a_target_that_cannot_be_opened_is_a_wrong_setting(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")  # without a reader: opening it must not wait for one
    with pytest.raises(ConfigurationError, match=r"^AUDIT_LOG: cannot write to .*; name a file") as caught:
        AuditLog.open(str(tmp_path / name))
    assert str(tmp_path / name) in caught.value.message


texts = st.text(st.characters(), max_size=1200)  # half surrogate pairs too


@given(values=st.fixed_dictionaries(dict.fromkeys(TEXT_FIELDS, texts)), rows=st.none() | st.integers(0))
def test_any_text_gives_one_line_that_holds_it_up_to_the_cut(
    values: dict[str, str], rows: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-text.jsonl"
    path.unlink(missing_ok=True)
    with opened(path) as log:
        log.write(event(**values, rows=rows))
        assert log.lost == 0
    data = path.read_bytes()
    assert len(data) < LINE_BYTES
    assert all(0x20 <= byte < 0x7F for byte in data[:-1])
    assert data.endswith(b"\n")
    body = json.loads(data)
    assert body.pop("time")
    assert body.pop("decision") == "allowed"
    assert body.pop("rows") == rows
    assert list(body) == TEXT_FIELDS
    for name, value in values.items():
        value = value.encode("utf-8", "backslashreplace").decode()
        limit = MAX_REASON_CHARACTERS if name == "reason" else MAX_TEXT_CHARACTERS
        written = body[name]
        assert len(json.dumps(written)) <= limit + 2
        if written != value:
            assert written.endswith("...")
            assert value.startswith(written[:-3])
            assert len(json.dumps(value)) > limit + 2


@pytest.mark.parametrize(
    "text", ["x" * 4000, "\x7f" * 4000, "\U0001f600" * 4000, "\ud800" * 4000, "\n" * 4000]
)
def test_the_longest_line_is_shorter_than_what_a_pipe_takes_whole(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a"
    with opened(path) as log:
        log.write(AuditEvent(**dict.fromkeys(TEXT_FIELDS, text), decision="unauthenticated", rows=2**63))
    assert len(path.read_bytes()) < LINE_BYTES
    assert len(lines(path)) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x" * 256, "x" * 256),
        ("x" * 257, "x" * 253 + "..."),
        ("\u00fc" * 42, "\u00fc" * 42),
        ("\u00fc" * 43, "\u00fc" * 42 + "..."),
        ("\U0001f600" * 22, "\U0001f600" * 21 + "..."),
    ],
)
def test_a_cut_counts_characters_as_they_are_written(tmp_path: Path, text: str, shown: str) -> None:
    with opened(tmp_path / "a") as log:
        log.write(event(topic=text))
    assert lines(tmp_path / "a")[0]["topic"] == shown


def test_a_value_cannot_forge_a_line_or_steer_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a"
    forged = 'a"}\n{"call": "forged"}\r\u2028\u2029\x85\x1b[2J\x7f\x00'
    with opened(path) as log:
        log.write(event(topic=forged))
    data = path.read_bytes()
    assert data.isascii()
    assert data[:-1].decode().isprintable()
    assert lines(path)[0]["topic"] == forged


def test_events_go_to_the_renamed_file_until_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with opened(path) as log:
        log.write(event(call="one"))
        path.rename(tmp_path / "audit.1")
        log.write(event(call="two"))
        log.reopen()
        log.write(event(call="three"))
    assert calls(tmp_path / "audit.1") == ["one", "two"]
    assert calls(path) == ["three"]


def test_an_opening_again_that_fails_keeps_the_old_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    with opened(folder / "a") as log:
        folder.rename(tmp_path / "moved")
        log.reopen()
        log.write(event(call="after"))
        assert log.lost == 0
    assert calls(tmp_path / "moved" / "a") == ["after"]
    (record,) = caplog.records
    assert record.name == "boilstream.observe.audit"
    assert record.levelno == logging.ERROR
    assert "No such file" in record.getMessage()


def descriptors_of(path: Path) -> int:
    """How many descriptors of this process are for the file."""
    links = Path("/proc/self/fd").iterdir()
    return sum(os.path.realpath(link) == str(path.resolve()) for link in links)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    path = tmp_path / "a"
    log = AuditLog.open(str(path))
    for _ in range(5):
        log.reopen()
    assert descriptors_of(path) == 1
    log.close()
    log.close()
    log.reopen()
    assert descriptors_of(path) == 0


@pytest.mark.parametrize("again", [True, False])
def test_child_processes_do_not_inherit_the_file(tmp_path: Path, again: bool) -> None:
    with opened(tmp_path / "a") as log:
        if again:
            log.reopen()
        assert log._descriptor is not None
        assert not os.get_inheritable(log._descriptor)


def test_an_opening_again_may_interrupt_a_write_of_the_same_thread(tmp_path: Path) -> None:
    # As a signal handler does while `write` holds the lock.
    path = tmp_path / "a"
    with opened(path) as log, log._lock:
        log.reopen()
        log.write(WRITTEN)
    assert calls(path) == ["DoPut"]


def test_a_deleted_file_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a"
    with opened(path) as log:
        log.write(event(call="one"))
        path.unlink()
        log.write(event(call="two"))
        log.write(event(call="three"))
        assert log.lost == 0
    assert calls(path) == ["two", "three"]
    (record,) = caplog.records
    assert "was deleted; a new file is made" in record.getMessage()


def test_a_deleted_folder_costs_events_and_no_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    clock = FakeClock()
    with opened(folder / "a", clock) as log:
        (folder / "a").unlink()
        folder.rmdir()
        for _ in range(10):
            log.write(WRITTEN)
        assert log.lost == 10
        assert len(caplog.records) == 1
        folder.mkdir()
        log.write(event(call="back"))
        assert log.lost == 10
    assert calls(folder / "a") == ["back"]


def test_a_full_disk_is_told_once_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    with opened("/dev/full", clock) as log:
        for _ in range(100):
            log.write(WRITTEN)
        assert log.lost == 100
        assert [record.getMessage() for record in caplog.records] == [
            "AUDIT_LOG: 1 event(s) lost since the start, the last because /dev/full cannot be written: "
            "No space left on device"
        ]
        clock.advance(REPORT_SECONDS - 1)
        log.write(WRITTEN)
        assert len(caplog.records) == 1
        clock.advance(1)
        log.write(WRITTEN)
        log.write(WRITTEN)
        assert len(caplog.records) == 2
        assert "102 event(s) lost" in caplog.text
    assert "103 event(s) lost" in caplog.text, "the end tells the rest"
    assert all(record.levelno == logging.ERROR for record in caplog.records)
    assert {record.name for record in caplog.records} == {"boilstream.observe.audit"}


def test_a_clock_that_is_set_back_does_not_silence_the_error(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    with opened("/dev/full", clock) as log:
        log.write(WRITTEN)
        clock.advance(-86_400)
        log.write(WRITTEN)
        assert len(caplog.records) == 2


def test_what_was_lost_is_told_in_full_once_writing_works_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "a", FakeClock()
    with opened(path, clock) as log:
        with room_for(path, 0):
            for _ in range(5):
                log.write(WRITTEN)
        log.write(event(call="works"))
        assert len(caplog.records) == 1
        clock.advance(REPORT_SECONDS)
        log.write(event(call="later"))
        assert len(caplog.records) == 2
        assert "5 event(s) lost" in caplog.text
        clock.advance(REPORT_SECONDS)
        log.write(event(call="latest"))
    assert len(caplog.records) == 2
    assert calls(path) == ["works", "later", "latest"]


def test_half_a_line_spoils_no_other_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a"
    with opened(path) as log:
        log.write(event(call="before"))
        with room_for(path, 40):
            log.write(event(call="cut off"))
            log.write(event(call="no room"))
        assert log.lost == 2
        log.write(event(call="after"))
        log.write(event(call="later"))
    before, torn, after, later = path.read_text().splitlines()
    assert [json.loads(line)["call"] for line in (before, after, later)] == ["before", "after", "later"]
    assert len(torn) == 40
    assert "only a part of a line" in caplog.text


def test_half_a_line_that_gets_no_more_than_its_end_leaves_no_empty_line(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text('{"time": "20')
    with opened(path) as log:
        with room_for(path, 1):
            log.write(event(call="only the end of the line before"))
        assert log.lost == 1
        log.write(event(call="after"))
    torn, line = path.read_text().splitlines()
    assert torn == '{"time": "20'
    assert json.loads(line)["call"] == "after"


@pytest.mark.parametrize("again", [True, False])
def test_half_a_line_of_an_earlier_run_spoils_no_other_line(tmp_path: Path, again: bool) -> None:
    path = tmp_path / "a"
    path.write_text('{"time": "20')
    with opened(path) as log:
        if again:
            log.reopen()
        log.write(WRITTEN)
    torn, line = path.read_text().splitlines()
    assert torn == '{"time": "20'
    assert json.loads(line)["call"] == "DoPut"


def test_a_named_pipe_that_nobody_reads_on_does_not_stop_calls(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with opened(pipe) as log:
            written = 0
            while log.lost == 0:
                log.write(WRITTEN)
                written += 1
            data = b""
            while len(data) < 65_536 and data.count(b"\n") < written - 1:
                data += os.read(reader, 65_536)
            assert data.count(b"\n") == written - 1, "lines in a pipe are whole or not there"
            assert data.endswith(b"\n")
            log.write(event(call="read on"))
            assert json.loads(os.read(reader, 65_536))["call"] == "read on"
    finally:
        os.close(reader)


def test_events_after_the_end_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog.open(str(tmp_path / "a"), FakeClock())
    log.close()
    log.write(WRITTEN)
    log.close()
    assert log.lost == 1
    assert "the log is closed" in caplog.text
    assert lines(tmp_path / "a") == []


def test_threads_write_whole_lines_while_the_file_is_rotated(tmp_path: Path) -> None:
    path, threads, each = tmp_path / "a", 8, 250
    begin = threading.Barrier(threads + 1)

    def work(number: int) -> None:
        begin.wait()
        for count in range(each):
            log.write(event(call=f"{number}/{count}", reason="x" * 900))

    with opened(path) as log:
        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        begin.wait()
        for number in range(20):
            path.rename(tmp_path / f"a.{number}")
            log.reopen()
        for worker in workers:
            worker.join()
        assert log.lost == 0
    found = [call for file in sorted(tmp_path.iterdir()) for call in calls(file)]
    assert sorted(found) == sorted(f"{number}/{count}" for number in range(threads) for count in range(each))


_WRITER = """
import sys
from boilstream.observe.audit import AuditEvent, AuditLog
path, name = sys.argv[1:]
log = AuditLog.open(path)
print("ready", flush=True)
sys.stdin.readline()
for count in range(3000):
    log.write(AuditEvent(decision="denied", call=f"{name}/{count}", reason=name * 900))
log.close()
sys.exit(log.lost)
"""


@pytest.mark.slow
def test_processes_that_share_a_file_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "a"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name in "ab"
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        assert [process.wait(60) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    found = calls(path)
    for name in "ab":
        own = [call for call in found if call.startswith(name)]
        assert own == [f"{name}/{count}" for count in range(3000)], "each process in its own order"
    assert len(found) == 6000
