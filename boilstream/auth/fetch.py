"""Fetching a document from an identity provider, within hard limits of time and size."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import httpx

from boilstream.errors import ConfigurationError

TIMEOUT_SECONDS: Final = 5.0
MAX_RESPONSE_BYTES: Final = 1024 * 1024

_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED, from OpenSSL's x509_vfy.h as the next two
_NOT_YET_VALID: Final = 9
_WRONG_NAME: Final = (62, 64)  # of a host, of an IP address


class FetchFailed(Exception):
    """The document could not be had; the text says why, for the log."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered with status 200."""

    body: bytes
    date: float | None
    """When it was sent, seconds since the epoch: the header Date (RFC 9110, 6.6.1) and, if a cache has kept
    it since, Age (RFC 9111, 5.1). None if Date is absent or malformed."""
    seconds: float
    """Duration of the whole exchange, name resolution and TLS handshake included."""


class HttpsFetcher:
    """Fetches documents over HTTPS; `fetcher(url)` returns the body, `fetcher.get(url)` the Answer.

    One attempt, no redirects, no compression, no proxy of the environment. `timeout_seconds` covers
    the whole exchange, name resolution and a body that drips included; `max_bytes` limits the body.
    `ca_file` is a CA bundle (PEM) that replaces the system's roots.

    Raises ConfigurationError when `ca_file` is not a CA bundle, FetchFailed from calls.
    """

    def __init__(
        self,
        ca_file: Path | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        max_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        try:
            self._tls = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"AUTH_CA_FILE: {str(ca_file)!r} is not a CA bundle in PEM form: {error}"
            ) from None
        self._ca_file = ca_file
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes

    def __call__(self, url: str) -> bytes:
        """The body of `url`; see `get`."""
        return self.get(url).body

    def get(self, url: str) -> Answer:
        """The answer of `url`; blocks, so never call it on the thread of an event loop."""
        # Not asyncio.run: at its end it waits, without limit, for a name resolution that hangs.
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(self._within_time(url))
        finally:
            loop.close()

    async def _within_time(self, url: str) -> Answer:
        begun_at = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                body, date = await self._get(url)
                return Answer(body, date, time.monotonic() - begun_at)
        except TimeoutError:
            raise FetchFailed(f"no complete answer within {self._timeout_seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            refusal = _certificate_error(error)
            if refusal is not None:
                raise FetchFailed(self._distrust(refusal)) from None
            raise FetchFailed(f"{type(error).__name__}: {error}") from None

    def _distrust(self, error: ssl.SSLCertVerificationError) -> str:
        """Why the server's certificate is refused, and what to change."""
        if error.verify_code in _WRONG_NAME:
            fix = "check the host name in the settings"
        elif error.verify_code in (_EXPIRED, _NOT_YET_VALID):
            fix = "the server needs another one, or a clock is wrong"
        elif self._ca_file is None:
            fix = "it is not signed by a CA that this system trusts: set AUTH_CA_FILE to the CA bundle of the server"
        else:
            fix = f"it is not signed by a CA in AUTH_CA_FILE={self._ca_file}: set the CA bundle of the server"
        return f"the server's certificate is refused ({error.verify_message}); {fix}"

    async def _get(self, url: str) -> tuple[bytes, float | None]:
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        client = httpx.AsyncClient(
            verify=self._tls,
            timeout=None,  # noqa: S113 - the timeout of `_within_time` covers the whole exchange
            follow_redirects=False,
            trust_env=False,
            headers=headers,
        )
        async with client, client.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                hint = "; redirects are not followed" if response.is_redirect else ""
                raise FetchFailed(f"HTTP status {response.status_code} instead of 200{hint}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchFailed("the answer is compressed, which was not asked for")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._max_bytes:
                    raise FetchFailed(f"the answer is longer than {self._max_bytes} bytes")
            return bytes(body), _date(response.headers.get("date", ""), response.headers.get("age", ""))


def _date(text: str, age: str) -> float | None:
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # a date without a zone is in UTC (RFC 5322, 4.3), not in this machine's
    kept = float(age) if age.isascii() and age.isdecimal() and len(age) < 10 else 0.0
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() + kept


def _certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """The refused certificate behind an error of the HTTP library, if that is the cause."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return cause
