"""DuckDB processes that attach the servers of the end-to-end tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.airport import AirportClient, AirportError
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

_tables = itertools.count()

on_local_store = pytest.mark.parametrize("store_environment", ["local"], indirect=True, scope="session")
"""For tests to which the kind of store makes no difference."""


class Attach(Protocol):
    """Start a DuckDB process that attaches a server; `options` are those of AirportClient."""

    def __call__(
        self,
        groups: str = "Admins",
        *,
        server: ServerProcess | None = None,
        secret: bool = True,
        **options: Any,
    ) -> AirportClient: ...


def location_of(server: ServerProcess) -> str:
    """What users write in ATTACH."""
    return server.location.replace("127.0.0.1", "localhost").rstrip("/") + "/"


@pytest.fixture
def start(issuer: IssuerProcess) -> Iterator[Callable[..., AirportClient]]:
    """Attach a given server; the clients are closed in the end."""
    with ExitStack() as stack:

        def attach(
            server: ServerProcess, groups: str = "Admins", *, secret: bool = True, **options: Any
        ) -> AirportClient:
            token = options.pop("token", None) or issuer.token(groups=groups)
            tokens = {"attach_token": token} | ({"secret_token": token} if secret else {})
            ca: Path | None = issuer.ca_cert if "tls" in server.location else None
            options = tokens | options
            return stack.enter_context(AirportClient(location_of(server), ca=ca, **options))

        yield attach


@pytest.fixture
def attach(server: ServerProcess, start: Callable[..., AirportClient]) -> Attach:
    """Attach the shared server. `secret`: a SECRET covers the location, else only ATTACH has the token."""

    def attach(
        groups: str = "Admins", *, server: ServerProcess | None = server, secret: bool = True, **options: Any
    ) -> AirportClient:
        return start(server, groups, secret=secret, **options)

    return attach


@pytest.fixture
def duckdb(attach: Attach) -> AirportClient:
    """A DuckDB process that may do everything."""
    return attach()


@pytest.fixture
def plain(server: ServerProcess, issuer: IssuerProcess) -> Iterator[Client]:
    """A writer that is not DuckDB."""
    client = Client(server.location, issuer.token(groups="Admins"), issuer.ca_cert)
    yield client
    client.close()


@pytest.fixture
def table() -> str:
    """The name of a table that no other test uses."""
    return f"table_{next(_tables)}"


@pytest.fixture
def own_server(issuer: IssuerProcess, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of this test alone, on a local store."""
    with ServerProcess(issuer.environment() | {"DATA_DIR": str(tmp_path / "data")}) as process:
        yield process


def refusal(call: Callable[..., object], *args: Any, **options: Any) -> AirportError:
    """The error of a statement that the server refuses.

    One sentence, and none that the extension repeats for 3 seconds.
    """
    with pytest.raises(AirportError) as caught:
        call(*args, **options)
    error = caught.value
    assert error.remote, error
    assert not error.retried, error
    assert "\n" not in str(error)
    return error
