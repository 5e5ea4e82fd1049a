"""Microsoft Entra ID (Azure AD): access tokens of one app registration, versions 1.0 and 2.0.

Rules: https://learn.microsoft.com/entra/identity-platform/access-tokens (issuer, keys, versions) and
https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference (claims). Which version
a token has is the choice of the API's app registration, not of the client, so both are accepted.

The subject is `<oid>@<tid>`: the object id of the user or service principal and its tenant, the key that
Microsoft advises; `sub` differs from app to app, and names and addresses change hands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from boilstream.auth.errors import InvalidToken, shown
from boilstream.auth.identity import Identity
from boilstream.auth.providers.base import (
    ID_TOKEN_CLAIMS,
    Claims,
    Provider,
    TrustedIssuer,
    audiences,
    required_text,
    text_array,
    words,
)
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings
from boilstream.settings.identity import AZURE_ANY_TENANT

NAME: Final = "azure-ad"

PERSONAL_ACCOUNTS: Final = "9188040d-6c67-4c5b-b112-36a304b66dad"
"""The tenant of personal Microsoft accounts. It gets tokens of version 2.0 only and has its own keys."""

_CLOUDS: Final = (
    ("login.microsoftonline.com", "sts.windows.net"),
    ("login.microsoftonline.us", "sts.windows.net"),
    ("login.partner.microsoftonline.cn", "sts.chinacloudapi.cn"),
)
"""Hosts in the issuers of 2.0 and 1.0 tokens, global and national
(https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud)."""

_OTHER_APIS: Final = {
    "00000003-0000-0000-c000-000000000000": "Microsoft Graph",
    "https://graph.microsoft.com": "Microsoft Graph",
    "797f4846-ba00-4fd7-ba43-dac1f8f63013": "Azure Resource Manager",
    "https://management.azure.com": "Azure Resource Manager",
    "https://management.core.windows.net": "Azure Resource Manager",
}
"""Audiences of the tokens that tools fetch when they are not told which API to ask for."""


_KEY_ISSUER_TENANT: Final = "{tenantid}"
"""Stands for any tenant in the member `issuer` of a published key."""


@dataclass(frozen=True, slots=True)
class _Version:
    """What differs between the versions of access tokens."""

    ver: str
    client_claim: str
    audiences: tuple[str, ...]
    audience_setting: str


def from_settings(settings: Settings) -> Provider:
    """The provider of the AZURE_ settings.

    Raises ConfigurationError when a required one is missing or no tenant is named.
    """
    if settings.azure_tenant_id is None or settings.azure_client_id is None:
        raise ConfigurationError(
            "AZURE_TENANT_ID and AZURE_CLIENT_ID must be set for AUTH_PROVIDERS=azure-ad"
        )
    own = () if settings.azure_tenant_id in AZURE_ANY_TENANT else (settings.azure_tenant_id,)
    others = settings.azure_allowed_tenants if settings.azure_allow_multi_tenant else ()
    return provider(
        tenants=(*own, *others),
        client_id=settings.azure_client_id,
        app_id_uri=settings.azure_app_id_uri,
        authority_host=settings.azure_authority_host,
        sts_host=settings.azure_sts_host,
    )


def provider(
    *,
    tenants: tuple[str, ...],
    client_id: str,
    app_id_uri: str | None = None,
    authority_host: str = _CLOUDS[0][0],
    sts_host: str = _CLOUDS[0][1],
) -> Provider:
    """Entra ID as a provider.

    `tenants` are the ids of the accepted tenants and `client_id` that of the API's app registration,
    GUIDs in lower case. `app_id_uri` is an audience of 1.0 tokens beside the client id and
    `api://<client id>`. `authority_host` issues 2.0 tokens and publishes keys, `sts_host` is in the issuer
    of 1.0 tokens. Raises ConfigurationError without a tenant.
    """
    tenants = tuple(dict.fromkeys(tenants))
    if not tenants:
        raise ConfigurationError(
            "AZURE_TENANT_ID names no tenant; set it to a tenant id, or list tenants in AZURE_ALLOWED_TENANTS"
        )
    default_uri = f"api://{client_id}"
    scope = f"{app_id_uri or default_uri}/.default"
    uris = (default_uri, app_id_uri) if app_id_uri else (default_uri,)
    v1 = _Version("1.0", "appid", (client_id, *uris), "AZURE_APP_ID_URI to the application ID URI")
    v2 = _Version("2.0", "azp", (client_id,), "AZURE_CLIENT_ID to the API's client id")
    # For several tenants the document for all of them: one fetch and one cache.
    keys_of = "common" if len(tenants) > 1 else tenants[0]
    keys = f"https://{authority_host}/{keys_of}/discovery"
    issuers = []
    for tenant in tenants:
        v2_issuer, v1_issuer = _issuers(tenant, authority_host, sts_host)
        issuers.append(_trusted(v2_issuer, f"{keys}/v2.0/keys", tenant, v2, scope, (v2_issuer,)))
        if tenant != PERSONAL_ACCOUNTS:
            # Keys for 1.0 tokens are published without issuers; should one have it, Microsoft's own
            # library takes it in the form of version 2.0 too (AadTokenValidationParametersExtension).
            issuers.append(_trusted(v1_issuer, f"{keys}/keys", tenant, v1, scope, (v1_issuer, v2_issuer)))
    return Provider(
        name=NAME,
        display_name="Azure AD",
        issuers=tuple(issuers),
        issuer_hint="check AZURE_TENANT_ID; for several tenants set AZURE_ALLOW_MULTI_TENANT=true and "
        "AZURE_ALLOWED_TENANTS, for a national cloud AZURE_AUTHORITY_HOST and AZURE_STS_HOST",
        groups_hint="in the API's app registration add the groups claim under Token configuration, "
        "or assign app roles",
        refused_issuers=_refused(tenants, {trusted.issuer for trusted in issuers}, authority_host),
        opaque_hint=f"request the scope {scope}; tokens for Microsoft's own APIs may be opaque or encrypted",
        warnings=(
            "AZURE_ALLOWED_TENANTS: the administrators of each tenant assign app roles of this app to its users, "
            "and roles count like groups; list only tenants that may do so",
        )
        if len(tenants) > 1
        else (),
    )


def _issuers(tenant: str, authority_host: str, sts_host: str) -> tuple[str, str]:
    """The issuers of 2.0 and 1.0 tokens of this tenant."""
    return f"https://{authority_host}/{tenant}/v2.0", f"https://{sts_host}/{tenant}/"


def _trusted(
    issuer: str, keys_url: str, tenant: str, version: _Version, scope: str, key_issuers: tuple[str, ...]
) -> TrustedIssuer:
    def check_audience(claims: Claims) -> None:
        _check_origin(claims, tenant, version)
        _check_kind(claims, version, scope)

    def to_identity(claims: Claims) -> Identity:
        _check_overage(claims)
        return Identity(
            provider=NAME,
            subject=f"{required_text(claims, 'oid')}@{tenant}",
            client=required_text(claims, version.client_claim),
            groups=text_array(claims, "groups"),
            scopes=words(claims, "scp"),
            roles=text_array(claims, "roles"),
        )

    return TrustedIssuer(
        issuer,
        keys_url,
        check_audience,
        to_identity,
        accepts_key=_accepting(tenant, key_issuers),
    )


def _accepting(tenant: str, issuers: tuple[str, ...]) -> Callable[[Mapping[str, Any]], bool]:
    """A test whether a key may sign for one of `issuers`, by its member `issuer` where it has one."""

    def accepts_key(key: Mapping[str, Any]) -> bool:
        if "issuer" not in key:
            return True
        named = key["issuer"]
        return isinstance(named, str) and named.replace(_KEY_ISSUER_TENANT, tenant) in issuers

    return accepts_key


def _check_origin(claims: Claims, tenant: str, version: _Version) -> None:
    """Refuse a token whose tenant or version is not that of its issuer, which the manager has compared."""
    if claims.get("tid") != tenant:
        raise InvalidToken(
            f"Invalid claim: tid is {shown(claims.get('tid'))}, the issuer's tenant is {tenant}"
        )
    if claims.get("ver") != version.ver:
        raise InvalidToken(
            f"Invalid claim: ver is {shown(claims.get('ver'))}, this issuer's tokens have {version.ver!r}"
        )


def _check_kind(claims: Claims, version: _Version, scope: str) -> None:
    """Refuse all but access tokens for this server that give a user's scopes or an app role.

    An ID token of the same app registration has the same audience (claims `scp` and `azp` or `appid` are in
    access tokens only), and any client of the tenant gets a token without role or scope.
    """
    found = audiences(claims)
    marks = [name for name in ID_TOKEN_CLAIMS if name in claims]
    if marks or (version.client_claim not in claims and "scp" not in claims):
        sign = f"it has the claim {marks[0]}" if marks else f"it has neither {version.client_claim} nor scp"
        raise InvalidToken(
            f"Invalid token type: an ID token for {shown(found)}, {sign}",
            f"send the access token; request it with the scope {scope}",
        )
    if len(found) != 1 or found[0] not in version.audiences:
        others = [_OTHER_APIS[name.rstrip("/")] for name in found if name.rstrip("/") in _OTHER_APIS]
        if others:
            raise InvalidToken(
                f"Invalid audience: this is a token for {others[0]}", f"request the scope {scope}"
            )
        raise InvalidToken(
            f"Invalid audience: token has {shown(found)}, accepted in version {version.ver} is one of "
            f"{shown(version.audiences)}",
            f"request the scope {scope}, or set {version.audience_setting}",
        )
    if not words(claims, "scp") and not text_array(claims, "roles"):
        raise InvalidToken(
            "Invalid claim: the token has neither scp nor roles, so the client was granted nothing",
            f"assign the client an app role of the API with admin consent, or request a scope of it ({scope})",
        )


def _check_overage(claims: Claims) -> None:
    """Refuse a token that leaves groups out because there are too many (groups overage claim).

    It only tells where to ask for them; to go on without would judge the user by scopes instead.
    """
    distributed = claims.get("_claim_names", {})
    if (
        not isinstance(distributed, dict)
        or "groups" in distributed
        or "hasgroups" in claims
        or isinstance(claims.get("groups"), str)
        or any(name.startswith("groups:") for name in claims)
    ):
        raise InvalidToken(
            "Invalid claim: groups are left out, the user has more than fit into a token (groups overage)",
            "use app roles in ADMIN_GROUPS, WRITE_GROUPS and READ_ONLY_GROUPS, or choose 'groups assigned to the "
            "application' under Token configuration of the app registration",
        )


def _refused(tenants: tuple[str, ...], trusted: set[str], authority_host: str) -> dict[str, str]:
    """Issuers that a wrong account or setting leads to, each with the reason."""
    refused = {
        f"https://{authority_host}/{PERSONAL_ACCOUNTS}/v2.0": (
            "the token is of a personal Microsoft account; sign in with an account of the tenant in AZURE_TENANT_ID, "
            f"or add {PERSONAL_ACCOUNTS} to AZURE_ALLOWED_TENANTS"
        )
    }
    for authority, sts in _CLOUDS:
        for tenant in tenants:
            for issuer in _issuers(tenant, authority, sts):
                refused.setdefault(
                    issuer,
                    f"{issuer} is of another cloud; set AZURE_AUTHORITY_HOST={authority} and AZURE_STS_HOST={sts}",
                )
    return {issuer: reason for issuer, reason in refused.items() if issuer not in trusted}
