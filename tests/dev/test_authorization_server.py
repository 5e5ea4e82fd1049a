from __future__ import annotations

import base64
import subprocess
from urllib.parse import quote_plus

import httpx
import jwt
import pytest
import requests

from boilstream.dev.certificates import DevCertificates
from boilstream.dev.issuer import DevIssuer

from .conftest import AUDIENCE

TOKEN = "/oauth2/default/v1/token"
KEYS = "/oauth2/default/v1/keys"


@pytest.fixture
def form(issuer: DevIssuer) -> dict[str, str]:
    return {
        "grant_type": "client_credentials",
        "scope": "read:data write:data",
        "client_id": issuer.client_id,
        "client_secret": issuer.client_secret,
    }


def verified(client: httpx.Client, issuer: DevIssuer, token: str) -> dict[str, object]:
    keys = jwt.PyJWKSet.from_dict(client.get(KEYS).raise_for_status().json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, object] = jwt.decode(
        token, key, algorithms=["RS256"], audience=AUDIENCE, issuer=issuer.issuer
    )
    return claims


def expect_error(answer: httpx.Response, status: int, error: str) -> str:
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.headers["cache-control"] == "no-store"
    description = answer.json()["error_description"]
    assert isinstance(description, str)
    return description


@pytest.mark.parametrize("name", ["openid-configuration", "oauth-authorization-server"])
def test_the_metadata_names_the_endpoints(client: httpx.Client, issuer: DevIssuer, name: str) -> None:
    metadata = client.get(f"/oauth2/default/.well-known/{name}").raise_for_status().json()
    assert metadata["issuer"] == issuer.issuer
    assert metadata["token_endpoint"] == issuer.token_endpoint
    assert client.get(metadata["jwks_uri"]).raise_for_status().json()["keys"]
    assert metadata["scopes_supported"] == ["read:data", "write:data", "admin:system"]


def test_client_credentials_in_the_form(
    client: httpx.Client, issuer: DevIssuer, form: dict[str, str]
) -> None:
    answer = client.post(TOKEN, data=form).raise_for_status()
    body = answer.json()
    assert {key: body[key] for key in body if key != "access_token"} == {
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "read:data write:data",
    }
    assert answer.headers["cache-control"] == "no-store"
    claims = verified(client, issuer, body["access_token"])
    assert claims["scp"] == ["read:data", "write:data"]
    assert claims["sub"] == claims["cid"] == issuer.client_id
    assert not {"uid", "groups"} & set(claims)


def test_client_credentials_by_http_basic(client: httpx.Client, issuer: DevIssuer) -> None:
    answer = client.post(
        TOKEN,
        data={"grant_type": "client_credentials", "scope": "admin:system"},
        auth=(issuer.client_id, issuer.client_secret),
    ).raise_for_status()
    assert verified(client, issuer, answer.json()["access_token"])["scp"] == ["admin:system"]


def test_basic_credentials_are_form_decoded(client: httpx.Client, issuer: DevIssuer) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in issuer.client_secret.encode())
    pair = base64.b64encode(f"{quote_plus(issuer.client_id)}:{encoded}".encode()).decode()
    answer = client.post(
        TOKEN,
        data={"grant_type": "client_credentials", "scope": "read:data", "client_id": issuer.client_id},
        headers={"Authorization": f"basic {pair}"},
    )
    assert answer.status_code == 200


def test_the_python_example_of_the_guide(
    issuer: DevIssuer, certificates: DevCertificates, form: dict[str, str]
) -> None:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(issuer.token_endpoint, data=form, verify=str(certificates.ca_cert), timeout=30)
    assert answer.json()["access_token"].count(".") == 2


def test_the_curl_example_of_the_guide(
    issuer: DevIssuer, certificates: DevCertificates, form: dict[str, str]
) -> None:
    command = ["curl", "-sS", "--noproxy", "*", "--cacert", str(certificates.ca_cert)]
    command += ["-X", "POST", issuer.token_endpoint]
    command += ["-H", "Content-Type: application/x-www-form-urlencoded"]
    for name, value in form.items():
        command += ["-d", f"{name}={value}"]  # the blank inside scope goes out as it is
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert '"scope":"read:data write:data"' in result.stdout


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client_secret", "wrong"),
        ("client_secret", "wröng"),
        ("client_id", "0oaother"),
        ("client_secret", None),
    ],
)
def test_a_wrong_client_is_refused(
    client: httpx.Client, form: dict[str, str], field: str, value: str | None
) -> None:
    changed = {name: text for name, text in (form | {field: value}).items() if text is not None}
    answer = client.post(TOKEN, data=changed)
    assert "secret" in expect_error(answer, 401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic !!!",
        "Basic",
        "Basic /////w==",
        "Bearer abc",
        "Basic " + base64.b64encode(b"0oadevclient:%ff").decode(),
    ],
)
def test_a_malformed_authorization_header_is_refused(client: httpx.Client, authorization: str) -> None:
    answer = client.post(
        TOKEN,
        data={"grant_type": "client_credentials", "scope": "read:data"},
        headers={"Authorization": authorization},
    )
    expect_error(answer, 401, "invalid_client")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "invalid_request"),
        ({"scope": "read:data openid"}, "invalid_scope"),
        ({"scope": ""}, "invalid_scope"),
        ({"scope": ["read:data", "write:data"]}, "invalid_request"),
    ],
)
def test_wrong_requests_get_the_errors_of_the_rfc(
    client: httpx.Client, form: dict[str, str], change: dict[str, str | list[str]], error: str
) -> None:
    expect_error(client.post(TOKEN, data=form | change), 400, error)


