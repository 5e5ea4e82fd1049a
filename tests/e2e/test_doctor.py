"""`boilstream doctor` as a process, with a real issuer, a real S3 server, and beside a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boilstream.dev.tokens import IssuerState, TokenSigner, load_or_create_key
from tests.support.issuer import AUDIENCE, IssuerProcess
from tests.support.seaweed import SeaweedS3
from tests.support.server import ServerProcess
from tests.support.tokens import rsa_key

pytestmark = pytest.mark.slow


def doctor(
    environment: dict[str, str], *arguments: str, folder: Path, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "boilstream", "doctor", *arguments],
        env={"PATH": os.environ["PATH"], "FLIGHT_HOST": "127.0.0.1"} | environment,
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def explained(
    environment: dict[str, str], token: str, folder: Path, *arguments: str
) -> tuple[int, list[str]]:
    result = doctor(environment, "--token", "-", *arguments, folder=folder, stdin=f"Bearer {token}\n")
    assert result.stderr == ""
    assert not any(part in result.stdout for part in token.split("."))
    return result.returncode, result.stdout.splitlines()


def levels(output: str) -> dict[str, str]:
    """What was checked -> level."""
    found = {}
    for line in output.splitlines():
        match = re.fullmatch(r"(ok|warn|FAIL) ([^:]+): .+|  fix: .+", line)
        assert match, line
        if match[1]:
            found[match[2]] = match[1]
    return found


@pytest.fixture
def environment(issuer: IssuerProcess, data_dir: dict[str, str]) -> dict[str, str]:
    return issuer.environment() | data_dir


@pytest.fixture
def server(environment: dict[str, str], s3_env: dict[str, str]) -> Iterator[ServerProcess]:
    with ServerProcess(environment | s3_env) as process:
        yield process


def test_beside_a_server_on_s3(
    server: ServerProcess,
    environment: dict[str, str],
    s3_env: dict[str, str],
    seaweed: SeaweedS3,
    tmp_path: Path,
) -> None:
    bucket = s3_env["S3_BUCKET"]

    def objects() -> list[str]:
        return [item["Key"] for item in seaweed.client().list_objects_v2(Bucket=bucket).get("Contents", [])]

    before = objects()
    result = doctor(environment | s3_env, folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    found = levels(result.stdout)
    assert found.pop("certificate validity") == "warn"  # those for development last 30 days
    assert set(found.values()) == {"ok"}
    assert found.keys() >= {"okta keys", "okta clock", "store conditional create", "certificate names"}
    assert "1 key (RSA RS256), 1 for RS256, ES256" in result.stdout
    assert objects() == before
    assert server.stop() == 0


def test_what_fails_is_found_all_at_once(
    issuer: IssuerProcess, environment: dict[str, str], s3_env: dict[str, str], tmp_path: Path
) -> None:
    broken = (
        environment | s3_env | {"S3_BUCKET": "no-such-bucket", "AUDIT_LOG": str(tmp_path / "no" / "file")}
    )
    del broken["AUTH_CA_FILE"]
    result = doctor(broken, folder=tmp_path)
    assert (result.returncode, result.stderr) == (1, "")
    failed = {what for what, level in levels(result.stdout).items() if level == "FAIL"}
    assert failed == {"okta keys", "store write", "audit log"}
    for advice in ("AUTH_CA_FILE", "S3_BUCKET", "name a file"):
        assert re.search(rf"^  fix: .*{advice}", result.stdout, re.MULTILINE)


def test_wrong_settings_exit_with_2(environment: dict[str, str], tmp_path: Path) -> None:
    result = doctor(environment | {"FLIGHT_PORT": "many"}, folder=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "FLIGHT_PORT" in result.stderr


def test_a_token_that_is_accepted(issuer: IssuerProcess, environment: dict[str, str], tmp_path: Path) -> None:
    token = issuer.token(groups="Writers", scopes="read:data")
    code, lines = explained(environment, token, tmp_path, "--topic", "s3.events")
    assert code == 0
    assert "ok write on s3.events: allowed (group Writers)" in lines
    assert any(line.startswith("warn admin on s3.events: denied") for line in lines)
    assert lines[-1] == "ok token: the server accepts this token"
    (tmp_path / "token").write_text(token)
    result = doctor(environment, "--token", "token", folder=tmp_path)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, lines[-1])


def test_the_five_cases_end_in_what_to_change(
    issuer: IssuerProcess, environment: dict[str, str], tmp_path: Path
) -> None:
    state = IssuerState(f"https://{issuer.domain}/oauth2/default", AUDIENCE)
    unknown = TokenSigner(rsa_key("unknown"), state).sign(
        groups=["Writers"], scopes=[], subject="00u1", lifetime_seconds=60
    )
    other_issuer = TokenSigner(
        load_or_create_key(issuer.folder), IssuerState("https://other.okta.com/oauth2/default", AUDIENCE)
    ).sign(groups=["Writers"], scopes=[], subject="00u1", lifetime_seconds=60)
    good = issuer.token(groups="Writers")
    cases = [
        ("Invalid audience", good, {"OKTA_AUDIENCE": "api://other"}, 1, "set OKTA_AUDIENCE"),
        ("Invalid issuer", other_issuer, {}, 1, "check OKTA_ORG_DOMAIN"),
        ("Key not found", unknown, {}, 1, "get a new token"),
        ("Groups not extracted", issuer.token(scopes="read:data"), {}, 0, "add a claim groups"),
        ("Expired", issuer.token(groups="Writers", age=7200), {}, 1, "get a new one"),
    ]
    for case, token, settings, expected, advice in cases:
        code, lines = explained(environment | settings, token, tmp_path)
        assert code == expected, case
        assert any(f": {case}: " in line for line in lines), case
        assert lines[-1].startswith(f"  fix: {advice}"), case


def test_a_key_server_that_is_not_trusted(
    issuer: IssuerProcess, environment: dict[str, str], tmp_path: Path
) -> None:
    del environment["AUTH_CA_FILE"]
    code, lines = explained(environment, issuer.token(groups="Writers"), tmp_path)
    assert code == 1
    assert "the server cannot check this token now" in lines[-2]
    assert "set AUTH_CA_FILE" in lines[-1]


def test_a_token_on_the_command_line_is_not_repeated(
    issuer: IssuerProcess, environment: dict[str, str], tmp_path: Path
) -> None:
    token = issuer.token(groups="Writers")
    for arguments in (["--token", token], [f"--token={token}"], ["--token", f"Bearer {token}"]):
        result = doctor(environment, *arguments, folder=tmp_path)
        assert (result.returncode, result.stdout) == (2, "")
        assert not any(part in result.stderr for part in token.split("."))
        assert "must not be an argument" in result.stderr


def test_without_providers_no_token_is_read(data_dir: dict[str, str], tmp_path: Path) -> None:
    result = doctor(data_dir, "--token", "-", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "need no token" in result.stdout
