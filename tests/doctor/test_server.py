from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from boilstream.auth.fetch import Answer
from boilstream.doctor.findings import Finding, Level, render
from boilstream.doctor.server import (
    check_audit_log,
    check_rules,
    check_session_key,
    check_settings,
    examine,
)
from boilstream.settings import Settings, load
from tests.support.stores import MemoryStore
from tests.support.tokens import AUDIENCE, NOW, ORG_DOMAIN, FakeClock, jwks


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def okta(**others: object) -> Settings:
    return load(auth_providers=("okta",), okta_org_domain=ORG_DOMAIN, okta_audience=AUDIENCE, **others)


def get(_: str) -> Answer:
    return Answer(json.dumps(jwks()).encode(), NOW, 0.05)


def examined(settings: Settings, **others: Any) -> list[Finding]:
    return list(examine(settings, get=get, clock=FakeClock(), ticks=lambda: 0.0, **others))


def test_a_server_that_is_ready(tmp_path: Path) -> None:
    settings = okta(write_groups=("Writers",), flight_host="127.0.0.1", s3_bucket="my-data-bucket")
    findings = examined(settings, open_store=lambda _: MemoryStore())
    assert {finding.level for finding in findings} == {Level.OK}
    assert [finding.what for finding in findings] == [
        "settings", "rules", "okta keys", "okta clock", "session key", "certificate", "data folder", "store write",
        "store read", "store list", "store conditional create", "store delete", "audit log",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_beside_a_running_server_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "data" / "store" / "~tmp").mkdir(parents=True)
    (tmp_path / "data" / "lock").touch()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    findings = examined(load(audit_log="audit.jsonl"))
    assert Level.FAIL not in {finding.level for finding in findings}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_settings_that_do_not_start(tmp_path: Path) -> None:
    (finding,) = check_settings(load(flight_host="192.0.2.1"))
    assert finding.level is Level.FAIL
    assert "FLIGHT_HOST" in finding.detail
    assert "set AUTH_PROVIDERS" in str(finding.fix)
    (tmp_path / "ca.crt").write_text("garbage")
    findings = examined(okta(auth_ca_file=tmp_path / "ca.crt"))
    assert findings[0].level is Level.FAIL
    assert "AUTH_CA_FILE" in findings[0].detail


def test_a_wrong_ca_file_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("garbage")
    settings = okta(auth_ca_file=tmp_path / "ca.crt")
    failed = [finding for finding in examine(settings, clock=FakeClock()) if finding.level is Level.FAIL]
    assert len(failed) == 1
    assert "AUTH_CA_FILE" in render(failed[0])


def test_no_provider_is_worth_a_warning() -> None:
    _, warned = check_settings(load())
    assert warned.level is Level.WARN
    assert "AUTH_PROVIDERS" in str(warned.fix)


RULE = '[[rules]]\nname = "etl"\ngroups = ["Jobs"]\ntopics = ["*"]\nallow = ["write"]\n'


def test_rules_are_counted(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(RULE + RULE)
    (finding,) = check_rules(okta(authorization_rules_file=tmp_path / "rules.toml", admin_groups=("Admins",)))
    assert finding.level is Level.OK
    assert f"2 rules in {tmp_path / 'rules.toml'}" in finding.detail
    assert finding.detail.startswith("2 groups and 3 scopes")


def test_a_rules_file_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(RULE + "topic = 1")
    (finding,) = check_rules(okta(authorization_rules_file=tmp_path / "rules.toml"))
    assert finding.level is Level.FAIL
    assert "rule 1 (etl)" in finding.detail
    assert "docs/authorization.md" in str(finding.fix)


def test_a_rule_that_is_never_reached(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(RULE)
    _, warned = check_rules(okta(authorization_rules_file=tmp_path / "rules.toml", write_groups=("Jobs",)))
    assert warned.level is Level.WARN
    assert "never reached" in warned.detail


def test_no_rules_at_all() -> None:
    (finding,) = check_rules(okta())
    assert finding.level is Level.WARN
    assert "ADMIN_GROUPS" in str(finding.fix)


def key_file(folder: Path, key: Any, mode: int = 0o600) -> Path:
    path = folder / "session.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(mode)
    return path


def test_the_session_key(tmp_path: Path) -> None:
    (finding,) = check_session_key(key_file(tmp_path, ed25519.Ed25519PrivateKey.generate()))
    assert finding.level is Level.OK
    assert "Ed25519" in finding.detail
    (unset,) = check_session_key(None)
    assert unset.level is Level.OK


def test_a_session_key_that_others_can_read(tmp_path: Path) -> None:
    _, warned = check_session_key(key_file(tmp_path, ed25519.Ed25519PrivateKey.generate(), 0o644))
    assert warned.level is Level.WARN
    assert "chmod 600" in render(warned)


def test_a_session_key_of_another_type(tmp_path: Path) -> None:
    (finding,) = check_session_key(key_file(tmp_path, ec.generate_private_key(ec.SECP256R1())))
    assert finding.level is Level.FAIL
    assert "openssl genpkey" in str(finding.fix)


def test_the_audit_log(tmp_path: Path) -> None:
    assert check_audit_log(None).level is Level.OK
    assert check_audit_log("-").level is Level.OK
    target = tmp_path / "audit.jsonl"
    assert check_audit_log(str(target)).level is Level.OK
    assert not target.exists()
    target.write_text("{}\n")
    assert check_audit_log(str(target)).detail == f"{target} is writable"
    assert target.read_text() == "{}\n"


def test_an_audit_log_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for target in (tmp_path / "no" / "audit.jsonl", tmp_path):
        finding = check_audit_log(str(target))
        assert finding.level is Level.FAIL
        assert "name a file" in str(finding.fix)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert check_audit_log("audit.jsonl").level is Level.FAIL
    assert stat.S_ISDIR(tmp_path.stat().st_mode)
