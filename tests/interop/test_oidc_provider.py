"""Tokens of a certified provider, got by real calls of its token endpoint: what they open, and rotation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from tests.interop.load import Load, calling, until
from tests.support.oidc_provider import (
    ADMIN,
    AUDIENCE,
    ES256,
    OIDC,
    OKTA,
    READER,
    RS256,
    AuthorizationServer,
    OAuthClient,
    OidcProvider,
    header_and_claims,
)
from tests.support.server import Client, ServerProcess, details

pytestmark = pytest.mark.slow

ROWS = pa.table({"a": [1, 2]})
STREAMS = 8

_topics = itertools.count()

both_servers = pytest.mark.parametrize("trusted", [OKTA, OIDC], ids=lambda server: server.provider)
both_algorithms = pytest.mark.parametrize("oauth", [RS256, ES256], ids=lambda client: client.algorithm)


@pytest.fixture
def topic() -> list[str]:
    """The path of a topic that no other test uses."""
    return ["s3", f"interop_{next(_topics)}"]


@pytest.fixture
def server(servers: dict[str, ServerProcess], trusted: AuthorizationServer) -> ServerProcess:
    """One that trusts Okta alone for Okta's tokens, one that trusts both for the others."""
    return servers["okta" if trusted is OKTA else "okta,oidc"]


def refuses(server: ServerProcess, provider: OidcProvider, token: str, reason: str) -> None:
    """Assert that the server refuses the token as invalid and tells its log why."""
    logged = len(server.log)
    with (
        calling(server, provider, token) as client,
        pytest.raises(flight.FlightUnauthenticatedError, match="invalid token") as caught,
    ):
        client.topics()
    assert details(caught.value)["code"] == "UNAUTHENTICATED"
    until(lambda: reason in "".join(server.log[logged:]))


@both_servers
@both_algorithms
def test_the_provider_issues_what_these_tests_are_about(
    provider: OidcProvider, trusted: AuthorizationServer, oauth: OAuthClient
) -> None:
    header, claims = header_and_claims(provider.token(trusted, oauth, "read:data write:data"))
    assert (header["typ"], header["alg"]) == ("at+jwt", oauth.algorithm)
    assert header["kid"] in provider.kids(trusted)
    assert claims["iss"] == provider.issuer(trusted)
    assert claims["aud"] == AUDIENCE
    assert claims["sub"] == claims["client_id"] == oauth.client_id
    assert claims["scope"] == "read:data write:data"
    if trusted is OKTA:
        assert (claims["scp"], claims["cid"]) == (["read:data", "write:data"], oauth.client_id)
    else:
        assert not {"scp", "cid"} & claims.keys()


@both_servers
@both_algorithms
def test_a_service_writes_and_reads(
    provider: OidcProvider,
    server: ServerProcess,
    trusted: AuthorizationServer,
    oauth: OAuthClient,
    topic: list[str],
) -> None:
    with calling(server, provider, provider.token(trusted, oauth)) as client:
        assert client.put(topic, ROWS)["rows"] == 2
        assert client.get(topic).equals(ROWS)
        assert ".".join(topic) in client.topics()
        who = client.action("whoami")
    assert (who["provider"], who["subject"], who["client"]) == (trusted.provider, *[oauth.client_id] * 2)
    assert (who["groups"], who["scopes"]) == ([], ["read:data", "write:data"])


@both_servers
@both_algorithms
def test_a_user_writes_and_reads(
    provider: OidcProvider,
    server: ServerProcess,
    trusted: AuthorizationServer,
    oauth: OAuthClient,
    topic: list[str],
) -> None:
    access_token, _ = provider.user_tokens(trusted, oauth, "00u123456789abcdef")
    with calling(server, provider, access_token) as client:
        client.put(topic, ROWS)
        assert client.get(topic).equals(ROWS)
        who = client.action("whoami")
    assert (who["subject"], who["client"]) == ("00u123456789abcdef", oauth.client_id)


