"""A manager for Okta tokens without a network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.manager import AuthManager
from boilstream.auth.providers import okta
from tests.support.tokens import AUDIENCE, ORG_DOMAIN, FakeClock, FakeFetch


@pytest.fixture
def fetch() -> FakeFetch:
    return FakeFetch()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def manager(fetch: FakeFetch, clock: FakeClock) -> Iterator[AuthManager]:
    made = AuthManager(
        [okta.provider(org_domain=ORG_DOMAIN, audience=AUDIENCE)],
        fetch=fetch,
        expiry=ExpiryRule(clock=clock),
        monotonic=clock,
    )
    yield made
    made.close()