def test_a_missing_grant_type_is_told(client: httpx.Client, form: dict[str, str]) -> None:
    del form["grant_type"]
    description = expect_error(client.post(TOKEN, data=form), 400, "invalid_request")
    assert "grant_type=client_credentials" in description


def test_two_ways_of_authentication_are_refused(
    client: httpx.Client, issuer: DevIssuer, form: dict[str, str]
) -> None:
    auth = (issuer.client_id, issuer.client_secret)
    expect_error(client.post(TOKEN, data=form, auth=auth), 400, "invalid_request")
    del form["client_secret"]
    expect_error(client.post(TOKEN, data=form | {"client_id": "x"}, auth=auth), 400, "invalid_request")


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"grant_type": "client_credentials"}', "application/json"),
        (b"grant_type=%ff", "application/x-www-form-urlencoded"),
        (b"\xff", "application/x-www-form-urlencoded"),
        (b"a=" + b"b" * 70_000, "application/x-www-form-urlencoded"),
        (b"a=b&" * 200, "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_that_is_no_form_is_refused(client: httpx.Client, content: bytes, content_type: str) -> None:
    answer = client.post(TOKEN, content=content, headers={"Content-Type": content_type})
    expect_error(answer, 400, "invalid_request")


def test_descriptions_have_only_the_characters_of_the_rfc(client: httpx.Client, form: dict[str, str]) -> None:
    answer = client.post(TOKEN, data=form | {"scope": 'a"\\ü'})
    description = expect_error(answer, 400, "invalid_scope")
    assert description.startswith("scope 'a??")
    assert not set(description) & set('"\\ü')


def test_other_methods_are_not_allowed(client: httpx.Client) -> None:
    assert client.get(TOKEN).status_code == 405
    assert client.post(KEYS).status_code == 405


def test_the_page_has_the_form(client: httpx.Client, issuer: DevIssuer) -> None:
    answer = client.get("/").raise_for_status()
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert '<form method="post" action="/mint">' in answer.text
    assert issuer.issuer in answer.text
    assert issuer.client_secret not in answer.text


def test_the_page_makes_a_users_token(client: httpx.Client, issuer: DevIssuer) -> None:
    fields = {"subject": "alice@example.com", "groups": "A, B,,", "scope": ["read:data", "admin:system"]}
    answer = client.post("/mint", data=fields, headers={"Accept": "text/html,*/*;q=0.8"}).raise_for_status()
    token = answer.text.partition('aria-label="token">')[2].partition("</textarea>")[0]
    claims = verified(client, issuer, token)
    assert claims["groups"] == ["A", "B"]
    assert claims["scp"] == ["read:data", "admin:system"]
    assert claims["sub"] == "alice@example.com"
    assert 'value="alice@example.com"' in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_other_clients_get_the_token_as_text(client: httpx.Client, issuer: DevIssuer) -> None:
    answer = client.post("/mint", data={"groups": "A", "scope": "read:data write:data"}).raise_for_status()
    assert answer.headers["content-type"].startswith("text/plain")
    claims = verified(client, issuer, answer.text.strip())
    assert claims["scp"] == ["read:data", "write:data"]
    assert str(claims["uid"]).startswith("00u")


def test_the_page_escapes_everything(client: httpx.Client) -> None:
    evil = "\"><script>alert('1')</script>"
    answer = client.post(
        "/mint", data={"subject": evil, "groups": evil, "scope": evil}, headers={"Accept": "text/html"}
    )
    assert answer.status_code == 400
    assert "<script" not in answer.text
    assert answer.text.count("&lt;script&gt;") == 3  # subject, groups and the message


@pytest.mark.parametrize("accept", ["text/html", "*/*"])
def test_a_wish_that_cannot_be_met_is_told(client: httpx.Client, accept: str) -> None:
    answer = client.post("/mint", data={"scope": "everything"}, headers={"Accept": accept})
    assert answer.status_code == 400
    assert "everything" in answer.text
    assert "unknown; known are read:data" in answer.text
