"""The HTTP side of the development issuer: what an Okta custom authorization server answers.

Paths are Okta's: metadata, keys and the token endpoint below `/oauth2/default`, whose errors are
those of RFC 6749 section 5.2. `/` is a page that makes tokens for users.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from urllib.parse import parse_qsl, unquote_plus

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from boilstream.dev import page
from boilstream.dev.tokens import DEFAULT_SUBJECT, LIFETIME_SECONDS, SCOPES, TokenSigner
from boilstream.errors import InvalidArgument

ISSUER_PATH = "/oauth2/default"
"""Path of the authorization server `default`, the one that every Okta organisation has."""
TOKEN_PATH = f"{ISSUER_PATH}/v1/token"

_MAX_BODY_BYTES = 64 * 1024
_MAX_FIELDS = 100
_NOT_IN_DESCRIPTIONS = re.compile(r"[^ !#-\[\]-~]")  # RFC 6749 section 5.2
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 section 5.1


class TokenRequestError(InvalidArgument):
    """A request that gets an error answer of RFC 6749 section 5.2."""

    def __init__(self, error: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.error = error
        self.status = status


class AuthorizationServer:
    """The endpoints over one signer; `app` is the ASGI application."""

    def __init__(self, signer: TokenSigner, client_secret: str) -> None:
        self._signer = signer
        self._client_secret = client_secret
        self.app = Starlette(
            routes=[
                Route(f"{ISSUER_PATH}/.well-known/openid-configuration", self._metadata),
                Route(f"{ISSUER_PATH}/.well-known/oauth-authorization-server", self._metadata),
                Route(f"{ISSUER_PATH}/v1/keys", self._keys),
                Route(TOKEN_PATH, self._token, methods=["POST"]),
                Route("/", self._page),
                Route("/mint", self._mint, methods=["POST"]),
            ],
        )

    async def _metadata(self, _: Request) -> Response:
        """RFC 8414 and OpenID Connect Discovery 1.0; only what this server has."""
        issuer = self._signer.state.issuer
        return JSONResponse(
            {
                "issuer": issuer,
                "token_endpoint": f"{issuer}/v1/token",
                "jwks_uri": f"{issuer}/v1/keys",
                "response_types_supported": [],
                "grant_types_supported": ["client_credentials"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": list(SCOPES),
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            }
        )

    async def _keys(self, _: Request) -> Response:
        return JSONResponse(self._signer.jwks)

    async def _token(self, request: Request) -> Response:
        """Client credentials grant (RFC 6749 section 4.4)."""
        try:
            form = _single_values(await _read_form(request))
            self._authenticate(request.headers.get("authorization"), form)
            if "grant_type" not in form:
                raise TokenRequestError(
                    "invalid_request", "grant_type is missing; send grant_type=client_credentials"
                )
            if form["grant_type"] != "client_credentials":
                raise TokenRequestError(
                    "unsupported_grant_type",
                    "this development issuer supports grant_type=client_credentials only",
                )
            scopes = form.get("scope", "").split()
            if not scopes:
                raise TokenRequestError("invalid_scope", f"scope is missing; known are {', '.join(SCOPES)}")
            try:
                token = self._signer.sign(
                    groups=(),
                    scopes=scopes,
                    subject=self._signer.state.client_id,
                    lifetime_seconds=LIFETIME_SECONDS,
                )
            except InvalidArgument as error:
                raise TokenRequestError("invalid_scope", error.message) from None
        except TokenRequestError as error:
            return _error_answer(error)
        answer = {
            "token_type": "Bearer",
            "expires_in": LIFETIME_SECONDS,
            "access_token": token,
            "scope": " ".join(dict.fromkeys(scopes)),
        }
        return JSONResponse(answer, headers=_NO_STORE)

    async def _page(self, _: Request) -> Response:
        html = page.render_page(
            self._signer.state,
            subject=DEFAULT_SUBJECT,
            groups="DataEngineers",
            scopes=("read:data", "write:data"),
        )
        return HTMLResponse(html, headers=page.HEADERS)

    async def _mint(self, request: Request) -> Response:
        """A user's token: inside the page for browsers, as plain text for others."""
        subject, groups, scopes, token, problem = DEFAULT_SUBJECT, "", list[str](), None, None
        try:
            fields = await _read_form(request)
            subject = next((value for name, value in fields if name == "subject"), DEFAULT_SUBJECT).strip()
            groups = ",".join(value for name, value in fields if name == "groups")
            scopes = [scope for name, value in fields if name == "scope" for scope in value.split()]
            token = self._signer.sign(
                groups=(group.strip() for group in groups.split(",") if group.strip()),
                scopes=scopes,
                subject=subject,
                lifetime_seconds=LIFETIME_SECONDS,
            )
        except InvalidArgument as error:
            problem = error.message
        status = 200 if problem is None else 400
        if "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse(f"{token or problem}\n", status_code=status, headers=_NO_STORE)
        html = page.render_page(
            self._signer.state, subject=subject, groups=groups, scopes=scopes, token=token, error=problem
        )
        return HTMLResponse(html, status_code=status, headers=page.HEADERS)

    def _authenticate(self, authorization: str | None, form: dict[str, str]) -> None:
        """Check client id and secret: HTTP Basic or form fields, not both (RFC 6749 section 2.3)."""
        client_id, secret = form.get("client_id"), form.get("client_secret")
        if authorization is not None:
            if secret is not None:
                raise TokenRequestError(
                    "invalid_request",
                    "the client's secret came twice; use the Authorization header or the form",
                )
            basic_id, secret = _basic_credentials(authorization)
            if client_id not in (None, basic_id):
                raise TokenRequestError("invalid_request", "client_id differs from the Authorization header")
            client_id = basic_id
        if client_id is None or secret is None:
            raise _invalid_client("client id or secret is missing; send them by HTTP Basic or in the form")
        known = hmac.compare_digest(client_id.encode(), self._signer.state.client_id.encode())
        if not hmac.compare_digest(secret.encode(), self._client_secret.encode()) or not known:
            raise _invalid_client("client id or secret is wrong; `boilstream dev` prints the right ones")


