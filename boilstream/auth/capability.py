"""Short sealed texts of this server: what it hands out to have it back, unchanged and in time.

A text is base64url of a JSON object and, behind a dot, HMAC-SHA256 over its purpose and the rest. It can be read
by whoever has it and made by nobody else. Two purposes exist:

* "transaction": the id of an Airport transaction. DuckDB sends the token that ATTACH names with catalog calls
  alone; the id, which it got on such a call, stands for the caller on those that follow. It holds the caller as a
  session does (see `boilstream.auth.session`), and counts for one catalog and one client process. Like a session
  it does not end before its time: neither a key that the provider withdraws nor a rule that newly names a group
  reaches it.
* "ticket": what a read was planned to be. It proves a plan and no caller: whoever brings it must also be allowed in.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from boilstream.auth import jws
from boilstream.auth.errors import InvalidToken
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.identity import Identity
from boilstream.auth.manager import AuthManager
from boilstream.auth.session import MAX_SESSION_CHARACTERS, SessionIssuer, reduced_claims, to_identity
from boilstream.errors import InvalidArgument, PermissionDenied, Unauthenticated
from boilstream.settings import Settings

TRANSACTION: Final = "transaction"
TICKET: Final = "ticket"

MAX_TRANSACTION_CHARACTERS: Final = 4096
"""Longest transaction id: it is a header on many calls."""

MAX_SEALED_BYTES: Final = 4 * 1024 * 1024
"""Longest sealed text that travels in a body."""

LIFETIME_SECONDS: Final = 3600.0

_KEY_PURPOSE: Final = "capability 1"
"""Part of the derivation of the key; the number stands for the form of the sealed texts."""

_AGAIN: Final = "DETACH and ATTACH again"


class TransactionRefused(Unauthenticated):
    """The transaction id cannot be accepted as it comes; the message tells the client why."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """What a genuine text says."""

    principal: str
    expires_at: float
    payload: dict[str, Any]


class Capabilities:
    """Seals texts with `key` (32 secret bytes) and opens them again. Thread safe.

    A text ends `lifetime_seconds` after it was made, and `expiry` tells when that is: it tolerates the difference
    between the clocks of nodes that share the key.
    """

    def __init__(
        self, key: bytes, *, expiry: ExpiryRule | None = None, lifetime_seconds: float = LIFETIME_SECONDS
    ) -> None:
        self._key = key
        self._expiry = expiry or ExpiryRule()
        self._lifetime_seconds = lifetime_seconds

    def seal(self, purpose: str, payload: Mapping[str, Any], *, principal: str) -> bytes:
        """`payload` (JSON) as ASCII bytes that `open` takes back from `principal` alone.

        Raises InvalidArgument when there would be more than MAX_SEALED_BYTES.
        """
        sealed = self._seal(purpose, payload, principal, self._expiry.clock() + self._lifetime_seconds)
        if len(sealed) > MAX_SEALED_BYTES:
            raise InvalidArgument(
                f"the {purpose} would have {len(sealed)} bytes, at most {MAX_SEALED_BYTES} are read; ask for less"
            )
        return sealed

    def open(self, purpose: str, sealed: bytes, *, principal: str) -> dict[str, Any]:
        """The payload that this server, or one with the same key, sealed for `purpose` and `principal`.

        Raises InvalidArgument when it was altered or has ended, PermissionDenied when it is another principal's.
        """
        opened = self._open(purpose, sealed, MAX_SEALED_BYTES)
        if opened is None:
            raise InvalidArgument(
                f"the {purpose} was altered, or was made by another server or before a restart; "
                "run the statement again"
            )
        if opened.principal != principal:
            raise PermissionDenied(f"the {purpose} was made for another user; run the statement again")
        if self._expiry.is_over(opened.expires_at):
            raise InvalidArgument(f"the {purpose} has expired; run the statement again")
        return opened.payload

    def issue(
        self,
        identity: Identity,
        *,
        catalog: str,
        client_session: str | None,
        groups: frozenset[str],
        scopes: frozenset[str],
        bearer_characters: int = 0,
    ) -> str | None:
        """A transaction id for `identity`, with no other of its groups, roles and scopes than those given.

        `client_session` is what the client says of its process, `bearer_characters` the length of the token that
        it sent. The id ends with that token at the latest. Each call makes another one.

        None when the client does not name its process, when the token has ended, and when the id would be too
        long for a header: more than MAX_TRANSACTION_CHARACTERS, or too much beside the token, for clients that
        have the token for all calls send both. Then only the token opens those calls.
        """
        expires_at = min(self._expiry.clock() + self._lifetime_seconds, identity.expires_at)
        if not client_session or self._expiry.is_over(int(expires_at)):
            return None
        claims = {
            "catalog": catalog,
            "process": client_session,
            "nonce": secrets.token_urlsafe(16),
            **({"session": True} if identity.session else {}),
            **reduced_claims(identity, groups, scopes),
        }
        text = self._seal(TRANSACTION, claims, identity.principal, expires_at).decode("ascii")
        longest = min(MAX_TRANSACTION_CHARACTERS, MAX_SESSION_CHARACTERS - bearer_characters)
        return text if len(text) <= longest else None

    def redeem(self, text: str, *, catalog: str | None, client_session: str | None) -> Identity:
        """The caller that a transaction id stands for, until the end of the id.

        `catalog` and `client_session` are what the call says of them; some versions of the client name no catalog,
        which is None here and is not compared. Raises TransactionRefused.
        """
        opened = self._transaction(text, catalog, client_session)
        if self._expiry.is_over(opened.expires_at):
            raise TransactionRefused(f"the transaction has expired: end it, or {_AGAIN}")
        try:
            caller = to_identity(opened.payload)
        except InvalidToken:
            raise _not_genuine() from None
        return replace(caller, expires_at=opened.expires_at, session=opened.payload.get("session") is True)

    def check(
        self, text: str, identity: Identity, *, catalog: str | None, client_session: str | None
    ) -> None:
        """Raise TransactionRefused unless the id is one that `identity`, known by its own token, may send along.

        It must be genuine and made for the same principal, catalog and process. It may have ended: the call needs
        it for nothing then, and a transaction with a token lasts as long as the token.
        """
        if self._transaction(text, catalog, client_session).principal != identity.principal:
            raise TransactionRefused(
                "the transaction was begun by another user than this token's: give ATTACH and the SECRET the "
                f"token of one user, then {_AGAIN}"
            )

    def _transaction(self, text: str, catalog: str | None, client_session: str | None) -> _Opened:
        opened = None
        if text.isascii():
            opened = self._open(TRANSACTION, text.encode("ascii"), MAX_TRANSACTION_CHARACTERS)
        if opened is None:
            raise _not_genuine()
        match opened.payload:
            case {"process": str(process), "catalog": str(known)}:
                pass
            case _:
                raise _not_genuine()
        if process != client_session:
            raise TransactionRefused(f"the transaction was begun by another client process: {_AGAIN}")
        if catalog is not None and known.casefold() != catalog.casefold():
            raise TransactionRefused(f"the transaction was begun for another catalog: {_AGAIN}")
        return opened

    def _seal(self, purpose: str, payload: Mapping[str, Any], principal: str, expires_at: float) -> bytes:
        claims = {"principal": principal, "end": int(expires_at), "payload": payload}
        text = json.dumps(claims, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        body = _base64url(text.encode("utf-8"))
        return body + b"." + self._mac(purpose, body)

    def _open(self, purpose: str, sealed: bytes, longest: int) -> _Opened | None:
        """What the text says, or None if this key did not make it for this purpose."""
        if len(sealed) > longest:
            return None
        body, _, mac = sealed.rpartition(b".")
        # The texts are compared, not what they decode to: only one text is right.
        if not hmac.compare_digest(mac, self._mac(purpose, body)):
            return None
        try:
            claims = jws.json_object(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)), "payload")
        except (InvalidToken, ValueError):
            return None
        match claims:
            case {"principal": str(principal), "end": int(end), "payload": dict(payload)}:
                return _Opened(principal, float(end), payload)
        return None

    def _mac(self, purpose: str, body: bytes) -> bytes:
        # No purpose holds a NUL, so no other pair makes the same bytes.
        return _base64url(hmac.digest(self._key, purpose.encode("ascii") + b"\0" + body, "sha256"))


def build_capabilities(settings: Settings, manager: AuthManager | None) -> Capabilities:
    """Those that the settings describe. Nodes with the same SESSION_KEY_PATH and the same rules share them.

    Without that key they end with the process. Raises ConfigurationError for a file that holds no such key.
    """
    sessions = manager.sessions if manager is not None else None
    if sessions is None and settings.session_key_path is not None:
        sessions = SessionIssuer.from_key_file(
            settings.session_key_path, max_seconds=settings.session_seconds, policy="anonymous"
        )
    key = sessions.derived_key(_KEY_PURPOSE) if sessions is not None else secrets.token_bytes(32)
    return Capabilities(key, expiry=ExpiryRule(settings.auth_leeway_seconds))


def _not_genuine() -> TransactionRefused:
    return TransactionRefused(
        "the transaction id was altered, or was made by another server or before a restart: "
        f"end the transaction, or {_AGAIN}"
    )


def _base64url(data: bytes) -> bytes:
    """Base64url without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")
