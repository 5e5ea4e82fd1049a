"""Memory does not grow with the topic: not by writing it, not by reading it."""

from __future__ import annotations

import os

import pyarrow as pa
import pytest

from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
PATH = ["s3", "large"]
BATCH = pa.record_batch(
    {"noise": pa.Array.from_buffers(pa.int64(), 131_072, [None, pa.py_buffer(os.urandom(MIB))])}
)
FILE_MIB, BATCHES = 32, 1280


def test_a_topic_larger_than_the_memory_is_written_and_read(
    issuer: IssuerProcess, data_dir: dict[str, str]
) -> None:
    limits = {"MEMORY_LIMIT_MB": "128", "MAX_FILE_MB": str(FILE_MIB)}
    with ServerProcess(issuer.environment() | data_dir | limits) as server:
        client = Client(server.location, issuer.token(groups="Admins"), issuer.ca_cert)
        client.put(PATH, [BATCH])
        assert client.get(PATH).num_rows == BATCH.num_rows
        base = server.resident_bytes()

        assert client.put(PATH, [BATCH] * BATCHES)["rows"] == BATCHES * BATCH.num_rows
        # Beyond the limit: copies in gRPC and in encoders, and what the allocator keeps of them.
        assert server.resident_bytes() - base < 600 * MIB

        rows = 0
        highest = 0
        for endpoint in client.info(PATH).endpoints:
            for chunk in client.connection.do_get(endpoint.ticket, client.options):
                rows += chunk.data.num_rows
                highest = max(highest, server.resident_bytes())
        client.close()
        assert rows == (BATCHES + 1) * BATCH.num_rows
        assert highest - base < 700 * MIB, "1281 MiB were read"
