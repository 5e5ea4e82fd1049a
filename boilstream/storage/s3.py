"""Objects in an S3 bucket, through boto3."""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
import pyarrow as pa
from botocore.config import Config
from botocore.exceptions import ClientError

from boilstream.storage.base import (
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    StoreMisconfigured,
    StoreUnavailable,
    validate_key,
)
from boilstream.storage.checks import is_key, probe, validate_prefix
from boilstream.storage.retry import retrying
from boilstream.storage.s3_errors import translated
from boilstream.storage.s3_file import RangeFile

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

TAIL_BYTES = 64 * 1024
"""What `open` reads at once from the end of an object: a Parquet footer, or a small file whole."""

CHUNK_BYTES = 1024 * 1024
"""Larger bodies are sent in pieces of this size: the socket's time limit holds for each piece."""


class S3Store(ObjectStore):
    """A store in a bucket, below a key prefix (`boilstream/prod`, or empty).

    Credentials, region and CA bundle come from the standard AWS chain (AWS_ACCESS_KEY_ID, AWS_PROFILE,
    AWS_DEFAULT_REGION, AWS_CA_BUNDLE, instance role, ...). `endpoint_url` names an S3-compatible store and
    switches to path addressing. `ca_file` (PEM) goes before the chain's. `connections` is how many calls
    may run at the same time without opening new connections.

    `connect_timeout` and `read_timeout` are in seconds and hold for each wait on the network, not for a
    call as a whole. The client does not retry by itself, with one exception: reads of a file from `open`
    have no caller who could, and retry StoreUnavailable for `read_patience` seconds.

    Every object travels with a CRC32, which the store checks. The body is signed only over plain HTTP:
    with TLS the checksum says all that the signature would.
    """

    is_remote = True

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        ca_file: Path | None = None,
        connect_timeout: float = 5.0,
        read_timeout: float = 20.0,
        connections: int = 32,
        read_patience: float = 30.0,
    ) -> None:
        """Raises StoreMisconfigured for an impossible endpoint or profile; makes no request to the store."""
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._read_patience = read_patience
        encrypted = endpoint_url is None or endpoint_url.startswith("https://")
        style: Any = {"addressing_style": "path"} if endpoint_url else {}
        config = Config(
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_pool_connections=connections,
            retries={"total_max_attempts": 1, "mode": "standard"},
            tcp_keepalive=True,
            request_checksum_calculation="when_supported",
            response_checksum_validation="when_supported",
            s3=style | {"payload_signing_enabled": not encrypted},
        )
        with translated("open", f"s3://{bucket}"):
            # A session of its own: boto3's default one is shared and not safe from several threads.
            self._client: S3Client = boto3.session.Session().client(
                "s3",
                endpoint_url=endpoint_url,
                region_name=region,
                verify=str(ca_file) if ca_file else None,
                config=config,
            )
        events = self._client.meta.events
        events.register("before-send.s3", _send_in_chunks)
        events.register_last("before-parameter-build.s3", partial(_limit_redirects, endpoint_url is None))

    def url(self, key: str) -> str:
        """`s3://bucket/prefix/key`."""
        return f"s3://{self._bucket}/{self._name(key)}"

    def put(self, key: str, data: pa.Buffer | bytes, *, if_absent: bool = False) -> None:
        """See ObjectStore. A buffer is sent without a copy of it."""
        name, view = self._name(key), memoryview(data)
        body: Any = _Body(view.cast("B")) if view.nbytes > CHUNK_BYTES else bytes(view)
        condition: Any = {"IfNoneMatch": "*"} if if_absent else {}
        checksum = base64.b64encode(zlib.crc32(view).to_bytes(4, "big")).decode()
        with translated("write", self.url(key), creates=if_absent):
            self._client.put_object(
                Bucket=self._bucket, Key=name, Body=body, ChecksumCRC32=checksum, **condition
            )

    def get(self, key: str) -> bytes:
        """See ObjectStore. Never short: length and checksum of the answer are checked."""
        name = self._name(key)
        with translated("read", self.url(key), needs=True):
            return _content(self._client.get_object(Bucket=self._bucket, Key=name), self.url(key))

    def open(self, key: str) -> pa.NativeFile:
        """See ObjectStore. The size and the last 64 KiB are read at once, other ranges when asked for.

        Reads are safe from several threads, one at a time per file, and all see the version that was
        opened. They raise StoreUnavailable and ObjectMissing (deleted or replaced meanwhile) as they are,
        through pyarrow's Parquet reader too. Each thread has a position of its own, and needs a
        `ParquetFile` of its own: Arrow crashes when threads share one that pre-buffers.
        """
        name, where = self._name(key), self.url(key)
        with translated("read", where, needs=True):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=name, Range=f"bytes=-{TAIL_BYTES}")
                tail = _content(answer, where)
                size = _total_size(answer, len(tail), where)
                etag = answer["ETag"]
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 416:
                    raise
                head = self._client.head_object(Bucket=self._bucket, Key=name)
                if head["ContentLength"]:
                    raise StoreMisconfigured(
                        f"cannot read {where}: the store refuses a range of an object; check S3_ENDPOINT_URL"
                    ) from error
                tail, size, etag = b"", 0, head["ETag"]

        def fetch(start: int, end: int) -> bytes:
            deadline = time.monotonic() + self._read_patience
            return retrying(partial(self._range, key, etag, size, start, end), deadline=deadline)

        return pa.PythonFile(RangeFile(size, tail, fetch), mode="r")

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See ObjectStore. Objects whose name is no legal key are left out."""
        below = self._prefix + validate_prefix(prefix)
        found = []
        with translated("list", f"s3://{self._bucket}/{below}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=below)
            for page in pages:
                for item in page.get("Contents", []):
                    key = item["Key"][len(self._prefix) :]
                    if is_key(key):
                        found.append(ObjectInfo(key, item["Size"], item["LastModified"].timestamp()))
        return iter(sorted(found, key=lambda info: info.key))

    def delete(self, key: str) -> None:
        """See ObjectStore."""
        name = self._name(key)
        with suppress(ObjectMissing), translated("delete", self.url(key), needs=True):
            self._client.delete_object(Bucket=self._bucket, Key=name)

    def check(self) -> None:
        """See ObjectStore."""
        probe(self)

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _name(self, key: str) -> str:
        return self._prefix + validate_key(key)

    def _range(self, key: str, etag: str, size: int, start: int, end: int) -> bytes:
        where = self.url(key)
        wanted = f"bytes {start}-{end - 1}/{size}"
        with translated("read", where, needs=True):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._name(key), Range=f"bytes={start}-{end - 1}", IfMatch=etag
            )
            if answer.get("ContentRange") != wanted:
                answer["Body"].close()
                raise StoreMisconfigured(
                    f"cannot read {where}: asked for {wanted}, the store sent {answer.get('ContentRange')}; "
                    "check S3_ENDPOINT_URL"
                )
            data = _content(answer, where)
            if len(data) != end - start:
                raise StoreUnavailable(f"cannot read {where}: the answer is shorter than announced")
            return data


class _Body:
    """A body of many bytes as botocore wants it: a file that it reads to sign, without copies."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self._position = 0

    def read(self, size: int = -1) -> memoryview:
        end = self.view.nbytes if size < 0 else min(self._position + size, self.view.nbytes)
        part = self.view[self._position : end]
        self._position = end
        return part

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self.view.nbytes)[whence]
        return self._position

    def tell(self) -> int:
        return self._position


