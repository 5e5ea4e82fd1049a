"""Where the server listens, and who can reach it there."""

from __future__ import annotations

import ipaddress
import logging

from boilstream.errors import ConfigurationError
from boilstream.settings import Settings

_LOGGER = logging.getLogger("boilstream.addresses")


def listen_host(settings: Settings) -> str:
    """FLIGHT_HOST, or loopback when nobody would be asked for a token. Raises ConfigurationError."""
    host = settings.flight_host
    if settings.auth_providers or is_loopback(host):
        return host
    if settings.allow_anonymous:
        _LOGGER.warning("ALLOW_ANONYMOUS=true and no AUTH_PROVIDERS: everybody who reaches %s may call", host)
        return host
    if "flight_host" in settings.model_fields_set:
        raise ConfigurationError(
            f"FLIGHT_HOST: without AUTH_PROVIDERS only loopback is served, not {host}; set AUTH_PROVIDERS=okta, or "
            "FLIGHT_HOST=127.0.0.1, or ALLOW_ANONYMOUS=true"
        )
    _LOGGER.warning("no AUTH_PROVIDERS: calls need no token, so only loopback is served")
    return "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`, an address or `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
