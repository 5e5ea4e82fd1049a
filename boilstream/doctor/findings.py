"""What a check found, and how it reads."""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from boilstream.auth.rules import brief

_MAX_LINE: Final = 2000
"""Longest line in characters; whatever a token or a provider holds, a report stays readable."""

_ADVICE: Final = ("allow ", "check ", "set ", "use ")
"""How advice begins that a message of the store gives after its last colon."""

_PRODUCT: Final = logging.getLogger("boilstream")


class Level(enum.StrEnum):
    """How a check came out; the value is the first word of its line."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    level: Level
    what: str
    """What was checked, such as `okta keys`."""
    detail: str
    """What was found. May hold text from outside: `render` makes it safe to print."""
    fix: str | None = None
    """What to change; every WARN and FAIL has it."""


def ok(what: str, detail: str) -> Finding:
    """Nothing to do."""
    return Finding(Level.OK, what, detail)


def warn(what: str, detail: str, fix: str) -> Finding:
    """Works, and somebody should look at it."""
    return Finding(Level.WARN, what, detail, fix)


def fail(what: str, detail: str, fix: str) -> Finding:
    """Does not work until somebody changes something."""
    return Finding(Level.FAIL, what, detail, fix)


def render(finding: Finding) -> str:
    """`ok|warn|FAIL <what>: <detail>` and, where there is one, a second line `  fix: ...`.

    No other line break and no control character is in it, whatever the finding holds.
    """
    lines = [_line(f"{finding.level} {finding.what}: {finding.detail}")]
    if finding.fix is not None:
        lines.append(_line(f"  fix: {finding.fix}"))
    return "\n".join(lines)


def split_advice(message: str, otherwise: str) -> tuple[str, str]:
    """What is wrong and what to do, out of a message of ours; `otherwise` if it says only the first.

    Messages give their advice behind the first semicolon or, those of the store, behind the last colon.
    """
    problem, semicolon, advice = message.partition("; ")
    if semicolon:
        return problem, advice
    problem, _, advice = message.rpartition(": ")
    return (problem, advice) if problem and advice.startswith(_ADVICE) else (message, otherwise)


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Inside the block, collect what BoilStream logs as a warning or worse, of all threads.

    Nothing of its log is printed meanwhile: the report says it in its own words.
    """
    noted: list[str] = []
    handler = _Notes(noted)
    propagate, _PRODUCT.propagate = _PRODUCT.propagate, False
    _PRODUCT.addHandler(handler)
    try:
        yield noted
    finally:
        _PRODUCT.removeHandler(handler)
        _PRODUCT.propagate = propagate


def warned(what: str, notes: Iterable[str], otherwise: str) -> Iterator[Finding]:
    """Noted warnings as findings of the check `what`; `otherwise` as in `split_advice`."""
    for note in dict.fromkeys(notes):
        yield warn(what, *split_advice(note, otherwise))


class _Notes(logging.Handler):
    def __init__(self, noted: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._noted = noted

    def emit(self, record: logging.LogRecord) -> None:
        self._noted.append(record.getMessage())


def _line(text: str) -> str:
    return brief(text, _MAX_LINE)