class _Chunks:
    """The same body as the connection wants it: pieces that are neither tiny nor without a time limit."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __iter__(self) -> Iterator[memoryview]:
        for start in range(0, self._view.nbytes, CHUNK_BYTES):
            yield self._view[start : start + CHUNK_BYTES]

    def seek(self, offset: int) -> None:
        """Botocore rewinds a body before it sends it again; each iteration begins anew anyway."""


def _send_in_chunks(request: Any, **_: object) -> None:
    """Event handler after signing: a file would be sent in pieces of 16 KiB, with the GIL between them."""
    if isinstance(request.body, _Body):
        request.body = _Chunks(request.body.view)


def _limit_redirects(aws: bool, model: Any, context: Any, **_: object) -> None:
    """Event handler: let botocore look for the region of a bucket on AWS only, and not again while it looks.

    It asks with HeadBucket, and without this asks for the answer to that in the same way, endlessly.
    """
    if not aws or model.name == "HeadBucket":
        context["s3_redirect"]["redirected"] = True


def _content(answer: GetObjectOutputTypeDef, where: str) -> bytes:
    # As a context manager itself the body would give the raw stream, which checks nothing.
    with closing(answer["Body"]) as body:
        data = body.read()
    if len(data) != answer["ContentLength"]:
        raise StoreUnavailable(f"cannot read {where}: the answer is shorter than announced")
    return data


def _total_size(answer: GetObjectOutputTypeDef, received: int, where: str) -> int:
    """Size of the object that a suffix range came from; a store may also answer with the whole."""
    content_range = answer.get("ContentRange")
    if content_range is None:
        return received
    _, _, total = content_range.rpartition("/")
    if content_range != f"bytes {int(total) - received}-{int(total) - 1}/{total}":
        raise StoreUnavailable(f"cannot read {where}: the store sent the range {content_range}")
    return int(total)
