"""Google: ID tokens of users and, by choice, of the service accounts of one project.

Rules: https://developers.google.com/identity/openid-connect/openid-connect#validatinganidtoken and
https://cloud.google.com/docs/authentication/get-id-token. Every service account, of whatever project, can
get an ID token for any audience; so the audience says nothing about who it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from boilstream.auth.errors import InvalidToken, shown
from boilstream.auth.identity import Identity
from boilstream.auth.providers.base import (
    Claims,
    Provider,
    TrustedIssuer,
    audiences,
    optional_text,
    required_text,
)
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings

NAME = "gcp"

_CLIENT_SUFFIX = ".apps.googleusercontent.com"
_SERVICE_ACCOUNT_SUFFIX = "gserviceaccount.com"


def from_settings(settings: Settings) -> Provider:
    """The provider of the GCP_ settings. Raises ConfigurationError when a required one is missing."""
    if settings.gcp_client_id is None:
        raise ConfigurationError("GCP_CLIENT_ID must be set for AUTH_PROVIDERS=gcp")
    return provider(
        client_id=settings.gcp_client_id,
        project_id=settings.gcp_project_id,
        require_workspace_domain=settings.gcp_require_workspace_domain,
        workspace_domains=settings.gcp_workspace_domains,
        accounts_host=settings.gcp_accounts_host,
        keys_host=settings.gcp_keys_host,
    )


def provider(
    *,
    client_id: str,
    project_id: str | None = None,
    require_workspace_domain: bool = False,
    workspace_domains: Sequence[str] = (),
    accounts_host: str = "accounts.google.com",
    keys_host: str = "www.googleapis.com",
) -> Provider:
    """Google as a provider.

    `client_id` is the audience of all tokens. `project_id` adds the service accounts that were created in
    that project. `workspace_domains` restricts users to these Workspace domains,
    `require_workspace_domain` to any; service accounts belong to none and need none.
    """
    domains = frozenset(domain.lower() for domain in workspace_domains)

    def check(claims: Claims) -> None:
        found = audiences(claims)
        if found != (client_id,):
            raise InvalidToken(
                f"Invalid audience: token has {shown(found)}, GCP_CLIENT_ID is {shown(client_id)}",
                "request the ID token for that client id; a service account names it as audience, as in "
                "gcloud auth print-identity-token --audiences=<client id>",
            )
        email = optional_text(claims, "email")
        if email is not None and claims.get("email_verified") is not True:
            raise InvalidToken(
                f"Invalid claim: email_verified is {shown(claims.get('email_verified'))}, not true",
                "let the account confirm its e-mail address, or request the token without the scope email",
            )
        if _is_service_account(claims, email):
            check_service_account(email)
        else:
            check_user(claims)

    def check_service_account(email: str | None) -> None:
        if project_id is None:
            raise InvalidToken(
                "Invalid token type: an ID token of a service account, GCP_PROJECT_ID is not set",
                "set GCP_PROJECT_ID to accept the service accounts of that project",
            )
        if email is None:
            raise InvalidToken(
                "Invalid claim: email is missing, which tells the project of a service account",
                "request the ID token with it: includeEmail, or gcloud's --include-email",
            )
        if not email.lower().endswith(f"@{_service_account_domain(project_id)}"):
            raise InvalidToken(
                f"Invalid claim: email is at {shown(email.rpartition('@')[2])}, not a service account "
                f"that was created in the project of GCP_PROJECT_ID, {shown(project_id)}",
                "use one of that project (not a default account of Compute Engine or App Engine), or check "
                "GCP_PROJECT_ID",
            )

    def check_user(claims: Claims) -> None:
        domain = optional_text(claims, "hd")
        if domains and domain not in domains:
            raise InvalidToken(
                f"Invalid claim: hd is {shown(domain)}, GCP_WORKSPACE_DOMAINS is {shown(sorted(domains))}",
                "sign in with an account of such a domain, or add the domain to GCP_WORKSPACE_DOMAINS",
            )
        if require_workspace_domain and domain is None:
            raise InvalidToken(
                "Invalid claim: hd is missing, the account belongs to no Workspace domain",
                "sign in with a Workspace account, or unset GCP_REQUIRE_WORKSPACE_DOMAIN",
            )

    keys_url = f"https://{keys_host}/oauth2/v3/certs"
    return Provider(
        name=NAME,
        display_name="Google",
        # Google writes both; see iss in https://developers.google.com/identity/openid-connect/reference
        issuers=tuple(
            TrustedIssuer(issuer, keys_url, check, _to_identity)
            for issuer in (f"https://{accounts_host}", accounts_host)
        ),
        issuer_hint=(
            "send an ID token that Google issued; tokens that a service account signs itself and those of "
            "Firebase have other issuers; check GCP_ACCOUNTS_HOST"
        ),
        groups_hint=(
            "Google's tokens carry no groups: write rules per user, named gcp:<claim sub>, in "
            "AUTHORIZATION_RULES_FILE"
        ),
        opaque_hint="Google's access tokens are opaque: send the ID token instead",
        warnings=()
        if domains or require_workspace_domain
        else (
            "neither GCP_WORKSPACE_DOMAINS nor GCP_REQUIRE_WORKSPACE_DOMAIN is set: every Google account that "
            "signs in to the client of GCP_CLIENT_ID may call; list your domains",
        ),
    )


def _is_service_account(claims: Claims, email: str | None) -> bool:
    """Whether the token may be a service account's: whatever is not surely a user's counts as one.

    A user's token is issued to an OAuth client; a service account's to itself, by its number or address.
    """
    presenter = optional_text(claims, "azp")
    if email is not None and email.lower().endswith(_SERVICE_ACCOUNT_SUFFIX):
        return True
    if presenter is None:
        return email is None
    return not presenter.endswith(_CLIENT_SUFFIX)


def _service_account_domain(project_id: str) -> str:
    """Domain in the addresses of service accounts created in a project.

    The id of a domain-scoped project is turned round: `google.com:skia-buildbots` has
    `skia-buildbots.google.com.iam.gserviceaccount.com`.
    """
    domain, _, name = project_id.rpartition(":")
    return f"{name}.{domain}.iam.gserviceaccount.com" if domain else f"{name}.iam.gserviceaccount.com"


def _to_identity(claims: Claims) -> Identity:
    return Identity(provider=NAME, subject=required_text(claims, "sub"), client=optional_text(claims, "azp"))
