"""The `boilstream` command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click

from boilstream import __version__
from boilstream.app import check as check_settings
from boilstream.app import run
from boilstream.catalog.names import from_path
from boilstream.dev.certificates import make_certificates
from boilstream.dev.session import dev_folder, serve_dev
from boilstream.dev.tokens import DEFAULT_SUBJECT, mint
from boilstream.doctor.findings import Finding, Level, render
from boilstream.doctor.server import examine
from boilstream.doctor.token import explain_token
from boilstream.doctor.token_input import read_token
from boilstream.errors import BoilStreamError
from boilstream.observe import logging as observe
from boilstream.settings import load

Arguments = ParamSpec("Arguments")

EXIT_FINDINGS = 1
"""Exit code when the doctor finds something that does not work."""

EXIT_CONFIGURATION = 2
"""Exit code when settings, command line or surroundings are wrong."""


def _explained(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Print an error of ours as one message instead of a traceback."""

    @wraps(command)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BoilStreamError as error:
            click.echo(f"boilstream: {error.message}", err=True)
            sys.exit(EXIT_CONFIGURATION)

    return wrapper


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="boilstream")
def main() -> None:
    """Arrow Flight ingestion: a bearer token in, durable Parquet out.

    Settings are environment variables; `boilstream serve --check` shows them all. On a laptop,
    start with `boilstream dev`.
    """


@main.command()
@click.option("--check", is_flag=True, help="Check the settings, print them with secrets masked, and exit.")
@_explained
def serve(*, check: bool) -> None:
    """Serve until SIGTERM or SIGINT.

    \b
    The least that a deployment sets:
      AUTH_PROVIDERS=okta OKTA_ORG_DOMAIN=company.okta.com
      OKTA_AUDIENCE=api://boilstream
      S3_BUCKET=my-data-bucket     (unset: the local folder DATA_DIR)

    TLS is on when certs/server.crt and certs/server.key are there, or TLS_CERT_PATH and
    TLS_KEY_PATH are set. Without AUTH_PROVIDERS only loopback is served.

    Exit codes: 0 after an orderly stop, 2 when the settings or their surroundings are wrong.
    """
    settings = load()
    if check:
        check_settings(settings)
        for name, value in settings.describe():
            click.echo(f"{name}={value}")
        return
    observe.configure(settings.log_level, settings.log_format)
    run(settings)


@main.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Whoever reaches it can get a token from the development issuer.",
)
@_explained
def dev(host: str) -> None:
    """Serve on this computer with an identity provider of its own.

    Starts a local issuer that behaves like an Okta custom authorization server, makes
    certificates, serves on the local folder DATA_DIR (./data), and prints a token and snippets
    to paste. Ports: FLIGHT_PORT (50051) and DEV_ISSUER_PORT (50052).
    """
    settings = load()
    observe.configure(settings.log_level, settings.log_format)
    serve_dev(host)


@main.command()
@click.option("--groups", default="", help="Groups of the user, a comma list, such as DataEngineers,Viewers.")
@click.option(
    "--scope",
    default="read:data write:data",
    show_default=True,
    help="Scopes of the token, separated by blanks.",
)
@click.option("--subject", default=DEFAULT_SUBJECT, show_default=True, help="The user that the token is for.")
@click.option("--lifetime", default=3600, show_default=True, type=click.IntRange(1, 86_400), help="Seconds.")
@_explained
def token(groups: str, scope: str, subject: str, lifetime: int) -> None:
    """Print a token of the development issuer.

    `boilstream dev` must have run with the same DATA_DIR. Servers that trust another issuer refuse
    such tokens.

    \b
    boilstream token --groups DataEngineers --scope "read:data write:data"
    """
    click.echo(
        mint(
            dev_folder(load()),
            groups=[group for group in (part.strip() for part in groups.split(",")) if group],
            scopes=scope.split(),
            subject=subject,
            lifetime_seconds=lifetime,
        )
    )


@main.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="certs",
    show_default=True,
    help="Folder for ca.crt, server.crt and server.key.",
)
@click.option("--host", "hosts", multiple=True, help="Name or address of the server; may be repeated.")
@_explained
def certs(out: Path, hosts: tuple[str, ...]) -> None:
    """Make certificates for development: a private CA and a server certificate that it signed.

    They are for localhost unless --host says otherwise, and last 30 days. Production wants
    certificates of your own CA.
    """
    made = make_certificates(out, hosts=hosts) if hosts else make_certificates(out)
    click.echo(f"{made.ca_cert}  give it to clients\n{made.server_cert}\n{made.server_key}  keep it secret")


@main.command()
@click.option(
    "--token",
    "source",
    metavar="FILE",
    help="Explain the token in this file; - reads standard input. Never the token itself.",
)
@click.option("--topic", help="With --token: what it may do with this topic, such as s3.events.")
@_explained
def doctor(source: str | None, topic: str | None) -> None:
    """Check the settings against the world, or explain a token.

    Asks identity providers for their keys, the store for a probe object, and looks at the
    certificate, the clock and the files that the settings name. It runs with the environment of
    the server, also beside it, and changes nothing. Each line begins with ok, warn or FAIL; what
    to change follows in a line of its own.

    \b
    boilstream doctor
    boilstream doctor --token - < token.txt
    boilstream doctor --token token.txt --topic s3.events

    Exit codes: 0 when nothing fails (or the token is accepted), 1 when something does, 2 when
    the settings or the command line are wrong.
    """
    if topic is not None and source is None:
        raise click.UsageError("--topic needs --token")
    settings = load()
    if source is None:
        sys.exit(_print(examine(settings)))
    name = from_path([topic]) if topic is not None else None
    token = read_token(source) if settings.auth_providers else ""
    sys.exit(_print(explain_token(settings, token, name)))


def _print(findings: Iterable[Finding]) -> int:
    """Print each finding as soon as it is there; the exit code."""
    encoding = sys.stdout.encoding or "ascii"
    code = 0
    for finding in findings:
        text = render(finding)
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding))
        if finding.level is Level.FAIL:
            code = EXIT_FINDINGS
    return code
