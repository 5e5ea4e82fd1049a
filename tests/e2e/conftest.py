"""One server per kind of store, TLS, and tokens of a real issuer process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.issuer import IssuerProcess
from tests.support.seaweed import SeaweedS3
from tests.support.server import Client, ServerProcess

_topics = itertools.count()


@pytest.fixture(scope="session", params=["local", "s3"])
def store_environment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Settings of a store: a local folder, and a bucket on a real S3 server."""
    environment = {"DATA_DIR": str(tmp_path_factory.mktemp("server") / "data")}
    if request.param == "s3":
        seaweed: SeaweedS3 = request.getfixturevalue("seaweed")
        environment |= seaweed.environment(seaweed.create_bucket())
    return environment


@pytest.fixture(scope="session")
def server(store_environment: dict[str, str], issuer: IssuerProcess) -> Iterator[ServerProcess]:
    """A server that all tests of one store share; tests use topics of their own."""
    with ServerProcess(issuer.environment() | store_environment | {"MAX_FILE_MB": "8"}) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess, issuer: IssuerProcess) -> Iterator[Client]:
    """A client that may do everything."""
    client = Client(server.location, issuer.token(groups="Admins"), issuer.ca_cert)
    yield client
    client.close()


@pytest.fixture
def topic() -> list[str]:
    """The path of a topic that no other test uses."""
    return ["s3", f"topic_{next(_topics)}"]


@pytest.fixture
def data_dir(tmp_path: Path) -> dict[str, str]:
    """Settings of a fresh local store."""
    return {"DATA_DIR": str(tmp_path / "data")}
