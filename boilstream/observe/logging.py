"""Log lines in the forms that the documentation promises."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

_LEVELS = {"WARNING": "WARN", "CRITICAL": "ERROR"}


class TextFormatter(logging.Formatter):
    """`INFO boilstream::auth::manager: message`: level, dotted name with `::`, message."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it if there is one."""
        line = f"{_level(record)} {record.name.replace('.', '::')}: {record.getMessage()}"
        line = line.replace("\r", "\\r").replace("\n", "\\n")  # one event, one line: no forged lines
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time` (RFC 3339, UTC), `level`, `logger`, `message`, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        body = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": _level(record),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        return json.dumps(body)


def configure(level: str, form: Literal["text", "json"]) -> None:
    """Send the log to standard error: BoilStream's from `level` on, other libraries' warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("boilstream").setLevel(level.upper())


def _level(record: logging.LogRecord) -> str:
    return _LEVELS.get(record.levelname, record.levelname)
