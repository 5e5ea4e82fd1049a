from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from boilstream.auth.jws import MAX_TOKEN_CHARACTERS
from boilstream.doctor.token_input import PROMPT, read_token, token_in
from boilstream.errors import InvalidArgument

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "text",
    ["{}", "{}\n", "Bearer {}", "bearer   {}\r\n", "\n  {}  \n\n", "\ufeffBEARER {}\n"],
)
def test_one_token_with_or_without_its_scheme(text: str) -> None:
    assert token_in(text.format(TOKEN).encode()) == TOKEN


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no token"),
        (b" \n\n", "no token"),
        (b"Bearer \n", "no token"),
        (f"{TOKEN}\n{TOKEN}".encode(), "2 lines"),
        (b"x" * (MAX_TOKEN_CHARACTERS + 1000), "longer"),
    ],
)
def test_what_is_no_token(data: bytes, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        token_in(data)


def test_the_longest_token_is_read(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("Bearer " + "x" * MAX_TOKEN_CHARACTERS + "\n")
    assert len(read_token(str(path))) == MAX_TOKEN_CHARACTERS


@pytest.mark.parametrize("source", [TOKEN, f"Bearer {TOKEN}", TOKEN * 10, "a\0b", ".", ""])
def test_a_token_as_an_argument_is_refused_and_not_repeated(source: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_token(source)
    assert "must not be an argument" in caught.value.message
    assert TOKEN not in caught.value.message


@pytest.mark.slow
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\x04"])
def test_a_terminal_is_asked_and_shows_nothing_of_the_token(end: bytes) -> None:
    token = "x" * 10_000  # a line of a terminal that edits lines ends at 4,095
    program = (
        "import sys; from boilstream.doctor.token_input import read_token; t = read_token('-'); "
        "sys.exit(0 if t == 'x' * 10_000 else 1)"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE
    ) as process:
        os.close(theirs)
        assert process.stderr is not None
        assert process.stderr.read(len(PROMPT)) == PROMPT.encode()
        sent = b"wrong\x7f\x7f\b\b\b" + token.encode() + end
        while sent:
            sent = sent[os.write(ours, sent[:1024]) :]
        assert process.wait(30) == 0
        assert process.stderr.read() == b"\n"
    os.set_blocking(ours, False)
    with pytest.raises(OSError):
        os.read(ours, 1)
    os.close(ours)
