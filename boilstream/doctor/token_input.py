"""Where `boilstream doctor --token` reads the token: a file, standard input, a terminal; never an argument."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from boilstream.auth.jws import MAX_TOKEN_CHARACTERS
from boilstream.errors import InvalidArgument

PROMPT: Final = "Token (it is not shown): "

_SLACK_BYTES: Final = 256  # the scheme, blanks and line ends around the token
_SCHEME: Final = "bearer"
_ENDS: Final = (b"", b"\n", b"\r", b"\x04")
_ERASE: Final = (b"\b", b"\x7f")


def read_token(source: str) -> str:
    """The token in the file `source`, or from standard input if that is `-`.

    Raises InvalidArgument, whose message quotes neither the token nor `source`, which may be the token by
    mistake.
    """
    if source == "-":
        return token_in(_from_terminal() if sys.stdin.isatty() else _all_of(sys.stdin.buffer))
    try:
        with Path(source).open("rb") as file:
            return token_in(_all_of(file))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise InvalidArgument(
            f"--token: the file that it names cannot be read ({reason}); name a file that holds the token, or - "
            "for standard input. A token itself must not be an argument: everybody on this machine could read it"
        ) from None


def token_in(data: bytes) -> str:
    """The one token in `data`, with or without `Bearer` before it; raises InvalidArgument."""
    if len(data) > MAX_TOKEN_CHARACTERS + _SLACK_BYTES:
        raise InvalidArgument(
            f"--token: the input is longer than a token can be ({MAX_TOKEN_CHARACTERS} bytes)"
        )
    lines = [line.strip() for line in data.decode("utf-8-sig", "replace").splitlines() if line.strip()]
    if len(lines) > 1:
        raise InvalidArgument(
            f"--token: the input has {len(lines)} lines; a token is one line without breaks"
        )
    token = lines[0] if lines else ""
    scheme, _, rest = token.partition(" ")
    if scheme.lower() == _SCHEME:
        token = rest.strip()
    if not token:
        raise InvalidArgument("--token: the input holds no token")
    return token


def _all_of(file: BinaryIO) -> bytes:
    return file.read(MAX_TOKEN_CHARACTERS + _SLACK_BYTES + 1)


def _from_terminal() -> bytes:
    """What is typed or pasted up to the end of the line.

    The terminal neither shows it nor edits it: a line that it edits is cut at 4,095 bytes (Linux).
    """
    descriptor = sys.stdin.fileno()
    typed = bytearray()
    with _raw(descriptor):
        sys.stderr.write(PROMPT)
        sys.stderr.flush()
        while len(typed) <= MAX_TOKEN_CHARACTERS + _SLACK_BYTES:
            byte = os.read(descriptor, 1)
            if byte in _ENDS:
                break
            if byte in _ERASE:
                del typed[-1:]
            else:
                typed += byte
    sys.stderr.write("\n")
    return bytes(typed)


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Input without echo and without line editing, but with Ctrl-C."""
    before = termios.tcgetattr(descriptor)
    mode = termios.tcgetattr(descriptor)
    mode[3] &= ~(termios.ECHO | termios.ICANON)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
