"""Where an issuer publishes its keys, out of its discovery document.

Rules: OpenID Connect Discovery 1.0, section 4 (https://openid.net/specs/openid-connect-discovery-1_0.html).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from boilstream.auth import jws
from boilstream.auth.errors import InvalidToken, shown
from boilstream.auth.fetch import FetchFailed
from boilstream.auth.jwks import Fetch

_HTTPS_ADDRESS = re.compile(
    r"https://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?([/?][!-~]*)?", re.ASCII
)
"""An address after RFC 3986 with a host and, by the host's characters, no user info."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """What a discovery document says, as far as it matters here."""

    jwks_uri: str
    """Address of the key set, https."""
    algorithms: tuple[str, ...]
    """Signature algorithms of the issuer's ID tokens; empty when it does not tell. Access tokens may differ."""


def discovering(fetch: Fetch, issuer: str) -> Fetch:
    """A fetch of key sets that is called with the address of a discovery document.

    It reads the document anew each time, so an issuer may move its keys. `fetch` gets both documents.
    Raises FetchFailed, from calls.
    """

    def fetch_keys(url: str) -> bytes:
        found = discover(fetch, url, issuer)
        try:
            return fetch(found.jwks_uri)
        except FetchFailed as error:
            raise FetchFailed(
                f"the key set at {shown(found.jwks_uri)}, the jwks_uri of the discovery document: {error}"
            ) from None

    return fetch_keys


def discover(fetch: Fetch, url: str, issuer: str) -> Discovered:
    """Read the discovery document at `url` and check that it is the one of `issuer`.

    Raises FetchFailed when it cannot be had, is not strict JSON, belongs to another issuer (section 4.3:
    the issuer must be equal to the letter) or names no https address of keys; the text says what to look at.
    """
    try:
        body = fetch(url)
    except FetchFailed as error:
        raise FetchFailed(f"the discovery document: {error}; check OIDC_ISSUER") from None
    try:
        document = jws.json_object(body, "discovery document")
    except InvalidToken as error:
        reason = error.reason.removeprefix("Malformed token: ")
        raise FetchFailed(f"{reason}; check that OIDC_ISSUER is an issuer of OpenID Connect") from None
    if document.get("issuer") != issuer:
        raise FetchFailed(
            f"the discovery document is of the issuer {shown(document.get('issuer'))}; OIDC_ISSUER is "
            f"{shown(issuer)}, which must equal it to the letter, a slash at its end included"
        )
    jwks_uri = document.get("jwks_uri")
    if not isinstance(jwks_uri, str) or not _HTTPS_ADDRESS.fullmatch(jwks_uri) or "#" in jwks_uri:
        raise FetchFailed(
            f"the discovery document has the jwks_uri {shown(jwks_uri)}, not an https address without user name "
            "and fragment; check OIDC_ISSUER, and the configuration of the provider"
        )
    listed = document.get("id_token_signing_alg_values_supported")
    algorithms = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return Discovered(jwks_uri, tuple(algorithms))
