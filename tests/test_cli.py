"""The `boilstream` command without a server."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from click.testing import CliRunner, Result

from boilstream import __version__
from boilstream.cli import main
from boilstream.dev.tokens import IssuerState, load_or_create_key, save_state


@pytest.fixture(autouse=True)
def _clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to work in, and no settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name not in {"PATH", "HOME", "LANG", "TMPDIR"} and not name.startswith(("PYTEST", "COV")):
            monkeypatch.delenv(name)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment, prog_name="boilstream")


def refused(result: Result) -> str:
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)
    return result.stderr


@pytest.fixture
def development(tmp_path: Path) -> Path:
    """The folder DATA_DIR of a `boilstream dev` that ran once."""
    folder = tmp_path / "data" / "dev"
    folder.mkdir(parents=True)
    load_or_create_key(folder)
    save_state(folder, IssuerState("https://localhost:50052/oauth2/default", "api://boilstream"))
    return tmp_path / "data"


def claims(token: str) -> dict[str, object]:
    decoded: dict[str, object] = jwt.decode(token, options={"verify_signature": False})
    return decoded


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"boilstream, version {__version__}\n")


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([], ["serve", "dev", "token", "certs", "doctor", "environment variables", "serve --check", "--version"]),
        (
            ["serve"],
            ["--check", "AUTH_PROVIDERS=okta", "OKTA_ORG_DOMAIN=", "OKTA_AUDIENCE=", "S3_BUCKET", "DATA_DIR",
             "TLS_CERT_PATH", "TLS_KEY_PATH", "loopback", "SIGTERM", "Exit codes", "secrets masked"],
        ),
        (["dev"], ["--host", "127.0.0.1", "DATA_DIR", "FLIGHT_PORT", "DEV_ISSUER_PORT", "50051", "token"]),
        (
            ["token"],
            ["--groups", "--scope", "--subject", "--lifetime", "3600", "read:data write:data", "boilstream dev",
             "DATA_DIR", 'boilstream token --groups DataEngineers --scope "read:data write:data"'],
        ),
        (
            ["doctor"],
            ["--token", "standard input", "Never the token itself", "--topic", "s3.events", "changes nothing",
             "ok, warn or FAIL", "boilstream doctor --token - < token.txt", "Exit codes: 0", "1 when", "2 when"],
        ),
        (["certs"], ["--out", "--host", "ca.crt", "server.crt", "server.key", "localhost", "30 days"]),
    ],
)  # fmt: skip
def test_help_has_what_a_user_needs(command: list[str], says: list[str], option: str) -> None:
    result = run(*command, option)
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for part in says:
        assert part in text
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_help_needs_no_settings() -> None:
    assert run("serve", "--help", FLIGHT_PORT="x").exit_code == 0


def test_every_command_has_help_and_every_option_too() -> None:
    assert set(main.commands) == {"serve", "dev", "token", "certs", "doctor"}
    for command in main.commands.values():
        assert command.help
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{command.name} {parameter.name}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["serve", "--nonsense"],
        ["serve", "extra"],
        ["token", "--lifetime", "0"],
        ["doctor", "--topic", "a.b"],
    ],
)
def test_a_wrong_command_line_exits_with_2_and_names_what_is_wrong(arguments: list[str]) -> None:
    message = refused(run(*arguments))
    assert "Usage: boilstream" in message
    assert any(part in message for part in (arguments[-1], "--lifetime", "--topic"))


def test_check_prints_every_setting_and_masks_secrets(tmp_path: Path) -> None:
    result = run(
        "serve",
        "--check",
        ICEBERG_CATALOG_URI="postgresql+psycopg2://boilstream:s3cr3t-word@db/catalog",
        WRITE_GROUPS="a, b",
        AWS_SECRET_ACCESS_KEY="s3cr3t-key",
    )
    assert result.exit_code == 0
    assert "FLIGHT_PORT=50051\n" in result.output
    assert "WRITE_GROUPS=a,b\n" in result.output
    assert "boilstream:***@db/catalog" in result.output
    assert "s3cr3t" not in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", [["serve", "--check"], ["serve"], ["dev"], ["token"], ["doctor"], ["doctor", "--token", "-"]]
)
def test_wrong_settings_are_told_in_one_message(command: list[str], tmp_path: Path) -> None:
    message = refused(run(*command, FLIGHT_PORT="many", LOG_LEVEL="loud"))
    assert message.startswith("boilstream: wrong settings:\n")
    assert message.count("boilstream:") == 1
    assert "FLIGHT_PORT" in message
    assert "FLIGHT_PORT=50051" in message
    assert "LOG_LEVEL" in message
    assert list(tmp_path.iterdir()) == []


def test_a_token_without_a_development_run_says_what_to_do(tmp_path: Path) -> None:
    message = refused(run("token"))
    assert message.startswith("boilstream: ")
    assert "start `boilstream dev`" in message
    assert "DATA_DIR" in message
    assert str(tmp_path / "data" / "dev") in message
    assert list(tmp_path.iterdir()) == []


def test_a_token_has_the_claims_that_were_asked_for(development: Path) -> None:
    result = run(
        "token", "--groups", "DataEngineers, Viewers,,", "--scope", "read:data admin:system", "--subject",
        "00u42", "--lifetime", "60", DATA_DIR=str(development),
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")
    token = result.stdout.strip()
    assert result.stdout == f"{token}\n"
    found = claims(token)
    assert found["groups"] == ["DataEngineers", "Viewers"]
    assert found["scp"] == ["read:data", "admin:system"]
    assert found["sub"] == "00u42"
    assert found["iss"] == "https://localhost:50052/oauth2/default"
    assert int(str(found["exp"])) - int(str(found["iat"])) == 60


def test_a_token_has_scopes_and_no_groups_unless_asked(development: Path) -> None:
    found = claims(run("token").stdout.strip())
    assert "groups" not in found
    assert found["scp"] == ["read:data", "write:data"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--scope", "read:nothing"], "read:data, write:data, admin:system"),
        (["--subject", " "], "subject"),
        (["--groups", "a\x07"], "groups"),
    ],
)
def test_a_token_that_cannot_be_is_refused(development: Path, arguments: list[str], says: str) -> None:
    assert says in refused(run("token", *arguments))


def test_a_damaged_development_folder_is_told(development: Path) -> None:
    (development / "dev" / "signing-key.pem").write_text("garbage")
    message = refused(run("token"))
    assert "signing-key.pem is damaged" in message
    assert "garbage" not in message


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_certs_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    result = run("certs")
    assert (result.exit_code, result.stderr) == (0, "")
    folder = tmp_path / "certs"
    assert {path.name for path in folder.iterdir()} == {"ca.crt", "server.crt", "server.key"}
    assert mode(folder / "server.key") == 0o600
    assert "PRIVATE KEY" in (folder / "server.key").read_text()
    assert "PRIVATE KEY" not in (folder / "ca.crt").read_text() + (folder / "server.crt").read_text()
    for name in ("ca.crt", "server.crt", "server.key"):
        assert f"certs/{name}" in result.stdout
    assert "PRIVATE" not in result.stdout


@pytest.mark.slow
def test_certs_of_the_default_folder_are_those_that_serve_uses() -> None:
    assert run("certs").exit_code == 0
    script = "from boilstream.settings import load; print(*load().tls_files)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={})
    assert found.stdout == "certs/server.crt certs/server.key\n"


def test_certs_cover_the_hosts_that_were_named(tmp_path: Path) -> None:
    from cryptography import x509

    assert run("certs", "--out", "other", "--host", "db.example", "--host", "10.1.2.3").exit_code == 0
    certificate = x509.load_pem_x509_certificate((tmp_path / "other" / "server.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["db.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.1.2.3"]


def test_certs_into_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    assert "taken" in refused(run("certs", "--out", "taken"))
    assert "taken" in refused(run("certs", "--out", "taken/below"))


def test_the_doctor_has_stable_lines_and_changes_nothing(tmp_path: Path) -> None:
    result = run("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    assert all(line.startswith(("ok ", "warn ", "  fix: ")) for line in result.stdout.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_exits_with_1_when_something_fails() -> None:
    result = run("doctor", AUDIT_LOG="no/such/folder/audit.jsonl")
    assert (result.exit_code, result.stderr) == (1, "")
    assert "FAIL audit log: " in result.stdout


def test_the_doctor_explains_a_token_from_standard_input_on_any_terminal() -> None:
    # No key is needed, so none is fetched: the issuer is wrong.
    token = jwt.encode({"iss": "https://größe.example/"}, "k" * 32, algorithm="HS256")
    settings = {"AUTH_PROVIDERS": "okta", "OKTA_ORG_DOMAIN": "a.example", "OKTA_AUDIENCE": "b"}
    result = CliRunner(charset="ascii").invoke(
        main, ["doctor", "--token", "-"], env=settings, input=f"Bearer {token}\n"
    )
    assert (result.exit_code, result.stderr) == (1, "")
    assert "FAIL issuer: Invalid issuer: token has 'https://gr\\xf6\\xdfe.example/'" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("  fix: check OKTA_ORG_DOMAIN")


@pytest.mark.parametrize(("given", "says"), [("", "no token"), ("a\nb", "2 lines"), ("x" * 70_000, "longer")])
def test_the_doctor_refuses_what_is_no_token(given: str, says: str) -> None:
    settings = {"AUTH_PROVIDERS": "okta", "OKTA_ORG_DOMAIN": "a.example", "OKTA_AUDIENCE": "b"}
    result = CliRunner().invoke(main, ["doctor", "--token", "-"], env=settings, input=given)
    assert says in refused(result)


@pytest.mark.slow
def test_the_module_is_the_command(tmp_path: Path) -> None:
    for command in (
        [sys.executable, "-m", "boilstream"],
        [str(Path(sys.executable).with_name("boilstream"))],
    ):
        result = subprocess.run(
            [*command, "token"], capture_output=True, text=True, check=False, cwd=tmp_path, env={}
        )
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("boilstream: `boilstream dev` has not run")