@both_servers
@pytest.mark.parametrize(
    ("oauth", "scope", "may"),
    [
        (RS256, "read:data", "read"),
        (ES256, "write:data", "read write"),
        (ES256, "admin:system", "read write drop"),
        (RS256, "", ""),
        (READER, "write:data", "read"),
        (ADMIN, "read:data", "read write drop"),
    ],
    ids=["read", "write", "admin", "no scope", "group of readers", "group of admins"],
)
def test_groups_and_scopes_decide(
    provider: OidcProvider,
    server: ServerProcess,
    trusted: AuthorizationServer,
    oauth: OAuthClient,
    scope: str,
    may: str,
    topic: list[str],
) -> None:
    with calling(server, provider, provider.token(trusted, RS256)) as loader:
        loader.put(topic, ROWS)
    with calling(server, provider, provider.token(trusted, oauth, scope)) as client:
        calls: dict[str, Callable[[], object]] = {
            "read": lambda: client.get(topic),
            "write": lambda: client.put(topic, ROWS),
            "drop": lambda: client.action("drop_topic", {"topic": topic}),
        }
        for permission, call in calls.items():
            if permission in may.split():
                call()
                continue
            with pytest.raises(flight.FlightUnauthorizedError) as caught:
                call()
            assert details(caught.value)["code"] == "PERMISSION_DENIED"


@both_servers
@both_algorithms
def test_a_token_for_another_audience_is_refused(
    provider: OidcProvider, server: ServerProcess, trusted: AuthorizationServer, oauth: OAuthClient
) -> None:
    token = provider.token(trusted, oauth, resource="api://elsewhere")
    assert header_and_claims(token)[1]["aud"] == "api://elsewhere"
    refuses(server, provider, token, "Invalid audience: ")


@both_servers
@both_algorithms
def test_an_id_token_is_refused(
    provider: OidcProvider, server: ServerProcess, trusted: AuthorizationServer, oauth: OAuthClient
) -> None:
    _, id_token = provider.user_tokens(trusted, oauth, "00u123456789abcdef")
    assert header_and_claims(id_token)[1]["aud"] == oauth.client_id
    refuses(server, provider, id_token, "Invalid audience: ")


def test_an_id_token_for_okta_client_id_is_accepted_and_no_other(
    provider: OidcProvider, servers: dict[str, ServerProcess]
) -> None:
    server = servers["okta,oidc"]
    assert server.environment["OKTA_CLIENT_ID"] == ES256.client_id
    _, accepted = provider.user_tokens(OKTA, ES256, "00u123456789abcdef")
    with calling(server, provider, accepted) as client:
        assert client.action("whoami")["subject"] == "00u123456789abcdef"
    _, refused = provider.user_tokens(OKTA, RS256, "00u123456789abcdef")
    refuses(server, provider, refused, "Invalid audience: ")


@both_servers
def test_an_opaque_token_is_refused(
    provider: OidcProvider, server: ServerProcess, trusted: AuthorizationServer
) -> None:
    token = provider.token(trusted, RS256, resource="api://opaque")
    assert "." not in token
    refuses(server, provider, token, "Malformed token: ")


def test_several_providers_are_trusted_at_once_and_no_other(
    provider: OidcProvider, servers: dict[str, ServerProcess]
) -> None:
    for trusted in (OKTA, OIDC):
        with calling(servers["okta,oidc"], provider, provider.token(trusted, RS256)) as client:
            assert client.action("whoami")["provider"] == trusted.provider
    refuses(servers["okta"], provider, provider.token(OIDC, RS256), "Invalid issuer: ")


