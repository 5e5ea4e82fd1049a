"""Chooses the object store that the settings ask for."""

from __future__ import annotations

from boilstream.settings import Settings
from boilstream.storage.base import ObjectStore
from boilstream.storage.local import LocalStore


def open_store(settings: Settings) -> ObjectStore:
    """The bucket S3_BUCKET when it is set, else the folder `store` in DATA_DIR.

    Raises StoreMisconfigured when the store cannot be opened; whether it works is for `check` to say.
    """
    if settings.s3_bucket is None:
        return LocalStore(settings.data_dir / "store")
    # boto3 takes longer to import than all else; a local server does without it.
    from boilstream.storage.s3 import S3Store

    return S3Store(
        settings.s3_bucket,
        settings.s3_prefix,
        endpoint_url=settings.s3_endpoint_url,
        region=settings.aws_region,
    )
