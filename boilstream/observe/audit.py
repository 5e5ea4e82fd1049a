"""The audit log: one JSON line per refused call and per change, for whoever must answer for them later.

A line holds the keys `time` (RFC 3339, UTC, milliseconds) and the fields of AuditEvent in their order; what
is not known is null, so every line has the same keys. Lines are ASCII and shorter than 4 KiB: Linux writes
so much to a pipe whole (PIPE_BUF), and appends to a file are whole anyway, so processes may share one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, Self

from boilstream.errors import ConfigurationError

MAX_TEXT_CHARACTERS: Final = 256
"""Longest text value as it is written, escapes included; a longer one is cut and ends in `...`."""

MAX_REASON_CHARACTERS: Final = 1024
"""The same for `reason`, which also says what to do."""

REPORT_SECONDS: Final = 60.0
"""Time between two lines in the ordinary log about lost events."""

_MODE = 0o640
# Not blocking: a named pipe that nobody reads must not stop calls. Files do not care.
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_CUT = "..."

_LOGGER = logging.getLogger("boilstream.observe.audit")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One refused call or one change. There is no place for token text or claims."""

    decision: Literal["allowed", "denied", "unauthenticated"]
    call: str
    """In the words of the transport, such as `DoPut` or `action drop_topic`."""
    action: str | None = None
    """The permission in question: `read`, `write` or `admin`."""
    topic: str | None = None
    provider: str | None = None
    subject: str | None = None
    """Stable id of the caller at the provider."""
    client: str | None = None
    """OAuth client id."""
    peer: str | None = None
    """Network address, such as `ipv4:192.0.2.7:41234`."""
    reason: str
    """The rule that decided, or what is wrong with the token."""
    rows: int | None = None
    """How many rows a write made durable."""
    commit: str | None = None
    """The commit record that holds them, `<writer>/<sequence>`."""
    error_id: str | None = None
    """The id under which client and server log know the error."""


class AuditLog:
    """Writes audit events as JSON lines to a file, to standard output, or nowhere. Thread safe.

    Each line is one write, handed to the operating system at once. A write that fails never fails its
    caller: the event is counted in `lost` and the ordinary log says so, once per REPORT_SECONDS. After a
    line that a full disk cut off, the next one begins on a line of its own. A deleted file is made again.
    Nothing waits for the reader of a named pipe; for that of standard output a full pipe does. Made by
    `open`.
    """

    def __init__(self, target: str | None, clock: Callable[[], float]) -> None:
        self.lost = 0
        """Events that could not be written since the start."""
        self._target = target
        self._clock = clock
        # Reentrant, because `reopen` may run in a signal handler that interrupts `write`.
        self._lock = threading.RLock()
        self._torn = False  # whether the file ends in the middle of a line
        self._reported = 0
        self._reported_at = float("-inf")
        self._cause = ""
        self._descriptor: int | None = None
        if target is not None:
            self._descriptor = self._open(target)

    @classmethod
    def open(cls, target: str | None, clock: Callable[[], float] = time.time) -> Self:
        """The log for a value of AUDIT_LOG: a path, `-` for standard output, None for no log at all.

        A file is made with mode 0640 (less the umask) or appended to. `clock` gives seconds since the
        epoch. Raises ConfigurationError when the target cannot be opened.
        """
        try:
            return cls(target, clock)
        except OSError as error:
            raise ConfigurationError(
                f"AUDIT_LOG: cannot write to {target}: {error.strerror}; name a file in a folder that exists "
                "and is writable for the server, or - for standard output"
            ) from None

    def write(self, event: AuditEvent) -> None:
        """Append one line for `event`, with the time of now. Never raises for a target that fails."""
        if self._target is None:
            return
        now = self._clock()
        line = _line(event, now)
        with self._lock:
            try:
                self._append(line)
            except OSError as error:
                self.lost += 1
                self._cause = error.strerror or str(error)
            due = not 0 <= now - self._reported_at < REPORT_SECONDS  # also when the clock was set back
            report = due and self.lost > self._reported
            if report:
                self._reported, self._reported_at = self.lost, now
        if report:
            self._report()

    def reopen(self) -> None:
        """Open the file anew, for log rotation: what had its name may have been renamed.

        Never raises: when the file cannot be opened, the error goes to the ordinary log and events to the
        old file. Nothing happens to standard output.
        """
        with self._lock:
            if self._descriptor is None or self._target in (None, "-"):
                return
            try:
                self._replace()
            except OSError as error:
                _LOGGER.error(
                    "AUDIT_LOG: cannot open %s again: %s; events go to the file that was open",
                    self._target,
                    error.strerror,
                )

    def close(self) -> None:
        """Close the file; later events are lost. May be called twice."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)
            report = self.lost > self._reported
            self._reported = self.lost
        if report:
            self._report()

    def _append(self, line: bytes) -> None:
        if self._descriptor is None:
            raise OSError("the log is closed")
        if self._target != "-" and os.fstat(self._descriptor).st_nlink == 0:
            self._replace()  # the file is deleted: writes would succeed, into nothing
            _LOGGER.warning("AUDIT_LOG: %s was deleted; a new file is made", self._target)
        if self._torn:
            line = b"\n" + line
        written = os.write(self._descriptor, line)
        if written:
            self._torn = line[written - 1 : written] != b"\n"
        if written < len(line):
            raise OSError("only a part of a line could be written, the disk may be full")

    def _replace(self) -> None:
        """Open the path anew under the descriptor that is in use, so that no write can miss it."""
        assert self._descriptor is not None
        assert self._target is not None
        fresh = self._open(self._target)
        try:
            os.dup2(fresh, self._descriptor, inheritable=False)
        finally:
            os.close(fresh)

    def _open(self, target: str) -> int:
        if target == "-":
            if sys.__stdout__ is None:
                raise OSError(None, "the process has no standard output")
            return os.dup(sys.__stdout__.fileno())
        descriptor = os.open(target, _FLAGS, _MODE)
        self._torn = stat.S_ISREG(os.fstat(descriptor).st_mode) and _ends_in_mid_line(Path(target))
        return descriptor

    def _report(self) -> None:
        _LOGGER.error(
            "AUDIT_LOG: %d event(s) lost since the start, the last because %s cannot be written: %s",
            self._reported,
            self._target,
            self._cause,
        )


def _line(event: AuditEvent, now: float) -> bytes:
    time_text = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    body: dict[str, str | int | None] = {"time": time_text.replace("+00:00", "Z")}
    for item in fields(event):
        value = getattr(event, item.name)
        if isinstance(value, str):
            value = _cut(value, MAX_REASON_CHARACTERS if item.name == "reason" else MAX_TEXT_CHARACTERS)
        body[item.name] = value
    return f"{json.dumps(body)}\n".encode("ascii")


def _cut(text: str, limit: int) -> str:
    """As much of `text` as JSON writes in `limit` characters; `...` at the end when it is not all."""
    # Half a surrogate pair is text to Python but not to other readers of JSON.
    text = text[: limit + 1].encode("utf-8", "backslashreplace").decode("utf-8")
    if _width(text) <= limit:
        return text
    room = limit - len(_CUT)
    kept = bisect_right(range(len(text) + 1), room, key=lambda length: _width(text[:length])) - 1
    return text[:kept] + _CUT


def _width(text: str) -> int:
    return len(json.dumps(text)) - len('""')


def _ends_in_mid_line(path: Path) -> bool:
    """Whether the last line of a file lacks its end, because a disk was full; False when nobody may look."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    return False
