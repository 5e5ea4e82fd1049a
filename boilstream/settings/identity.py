"""Settings of who may call: identity providers, their keys, and the rules of authorization."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from pydantic import field_validator, model_validator
from pydantic_settings import BaseSettings

from boilstream.settings.fields import CommaList, Host, setting

PROVIDER_ALIASES = {
    "auth0": "auth0",
    "azure": "azure-ad",
    "azure-ad": "azure-ad",
    "cognito": "cognito",
    "entra-id": "azure-ad",
    "gcp": "gcp",
    "google": "gcp",
    "google-cloud": "gcp",
    "oidc": "oidc",
    "okta": "okta",
}
"""Names accepted in AUTH_PROVIDERS, and the provider that each means."""

_REQUIRED = {
    "auth0": ("auth0_tenant", "auth0_audience"),
    "azure-ad": ("azure_tenant_id", "azure_client_id"),
    "cognito": ("cognito_user_pool_id",),
    "gcp": ("gcp_client_id",),
    "oidc": ("oidc_issuer", "oidc_audience"),
    "okta": ("okta_org_domain", "okta_audience"),
}
"""For each provider, the settings that have no default."""

AZURE_ANY_TENANT = ("common", "organizations")
"""Values of AZURE_TENANT_ID that name no tenant; tokens never carry them."""

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_GUID_EXAMPLE = "11111111-2222-3333-4444-555555555555"
_HOST_OF_TESTS = "; another for a private cloud"


class IdentitySettings(BaseSettings):
    """Identity providers and what their tokens are checked against."""

    auth_providers: CommaList = setting(
        "identity providers whose tokens are accepted, a comma list of okta, auth0, azure-ad, cognito, gcp, oidc",
        example="okta,auth0",
        default=(),
    )

    okta_org_domain: Host | None = setting(
        "host of the Okta organisation, without scheme; may carry a port",
        example="company.okta.com",
        default=None,
    )
    okta_audience: str | None = setting(
        "audience of the custom authorization server", example="api://boilstream", default=None
    )
    okta_auth_server_id: str = setting(
        "id of the custom authorization server",
        example="default",
        default="default",
        pattern=r"^[A-Za-z0-9._-]+$",
    )
    okta_client_id: str | None = setting(
        "client id that ID tokens must be issued to; unset: no ID token is accepted",
        example="0oa123456789abcdef",
        default=None,
    )
    okta_allow_org_server: bool = setting(
        "accept ID tokens of the org authorization server too", example="true", default=False
    )

    auth0_tenant: Host | None = setting(
        "full host of the Auth0 tenant, or its custom domain", example="company.eu.auth0.com", default=None
    )
    auth0_audience: str | None = setting(
        "identifier of the API in Auth0", example="https://api.boilstream.company.com", default=None
    )
    auth0_groups_namespace: str | None = setting(
        "full name of the claim that holds groups; unset: no groups",
        example="https://company.com/groups",
        default=None,
    )

    azure_tenant_id: str | None = setting(
        "directory (tenant) id, a GUID; common with AZURE_ALLOW_MULTI_TENANT",
        example=_GUID_EXAMPLE,
        default=None,
    )
    azure_client_id: str | None = setting(
        "application (client) id of the API's app registration, a GUID", example=_GUID_EXAMPLE, default=None
    )
    azure_app_id_uri: str | None = setting(
        "application ID URI, the audience of v1 tokens; unset: api:// and the client id",
        example="api://boilstream.company.com",
        default=None,
    )
    azure_allow_multi_tenant: bool = setting(
        "accept tokens of the tenants in AZURE_ALLOWED_TENANTS too", example="true", default=False
    )
    azure_allowed_tenants: CommaList = setting(
        "tenant ids (GUIDs) beside AZURE_TENANT_ID", example=_GUID_EXAMPLE, default=()
    )
    azure_authority_host: Host = setting(
        "host that issues v2 tokens and publishes keys" + _HOST_OF_TESTS,
        example="login.microsoftonline.us",
        default="login.microsoftonline.com",
    )
    azure_sts_host: Host = setting(
        "host in the issuer of v1 tokens" + _HOST_OF_TESTS,
        example="sts.chinacloudapi.cn",
        default="sts.windows.net",
    )

    cognito_user_pool_id: str | None = setting(
        "user pool whose tokens are accepted",
        example="us-east-1_ABC123DEF",
        default=None,
        pattern=r"^[A-Za-z0-9_-]+$",
    )
    cognito_region: str | None = setting(
        "region of the user pool; unset: the part of its id before the underscore",
        example="us-east-1",
        default=None,
        pattern=r"^[a-z0-9-]+$",
    )
    cognito_audience: CommaList = setting(
        "app client ids whose tokens are accepted; unset: every app client of the pool",
        example="1example23456789",
        default=(),
    )
    cognito_host: Host | None = setting(
        "host of the user pool; unset: cognito-idp.<region>.amazonaws.com",
        example="cognito-idp.cn-north-1.amazonaws.com.cn",
        default=None,
    )

    gcp_client_id: str | None = setting(
        "OAuth client id that ID tokens are issued for",
        example="1234-abc.apps.googleusercontent.com",
        default=None,
    )
    gcp_project_id: str | None = setting(
        "project whose service accounts are accepted; unset: no service account is",
        example="company-data",
        default=None,
        pattern=r"^[a-z][a-z0-9.:-]+$",
    )
    gcp_require_workspace_domain: bool = setting(
        "refuse accounts without a Workspace domain", example="true", default=False
    )
    gcp_workspace_domains: CommaList = setting(
        "Workspace domains whose accounts are accepted; unset: all", example="company.com", default=()
    )
    gcp_accounts_host: Host = setting(
        "host in the issuer of Google's tokens", example="accounts.google.com", default="accounts.google.com"
    )
    gcp_keys_host: Host = setting(
        "host that publishes Google's keys", example="www.googleapis.com", default="www.googleapis.com"
    )

    oidc_issuer: str | None = setting(
        "issuer of any OpenID provider, exactly as its discovery document spells it",
        example="https://id.company.com/realms/main",
        default=None,
        pattern=r"^https://[^\s?#@]+$",
    )
    oidc_audience: str | None = setting(
        "audience of access tokens", example="https://boilstream.company.com", default=None
    )
    oidc_groups_claim: str = setting("claim that holds groups", example="roles", default="groups")
    oidc_scopes_claim: str = setting(
        "claim that holds scopes, an array or a text with blanks", example="scp", default="scope"
    )
    oidc_algorithms: CommaList = setting(
        "signature algorithms that are accepted, none of them symmetric",
        example="ES256",
        default=("RS256", "ES256"),
    )
    oidc_allow_id_tokens: bool = setting(
        "accept ID tokens, for providers that issue no other JWT", example="true", default=False
    )

    auth_ca_file: Path | None = setting(
        "CA bundle (PEM) for calls to identity providers; unset: the system's roots",
        example="certs/ca.crt",
        default=None,
    )
    auth_leeway_seconds: float = setting(
        "difference between the clocks of provider and server that is tolerated, seconds",
        example="30",
        default=30.0,
        ge=0,
        le=300,
    )
    jwks_cache_seconds: int = setting(
        "how long a provider's signing keys are used before they are fetched again, seconds",
        example="3600",
        default=3600,
        ge=60,
        le=86_400,
    )
    jwks_max_keys: int = setting("signing keys kept per issuer", example="100", default=100, ge=1, le=1000)
    session_key_path: Path | None = setting(
        "Ed25519 private key (PEM) that signs sessions, transaction ids and tickets, the same on all nodes; "
        "unset: made at each start",
        example="certs/session.key",
        default=None,
    )
    session_seconds: int = setting(
        "longest life of a session token, seconds; it never outlives the token that it was made from",
        example="3600",
        default=3600,
        ge=60,
        le=86_400,
    )
    allow_anonymous: bool = setting(
        "without providers, serve callers without a token on every interface, not only on loopback",
        example="true",
        default=False,
    )

    @field_validator("auth_providers")
    @classmethod
    def _known_providers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name.lower() not in PROVIDER_ALIASES]
        if unknown:
            raise ValueError(
                f"unknown provider {unknown[0]!r}; known are {', '.join(sorted(PROVIDER_ALIASES))}"
            )
        return tuple(dict.fromkeys(PROVIDER_ALIASES[name.lower()] for name in value))

    @field_validator("azure_client_id")
    @classmethod
    def _guid(cls, value: str | None) -> str | None:
        if value is not None and not _GUID.fullmatch(value):
            raise ValueError("must be a GUID")
        return value.lower() if value is not None else None

    @field_validator("azure_tenant_id")
    @classmethod
    def _tenant(cls, value: str | None) -> str | None:
        if value is not None and value.lower() not in AZURE_ANY_TENANT and not _GUID.fullmatch(value):
            raise ValueError("must be a GUID, or common")
        return value.lower() if value is not None else None

    @field_validator("azure_allowed_tenants")
    @classmethod
    def _tenants(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [tenant for tenant in value if not _GUID.fullmatch(tenant)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is not a GUID")
        return tuple(dict.fromkeys(tenant.lower() for tenant in value))

    @model_validator(mode="after")
    def _complete_providers(self) -> Self:
        missing = [
            (provider, name)
            for provider in self.auth_providers
            for name in _REQUIRED[provider]
            if getattr(self, name) is None
        ]
        if missing:
            provider = missing[0][0]
            names = [name for owner, name in missing if owner == provider]
            examples = " ".join(f"{name.upper()}={_example_of(name)}" for name in names)
            raise ValueError(
                f"{' and '.join(name.upper() for name in names)} {'are' if len(names) > 1 else 'is'} missing: "
                f"AUTH_PROVIDERS names {provider}; for example {examples}"
            )
        if "okta" in self.auth_providers and self.okta_allow_org_server and self.okta_client_id is None:
            raise ValueError(
                "OKTA_CLIENT_ID is missing: OKTA_ALLOW_ORG_SERVER=true accepts ID tokens, whose audience is the "
                f"client id; for example OKTA_CLIENT_ID={_example_of('okta_client_id')}"
            )
        if "azure-ad" in self.auth_providers:
            self._check_azure_tenants()
        if "cognito" in self.auth_providers and not (
            self.cognito_host or self.cognito_region or "_" in str(self.cognito_user_pool_id)
        ):
            raise ValueError(
                "COGNITO_REGION is missing: COGNITO_USER_POOL_ID does not begin with a region; "
                "for example COGNITO_REGION=us-east-1"
            )
        if self.allow_anonymous and self.auth_providers:
            raise ValueError(
                "ALLOW_ANONYMOUS=true contradicts AUTH_PROVIDERS: with providers every call needs a token; unset one"
            )
        return self

    def _check_azure_tenants(self) -> None:
        if self.azure_allowed_tenants and not self.azure_allow_multi_tenant:
            raise ValueError(
                "AZURE_ALLOWED_TENANTS needs AZURE_ALLOW_MULTI_TENANT=true; set it, or unset the list"
            )
        if self.azure_allow_multi_tenant and not self.azure_allowed_tenants:
            raise ValueError(
                "AZURE_ALLOWED_TENANTS is missing: AZURE_ALLOW_MULTI_TENANT=true accepts the tenants listed there; "
                f"for example AZURE_ALLOWED_TENANTS={_GUID_EXAMPLE}"
            )
        if self.azure_tenant_id in AZURE_ANY_TENANT and not self.azure_allow_multi_tenant:
            raise ValueError(
                f"AZURE_TENANT_ID={self.azure_tenant_id} needs AZURE_ALLOW_MULTI_TENANT=true and "
                f"AZURE_ALLOWED_TENANTS; or name one tenant, for example AZURE_TENANT_ID={_GUID_EXAMPLE}"
            )


class AuthorizationSettings(BaseSettings):
    """Who may do what."""

    authorization_enabled: bool | None = setting(
        "decide by rules; unset: on as soon as you set one of the ten settings below",
        example="true",
        default=None,
    )
    admin_groups: CommaList = setting(
        "groups (or app roles) that may read, write and drop",
        example="DataEngineers,SystemAdmins",
        default=(),
    )
    write_groups: CommaList = setting(
        "groups (or app roles) that may read and write", example="ETLDevelopers", default=()
    )
    read_only_groups: CommaList = setting(
        "groups (or app roles) that may read", example="DataAnalysts,Viewers", default=()
    )
    admin_scopes: CommaList = setting(
        "scopes that allow all, for tokens without a listed group",
        example="admin:system",
        default=("admin:system",),
    )
    write_scopes: CommaList = setting(
        "scopes that allow reading and writing, for tokens without a listed group",
        example="write:data",
        default=("write:data",),
    )
    read_scopes: CommaList = setting(
        "scopes that allow reading, for tokens without a listed group",
        example="read:data",
        default=("read:data",),
    )
    required_read_scopes: CommaList = setting(
        "scopes that a token must have, all of them, to read, whatever else allows it",
        example="read:data",
        default=(),
    )
    required_write_scopes: CommaList = setting("the same to write", example="write:data", default=())
    required_admin_scopes: CommaList = setting(
        "the same to drop and alter", example="admin:system", default=()
    )
    authorization_rules_file: Path | None = setting(
        "TOML or JSON file with rules per user, client, group or scope on topics; read again on SIGHUP",
        example="rules.toml",
        default=None,
    )

    @property
    def authorization_active(self) -> bool:
        """Whether rules decide (AUTHORIZATION_ENABLED, or any rule set)."""
        if self.authorization_enabled is not None:
            return self.authorization_enabled
        rules = [name for name in AuthorizationSettings.model_fields if name != "authorization_enabled"]
        return any(name in self.model_fields_set and getattr(self, name) for name in rules)


def _example_of(name: str) -> str:
    return str((IdentitySettings.model_fields[name].examples or [""])[0])
