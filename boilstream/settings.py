"""Every setting of BoilStream: typed, with units, defaults and examples.

Settings are environment variables; this module is the only reader of the environment (the AWS
credential chain inside boto3 and pyarrow excepted). A field named `flight_port` is the variable
`FLIGHT_PORT`. The reference in the README is made from the same fields.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from boilstream.errors import ConfigurationError
from boilstream.machine import MIB, memory_bytes

PROVIDER_ALIASES = {"okta": "okta"}
"""Names accepted in AUTH_PROVIDERS, and the provider that each means."""

_DEFAULT_CERT, _DEFAULT_KEY = Path("certs/server.crt"), Path("certs/server.key")

CommaList = Annotated[tuple[str, ...], NoDecode]
"""A tuple that is written as a comma list: `a,b`; blanks around items are dropped."""

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")


def _setting(description: str, *, example: str, **kwargs: Any) -> Any:
    return Field(description=description, examples=[example], **kwargs)


class Settings(BaseSettings):
    """The configuration of one process. Build it with `load`, which explains what is wrong."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    # Identity providers
    auth_providers: CommaList = _setting(
        "identity providers whose tokens are accepted, a comma list", example="okta", default=()
    )
    okta_org_domain: str | None = _setting(
        "host of the Okta organisation, without scheme; may carry a port",
        example="company.okta.com",
        default=None,
    )
    okta_audience: str | None = _setting(
        "audience of the custom authorization server", example="api://boilstream", default=None
    )
    okta_auth_server_id: str = _setting(
        "id of the custom authorization server",
        example="default",
        default="default",
        pattern=r"^[A-Za-z0-9._-]+$",
    )
    okta_client_id: str | None = _setting(
        "client id that ID tokens must be issued to", example="0oa123456789abcdef", default=None
    )
    okta_allow_org_server: bool = _setting(
        "accept ID tokens of the org authorization server too", example="true", default=False
    )
    auth_ca_file: Path | None = _setting(
        "CA bundle (PEM) for calls to identity providers; unset: the system's roots",
        example="certs/ca.crt",
        default=None,
    )
    jwks_cache_seconds: int = _setting(
        "how long a provider's signing keys are used before they are fetched again, seconds",
        example="3600",
        default=3600,
        ge=60,
        le=86_400,
    )
    jwks_max_keys: int = _setting("signing keys kept per issuer", example="100", default=100, ge=1, le=1000)
    allow_anonymous: bool = _setting(
        "without providers, serve callers without a token on every interface, not only on loopback",
        example="true",
        default=False,
    )

    # Authorization
    authorization_enabled: bool | None = _setting(
        "decide by groups and scopes; unset: on as soon as you set one of the six lists below",
        example="true",
        default=None,
    )
    admin_groups: CommaList = _setting(
        "groups that may read, write and drop", example="DataEngineers,SystemAdmins", default=()
    )
    write_groups: CommaList = _setting("groups that may read and write", example="ETLDevelopers", default=())
    read_only_groups: CommaList = _setting("groups that may read", example="DataAnalysts,Viewers", default=())
    admin_scopes: CommaList = _setting(
        "scopes that allow all, for tokens without a listed group",
        example="admin:system",
        default=("admin:system",),
    )
    write_scopes: CommaList = _setting(
        "scopes that allow writing, for tokens without a listed group",
        example="write:data",
        default=("write:data",),
    )
    read_scopes: CommaList = _setting(
        "scopes that allow reading, for tokens without a listed group",
        example="read:data",
        default=("read:data",),
    )

    # Storage
    data_dir: Path = _setting(
        "folder of the local store and the SQLite catalog", example="./data", default=Path("data")
    )
    s3_bucket: str | None = _setting(
        "bucket that receives the data; unset: the local folder DATA_DIR",
        example="my-data-bucket",
        default=None,
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
    )
    s3_prefix: str = _setting(
        "key prefix inside the bucket",
        example="boilstream/prod",
        default="",
        pattern=r"^([A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*)?$",
    )
    s3_endpoint_url: str | None = _setting(
        "endpoint of an S3-compatible store; unset: AWS",
        example="http://127.0.0.1:8333",
        default=None,
        pattern=r"^https?://[^/\s@]+$",
    )
    aws_region: str | None = _setting(
        "region of the bucket; unset: that of the AWS configuration (AWS_DEFAULT_REGION, profile)",
        example="eu-west-1",
        default=None,
        pattern=r"^[a-z0-9-]+$",
    )
    iceberg_catalog_uri: str | None = _setting(
        "SQLAlchemy address of the Iceberg catalog's database (others than SQLite need their driver); "
        "unset: catalog.sqlite in DATA_DIR",
        example="sqlite:////var/lib/boilstream/catalog.sqlite",
        default=None,
        pattern=r"^[a-z0-9+]+:.+$",
    )

    # Ingestion
    auto_create_topics: bool = _setting(
        "create a missing topic from the schema of the first write to it", example="false", default=True
    )
    s3_flush_interval_ms: int = _setting(
        "least time between two flushes, milliseconds: a crowd of small appends shares one",
        example="250",
        default=250,
        ge=0,
        le=60_000,
    )
    max_file_mb: int = _setting(
        "a data file is cut when its rows take this much memory, MiB (less once compressed); "
        "at most a quarter of MEMORY_LIMIT_MB counts",
        example="128",
        default=128,
        ge=1,
        le=4096,
    )
    memory_limit_mb: int = _setting(
        "ceiling for rows that are received and not yet stored, MiB; unset: half of the machine or container",
        example="4096",
        default_factory=lambda: max(64, memory_bytes() // MIB // 2),
        ge=64,
    )
    ack_timeout_seconds: float = _setting(
        "longest wait of a write for the store or for memory, seconds; then it fails as retryable",
        example="60",
        default=60.0,
        gt=0,
        le=3600,
    )

    # Server
    flight_host: str = _setting("address to listen on", example="0.0.0.0", default="0.0.0.0")  # noqa: S104
    flight_port: int = _setting("port of Arrow Flight", example="50051", default=50051, ge=0, le=65_535)
    tls_cert_path: Path | None = _setting(
        f"server certificate chain (PEM); unset: {_DEFAULT_CERT} if it is there",
        example="certs/server.crt",
        default=None,
    )
    tls_key_path: Path | None = _setting(
        f"private key of the certificate (PEM); unset: {_DEFAULT_KEY} if it is there",
        example="certs/server.key",
        default=None,
    )
    tls_client_ca_path: Path | None = _setting(
        "CA bundle (PEM); when set, clients must show a certificate that it signed",
        example="certs/client-ca.crt",
        default=None,
    )
    shutdown_grace_seconds: float = _setting(
        "how long open calls may go on after SIGTERM, seconds", example="30", default=30.0, ge=0, le=3600
    )

    # Observation
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "least level of log lines", example="info", default="info"
    )
    log_format: Literal["text", "json"] = _setting("form of log lines", example="json", default="text")

    # Development (`boilstream dev` only)
    dev_issuer_port: int = _setting(
        "port of the development issuer; `serve` never starts one",
        example="50052",
        default=50052,
        ge=0,
        le=65_535,
    )

    @field_validator(
        "auth_providers",
        "admin_groups",
        "write_groups",
        "read_only_groups",
        "admin_scopes",
        "write_scopes",
        "read_scopes",
        mode="before",
    )
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(item for item in (part.strip() for part in value.split(",")) if item)
        return value

    @field_validator("auth_providers")
    @classmethod
    def _known_providers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name.lower() not in PROVIDER_ALIASES]
        if unknown:
            raise ValueError(
                f"unknown provider {unknown[0]!r}; known are {', '.join(sorted(PROVIDER_ALIASES))}"
            )
        return tuple(dict.fromkeys(PROVIDER_ALIASES[name.lower()] for name in value))

    @field_validator("okta_org_domain")
    @classmethod
    def _bare_host(cls, value: str | None) -> str | None:
        if value is not None and not _HOST.fullmatch(value):
            raise ValueError("must be a host name without scheme and path")
        return value

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
        if "okta" in self.auth_providers:
            for name, example in (
                ("okta_org_domain", "company.okta.com"),
                ("okta_audience", "api://boilstream"),
            ):
                if getattr(self, name) is None:
                    raise ValueError(
                        f"{name.upper()} is missing: AUTH_PROVIDERS names okta; for example {name.upper()}={example}"
                    )
            if self.okta_allow_org_server and self.okta_client_id is None:
                raise ValueError(
                    "OKTA_CLIENT_ID is missing: OKTA_ALLOW_ORG_SERVER=true accepts ID tokens, whose audience is the "
                    "client id; for example OKTA_CLIENT_ID=0oa123456789abcdef"
                )
        if self.s3_flush_interval_ms >= self.ack_timeout_seconds * 1000:
            raise ValueError(
                "S3_FLUSH_INTERVAL_MS must be shorter than ACK_TIMEOUT_SECONDS, else writes time out before they are "
                "flushed; for example S3_FLUSH_INTERVAL_MS=250"
            )
        if self.allow_anonymous and self.auth_providers:
            raise ValueError(
                "ALLOW_ANONYMOUS=true contradicts AUTH_PROVIDERS: with providers every call needs a token; unset one"
            )
        for name in ("auth_ca_file", "tls_cert_path", "tls_key_path", "tls_client_ca_path"):
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

    @property
    def authorization_active(self) -> bool:
        """Whether groups and scopes decide (AUTHORIZATION_ENABLED, or any rule set)."""
        if self.authorization_enabled is not None:
            return self.authorization_enabled
        rules = (
            "admin_groups",
            "write_groups",
            "read_only_groups",
            "admin_scopes",
            "write_scopes",
            "read_scopes",
        )
        return any(name in self.model_fields_set and getattr(self, name) for name in rules)

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
