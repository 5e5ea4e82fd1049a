"""Identity providers: one small module each, and the one place that lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from boilstream.auth.providers import auth0, azure_ad, cognito, gcp, oidc, okta
from boilstream.auth.providers.base import Provider
from boilstream.settings import Settings

BUILDERS: Final[Mapping[str, Callable[[Settings], Provider]]] = {
    "auth0": auth0.from_settings,
    "azure-ad": azure_ad.from_settings,
    "cognito": cognito.from_settings,
    "gcp": gcp.from_settings,
    "oidc": oidc.from_settings,
    "okta": okta.from_settings,
}
"""For each name of AUTH_PROVIDERS, what makes the provider of the settings."""


def from_settings(settings: Settings) -> tuple[Provider, ...]:
    """The providers that AUTH_PROVIDERS names, in its order."""
    return tuple(BUILDERS[name](settings) for name in settings.auth_providers)
