"""A real server process, and a real client for it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.flight as flight

START_SECONDS = 60


class ServerProcess:
    """`python -m boilstream serve` with its own environment; logs are kept in `log`."""

    def __init__(
        self,
        environment: dict[str, str],
        *,
        command: tuple[str, ...] = ("serve",),
        module: str = "boilstream",
    ) -> None:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        defaults = {"FLIGHT_HOST": "127.0.0.1", "FLIGHT_PORT": "0", "LOG_LEVEL": "debug"}
        self.environment = inherited | defaults | environment
        self.command = command
        self.module = module
        self.log: list[str] = []
        self.output: list[str] = []
        self.location = ""
        self._listening = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start and wait until it listens; raises AssertionError with the log if it does not."""
        self._listening.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, *self.command],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(self.environment["DATA_DIR"]).parent,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_log, args=(self._process.stderr,), daemon=True),
            threading.Thread(target=self._read_output, args=(self._process.stdout,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self._listening.wait(START_SECONDS)
        assert self.location, "".join(self.log)
        return self

    def _read_log(self, stream: Any) -> None:
        for line in stream:
            self.log.append(line)
            if match := re.search(r"Arrow Flight listens on (\S+)", line):
                self.location = match[1]
                self._listening.set()
        self._listening.set()
        stream.close()

    def _read_output(self, stream: Any) -> None:
        for line in stream:
            self.output.append(line)
        stream.close()

    def await_output(self, pattern: str) -> re.Match[str]:
        """The first match in what the process prints, as soon as it is there."""
        deadline = time.monotonic() + START_SECONDS
        while (match := re.search(pattern, "".join(self.output))) is None:
            assert time.monotonic() < deadline, f"nothing like {pattern!r} was printed: {self.output}"
            time.sleep(0.01)
        return match

    def terminate(self) -> None:
        """Ask for an orderly stop; `wait` tells how it ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = 60) -> int:
        """The exit code."""
        assert self._process is not None
        code = self._process.wait(timeout)
        for reader in self._readers:
            reader.join(10)
        self.location = ""
        return code

    def stop(self) -> int:
        """An orderly stop."""
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, as a machine that loses power would do to a process."""
        assert self._process is not None
        self._process.kill()
        self.wait()

    def resident_bytes(self) -> int:
        """Memory of the process now (Linux)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """Processor time that the process has used so far (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self.wait()


@dataclass(slots=True)
class Client:
    """A pyarrow Flight client with a token, and the calls that tests make."""

    location: str
    token: str | None
    ca_cert: Path | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    connection: Any = None

    def __post_init__(self) -> None:
        roots = self.ca_cert.read_bytes() if self.ca_cert else None
        location = self.location.replace("127.0.0.1", "localhost")
        self.connection = flight.connect(location, **({"tls_root_certs": roots} if roots else {}))

    @property
    def options(self) -> flight.FlightCallOptions:
        headers = list(self.headers)
        if self.token is not None:
            headers.append((b"authorization", f"Bearer {self.token}".encode()))
        return flight.FlightCallOptions(headers=headers, timeout=60)

    def put(self, path: list[str], data: pa.Table | list[pa.RecordBatch]) -> dict[str, Any]:
        """Write in one stream and return the acknowledgement."""
        batches = data.to_batches() if isinstance(data, pa.Table) else data
        schema = data.schema if isinstance(data, pa.Table) else batches[0].schema
        writer, reader = self.connection.do_put(flight.FlightDescriptor.for_path(*path), schema, self.options)
        with writer:
            for batch in batches:
                writer.write_batch(batch)
            writer.done_writing()
            answer = reader.read()
        assert answer is not None
        acknowledgement: dict[str, Any] = json.loads(answer.to_pybytes())
        return acknowledgement

    def info(self, path: list[str]) -> flight.FlightInfo:
        return self.connection.get_flight_info(flight.FlightDescriptor.for_path(*path), self.options)

    def get(self, path: list[str]) -> pa.Table:
        """All rows of a topic."""
        info = self.info(path)
        return pa.concat_tables([self.read(endpoint.ticket) for endpoint in info.endpoints])

    def read(self, ticket: flight.Ticket | bytes) -> pa.Table:
        ticket = flight.Ticket(ticket) if isinstance(ticket, bytes) else ticket
        return self.connection.do_get(ticket, self.options).read_all()

    def topics(self) -> list[str]:
        return [
            ".".join(part.decode() for part in info.descriptor.path)
            for info in self.connection.list_flights(options=self.options)
        ]

    def action(self, name: str, body: object = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        results = list(self.connection.do_action(flight.Action(name, data), self.options))
        return json.loads(results[0].body.to_pybytes())

    def close(self) -> None:
        self.connection.close()


def details(error: flight.FlightError) -> dict[str, Any]:
    """What our errors carry beside their message."""
    value: dict[str, Any] = json.loads(error.extra_info)
    return value