def _basic_credentials(authorization: str) -> tuple[str, str]:
    """Id and secret of an Authorization header, form-decoded as RFC 6749 section 2.3.1 says."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise _invalid_client("clients authenticate by HTTP Basic or in the form")
    try:
        client_id, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        return unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except (binascii.Error, UnicodeDecodeError):
        raise _invalid_client("the Authorization header is not valid HTTP Basic") from None


def _invalid_client(message: str) -> TokenRequestError:
    return TokenRequestError("invalid_client", message, status=401)


def _error_answer(error: TokenRequestError) -> JSONResponse:
    headers = dict(_NO_STORE)
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="boilstream development issuer", charset="UTF-8"'
    description = _NOT_IN_DESCRIPTIONS.sub("?", error.message)
    body = {"error": error.error, "error_description": description}
    return JSONResponse(body, status_code=error.status, headers=headers)


async def _read_form(request: Request) -> list[tuple[str, str]]:
    """Names and values of a urlencoded body, in their order."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise TokenRequestError(
            "invalid_request", "the body must be of type application/x-www-form-urlencoded"
        )
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                raise TokenRequestError("invalid_request", f"the body is longer than {_MAX_BODY_BYTES} bytes")
        return parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except (ValueError, ClientDisconnect):
        raise TokenRequestError("invalid_request", "the body is not a valid urlencoded form") from None


def _single_values(fields: list[tuple[str, str]]) -> dict[str, str]:
    """The fields of a token request: none twice, and empty ones count as missing (RFC 6749 section 3.2)."""
    form: dict[str, str] = {}
    for name, value in fields:
        if name in form:
            raise TokenRequestError("invalid_request", "a field of the form comes twice")
        form[name] = value
    return {name: value for name, value in form.items() if value}
