"""Fetching a document from an identity provider, within hard limits of time and size."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

import httpx

from boilstream.errors import ConfigurationError

TIMEOUT_SECONDS: Final = 5.0
MAX_RESPONSE_BYTES: Final = 1024 * 1024


class FetchFailed(Exception):
    """The document could not be had; the text says why, for the log."""


class HttpsFetcher:
    """Fetches documents over HTTPS; `fetcher(url)` returns the body.

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
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes

    def __call__(self, url: str) -> bytes:
        """The body of `url`; blocks, so never call it on the thread of an event loop."""
        # Not asyncio.run: at its end it waits, without limit, for a name resolution that hangs.
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(self._within_time(url))
        finally:
            loop.close()

    async def _within_time(self, url: str) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._get(url)
        except TimeoutError:
            raise FetchFailed(f"no complete answer within {self._timeout_seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise FetchFailed(f"{type(error).__name__}: {error}") from None

    async def _get(self, url: str) -> bytes:
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
                raise FetchFailed(f"HTTP status {response.status_code} instead of 200")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchFailed("the answer is compressed, which was not asked for")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._max_bytes:
                    raise FetchFailed(f"the answer is longer than {self._max_bytes} bytes")
            return bytes(body)
