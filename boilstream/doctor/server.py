"""`boilstream doctor`: the configuration against the world."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from boilstream.addresses import listen_host
from boilstream.auth import providers
from boilstream.auth.authorizer import Authorizer
from boilstream.auth.fetch import HttpsFetcher
from boilstream.auth.manager import build_manager
from boilstream.auth.rules import load_rules
from boilstream.auth.session import SessionIssuer
from boilstream.doctor.certificate import check_certificate
from boilstream.doctor.findings import (
    Finding,
    fail,
    noted_warnings,
    ok,
    split_advice,
    warned,
)
from boilstream.doctor.providers import Get, check_provider
from boilstream.doctor.store import OpenStore, check_data_folder, check_store
from boilstream.errors import ConfigurationError
from boilstream.observe.audit import AuditLog
from boilstream.settings import Settings
from boilstream.storage.factory import open_store

_FIX_SETTINGS: Final = "correct the setting; `boilstream serve --check` shows all of them"
_FIX_AUTH: Final = "set AUTH_PROVIDERS and the settings of the provider, for example AUTH_PROVIDERS=okta"
_FIX_AUDIT: Final = (
    "name a file in a folder that exists and that the server's user can write, or - for standard output"
)


def examine(
    settings: Settings,
    *,
    get: Get | None = None,
    open_store: OpenStore = open_store,
    clock: Callable[[], float] = time.time,
    ticks: Callable[[], float] = time.perf_counter,
) -> Iterator[Finding]:
    """Everything that can be checked without a server, one finding after the other.

    `get` fetches documents of providers (None: over HTTPS, as the server does), `clock` gives seconds since the
    epoch, `ticks` seconds for durations. Works beside a running server: nothing is locked and nothing
    changed, but for a probe object in the store that is deleted again.
    """
    yield from check_settings(settings)
    yield from check_rules(settings)
    yield from check_providers(settings, get, clock)
    if settings.auth_providers:
        yield from check_session_key(settings.session_key_path)
    yield from check_certificate(settings, clock())
    yield check_data_folder(settings.data_dir)
    yield from check_store(settings, open_store, ticks)
    yield check_audit_log(settings.audit_log)


def check_settings(settings: Settings) -> Iterator[Finding]:
    """What the start would say of settings that contradict each other; they are read already."""
    try:
        with noted_warnings():  # others tell these, one by one
            manager = build_manager(settings)
        if manager is not None:
            manager.close()
        with noted_warnings() as notes:
            host = listen_host(settings)
    except ConfigurationError as error:
        yield fail("settings", *split_advice(error.message, _FIX_SETTINGS))
        return
    named = f"providers {', '.join(settings.auth_providers)}" if settings.auth_providers else "no provider"
    yield ok(
        "settings",
        f"{len(settings.model_fields_set)} set, {named}, Arrow Flight on {host} port {settings.flight_port}",
    )
    yield from warned("settings", notes, _FIX_AUTH)


def check_rules(settings: Settings) -> Iterator[Finding]:
    """The rules of authorization, the file read now."""
    try:
        with noted_warnings() as notes:
            rules = load_rules(settings)
            groups, scopes = Authorizer(rules).names()
    except ConfigurationError as error:
        yield fail("rules", *split_advice(error.message, _FIX_SETTINGS))
        return
    path = settings.authorization_rules_file
    count = len(rules.file_rules)
    file = f"{count} rule{'s' if count > 1 else ''} in {path}" if path else "no rules file"
    if rules.enabled:
        yield ok("rules", f"{len(groups)} groups and {len(scopes)} scopes are named, {file}")
    yield from warned("rules", notes, "correct the rule, or delete it")


def check_providers(settings: Settings, get: Get | None, clock: Callable[[], float]) -> Iterator[Finding]:
    """Every configured provider; without one nothing, since the settings have said so."""
    try:
        if get is None:
            get = HttpsFetcher(settings.auth_ca_file).get
        configured = providers.from_settings(settings)
    except ConfigurationError:
        return  # the settings' finding: building the manager does both
    for provider in configured:
        yield from check_provider(
            provider,
            get,
            max_keys=settings.jwks_max_keys,
            leeway_seconds=settings.auth_leeway_seconds,
            clock=clock,
        )


def check_session_key(path: Path | None) -> Iterator[Finding]:
    """The key that signs session tokens."""
    if path is None:
        yield ok(
            "session key", "made at each start: sessions end with it and hold on one node (SESSION_KEY_PATH)"
        )
        return
    try:
        with noted_warnings() as notes:
            SessionIssuer.from_key_file(path, max_seconds=1)
    except ConfigurationError as error:
        yield fail("session key", *split_advice(error.message, _FIX_SETTINGS))
        return
    yield ok("session key", f"{path} holds an Ed25519 key")
    yield from warned("session key", notes, f"chmod 600 {path}")


def check_audit_log(target: str | None) -> Finding:
    """Whether the audit log could be written; a file that is not there is not made."""
    if target is None:
        return ok("audit log", "none (AUDIT_LOG)")
    if target != "-" and not os.path.lexists(target):
        folder = Path(target).absolute().parent
        if not os.access(folder, os.W_OK | os.X_OK):
            return fail("audit log", f"{folder} does not exist or is not writable for this user", _FIX_AUDIT)
        return ok("audit log", f"{target} will be made at the first start")
    try:
        AuditLog.open(target).close()
    except ConfigurationError as error:
        return fail("audit log", *split_advice(error.message, _FIX_AUDIT))
    return ok("audit log", "standard output" if target == "-" else f"{target} is writable")
