"""Fixtures that every part of the suite may use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.issuer import IssuerProcess

pytest_plugins = ["tests.support.seaweed"]

settings.register_profile("quick", max_examples=25)


def pytest_configure(config: pytest.Config) -> None:
    """Without the slow tests, properties are tried with fewer examples too."""
    if config.getoption("markexpr") == "not slow" and not config.getoption("hypothesis_profile", None):
        settings.load_profile("quick")


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IssuerProcess]:
    """A token issuer in a process of its own."""
    with IssuerProcess.start(tmp_path_factory.mktemp("issuer")) as process:
        yield process


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failure: nothing there may be missing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
