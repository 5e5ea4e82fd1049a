"""What S3Store makes of a store that misbehaves."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boilstream.errors import BoilStreamError
from boilstream.storage.base import ObjectExists, ObjectMissing, StoreMisconfigured, StoreUnavailable
from boilstream.storage.s3 import CHUNK_BYTES, TAIL_BYTES, S3Store

from .stub import Fault, Handler, Stub

pytestmark = pytest.mark.slow

SECRET = "wJalrXUtnFEMIxK7MDENGxbPxRfiCYEXAMPLEKEY"
CALLS: dict[str, Callable[[S3Store], object]] = {
    "put": lambda store: store.put("k", b"x"),
    "put-large": lambda store: store.put("k", b"x" * 3 * CHUNK_BYTES),
    "create": lambda store: store.put("k", b"x", if_absent=True),
    "get": lambda store: store.get("k"),
    "open": lambda store: store.open("k"),
    "list": lambda store: store.list(),
    "delete": lambda store: store.delete("k"),
}


@pytest.fixture(autouse=True, scope="module")
def _credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        yield


@pytest.fixture(scope="module")
def shared_stub() -> Iterator[Stub]:
    with Stub() as stub:
        yield stub


@pytest.fixture(scope="module")
def store(shared_stub: Stub, _credentials: None) -> Iterator[S3Store]:
    store = S3Store("bucket", endpoint_url=shared_stub.url, read_timeout=5, read_patience=0.5)
    yield store
    store.close()


@pytest.fixture
def stub(shared_stub: Stub) -> Stub:
    """The shared stub as new."""
    shared_stub.objects.clear()
    shared_stub.requests.clear()
    shared_stub.fault = lambda handler: False
    return shared_stub


def answering(status: int, code: str, **headers: str) -> Fault:
    def fault(handler: Handler) -> bool:
        handler.error(status, code, **headers)
        return True

    return fault


def cutting(handler: Handler) -> bool:
    handler.cut()
    return True


def once(fault: Fault) -> Fault:
    count = itertools.count()
    return lambda handler: next(count) == 0 and fault(handler)


def error_of(call: Callable[[S3Store], object], store: S3Store) -> BoilStreamError:
    with pytest.raises(BoilStreamError) as caught:
        call(store)
    assert SECRET not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "s3://bucket/" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "InternalError"),
        (503, "SlowDown"),
        (503, "ServiceUnavailable"),
        (502, "Anything"),
        (409, "ConditionalRequestConflict"),
        (409, "OperationAborted"),
        (429, "TooManyRequests"),
        (400, "RequestTimeout"),
        (400, "BadDigest"),
        (307, "TemporaryRedirect"),
    ],
)
def test_passing_troubles(
    stub: Stub, store: S3Store, call: Callable[[S3Store], object], status: int, code: str
) -> None:
    stub.fault = answering(status, code)
    error = error_of(call, store)
    assert type(error) is StoreUnavailable
    assert code in str(error)
    assert len(stub.requests) <= 1  # no retries of the client's own


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "AccessDenied", "s3:PutObject"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        (400, "ExpiredToken", "AWS_SESSION_TOKEN"),
        (400, "InvalidToken", "AWS_SESSION_TOKEN"),
        (404, "NoSuchBucket", "S3_BUCKET"),
        (301, "PermanentRedirect", "AWS_DEFAULT_REGION, S3_ENDPOINT_URL"),
        (403, "RequestTimeTooSkewed", "clock"),
        (501, "NotImplemented", "S3_ENDPOINT_URL"),
        (400, "KeyTooLongError", "S3_PREFIX"),
        (400, "SomethingNew", "SomethingNew"),
        (401, "Unauthorized", "permission"),
    ],
)
def test_lasting_troubles(
    stub: Stub, store: S3Store, call: Callable[[S3Store], object], status: int, code: str, says: str
) -> None:
    stub.fault = answering(status, code)
    error = error_of(call, store)
    assert type(error) is StoreMisconfigured
    assert says in str(error)


@pytest.mark.parametrize("location", ["http://127.0.0.1:9/elsewhere", "/bucket/other"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(stub: Stub, store: S3Store, status: int, location: str) -> None:
    stub.objects["/bucket/other"] = b"not what was asked for"
    stub.fault = lambda handler: (
        handler.path == "/bucket/k" and answering(status, "Moved", Location=location)(handler)
    )
    error = error_of(CALLS["get"], store)
    assert type(error) is (StoreUnavailable if status == 307 else StoreMisconfigured)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_cut_connection(stub: Stub, store: S3Store, call: Callable[[S3Store], object]) -> None:
    stub.objects["/bucket/k"] = b"content"
    stub.fault = cutting
    assert type(error_of(call, store)) is StoreUnavailable
    stub.fault = lambda handler: False
    assert store.get("k")  # the pool recovers


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_refused_connection(call: Callable[[S3Store], object]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        store = S3Store("bucket", endpoint_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        error = error_of(call, store)
    assert type(error) is StoreUnavailable
    assert "S3_ENDPOINT_URL" in str(error)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_server_that_never_answers(call: Callable[[S3Store], object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = S3Store(
            "bucket",
            endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}",
            connect_timeout=1,
            read_timeout=0.2,
        )
        assert type(error_of(call, store)) is StoreUnavailable


@pytest.mark.parametrize("call", ["get", "open"])
@pytest.mark.parametrize("sent", [0, 1, 99])
def test_a_truncated_answer_is_never_taken_for_the_object(
    stub: Stub, store: S3Store, call: str, sent: int
) -> None:
    def truncated(handler: Handler) -> bool:
        headers = {"Content_Range": "bytes 0-99/100"} if call == "open" else {}
        handler.answer(206 if headers else 200, b"x" * sent, Content_Length="100", ETag='"e"', **headers)
        handler.cut()
        return True

    stub.fault = truncated
    assert type(error_of(CALLS[call], store)) is StoreUnavailable


def test_bytes_that_do_not_fit_their_checksum(stub: Stub, store: S3Store) -> None:
    def wrong(handler: Handler) -> bool:
        handler.answer(200, b"content", ETag='"e"', x_amz_checksum_crc32="AAAAAA==")
        return True

    stub.fault = wrong
    error = error_of(CALLS["get"], store)
    assert type(error) is StoreUnavailable
    assert "checksum" in str(error)


def test_a_missing_object(stub: Stub, store: S3Store) -> None:
    assert type(error_of(CALLS["get"], store)) is ObjectMissing
    assert type(error_of(CALLS["open"], store)) is ObjectMissing


def test_a_precondition_that_failed(stub: Stub, store: S3Store) -> None:
    stub.fault = answering(412, "PreconditionFailed")
    assert type(error_of(CALLS["create"], store)) is ObjectExists


@pytest.mark.parametrize("call", ["put", "list"])
def test_a_server_that_serves_something_else(stub: Stub, store: S3Store, call: str) -> None:
    def web_server(handler: Handler) -> bool:
        handler.answer(404, b"<html>not found</html>", Content_Type="text/html")
        return True

    stub.fault = web_server
    error = error_of(CALLS[call], store)
    assert type(error) is StoreMisconfigured
    assert "S3_ENDPOINT_URL" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"<ListBucketResult><Contents><Key>k</Ke",
        b"hello",
        b"<ListBucketResult><Contents><Size>5</Size></Contents></ListBucketResult>",
    ],
)
def test_a_listing_that_is_none(stub: Stub, store: S3Store, body: bytes) -> None:
    def garbage(handler: Handler) -> bool:
        handler.answer(200, body, Content_Type="application/xml")
        return True

    stub.fault = garbage
    assert type(error_of(CALLS["list"], store)) is StoreUnavailable


def test_no_credentials(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = error_of(CALLS["put"], S3Store("bucket", endpoint_url=stub.url))
    assert type(error) is StoreMisconfigured
    assert "AWS_ACCESS_KEY_ID" in str(error)
    assert stub.requests == []


def test_an_unknown_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreMisconfigured, match="AWS_PROFILE"):
        S3Store("bucket")


def test_an_impossible_endpoint_is_refused_without_quoting_it() -> None:
    with pytest.raises(StoreMisconfigured, match="S3_ENDPOINT_URL") as caught:
        S3Store("bucket", endpoint_url="http://user:hunter2@bad host")
    assert "hunter2" not in str(caught.value)


def test_an_untrusted_certificate(tmp_path: Path) -> None:
    import ssl
    import threading
    from http.server import ThreadingHTTPServer

    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").configure_cert(context)
    other = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the client hangs up, as it should
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        error = error_of(
            CALLS["put"],
            S3Store("bucket", endpoint_url=f"https://127.0.0.1:{server.server_port}", ca_file=other),
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert type(error) is StoreMisconfigured
    assert "AWS_CA_BUNDLE" in str(error)


def test_a_large_buffer_is_sent_whole_in_large_pieces(stub: Stub, store: S3Store) -> None:
    content = os.urandom(3 * CHUNK_BYTES + 17)
    store.put("k", pa.py_buffer(content))
    assert stub.objects["/bucket/k"] == content


@pytest.fixture
def table(stub: Stub) -> pa.Table:
    table = pa.table({"n": range(100_000), "text": [str(n * 7919) for n in range(100_000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=10_000)
    stub.objects["/bucket/k"] = sink.getvalue().to_pybytes()
    assert len(stub.objects["/bucket/k"]) > 2 * TAIL_BYTES
    return table


@pytest.mark.parametrize("fault", [answering(503, "SlowDown"), cutting], ids=["slow-down", "cut"])
def test_a_read_of_a_file_survives_a_passing_trouble(
    stub: Stub, store: S3Store, table: pa.Table, fault: Fault
) -> None:
    with store.open("k") as file, pq.ParquetFile(file, pre_buffer=True) as parquet:
        stub.fault = once(fault)
        assert parquet.read().equals(table)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (answering(503, "SlowDown"), StoreUnavailable),
        (cutting, StoreUnavailable),
        (answering(404, "NoSuchKey"), ObjectMissing),
        (answering(412, "PreconditionFailed"), ObjectMissing),
        (answering(403, "AccessDenied"), StoreMisconfigured),
    ],
    ids=["slow-down", "cut", "deleted", "replaced", "denied"],
)
@pytest.mark.parametrize("pre_buffer", [False, True])
def test_a_failed_read_comes_through_the_parquet_reader_as_it_is(
    stub: Stub, store: S3Store, table: pa.Table, fault: Fault, expected: type[Exception], pre_buffer: bool
) -> None:
    with store.open("k") as file, pq.ParquetFile(file, pre_buffer=pre_buffer) as parquet:
        stub.fault = fault
        with pytest.raises(BoilStreamError) as caught:
            parquet.read()
        assert type(caught.value) is expected
        with pytest.raises(BoilStreamError) as caught:
            list(parquet.iter_batches(1000, use_threads=False))
        assert type(caught.value) is expected


def test_a_store_that_ignores_ranges(stub: Stub, store: S3Store) -> None:
    stub.objects["/bucket/k"] = os.urandom(3 * TAIL_BYTES)

    def whole(handler: Handler) -> bool:
        handler.answer(200, stub.objects[handler.path], ETag='"e"')
        return True

    stub.fault = whole
    with store.open("k") as file:
        assert file.read() == stub.objects["/bucket/k"]
    stub.fault = lambda handler: False
    with store.open("k") as file:
        stub.fault = whole
        with pytest.raises(StoreMisconfigured, match="S3_ENDPOINT_URL"):
            file.read()


def test_small_files_take_one_request(stub: Stub, store: S3Store) -> None:
    stub.objects["/bucket/k"] = os.urandom(TAIL_BYTES)
    with store.open("k") as file:
        assert file.size() == TAIL_BYTES
        assert file.read_at(10, 5) == stub.objects["/bucket/k"][5:15]
        file.seek(0)
        assert file.read() == stub.objects["/bucket/k"]
    assert stub.requests == [("GET", "/bucket/k")]
