from __future__ import annotations

import json
import logging
import sys

from boilstream.observe.logging import JsonFormatter, TextFormatter


def line(message: str, level: int = logging.INFO, *args: object) -> logging.LogRecord:
    return logging.LogRecord("boilstream.auth.manager", level, __file__, 1, message, args, None)


def test_text_lines_have_the_documented_form() -> None:
    shown = TextFormatter().format(line("Added %s authentication provider", logging.INFO, "Okta"))
    assert shown == "INFO boilstream::auth::manager: Added Okta authentication provider"


def test_warnings_are_called_warn() -> None:
    assert TextFormatter().format(line("x", logging.WARNING)).startswith("WARN ")


def test_a_value_cannot_forge_a_second_line() -> None:
    shown = TextFormatter().format(line("user %s", logging.INFO, "a\nINFO boilstream::x: forged"))
    assert shown.count("\n") == 0


def test_json_lines_are_objects_with_a_time() -> None:
    body = json.loads(JsonFormatter().format(line("hello\nworld")))
    assert body["message"] == "hello\nworld"
    assert body["level"] == "INFO"
    assert body["logger"] == "boilstream.auth.manager"
    assert body["time"].endswith("Z")


def test_an_exception_is_kept() -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        record = logging.LogRecord("boilstream.x", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    assert "boom" in TextFormatter().format(record)
    assert "boom" in json.loads(JsonFormatter().format(record))["exception"]
