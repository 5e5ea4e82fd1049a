"""S3Store on a real server: credentials, buckets, and a server that goes away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from boilstream.storage.base import ObjectExists, ObjectStore, StoreMisconfigured, StoreUnavailable
from boilstream.storage.s3 import S3Store
from tests.support.seaweed import SeaweedS3

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def environment(s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in s3_env.items():
        monkeypatch.setenv(name, value)
    return s3_env


def opened(environment: dict[str, str], prefix: str = "") -> S3Store:
    return S3Store(environment["S3_BUCKET"], prefix, endpoint_url=environment["S3_ENDPOINT_URL"])


def test_keys_lie_below_the_prefix(seaweed: SeaweedS3, environment: dict[str, str]) -> None:
    store, bucket = opened(environment, "boil/prod"), environment["S3_BUCKET"]
    store.put("a%20b/k", b"x")
    (found,) = seaweed.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert found["Key"] == "boil/prod/a%20b/k"
    assert store.url("a%20b/k") == f"s3://{bucket}/boil/prod/a%20b/k"


def test_stores_with_different_prefixes_do_not_meet(environment: dict[str, str]) -> None:
    first, second = opened(environment, "p"), opened(environment, "p2")
    first.put("k", b"first")
    second.put("k", b"second")
    assert first.get("k") == b"first"
    assert [info.key for info in first.list()] == ["k"]
    first.delete("k")
    assert second.get("k") == b"second"


def test_objects_that_others_put_are_not_listed_if_no_key_can_name_them(
    seaweed: SeaweedS3, environment: dict[str, str]
) -> None:
    seaweed.client().put_object(Bucket=environment["S3_BUCKET"], Key="not a key", Body=b"")
    store = opened(environment)
    store.put("k", b"")
    assert [info.key for info in store.list()] == ["k"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY"),
        ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId.*AWS_ACCESS_KEY_ID"),
    ],
)
def test_wrong_credentials(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    monkeypatch.setenv(name, "wrong-and-not-to-be-told")
    with pytest.raises(StoreMisconfigured, match=says) as caught:
        opened(environment).check()
    assert "wrong-and-not-to-be-told" not in str(caught.value)


def test_a_missing_bucket(environment: dict[str, str]) -> None:
    store = S3Store("no-such-bucket", endpoint_url=environment["S3_ENDPOINT_URL"])
    with pytest.raises(StoreMisconfigured, match=r"NoSuchBucket.*S3_BUCKET"):
        store.check()
    with pytest.raises(StoreMisconfigured, match=r"NoSuchBucket.*S3_BUCKET"):
        store.list()
    with pytest.raises(StoreMisconfigured, match=r"NoSuchBucket.*S3_BUCKET"):
        store.get("k")


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[SeaweedS3]:
    server = SeaweedS3(tmp_path / "seaweed")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_server_that_goes_away_and_comes_back(own_server: SeaweedS3, how: str) -> None:
    store: ObjectStore = opened(own_server.environment(own_server.create_bucket()))
    content = b"x" * 2_000_000
    store.put("before", content, if_absent=True)
    with store.open("before") as file:
        getattr(own_server, how)()
        for call in (
            lambda: store.put("during", b"x"),
            lambda: store.get("before"),
            lambda: store.list(),
            lambda: store.delete("before"),
            lambda: store.check(),
        ):
            with pytest.raises(StoreUnavailable):
                call()
        own_server.start()
        assert file.read() == content
    assert store.get("before") == content
    with pytest.raises(ObjectExists):
        store.put("before", b"y", if_absent=True)
    store.put("after", b"y", if_absent=True)
    assert [info.key for info in store.list()] == ["after", "before"]
