from __future__ import annotations

import logging
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.doctor.findings import (
    Finding,
    Level,
    fail,
    noted_warnings,
    ok,
    render,
    split_advice,
    warn,
    warned,
)


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (ok("store write", "3 ms"), "ok store write: 3 ms"),
        (warn("clock", "6 s ahead", "set it"), "warn clock: 6 s ahead\n  fix: set it"),
        (fail("okta keys", "no answer", "check it"), "FAIL okta keys: no answer\n  fix: check it"),
    ],
)
def test_lines_have_stable_forms(finding: Finding, text: str) -> None:
    assert render(finding) == text


@given(st.sampled_from(Level), st.text(), st.text(), st.none() | st.text())
def test_nothing_in_a_finding_can_reach_the_terminal_as_a_command(
    level: Level, what: str, detail: str, fix: str | None
) -> None:
    lines = render(Finding(level, what, detail, fix)).split("\n")
    assert len(lines) == (1 if fix is None else 2)
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith(f"{level.value} ")
    assert fix is None or lines[1].startswith("  fix: ")


def test_a_line_has_an_end() -> None:
    assert len(render(ok("groups", "x" * 100_000))) <= 2000


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ("it is wrong; set X; or Y", ("it is wrong", "set X; or Y")),
        ("cannot write s3://b: Denied: check S3_BUCKET", ("cannot write s3://b: Denied", "check S3_BUCKET")),
        ("cannot write /x: permission denied", ("cannot write /x: permission denied", "otherwise")),
        ("plain", ("plain", "otherwise")),
    ],
)  # fmt: skip
def test_advice_is_told_apart(message: str, parts: tuple[str, str]) -> None:
    assert split_advice(message, "otherwise") == parts


def test_warnings_are_noted_once_and_go_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("boilstream.somewhere")
    with noted_warnings() as notes:
        logger.warning("a %s; do it", "thing")
        thread = threading.Thread(target=logger.error, args=("from a thread",))
        thread.start()
        thread.join()
        logger.info("not this")
    assert notes == ["a thing; do it", "from a thread"]
    assert caplog.records == []
    logger.warning("afterwards")
    assert [record.getMessage() for record in caplog.records] == ["afterwards"]
    assert list(warned("here", [*notes, *notes], "look")) == [
        warn("here", "a thing", "do it"),
        warn("here", "from a thread", "look"),
    ]
