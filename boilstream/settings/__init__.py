"""Every setting of BoilStream: typed, with units, defaults and examples.

Settings are environment variables; this package is the only reader of the environment (the AWS
credential chain inside boto3 and pyarrow excepted). A field named `flight_port` is the variable
`FLIGHT_PORT`. The reference in the README is made from the same fields.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from boilstream.errors import ConfigurationError
from boilstream.machine import MIB, memory_bytes
from boilstream.settings.fields import setting
from boilstream.settings.identity import AuthorizationSettings, IdentitySettings

_DEFAULT_CERT, _DEFAULT_KEY = Path("certs/server.crt"), Path("certs/server.key")


class Settings(
    AuthorizationSettings, IdentitySettings
):  # fields in the order of identity, authorization, these
    """The configuration of one process. Build it with `load`, which explains what is wrong."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    # Storage
    data_dir: Path = setting(
        "folder of the local store and the SQLite catalog", example="./data", default=Path("data")
    )
    s3_bucket: str | None = setting(
        "bucket that receives the data; unset: the local folder DATA_DIR",
        example="my-data-bucket",
        default=None,
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
    )
    s3_prefix: str = setting(
        "key prefix inside the bucket",
        example="boilstream/prod",
        default="",
        pattern=r"^([A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*)?$",
    )
    s3_endpoint_url: str | None = setting(
        "endpoint of an S3-compatible store; unset: AWS",
        example="http://127.0.0.1:8333",
        default=None,
        pattern=r"^https?://[^/\s@]+$",
    )
    aws_region: str | None = setting(
        "region of the bucket; unset: that of the AWS configuration (AWS_DEFAULT_REGION, profile)",
        example="eu-west-1",
        default=None,
        pattern=r"^[a-z0-9-]+$",
    )
    iceberg_catalog_uri: str | None = setting(
        "SQLAlchemy address of the Iceberg catalog's database (others than SQLite need their driver); "
        "unset: catalog.sqlite in DATA_DIR",
        example="sqlite:////var/lib/boilstream/catalog.sqlite",
        default=None,
        pattern=r"^[a-z0-9+]+:.+$",
    )

    # Ingestion
    auto_create_topics: bool = setting(
        "create a missing topic from the schema of the first write to it", example="false", default=True
    )
    s3_flush_interval_ms: int = setting(
        "least time between two flushes, milliseconds: a crowd of small appends shares one",
        example="250",
        default=250,
        ge=0,
        le=60_000,
    )
    max_file_mb: int = setting(
        "a data file is cut when its rows take this much memory, MiB (less once compressed); "
        "at most a quarter of MEMORY_LIMIT_MB counts",
        example="128",
        default=128,
        ge=1,
        le=4096,
    )
    memory_limit_mb: int = setting(
        "ceiling for rows that are received and not yet stored, MiB; unset: half of the machine or container",
        example="4096",
        default_factory=lambda: max(64, memory_bytes() // MIB // 2),
        ge=64,
    )
    ack_timeout_seconds: float = setting(
        "longest wait of a write for the store or for memory, seconds; then it fails as retryable",
        example="60",
        default=60.0,
        gt=0,
        le=3600,
    )

    # Server
    flight_host: str = setting("address to listen on", example="0.0.0.0", default="0.0.0.0")  # noqa: S104
    flight_port: int = setting("port of Arrow Flight", example="50051", default=50051, ge=0, le=65_535)
    tls_cert_path: Path | None = setting(
        f"server certificate chain (PEM); unset: {_DEFAULT_CERT} if it is there",
        example="certs/server.crt",
        default=None,
    )
    tls_key_path: Path | None = setting(
        f"private key of the certificate (PEM); unset: {_DEFAULT_KEY} if it is there",
        example="certs/server.key",
        default=None,
    )
    tls_client_ca_path: Path | None = setting(
        "CA bundle (PEM); when set, clients must show a certificate that it signed",
        example="certs/client-ca.crt",
        default=None,
    )
    shutdown_grace_seconds: float = setting(
        "how long open calls may go on after SIGTERM, seconds", example="30", default=30.0, ge=0, le=3600
    )

    # Observation
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "least level of log lines", example="info", default="info"
    )
    log_format: Literal["text", "json"] = setting("form of log lines", example="json", default="text")

    audit_log: str | None = setting(
        "file that receives one JSON line per refused call and per change, - for standard output; unset: none",
        example="/var/log/boilstream/audit.jsonl",
        default=None,
    )
    metrics_port: int | None = setting(
        "port of Prometheus metrics (plain HTTP, no token, path /metrics); unset: none",
        example="9090",
        default=None,
        ge=0,
        le=65_535,
    )

    # Development (`boilstream dev` only)
    dev_issuer_port: int = setting(
        "port of the development issuer; `serve` never starts one",
        example="50052",
        default=50052,
        ge=0,
        le=65_535,
    )

    @field_validator("iceberg_catalog_uri")
    @classmethod
    def _readable_address(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                make_url(value)
            except (ArgumentError, ValueError):
                raise ValueError(
                    "is not a SQLAlchemy address; percent-encode special characters of a password"
                ) from None
        return value

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.s3_flush_interval_ms >= self.ack_timeout_seconds * 1000:
            raise ValueError(
                "S3_FLUSH_INTERVAL_MS must be shorter than ACK_TIMEOUT_SECONDS, else writes time out before they are "
                "flushed; for example S3_FLUSH_INTERVAL_MS=250"
            )
        for name in (
            "auth_ca_file",
            "session_key_path",
            "authorization_rules_file",
            "tls_cert_path",
            "tls_key_path",
            "tls_client_ca_path",
        ):
            path: Path | None = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(
                    f"{name.upper()}: {str(path)!r} is not a readable file; for example "
                    f"{name.upper()}={example_of(name)}"
                )
        cert, key = self.tls_files
        if (cert is None) != (key is None):
            missing = "TLS_KEY_PATH" if key is None else "TLS_CERT_PATH"
            raise ValueError(
                f"{missing} is missing: a certificate and its key go together; for example "
                f"{missing}={example_of(missing.lower())}"
            )
        if self.tls_client_ca_path and cert is None:
            raise ValueError(
                "TLS_CLIENT_CA_PATH needs TLS_CERT_PATH and TLS_KEY_PATH; for example "
                "TLS_CERT_PATH=certs/server.crt"
            )
        return self

    @property
    def tls_files(self) -> tuple[Path | None, Path | None]:
        """Certificate and key to serve with: those set, else the pair in `certs/`, else neither."""
        if (
            self.tls_cert_path is None
            and self.tls_key_path is None
            and _DEFAULT_CERT.is_file()
            and _DEFAULT_KEY.is_file()
        ):
            return _DEFAULT_CERT, _DEFAULT_KEY
        return self.tls_cert_path, self.tls_key_path

    def describe(self) -> list[tuple[str, str]]:
        """Variable and value of every setting, secrets masked, in the order of the reference."""
        shown = {name: _show(getattr(self, name)) for name in type(self).model_fields}
        if self.iceberg_catalog_uri is not None:
            shown["iceberg_catalog_uri"] = masked_uri(self.iceberg_catalog_uri)
        return [(name.upper(), value) for name, value in shown.items()]


def load(**overrides: object) -> Settings:
    """Read the settings from the environment; `overrides` (by field name) win over it.

    Raises ConfigurationError with one message that names each wrong variable, what is wrong with
    its value, and an example.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # overrides come from the command line, validated here
    except ValidationError as error:
        problems = []
        for item in error.errors():
            if not item["loc"]:
                problems.append(str(item["ctx"]["error"]) if "ctx" in item else item["msg"])
                continue
            name = str(item["loc"][0])
            problem = item["msg"].removeprefix("Value error, ")
            problem = problem[:1].lower() + problem[1:]
            problems.append(f"{name.upper()}: {problem}; for example {name.upper()}={example_of(name)}")
        raise ConfigurationError("wrong settings:\n  " + "\n  ".join(problems)) from None


def example_of(name: str) -> str:
    """The documented example value of the setting with this field name."""
    field: FieldInfo = Settings.model_fields[name]
    return str((field.examples or [""])[0])


def masked_uri(uri: str) -> str:
    """A SQLAlchemy address with its secrets replaced by `***`; only its scheme if it cannot be read."""
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        return f"{uri.partition(':')[0]}:***"
    secret = [name for name in url.query if re.search("pass|secret|token|key", name, re.IGNORECASE)]
    return url.update_query_dict(dict.fromkeys(secret, "***")).render_as_string(hide_password=True)


def _show(value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
