"""The program of a sandbox process: evaluates SQL expressions for `boilstream.catalog.sql.sandbox`.

It runs apart from the server because DuckDB bounds neither time nor memory of a scalar function:
an interrupt is seen between chunks of rows only, and `memory_limit` does not cover vectors of
strings and lists. Here the kernel ends what takes too long and refuses memory, files and sockets.

Requests come on standard input, one at a time, answers leave on standard output: `evaluation.LENGTHS`, a
header of JSON, a payload. The first answer, to nothing, says that the process is ready.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import sys
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from boilstream.catalog.sql.evaluation import CPU_SECONDS, LENGTHS, ROWS, WALL_SECONDS, memory_limit
from boilstream.machine import MIB, memory_bytes

ROW_ERRORS = (duckdb.DataError, duckdb.InvalidInputException)
"""What DuckDB raises for the values of a row."""

_CONFIG = {
    "temp_directory": "",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_unsigned_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",
    "python_scan_all_frames": "false",
    "threads": "1",
    "arrow_lossless_conversion": "true",
    "TimeZone": "UTC",
    "enable_external_access": "false",
}


def connect() -> Any:
    """A connection to an empty database in memory whose safeties cannot be turned off."""
    connection = duckdb.connect(":memory:")
    memory = f"{memory_limit(memory_bytes()) // 2 // MIB}MiB"
    for name, value in {**_CONFIG, "memory_limit": memory}.items():
        connection.execute(f"SET {name} = '{value}'")
    connection.execute("SET lock_configuration = true")
    return connection


class Evaluator:
    """What the requests ask for."""

    def __init__(self) -> None:
        self._connection = connect()

    def warm_up(self) -> None:
        """Load what Python and the libraries load on first use, while files can still be opened."""
        types = [pa.int32(), pa.uuid(), pa.json_(), pa.bool8(), pa.opaque(pa.binary(16), "hugeint", "DuckDB")]
        table = pa.table({str(kind): pa.array([], kind) for kind in types})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        sql = f"SELECT CAST(now() > '2020-01-01'::TIMESTAMPTZ AS INTEGER) FROM {ROWS}"  # noqa: S608  constants
        self.check({"sql": sql}, sink.getvalue())
        answer(self, {"do": "values", "sql": "SELECT 'x'::INTEGER"}, b"")

    def parse(self, header: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        """The statement `sql` as DuckDB's syntax tree, in JSON."""
        found = self._connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [header["sql"]]).fetchone()
        return {"tree": found[0]}, b""

    def render(self, header: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        """The statement whose syntax tree is `tree`."""
        found = self._connection.execute("SELECT json_deserialize_sql(?::JSON)", [header["tree"]]).fetchone()
        return {"sql": found[0]}, b""

    def check(self, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """The first row of the stream for which the integer that `sql` selects is zero, -1 if none is.

        An expression that fails on a row is reported with the row's number.
        """
        table = pa.ipc.open_stream(payload).read_all()
        sql = header["sql"]
        try:
            return {"row": self._first_zero(sql, table)}, b""
        except ROW_ERRORS as found:
            problem, good, bad = found, 0, len(table)
            while bad - good > 1:
                middle = (good + bad) // 2
                try:
                    self._first_zero(sql, table.slice(good, middle - good))
                except ROW_ERRORS as found:
                    bad, problem = middle, found
                else:
                    good = middle
            return {"row": good, **failure(problem)}, b""

    def _first_zero(self, sql: str, table: Any) -> int:
        self._connection.register(ROWS, table)
        found = self._connection.execute(sql).to_arrow_table().column(0)
        return int(pc.index(found, pa.scalar(0, pa.int32())).as_py())

    def values(self, header: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        """The rows that `sql` selects, as an Arrow stream."""
        table = self._connection.execute(header["sql"]).to_arrow_table()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return {}, sink.getvalue()

    def type(self, _: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """DuckDB's name of the type of the stream's only column."""
        self._connection.register(ROWS, pa.ipc.open_stream(payload).read_all())
        return {"type": str(self._connection.table(ROWS).types[0])}, b""


def failure(problem: BaseException) -> dict[str, str]:
    """What the server is told of an exception."""
    no_memory = isinstance(problem, (MemoryError, duckdb.OutOfMemoryException))
    return {"kind": "MemoryError" if no_memory else type(problem).__name__, "error": str(problem)}


def answer(evaluator: Evaluator, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
    """The answer to one request, within its time."""
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # no handlers: the signals end the process
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    try:
        found: tuple[dict[str, Any], bytes] = getattr(evaluator, header["do"])(header, payload)
        return found
    except (duckdb.Error, pa.ArrowException, MemoryError) as problem:
        return failure(problem), b""
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def confine() -> None:
    """Give up what an expression does not need; this cannot be taken back."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123
            score.write("1000")  # when memory runs out, the kernel ends this process and not the server
        limit = _address_space() + memory_limit(memory_bytes())
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))  # files and sockets; the open pipes stay


def _address_space() -> int:
    with open("/proc/self/status") as status:  # noqa: PTH123
        found = re.search(r"VmSize:\s+(\d+) kB", status.read())
    return int(found[1]) * 1024 if found else 0


def _read(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        sys.exit(0)  # the server is gone
    return data


def _write(stream: BinaryIO, reply: dict[str, Any], data: bytes) -> None:
    text = json.dumps(reply).encode()
    stream.write(LENGTHS.pack(len(text), len(data)) + text)
    stream.write(data)
    stream.flush()


def main() -> None:
    """Answer requests until standard input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write among the answers; the server reads errors until this is ready
    evaluator = Evaluator()
    evaluator.warm_up()
    confine()
    _write(answers, {"ready": True}, b"")
    while True:
        lengths = LENGTHS.unpack(_read(requests, LENGTHS.size))
        header, payload = (_read(requests, length) for length in lengths)
        _write(answers, *answer(evaluator, json.loads(header), payload))


if __name__ == "__main__":
    main()
