"""`boilstream dev`: the real server on a laptop, with an identity provider of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from boilstream.app import App, run
from boilstream.dev.certificates import make_certificates
from boilstream.dev.issuer import DevIssuer
from boilstream.dev.snippets import DevSession, render
from boilstream.dev.tokens import mint
from boilstream.settings import Settings, load

AUDIENCE = "api://boilstream"
GROUPS = {
    "admin_groups": ("DataEngineers",),
    "write_groups": ("ETLDevelopers",),
    "read_only_groups": ("DataAnalysts",),
}
"""Rules of a development server, unless the environment sets some."""


def dev_folder(settings: Settings) -> Path:
    """Where the development issuer keeps its key, its certificates and its state."""
    return settings.data_dir.absolute() / "dev"


def serve_dev(host: str) -> None:
    """Serve on `host` with the development issuer until SIGTERM or SIGINT.

    Settings come from the environment; providers, certificates and CA are those of the issuer.
    """
    base = load()
    folder = dev_folder(base)
    certificates = make_certificates(folder)
    issuer = DevIssuer(
        folder, host=host, port=base.dev_issuer_port, audience=AUDIENCE, certificates=certificates
    )
    issuer.start()
    try:
        settings = load(
            auth_providers=("okta",),
            okta_org_domain=issuer.domain,
            okta_audience=AUDIENCE,
            okta_auth_server_id="default",
            auth_ca_file=certificates.ca_cert,
            allow_anonymous=False,
            tls_cert_path=certificates.server_cert,
            tls_key_path=certificates.server_key,
            flight_host=host,
            **({} if base.authorization_active else GROUPS),
        )

        def announce(app: App) -> None:
            session = DevSession(
                python=Path(sys.executable),
                data_dir=settings.data_dir.absolute(),
                flight_location=f"grpc+tls://localhost:{app.port}",
                issuer=issuer.issuer,
                page=issuer.page,
                token_endpoint=issuer.token_endpoint,
                ca_cert=certificates.ca_cert,
                client_id=issuer.client_id,
                client_secret=issuer.client_secret,
                token=mint(folder, groups=("DataEngineers",), scopes=("read:data", "write:data")),
            )
            click.echo(render(session))
            sys.stdout.flush()

        run(settings, on_start=announce)
    finally:
        issuer.stop()
