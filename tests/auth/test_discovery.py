"""From a discovery document to a key set, and what is wrong with documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from boilstream.auth.discovery import Discovered, discover, discovering
from boilstream.auth.fetch import FetchFailed
from tests.auth.providers.golden_more import Documents

ISSUER = "https://id.company.com/realms/main"
URL = f"{ISSUER}/.well-known/openid-configuration"
KEYS_URL = f"{ISSUER}/protocol/openid-connect/certs"
KEYS = b'{"keys": []}'

DOCUMENT: dict[str, Any] = {
    # The members that OpenID Connect Discovery 1.0, section 3, requires
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/protocol/openid-connect/auth",
    "token_endpoint": f"{ISSUER}/protocol/openid-connect/token",
    "jwks_uri": KEYS_URL,
    "response_types_supported": ["code"],
    "subject_types_supported": ["public"],
    "id_token_signing_alg_values_supported": ["RS256", "ES256"],
}


def web(document: dict[str, Any] | bytes | Exception, *more: tuple[str, bytes | Exception]) -> Documents:
    served = json.dumps(document).encode() if isinstance(document, dict) else document
    return Documents({URL: served, **dict(more)})


def failure(document: dict[str, Any] | bytes | Exception) -> str:
    fetch = web(document, (KEYS_URL, KEYS))
    with pytest.raises(FetchFailed) as caught:
        discovering(fetch, ISSUER)(URL)
    assert fetch.urls == [URL]
    text = str(caught.value)
    assert "OIDC_ISSUER" in text
    assert len(text) < 2000
    assert len(text.splitlines()) == 1
    return text


def test_the_keys_come_from_the_address_that_the_document_names() -> None:
    fetch = web(DOCUMENT, (KEYS_URL, KEYS))
    assert discovering(fetch, ISSUER)(URL) == KEYS
    assert fetch.urls == [URL, KEYS_URL]


def test_the_document_is_read_each_time() -> None:
    fetch = web(DOCUMENT, (KEYS_URL, KEYS))
    fetch_keys = discovering(fetch, ISSUER)
    fetch_keys(URL)
    moved = f"{ISSUER}/moved"
    fetch.documents = {URL: json.dumps({**DOCUMENT, "jwks_uri": moved}).encode(), moved: b"new"}
    assert fetch_keys(URL) == b"new"


def test_what_is_discovered() -> None:
    assert discover(web(DOCUMENT), URL, ISSUER) == Discovered(KEYS_URL, ("RS256", "ES256"))


@pytest.mark.parametrize("listed", [None, "RS256", {}, 1, [None, 1]])
def test_algorithms_are_only_told(listed: Any) -> None:
    document = {**DOCUMENT, "id_token_signing_alg_values_supported": listed}
    assert discover(web(document), URL, ISSUER).algorithms == ()


def test_no_document() -> None:
    text = failure(FetchFailed("HTTP status 404 instead of 200"))
    assert text == "the discovery document: HTTP status 404 instead of 200; check OIDC_ISSUER"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>sign in</html>",
        b"[]",
        b"null",
        b'{"issuer": NaN}',
        b'{"issuer": "a", "issuer": "b"}',
        b"\xff\xfe",
        b'{"issuer": "\\ud800"}',
        b"[" * 100_000,
    ],
)
def test_a_document_that_is_no_strict_json_object(body: bytes) -> None:
    text = failure(body)
    assert text.startswith("the discovery document is not ")
    assert "token" not in text


@pytest.mark.parametrize(
    "issuer",
    [
        None,
        "",
        ISSUER + "/",
        ISSUER.upper(),
        ISSUER.replace("https", "http"),
        "https://id.company.com:443/realms/main",
        "https://id.company.com/realms/{realm}",
        [ISSUER],
        1,
        "x" * 100_000,
        "a\nb",
    ],
)
def test_the_issuer_must_be_equal_to_the_letter(issuer: Any) -> None:
    text = failure({**DOCUMENT, "issuer": issuer})
    assert text.startswith("the discovery document is of the issuer ")
    assert ISSUER in text


def test_a_document_without_an_issuer() -> None:
    document = {name: value for name, value in DOCUMENT.items() if name != "issuer"}
    assert failure(document).startswith("the discovery document is of the issuer None")


@pytest.mark.parametrize(
    "jwks_uri",
    [
        None,
        "",
        1,
        [KEYS_URL],
        "http://id.company.com/keys",
        "HTTPS://id.company.com/keys",
        "ftp://id.company.com/keys",
        "file:///etc/passwd",
        "data:application/json,{}",
        "//id.company.com/keys",
        "/keys",
        "https://",
        "https:///keys",
        "https:id.company.com/keys",
        "https://user@id.company.com/keys",
        "https://user:secret@id.company.com/keys",
        "https://id.company.com\\@evil.com/keys",
        "https://id.company.com/keys#fragment",
        "https://id.company.com/keys#",
        "https://id.company.com/a b",
        " https://id.company.com/keys",
        "https://id.company.com/keys\n",
        "https://id.com\tpany.com/keys",
        "https://id.company.com:port/keys",
        "https://[::1/keys",
        "https://\u0456d.company.com/keys",
        "https://id.company.com/" + "\x00",
    ],
)
def test_addresses_of_keys_that_are_refused(jwks_uri: Any) -> None:
    assert failure({**DOCUMENT, "jwks_uri": jwks_uri}).startswith("the discovery document has the jwks_uri ")


@pytest.mark.parametrize(
    "jwks_uri",
    [
        "https://www.googleapis.com/oauth2/v3/certs",
        "https://login.microsoftonline.com/common/discovery/v2.0/keys?appid=1",
        "https://localhost:8443/keys",
        "https://[::1]:8443/keys",
        "https://keys.company.com",
        "https://id.company.com/keys/user@realm",
    ],
)
def test_addresses_of_keys_that_are_fine(jwks_uri: str) -> None:
    # Keys may be on another host than the issuer, as Google's are.
    fetch = web({**DOCUMENT, "jwks_uri": jwks_uri}, (jwks_uri, KEYS))
    assert discovering(fetch, ISSUER)(URL) == KEYS


def test_keys_that_cannot_be_had() -> None:
    fetch = web(DOCUMENT, (KEYS_URL, FetchFailed("HTTP status 503 instead of 200")))
    with pytest.raises(FetchFailed) as caught:
        discovering(fetch, ISSUER)(URL)
    assert str(caught.value) == (
        f"the key set at '{KEYS_URL}', the jwks_uri of the discovery document: HTTP status 503 instead of 200"
    )


def test_a_defect_is_no_failed_fetch() -> None:
    with pytest.raises(ZeroDivisionError):
        discovering(web(ZeroDivisionError()), ISSUER)(URL)