@pytest.fixture
def own_server(own_provider: OidcProvider, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server for one test, which trusts both authorization servers."""
    environment = own_provider.environment(OKTA, OIDC) | {"DATA_DIR": str(tmp_path / "data")}
    with ServerProcess(environment) as server:
        yield server


def test_streams_and_calls_go_on_while_keys_rotate(
    own_provider: OidcProvider, own_server: ServerProcess
) -> None:
    issuers = {OKTA: RS256, OIDC: ES256}
    old = {trusted: own_provider.token(trusted, oauth) for trusted, oauth in issuers.items()}
    with ExitStack() as stack:
        load = Load(own_server, own_provider, stack)
        load.fill(old[OKTA])
        for token in old.values():
            load.read(token)
            for _ in range(STREAMS // 4):
                load.write(token)
        load.advance()

        for trusted, oauth in issuers.items():
            published = own_provider.kids(trusted)
            own_provider.rotate(trusted)
            assert set(published) < set(own_provider.kids(trusted))
            load.advance()

            new = [own_provider.token(trusted, oauth) for _ in range(2)]
            assert header_and_claims(new[0])[0]["kid"] not in published
            for token in (new[0], old[trusted], new[1]):
                with calling(own_server, own_provider, token) as client:
                    assert client.action("whoami")["provider"] == trusted.provider
            for _ in range(STREAMS // 4):
                load.write(new[0])
            load.advance()
        load.finish(old[OKTA])


def test_a_withdrawn_key_opens_nothing_more(own_provider: OidcProvider, own_server: ServerProcess) -> None:
    issuers = {OKTA: ES256, OIDC: RS256}
    used = {trusted: own_provider.token(trusted, oauth) for trusted, oauth in issuers.items()}
    with ExitStack() as stack:
        load = Load(own_server, own_provider, stack)
        for token in used.values():
            for _ in range(STREAMS // 2):
                load.write(token)
        load.advance()

        for trusted, oauth in issuers.items():
            unused = own_provider.token(trusted, oauth)
            own_provider.rotate(trusted)
            own_provider.retire(trusted)
            assert header_and_claims(unused)[0]["kid"] not in own_provider.kids(trusted)

            # The first token of the new key makes the server fetch the keys, and so forget the old one.
            new = own_provider.token(trusted, oauth)
            with calling(own_server, own_provider, new) as client:
                client.topics()
            for token in (used[trusted], unused):
                refuses(own_server, own_provider, token, "Key not found: ")
            load.advance()
        load.finish(new)


def test_known_keys_serve_while_the_provider_is_down(
    own_provider: OidcProvider, own_server: ServerProcess, topic: list[str]
) -> None:
    used, *unused = (own_provider.token(trusted, RS256) for trusted in (OKTA, OKTA, OIDC))
    with calling(own_server, own_provider, used) as client:
        client.put(topic, ROWS)
    own_provider.stop()
    for puts, token in enumerate((used, *unused), start=2):
        with calling(own_server, own_provider, token) as client:
            client.put(topic, ROWS)
            assert client.get(topic).num_rows == puts * ROWS.num_rows
    own_provider.start()
    for trusted in (OKTA, OIDC):
        with calling(own_server, own_provider, own_provider.token(trusted, RS256)) as client:
            assert client.get(topic).num_rows == 4 * ROWS.num_rows


def test_a_server_starts_while_its_providers_are_down(own_provider: OidcProvider, tmp_path: Path) -> None:
    environment = own_provider.environment(OKTA, OIDC) | {"DATA_DIR": str(tmp_path / "data")}
    early = [own_provider.token(trusted, RS256) for trusted in (OKTA, OIDC)]
    own_provider.stop()
    with ServerProcess(environment) as server:
        for token in early:
            with calling(server, own_provider, token) as client:
                with pytest.raises(flight.FlightUnavailableError) as caught:
                    client.topics()
                assert details(caught.value)["code"] == "UNAVAILABLE"
        own_provider.start()
        for trusted in (OKTA, OIDC):
            token = own_provider.token(trusted, RS256)
            with calling(server, own_provider, token) as client:
                until(partial(_answers, client))
                assert client.action("whoami")["provider"] == trusted.provider


def _answers(client: Client) -> bool:
    try:
        client.topics()
    except flight.FlightUnavailableError:
        return False
    return True
