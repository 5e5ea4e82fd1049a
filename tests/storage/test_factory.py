from __future__ import annotations

from pathlib import Path

import pytest

from boilstream.settings import Settings
from boilstream.storage.factory import open_store
from boilstream.storage.local import LocalStore
from boilstream.storage.s3 import S3Store


@pytest.fixture(autouse=True)
def _no_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("S3_BUCKET", "S3_PREFIX", "S3_ENDPOINT_URL", "DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_bucket_the_store_is_a_folder(tmp_path: Path) -> None:
    store = open_store(Settings(data_dir=tmp_path))
    assert isinstance(store, LocalStore)
    assert store.url("a/b") == f"file://{tmp_path}/store/a/b"
    store.close()


@pytest.mark.parametrize(
    ("prefix", "url"), [("", "s3://my-bucket/a/b"), ("boil/prod", "s3://my-bucket/boil/prod/a/b")]
)
def test_a_bucket_wins_over_the_folder(tmp_path: Path, prefix: str, url: str) -> None:
    settings = Settings(
        data_dir=tmp_path, s3_bucket="my-bucket", s3_prefix=prefix, s3_endpoint_url="http://127.0.0.1:1"
    )
    store = open_store(settings)
    assert isinstance(store, S3Store)
    assert store.url("a/b") == url
    assert list(tmp_path.iterdir()) == []
    store.close()
