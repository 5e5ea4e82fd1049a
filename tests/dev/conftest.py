"""One set of certificates and one running issuer for the tests that only read them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from boilstream.dev.certificates import DevCertificates, make_certificates
from boilstream.dev.issuer import DevIssuer

AUDIENCE = "api://boilstream"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> DevCertificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def issuer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("issuer")


@pytest.fixture(scope="session")
def issuer(issuer_folder: Path, certificates: DevCertificates) -> Iterator[DevIssuer]:
    server = DevIssuer(issuer_folder, port=0, audience=AUDIENCE, certificates=certificates)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(issuer: DevIssuer, certificates: DevCertificates) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(certificates.ca_cert))
    with httpx.Client(base_url=f"https://{issuer.domain}", verify=context, trust_env=False) as http:
        yield http
