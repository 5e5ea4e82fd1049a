"""The provider process, and BoilStream servers that trust it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import oidc_provider
from tests.support.oidc_provider import ES256, OIDC, OKTA, OidcProvider
from tests.support.server import ServerProcess


@pytest.fixture(scope="session")
def oidc_provider_package() -> None:
    """oidc-provider as package-lock.json pins it."""
    oidc_provider.install()


@pytest.fixture(scope="session")
def provider(oidc_provider_package: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    """A provider for all tests that leave its keys alone."""
    with OidcProvider(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


@pytest.fixture
def own_provider(oidc_provider_package: None, tmp_path: Path) -> Iterator[OidcProvider]:
    """A provider for one test, which may rotate its keys and stop it."""
    folder = tmp_path / "provider"
    folder.mkdir()
    with OidcProvider(folder) as provider:
        yield provider


@pytest.fixture(scope="session")
def servers(
    provider: OidcProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, ServerProcess]]:
    """By AUTH_PROVIDERS, the servers that all tests share; tests use topics of their own."""
    settings = {
        "okta": provider.environment(OKTA),
        "okta,oidc": provider.environment(OKTA, OIDC) | {"OKTA_CLIENT_ID": ES256.client_id},
    }
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                ServerProcess(environment | {"DATA_DIR": str(tmp_path_factory.mktemp("server") / "data")})
            )
            for name, environment in settings.items()
        }
