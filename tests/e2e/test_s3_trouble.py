"""A store that is wrong, gone, or gone for a while. Every test has a SeaweedFS that it may stop."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from botocore.exceptions import BotoCoreError

from tests.support.issuer import IssuerProcess
from tests.support.seaweed import ACCESS_KEY, SECRET_KEY, SeaweedS3
from tests.support.server import Client, ServerProcess, details

pytestmark = pytest.mark.slow

PATH = ["s3", "events"]
ACK_TIMEOUT_SECONDS = 2


@pytest.fixture(scope="module")
def own_seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedS3]:
    """A server that no other module uses."""
    server = SeaweedS3(tmp_path_factory.mktemp("own-seaweed"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def store(own_seaweed: SeaweedS3) -> Iterator[SeaweedS3]:
    """The server, running before the test and after it."""
    yield own_seaweed
    try:
        own_seaweed.client().list_buckets()
    except BotoCoreError:  # the test failed while it was down
        own_seaweed.kill()
        own_seaweed.start()


def number_rows(number: int, count: int = 1000) -> pa.Table:
    return pa.table({"a": pa.array([number] * count, pa.int64())})


def counts(client: Client) -> dict[int, int]:
    found = client.get(PATH).group_by("a").aggregate([([], "count_all")])
    return dict(zip(found["a"].to_pylist(), found["count_all"].to_pylist(), strict=True))


def connect(server: ServerProcess, issuer: IssuerProcess) -> Client:
    return Client(server.location, issuer.token(groups="Admins"), issuer.ca_cert)


def start(environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """`boilstream serve`, which is expected to end by itself."""
    defaults = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "FLIGHT_HOST": "127.0.0.1", "FLIGHT_PORT": "0"}
    return subprocess.run(
        [sys.executable, "-m", "boilstream", "serve"],
        env=defaults | {"DATA_DIR": str(folder / "data"), "LOG_LEVEL": "debug"} | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


WRONG_SECRET = "not-the-secret-0123456789"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": WRONG_SECRET}, "check AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODYKNOWSTHIS"}, "check AWS_ACCESS_KEY_ID"),
        ({"S3_BUCKET": "nobody-made-this-bucket"}, "check S3_BUCKET"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "AWS_ACCESS_KEY_ID"),
    ],
    ids=["secret", "key", "bucket", "none"],
)
def test_a_wrong_store_stops_the_start_with_one_message(
    own_seaweed: SeaweedS3, tmp_path: Path, change: dict[str, str], says: str
) -> None:
    environment = own_seaweed.environment(own_seaweed.create_bucket()) | change
    ended = start(environment, tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    messages = [line for line in ended.stderr.splitlines() if line.startswith("boilstream: ")]
    assert len(messages) == 1, ended.stderr
    assert ended.stderr.endswith(messages[0] + "\n")
    assert says in messages[0]
    assert f"s3://{environment['S3_BUCKET']}/" in messages[0]
    assert "Traceback" not in ended.stderr
    for secret in (SECRET_KEY, WRONG_SECRET):
        assert secret not in ended.stderr


def test_a_store_that_is_not_there_stops_the_start_with_one_message(
    own_seaweed: SeaweedS3, tmp_path: Path
) -> None:
    environment = own_seaweed.environment("anything") | {"S3_ENDPOINT_URL": "http://127.0.0.1:9"}
    ended = start(environment, tmp_path)
    assert ended.returncode == 2
    messages = [line for line in ended.stderr.splitlines() if line.startswith("boilstream: ")]
    assert len(messages) == 1, ended.stderr
    assert "S3_ENDPOINT_URL" in messages[0]
    assert "Traceback" not in ended.stderr


@pytest.fixture
def bucket(store: SeaweedS3) -> str:
    return store.create_bucket()


@pytest.fixture
def server(
    store: SeaweedS3, bucket: str, issuer: IssuerProcess, data_dir: dict[str, str]
) -> Iterator[ServerProcess]:
    """A server on the store that may be stopped, which fails after two seconds instead of a minute."""
    environment = issuer.environment() | store.environment(bucket) | data_dir
    process = ServerProcess(environment | {"ACK_TIMEOUT_SECONDS": str(ACK_TIMEOUT_SECONDS)})
    with process:
        yield process


def fails_in_time(call: Callable[[], object]) -> flight.FlightUnavailableError:
    """The error of a call to a server whose store is gone; the bound is that of a hang, not of speed."""
    began = time.monotonic()
    with pytest.raises(flight.FlightUnavailableError) as caught:
        call()
    assert time.monotonic() - began < ACK_TIMEOUT_SECONDS + 6
    error = caught.value
    found = details(error)
    assert (found["code"], found["retryable"]) == ("UNAVAILABLE", True)
    assert "Traceback" not in str(error)
    assert SECRET_KEY not in str(error)
    return error


def test_a_store_that_goes_fails_calls_and_one_that_comes_back_serves_them(
    server: ServerProcess, store: SeaweedS3, issuer: IssuerProcess
) -> None:
    client = connect(server, issuer)
    client.put(PATH, number_rows(0))
    planned = client.info(PATH)
    store.kill()
    for number in (1, 2):
        fails_in_time(lambda number=number: client.put(PATH, number_rows(number)))  # type: ignore[misc]
    assert client.info(PATH).total_records == 1000, "nothing of the failed appends is visible"
    assert client.action("health")["status"] == "ok"
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: client.read(planned.endpoints[0].ticket))
        store.start()
        try:
            assert reading.result().num_rows == 1000  # it had the patience
        except flight.FlightError as error:
            assert isinstance(error, flight.FlightUnavailableError)
            assert details(error)["code"] == "UNAVAILABLE"
    for number in (1, 2, 3):
        client.put(PATH, number_rows(number))
    assert counts(client) == dict.fromkeys((0, 1, 2, 3), 1000)
    client.close()
    assert server.stop() == 0
    with server:
        client = connect(server, issuer)
        assert counts(client) == dict.fromkeys((0, 1, 2, 3), 1000)
        client.close()
    log = "".join(server.log)
    assert "Traceback" not in log
    assert_no_credentials(log)


def test_a_topic_that_could_not_be_made_does_not_exist_and_can_be_made_later(
    server: ServerProcess, store: SeaweedS3, issuer: IssuerProcess
) -> None:
    client = connect(server, issuer)
    store.kill()
    fails_in_time(lambda: client.put(PATH, number_rows(1)))
    assert client.topics() == []
    store.start()
    client.put(PATH, number_rows(1))
    assert counts(client) == {1: 1000}
    client.close()


def test_a_store_that_is_away_for_a_moment_only_delays_the_acknowledgement(
    store: SeaweedS3, bucket: str, issuer: IssuerProcess, data_dir: dict[str, str]
) -> None:
    environment = issuer.environment() | store.environment(bucket) | data_dir
    with ServerProcess(environment | {"ACK_TIMEOUT_SECONDS": "60"}) as server:
        client = connect(server, issuer)
        client.put(PATH, number_rows(0))
        store.kill()
        acknowledged: list[int] = []

        def write(number: int) -> None:
            own = connect(server, issuer)
            acknowledged.append(own.put(PATH, number_rows(number))["rows"])
            own.close()

        writers = [threading.Thread(target=write, args=(number,)) for number in range(1, 5)]
        for writer in writers:
            writer.start()
        wait_for(lambda: "".join(server.log).count("begins") == 5)
        assert client.info(PATH).total_records == 1000
        assert acknowledged == []
        store.start()
        for writer in writers:
            writer.join(60)
        assert acknowledged == [1000] * 4
        assert counts(client) == dict.fromkeys(range(5), 1000)
        client.close()


def test_a_killed_server_finds_its_rows_in_the_bucket(
    own_seaweed: SeaweedS3, issuer: IssuerProcess, data_dir: dict[str, str]
) -> None:
    bucket = own_seaweed.create_bucket()
    environment = issuer.environment() | own_seaweed.environment(bucket) | data_dir
    server = ServerProcess(environment | {"S3_PREFIX": "boil/stream"})
    with server:
        client = connect(server, issuer)
        commits = [client.put(PATH, number_rows(number))["commit"] for number in range(5)]
        server.kill()
        client.close()
    with server:
        client = connect(server, issuer)
        assert counts(client) == dict.fromkeys(range(5), 1000)
        commits.append(client.put(PATH, number_rows(5))["commit"])
        assert counts(client) == dict.fromkeys(range(6), 1000)
        client.close()
    assert not list(Path(environment["DATA_DIR"]).rglob("*.parquet")), "rows are in the bucket only"
    s3 = own_seaweed.client()
    names = {item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert all(name.startswith("boil/stream/") for name in names)
    assert not [name for name in names if "_probe" in name]
    files = {name.rpartition("/")[2] for name in names if name.endswith(".parquet")}
    assert len(files) == 6
    for commit in commits:
        writer, _, sequence = commit.partition("/")
        key = f"boil/stream/_log/{writer}/{int(sequence):020}.json"
        record = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        assert sum(file in record for file in files) == 1
    assert_no_credentials("".join(server.log))


def assert_no_credentials(log: str) -> None:
    assert SECRET_KEY not in log
    assert ACCESS_KEY not in log
    assert "AWS4-HMAC-SHA256" not in log


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)
