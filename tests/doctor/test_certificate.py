from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from boilstream.dev.certificates import DevCertificates, make_certificates
from boilstream.doctor.certificate import check_certificate, inspect_pair
from boilstream.doctor.findings import Finding, Level
from boilstream.settings import Settings
from tests.support.tokens import NOW

DAY = 86_400


def made(folder: Path, days: int = 60) -> DevCertificates:
    return make_certificates(folder, days=days, clock=lambda: NOW)


def settings(cert: Path, key: Path, **others: object) -> Settings:
    return Settings(tls_cert_path=cert, tls_key_path=key, **others)  # type: ignore[arg-type]


def by_what(findings: list[Finding]) -> dict[str, Finding]:
    assert len({finding.what for finding in findings}) == len(findings)
    return {finding.what.removeprefix("certificate").strip(): finding for finding in findings}


def inspected(cert: Path, key: Path, now: float = NOW) -> dict[str, Finding]:
    return by_what(inspect_pair(cert.read_bytes(), key.read_bytes(), now))


def test_a_sound_certificate(tmp_path: Path) -> None:
    files = made(tmp_path)
    findings = list(check_certificate(settings(files.server_cert, files.server_key), NOW))
    assert {finding.level for finding in findings} == {Level.OK}
    found = by_what(findings)
    assert found["names"].detail == "localhost, 127.0.0.1, ::1"
    assert found["validity"].detail.startswith("ends in 60 days, at ")
    assert found["chain"].detail == "2 certificates, up to the root CN=BoilStream development CA"


@pytest.mark.parametrize(
    ("days_on", "level", "says"),
    [
        (29, Level.OK, "ends in 31 days"),
        (31, Level.WARN, "ends in 29 days"),
        (63, Level.FAIL, "3 days ago"),
        (-1, Level.FAIL, "begins only at"),
    ],
)
def test_the_time_is_told(tmp_path: Path, days_on: int, level: Level, says: str) -> None:
    files = made(tmp_path)
    finding = inspected(files.server_cert, files.server_key, NOW + days_on * DAY)["validity"]
    assert finding.level is level
    assert says in finding.detail
    assert (finding.fix is None) == (level is Level.OK)


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "other")
    findings = list(check_certificate(settings(one.server_cert, other.server_key), NOW))
    failed = [finding for finding in findings if finding.level is Level.FAIL]
    assert [finding.what for finding in failed] == ["certificate key"]
    assert "TLS_KEY_PATH" in str(failed[0].fix)


def test_an_encrypted_key(tmp_path: Path) -> None:
    files = made(tmp_path)
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    files.server_key.write_bytes(key)
    assert "unencrypted" in inspected(files.server_cert, files.server_key)["key"].detail


def test_a_chain_in_the_wrong_order(tmp_path: Path) -> None:
    files = made(tmp_path)
    leaf, root = x509.load_pem_x509_certificates(files.server_cert.read_bytes())
    pem = serialization.Encoding.PEM
    unrelated = trustme.CA().cert_pem.bytes()
    files.server_cert.write_bytes(leaf.public_bytes(pem) + unrelated + root.public_bytes(pem))
    finding = inspected(files.server_cert, files.server_key)["chain"]
    assert finding.level is Level.FAIL
    assert finding.detail.startswith("certificate 1 of 3 is not signed by")
    assert "TLS_CERT_PATH" in str(finding.fix)


def self_signed(*names: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    start = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=90))
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
    pem = serialization.Encoding.PEM
    return builder.sign(key, hashes.SHA256()).public_bytes(pem), key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_a_self_signed_certificate_is_told() -> None:
    finding = by_what(inspect_pair(*self_signed("db.example"), NOW))["chain"]
    assert finding.level is Level.WARN
    assert "self-signed" in finding.detail


def test_a_certificate_without_names() -> None:
    finding = by_what(inspect_pair(*self_signed(), NOW))["names"]
    assert finding.level is Level.FAIL
    assert "subject alternative name" in str(finding.fix)


def test_many_names_are_cut() -> None:
    detail = by_what(inspect_pair(*self_signed(*(f"h{n}.example" for n in range(30))), NOW))["names"].detail
    assert detail.endswith("h19.example and 10 more")


def test_a_single_certificate_of_a_ca(tmp_path: Path) -> None:
    files = made(tmp_path)
    leaf, _ = x509.load_pem_x509_certificates(files.server_cert.read_bytes())
    files.server_cert.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    finding = inspected(files.server_cert, files.server_key)["chain"]
    assert finding.level is Level.OK
    assert "the last is signed by CN=BoilStream development CA" in finding.detail


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    files = made(tmp_path)
    files.server_cert.write_text("garbage")
    (finding,) = check_certificate(settings(files.server_cert, files.server_key), NOW)
    assert (finding.level, finding.what) == (Level.FAIL, "certificate")
    assert "TLS_CERT_PATH" in finding.detail


def test_client_certificates(tmp_path: Path) -> None:
    files = made(tmp_path)
    good = settings(files.server_cert, files.server_key, tls_client_ca_path=files.ca_cert)
    assert list(check_certificate(good, NOW))[-1].what == "client certificates"
    (tmp_path / "bad.crt").write_text("garbage")
    bad = settings(files.server_cert, files.server_key, tls_client_ca_path=tmp_path / "bad.crt")
    finding = list(check_certificate(bad, NOW))[-1]
    assert finding.level is Level.FAIL
    assert "TLS_CLIENT_CA_PATH" in finding.detail


@pytest.mark.parametrize(
    ("chosen", "level"),
    [
        ({"flight_host": "127.0.0.1"}, Level.OK),
        ({}, Level.OK),
        ({"allow_anonymous": True}, Level.WARN),
        ({"flight_host": "192.0.2.1"}, Level.WARN),
    ],
)
def test_no_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, object], level: Level
) -> None:
    monkeypatch.chdir(tmp_path)
    (finding,) = check_certificate(Settings(**chosen), NOW)  # type: ignore[arg-type]
    assert finding.level is level
    assert level is Level.OK or "TLS_CERT_PATH" in str(finding.fix)
