from __future__ import annotations

import json
import stat
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.dev.tokens import (
    CLIENT_ID,
    SCOPES,
    IssuerState,
    TokenSigner,
    load_or_create_key,
    load_or_create_secret,
    mint,
    save_state,
)
from boilstream.errors import ConfigurationError, InvalidArgument

NOW = 1_900_000_000
STATE = IssuerState("https://localhost:1/oauth2/default", "api://boilstream")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens")
    load_or_create_key(path)
    save_state(path, STATE)
    return path


@pytest.fixture(scope="module")
def signer(folder: Path) -> TokenSigner:
    return TokenSigner(load_or_create_key(folder), STATE, clock=lambda: NOW + 0.9)


def claims_of(token: str) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(token, options={"verify_signature": False})
    return claims


def test_a_users_token_has_the_claims_of_okta(signer: TokenSigner) -> None:
    token = signer.sign(
        groups=["DataEngineers", "PlatformUsers"],
        scopes=["write:data", "read:data"],
        subject="alice@example.com",
        lifetime_seconds=3600,
    )
    claims = claims_of(token)
    assert str(claims.pop("jti")).startswith("AT.")
    uid = claims.pop("uid")
    assert isinstance(uid, str)
    assert uid.startswith("00u")
    assert len(uid) == 20
    assert claims == {
        "ver": 1,
        "iss": STATE.issuer,
        "aud": STATE.audience,
        "iat": NOW,
        "exp": NOW + 3600,
        "cid": CLIENT_ID,
        "scp": ["write:data", "read:data"],
        "sub": "alice@example.com",
        "groups": ["DataEngineers", "PlatformUsers"],
    }
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "kid": signer.jwks["keys"][0]["kid"]}


def test_a_clients_token_has_no_user_and_no_groups(signer: TokenSigner) -> None:
    claims = claims_of(signer.sign(groups=(), scopes=SCOPES, subject=CLIENT_ID, lifetime_seconds=1))
    assert claims["sub"] == claims["cid"] == CLIENT_ID
    assert not {"uid", "groups"} & set(claims)


def test_every_token_has_its_own_id(signer: TokenSigner) -> None:
    ids = {
        claims_of(signer.sign(groups=(), scopes=(), subject="a", lifetime_seconds=1))["jti"] for _ in range(3)
    }
    assert len(ids) == 3


def test_the_key_set_has_only_public_members(signer: TokenSigner) -> None:
    (key,) = signer.jwks["keys"]
    assert set(key) == {"kty", "use", "alg", "kid", "n", "e"}
    assert (key["kty"], key["use"], key["alg"], key["e"]) == ("RSA", "sig", "RS256", "AQAB")


@given(
    groups=st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), max_size=5),
    scopes=st.lists(st.sampled_from(SCOPES)),
    lifetime=st.integers(1, 86_400),
)
def test_a_token_carries_what_was_asked_once(
    signer: TokenSigner, groups: list[str], scopes: list[str], lifetime: int
) -> None:
    token = signer.sign(groups=groups, scopes=scopes, subject="00uabc", lifetime_seconds=lifetime)
    key = jwt.PyJWKSet.from_dict(signer.jwks).keys[0]
    claims = jwt.decode(
        token,
        key,
        algorithms=["RS256"],
        audience=STATE.audience,
        issuer=STATE.issuer,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims.get("groups", []) == list(dict.fromkeys(groups))
    assert claims["scp"] == list(dict.fromkeys(scopes))
    assert claims["exp"] - claims["iat"] == lifetime
    assert claims["uid"] == claims["sub"] == "00uabc"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scopes": ["read:data", "write:all"]}, "scope 'write:all' is unknown; known are read:data"),
        ({"subject": " "}, "not blank"),
        ({"subject": "a\nb"}, "printable"),
        ({"subject": "\udcff"}, "printable"),
        ({"groups": ["A", ""]}, "not blank"),
        ({"lifetime_seconds": 0}, "1 to 86400 seconds, not 0"),
        ({"lifetime_seconds": 86_401}, "1 to 86400 seconds"),
    ],
)
def test_wrong_wishes_are_told(folder: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        mint(folder, **change)  # type: ignore[arg-type]


def test_mint_reads_the_files_of_the_issuer(folder: Path, signer: TokenSigner) -> None:
    token = mint(folder, groups=["G"], scopes=["read:data"], clock=lambda: NOW)
    key = jwt.PyJWKSet.from_dict(signer.jwks)[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(
        token,
        key,
        algorithms=["RS256"],
        audience=STATE.audience,
        issuer=STATE.issuer,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["groups"] == ["G"]
    assert claims["exp"] == NOW + 3600


@pytest.mark.parametrize("missing", ["issuer.json", "signing-key.pem"])
def test_mint_before_the_first_start_is_told(tmp_path: Path, folder: Path, missing: str) -> None:
    for name in {"issuer.json", "signing-key.pem"} - {missing}:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ConfigurationError, match="`boilstream dev` has not run in this data folder yet"):
        mint(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"issuer": 1, "audience": "a"}', '{"issuer": "i", "x": "y"}']
)
def test_a_damaged_state_is_told(tmp_path: Path, folder: Path, text: str) -> None:
    (tmp_path / "signing-key.pem").write_bytes((folder / "signing-key.pem").read_bytes())
    (tmp_path / "issuer.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"issuer\.json is damaged; delete it"):
        mint(tmp_path)


def test_key_and_secret_are_made_once_and_private(tmp_path: Path) -> None:
    keys = [load_or_create_key(tmp_path).private_numbers() for _ in range(2)]
    secrets = [load_or_create_secret(tmp_path) for _ in range(2)]
    assert keys[0] == keys[1]
    assert secrets[0] == secrets[1]
    assert len(secrets[0]) >= 32
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        "signing-key.pem": 0o600,
        "client-secret": 0o600,
    }


@pytest.mark.parametrize("content", [b"", b"short\n", "ä".encode() * 40, b"\xff" * 40])
def test_a_damaged_secret_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "client-secret").write_bytes(content)
    with pytest.raises(ConfigurationError, match="client-secret is damaged; delete it"):
        load_or_create_secret(tmp_path)


def test_a_damaged_key_is_told_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "signing-key.pem").write_bytes(
        b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    )
    with pytest.raises(ConfigurationError, match=r"signing-key\.pem is damaged; delete it") as caught:
        load_or_create_key(tmp_path)
    assert "c2VjcmV0" not in caught.value.message


def test_the_state_names_issuer_audience_and_client(folder: Path) -> None:
    assert json.loads((folder / "issuer.json").read_text()) == {
        "issuer": STATE.issuer,
        "audience": STATE.audience,
        "client_id": CLIENT_ID,
    }
