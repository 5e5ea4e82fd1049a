"""A private certificate authority and a server certificate for development.

Standard tools with full verification accept them: gRPC, OpenSSL and curl. The authority's key is
thrown away after its one signature, so a leaked folder lets nobody make more certificates.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from boilstream.dev.files import PRIVATE, PUBLIC, write_atomically
from boilstream.errors import ConfigurationError

_log = logging.getLogger("boilstream.dev.certificates")

_BACKDATED = timedelta(hours=1)
"""Certificates start in the past, for readers whose clock is behind."""

_LEAST_REMAINING = timedelta(days=1)
"""Existing certificates that end sooner are replaced."""

_HOST_NAME = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)

_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class DevCertificates:
    """Where the PEM files of a development server are."""

    ca_cert: Path
    """Certificate of the authority: what clients must trust."""
    server_cert: Path
    """Certificate of the server, followed by the authority's."""
    server_key: Path
    """Private key of the server; readable by its owner only."""


def make_certificates(
    folder: Path,
    *,
    hosts: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
    days: int = 30,
    clock: Callable[[], float] = time.time,
) -> DevCertificates:
    """Return certificates for `hosts` (DNS names and IP addresses) in `folder`, made if need be.

    Existing files are reused when they belong together, cover all hosts and are valid for at
    least one more day; otherwise a new authority and a new server certificate, valid for `days`,
    replace them. `clock` gives seconds since the epoch. The extensions are those that RFC 5280
    asks of conforming authorities, which strict verifiers check. Raises ConfigurationError when a
    host is not usable in a certificate or the folder cannot be written.
    """
    files = DevCertificates(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    names = _general_names(hosts)
    now = datetime.fromtimestamp(clock(), UTC)
    if _reusable(files, names, now):
        return files

    start, end = now - _BACKDATED, now + timedelta(days=days)
    ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_cert = _sign_authority(ca_key, start, end)
    server_cert = _sign_server(server_key.public_key(), names, ca_cert, ca_key, start, end)
    key_pem = server_key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    # Three files cannot change in one step: a set that a crash has mixed is found by _reusable.
    write_atomically(files.server_key, key_pem, mode=PRIVATE)
    write_atomically(
        files.server_cert, server_cert.public_bytes(_PEM) + ca_cert.public_bytes(_PEM), mode=PUBLIC
    )
    write_atomically(files.ca_cert, ca_cert.public_bytes(_PEM), mode=PUBLIC)
    _log.info("Made development certificates for %s in %s", ", ".join(hosts), folder)
    return files


def _general_names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(_dns_name(host))
    if not names:
        raise ConfigurationError("a server certificate needs at least one host name; for example localhost")
    return names


def _dns_name(host: str) -> x509.DNSName:
    if not _HOST_NAME.fullmatch(host):
        raise ConfigurationError(
            f"{host!r} is neither a DNS name nor an IP address, so no certificate can name it; "
            "for example localhost"
        )
    return x509.DNSName(host.lower())


def _reusable(files: DevCertificates, names: list[x509.GeneralName], now: datetime) -> bool:
    try:
        ca_cert = x509.load_pem_x509_certificate(files.ca_cert.read_bytes())
        server_cert, *_ = x509.load_pem_x509_certificates(files.server_cert.read_bytes())
        key = serialization.load_pem_private_key(files.server_key.read_bytes(), password=None)
        covered = list(server_cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        server_cert.verify_directly_issued_by(ca_cert)
    except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        all(name in covered for name in names)
        and key.public_key() == server_cert.public_key()
        and all(
            cert.not_valid_before_utc <= now and cert.not_valid_after_utc - now >= _LEAST_REMAINING
            for cert in (ca_cert, server_cert)
        )
    )


def _sign_authority(key: ec.EllipticCurvePrivateKey, start: datetime, end: datetime) -> x509.Certificate:
    name = _name("BoilStream development CA")
    return (
        _builder(name, name, key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _sign_server(
    key: ec.EllipticCurvePublicKey,
    names: list[x509.GeneralName],
    ca_cert: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    start: datetime,
    end: datetime,
) -> x509.Certificate:
    return (
        _builder(_name("BoilStream development server"), ca_cert.subject, key, start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
