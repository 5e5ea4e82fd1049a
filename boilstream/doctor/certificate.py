"""The server's certificate, as clients will see it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from boilstream.addresses import is_loopback, listen_host
from boilstream.certificates import read_certificates
from boilstream.doctor.findings import Finding, Level, fail, noted_warnings, ok, split_advice, warn
from boilstream.errors import ConfigurationError
from boilstream.settings import Settings

WARN_DAYS: Final = 30
"""A certificate that ends sooner wants to be renewed."""

_SHOWN_NAMES: Final = 20
_FIX_PAIR: Final = (
    "set TLS_CERT_PATH and TLS_KEY_PATH to a certificate chain and its own unencrypted key, in PEM"
)
_FIX_RENEW: Final = (
    "get a new certificate, write it to TLS_CERT_PATH and TLS_KEY_PATH, and start the server again"
)


def check_certificate(settings: Settings, now: float) -> Iterator[Finding]:
    """The certificate that the settings name, or whether it is fine to have none.

    `now` is seconds since the epoch.
    """
    cert, key = settings.tls_files
    if cert is None or key is None:
        yield _without_tls(settings)
        return
    found: list[Finding] = []
    with suppress(OSError, ValueError):  # the server's own check below says what is wrong
        found += inspect_pair(cert.read_bytes(), key.read_bytes(), now)
    yield from found
    if any(finding.level is Level.FAIL for finding in found):
        return
    try:
        read_certificates(settings)
    except ConfigurationError as error:
        yield fail("certificate", *split_advice(error.message, _FIX_PAIR))
        return
    if settings.tls_client_ca_path is not None:
        yield ok("client certificates", f"required, signed by a CA in {settings.tls_client_ca_path}")


def inspect_pair(chain_pem: bytes, key_pem: bytes, now: float) -> list[Finding]:
    """What there is to say of a certificate chain and its key.

    Raises ValueError when `chain_pem` holds no certificate in PEM.
    """
    chain = x509.load_pem_x509_certificates(chain_pem)
    return [_names(chain[0]), _validity(chain, now), _key(chain[0], key_pem), _chain(chain)]


def _without_tls(settings: Settings) -> Finding:
    try:
        with noted_warnings():  # findings of the settings, as the error is
            host = listen_host(settings)
    except ConfigurationError:
        host = settings.flight_host
    if is_loopback(host):
        return ok("certificate", f"none; {host} is reached from this machine only")
    return warn(
        "certificate",
        f"none: tokens and rows travel in clear text to {host}",
        "set TLS_CERT_PATH and TLS_KEY_PATH, unless a proxy in front of the server ends TLS",
    )


def _names(leaf: x509.Certificate) -> Finding:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        names = None
    texts = [str(name.value) for name in names or () if isinstance(name, (x509.DNSName, x509.IPAddress))]
    if not texts:
        return fail(
            "certificate names",
            "it has no subject alternative name, so clients refuse it whatever its common name is",
            "get a certificate with the server's DNS name as subject alternative name",
        )
    more = f" and {len(texts) - _SHOWN_NAMES} more" if len(texts) > _SHOWN_NAMES else ""
    return ok("certificate names", ", ".join(texts[:_SHOWN_NAMES]) + more)


def _validity(chain: Sequence[x509.Certificate], now: float) -> Finding:
    """Of the whole chain: one certificate in it that has ended makes clients refuse the server."""
    what, today = "certificate validity", datetime.fromtimestamp(now, UTC)
    start = max(certificate.not_valid_before_utc for certificate in chain)
    end = min(certificate.not_valid_after_utc for certificate in chain)
    if today < start:
        return fail(
            what, f"begins only at {_time(start)}", "check the clock of this machine, or " + _FIX_RENEW
        )
    if today > end:
        return fail(what, f"ended at {_time(end)}, {(today - end).days} days ago", _FIX_RENEW)
    detail = f"ends in {(end - today).days} days, at {_time(end)}"
    if end - today < timedelta(days=WARN_DAYS):
        return warn(what, detail, _FIX_RENEW)
    return ok(what, detail)


def _key(leaf: x509.Certificate, key_pem: bytes) -> Finding:
    try:
        public = load_pem_private_key(key_pem, password=None).public_key()
        is_own = _spki(public) == _spki(leaf.public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        return fail("certificate key", "the key file holds no unencrypted private key in PEM", _FIX_PAIR)
    if not is_own:
        return fail("certificate key", "the key is not the one of the (first) certificate", _FIX_PAIR)
    return ok("certificate key", "belongs to the certificate")


def _spki(public: object) -> bytes:
    encoded: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def _chain(chain: Sequence[x509.Certificate]) -> Finding:
    what = "certificate chain"
    for number, (certificate, issuer) in enumerate(pairwise(chain), 1):
        if not _is_issued_by(certificate, issuer):
            return fail(
                what,
                f"certificate {number} of {len(chain)} is not signed by the one that follows it",
                "order the file of TLS_CERT_PATH: the server's certificate first, then each one's issuer",
            )
    count = f"{len(chain)} certificate{'s' if len(chain) > 1 else ''}"
    if _is_issued_by(chain[0], chain[0]):
        return warn(
            what,
            f"{count}, self-signed: only clients that were given this very certificate accept it",
            "give the certificate to every client, or get one that a CA signed (`boilstream certs` makes a CA)",
        )
    if _is_issued_by(chain[-1], chain[-1]):
        return ok(what, f"{count}, up to the root {chain[-1].subject.rfc4514_string()}")
    return ok(
        what, f"{count}, the last is signed by {chain[-1].issuer.rfc4514_string()}, which clients must know"
    )


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _time(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S} UTC"
