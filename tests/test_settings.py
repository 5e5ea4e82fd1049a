from __future__ import annotations

from pathlib import Path

import pytest

from boilstream.errors import ConfigurationError
from boilstream.settings import Settings, example_of, load, masked_uri


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = load()
    assert (settings.flight_host, settings.flight_port) == ("0.0.0.0", 50051)
    assert (settings.s3_flush_interval_ms, settings.max_file_mb) == (250, 128)
    assert (settings.jwks_cache_seconds, settings.jwks_max_keys) == (3600, 100)
    assert settings.okta_auth_server_id == "default"
    assert settings.auto_create_topics
    assert not settings.allow_anonymous
    assert settings.memory_limit_mb >= 64


def test_the_environment_of_the_okta_guide_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AUTH_PROVIDERS": "okta",
        "OKTA_ORG_DOMAIN": "company.okta.com",
        "OKTA_AUDIENCE": "api://boilstream",
        "OKTA_CLIENT_ID": "0oa123456789abcdef",
        "OKTA_ALLOW_ORG_SERVER": "false",
        "ADMIN_GROUPS": "DataEngineers, SystemAdmins",
        "READ_ONLY_GROUPS": "DataAnalysts",
        "S3_BUCKET": "my-data-bucket",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.auth_providers == ("okta",)
    assert settings.admin_groups == ("DataEngineers", "SystemAdmins")
    assert settings.authorization_active


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("FLIGHT_PORT", "99999", "less than or equal to 65535"),
        ("FLIGHT_PORT", "x", "valid integer"),
        ("AUTH_PROVIDERS", "oktaa", "unknown provider 'oktaa'"),
        ("LOG_LEVEL", "loud", "'debug'"),
        ("OKTA_ORG_DOMAIN", "https://company.okta.com", "without scheme"),
        ("S3_BUCKET", "Not A Bucket", "pattern"),
        ("S3_PREFIX", "/x", "pattern"),
        ("S3_ENDPOINT_URL", "localhost:9000", "pattern"),
        ("ACK_TIMEOUT_SECONDS", "0", "greater than 0"),
        ("OKTA_ALLOW_ORG_SERVER", "perhaps", "boolean"),
    ],
)
def test_a_wrong_value_is_named_with_its_problem_and_an_example(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        load()
    message = caught.value.message
    assert variable in message
    assert problem in message
    assert f"{variable}={example_of(variable.lower())}" in message


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIGHT_PORT", "x")
    monkeypatch.setenv("LOG_FORMAT", "xml")
    with pytest.raises(ConfigurationError, match=r"(?s)FLIGHT_PORT.*LOG_FORMAT"):
        load()


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"AUTH_PROVIDERS": "okta"}, "OKTA_ORG_DOMAIN and OKTA_AUDIENCE are missing"),
        ({"AUTH_PROVIDERS": "okta", "OKTA_ORG_DOMAIN": "a.okta.com"}, "OKTA_AUDIENCE is missing"),
        (
            {
                "AUTH_PROVIDERS": "okta",
                "OKTA_ORG_DOMAIN": "a.okta.com",
                "OKTA_AUDIENCE": "x",
                "OKTA_ALLOW_ORG_SERVER": "true",
            },
            "OKTA_CLIENT_ID is missing",
        ),
        (
            {
                "AUTH_PROVIDERS": "okta",
                "OKTA_ORG_DOMAIN": "a.okta.com",
                "OKTA_AUDIENCE": "x",
                "ALLOW_ANONYMOUS": "true",
            },
            "contradicts",
        ),
        ({"TLS_CERT_PATH": "missing.crt"}, "TLS_CERT_PATH: 'missing.crt' is not a readable file"),
        ({"AUTH_CA_FILE": "/nowhere"}, "AUTH_CA_FILE"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=says):
        load()


def test_a_certificate_without_its_key_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x.crt").write_text("x")
    monkeypatch.setenv("TLS_CERT_PATH", "x.crt")
    with pytest.raises(ConfigurationError, match="TLS_KEY_PATH is missing"):
        load()


def test_certificates_in_certs_are_found(tmp_path: Path) -> None:
    assert load().tls_files == (None, None)
    (tmp_path / "certs").mkdir()
    for name in ("server.crt", "server.key"):
        (tmp_path / "certs" / name).write_text("x")
    assert load().tls_files == (Path("certs/server.crt"), Path("certs/server.key"))


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_BUCKET", "")
    assert load().s3_bucket is None


def test_passwords_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICEBERG_CATALOG_URI", "postgresql+psycopg2://boilstream:hunter2@db/catalog")
    shown = dict(load().describe())
    assert shown["ICEBERG_CATALOG_URI"] == "postgresql+psycopg2://boilstream:***@db/catalog"
    assert "hunter2" not in str(shown)
    assert masked_uri("sqlite:////x.sqlite") == "sqlite:////x.sqlite"


def test_authorization_can_be_forced_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not load().authorization_active
    monkeypatch.setenv("WRITE_SCOPES", "ingest")
    assert load().authorization_active
    monkeypatch.setenv("AUTHORIZATION_ENABLED", "false")
    assert not load().authorization_active


def test_every_setting_has_a_description_and_an_example() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.examples, name
