"""The container files: what can be checked of them without an engine. `scripts/try-containers` runs them."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from boilstream.settings import Settings, load

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VARIABLES = {name.upper() for name in Settings.model_fields}
SERVERS = ("boilstream", "boilstream-dev")


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Keyword and rest of each instruction, continued lines joined."""
    lines = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.M)
    return [
        (keyword, " ".join(rest.split()))
        for keyword, rest in re.findall(r"^([A-Z]+) (.*)$", re.sub(r"\\\n", " ", lines), flags=re.M)
    ]


def final_stage() -> list[tuple[str, str]]:
    found = instructions(DOCKERFILE)
    return found[max(place for place, (keyword, _) in enumerate(found) if keyword == "FROM") :]


def value(keyword: str) -> str:
    """The rest of the only instruction with this keyword in the final stage."""
    (rest,) = [rest for found, rest in final_stage() if found == keyword]
    return rest


def example_variables() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def environment(service: dict[str, Any]) -> dict[str, str | None]:
    found: dict[str, str | None] = service.get("environment", {})
    return found


def test_both_stages_are_slim_images_of_one_version_without_a_syntax_line() -> None:
    bases = [rest for keyword, rest in instructions(DOCKERFILE) if keyword == "FROM"]
    assert bases == ["python:${PYTHON_VERSION}-slim AS build", "python:${PYTHON_VERSION}-slim"]
    assert [rest for keyword, rest in instructions(DOCKERFILE) if keyword == "ARG"] == ["PYTHON_VERSION=3.13"]
    assert "syntax=" not in DOCKERFILE


def test_everything_that_is_installed_has_its_hash_checked() -> None:
    commands = " && ".join(rest for keyword, rest in instructions(DOCKERFILE) if keyword == "RUN").split("&&")
    installs = [shlex.split(command) for command in commands if "pip install" in command]
    assert len(installs) == 4
    for install in installs:
        assert "--require-hashes" in install or {"--no-index", "--no-deps"} <= set(install), install


def test_the_server_runs_as_a_fixed_user_in_a_folder_of_its_own() -> None:
    assert value("USER") == "10001:10001"
    assert value("WORKDIR") == "/var/lib/boilstream"
    assert value("VOLUME") == "/var/lib/boilstream/data"
    assert "DATA_DIR=/var/lib/boilstream/data" in value("ENV").split()
    order = [keyword for keyword, _ in final_stage()]
    assert order.index("USER") > order.index("RUN")


def test_the_image_serves_and_stops_in_order() -> None:
    assert (value("ENTRYPOINT"), value("CMD"), value("STOPSIGNAL")) == (
        '["boilstream"]',
        '["serve"]',
        "SIGTERM",
    )
    assert value("EXPOSE") == str(Settings.model_fields["flight_port"].default)


def test_the_health_check_is_the_probe() -> None:
    options, command = value("HEALTHCHECK").split(" CMD ")
    assert yaml.safe_load(command) == ["python", "-m", "boilstream.flight.probe"]
    assert "--timeout=" in options


def test_the_build_context_has_what_the_image_copies_and_no_secrets() -> None:
    allowed = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in allowed
    sources = {
        name
        for keyword, rest in instructions(DOCKERFILE)
        if keyword == "COPY" and "--from=" not in rest
        for name in rest.split()[:-1]
    }
    assert {line[1:] for line in allowed if line.startswith("!")} == sources
    assert not sources & {".env", "certs", "data", "tests"}
    assert all((ROOT / name).exists() for name in sources)


def test_every_variable_is_a_setting() -> None:
    named = set(example_variables()) - {"COMPOSE_PROFILES"}
    for service in SERVICES.values():
        named |= set(environment(service))
    unknown = {name for name in named if name not in VARIABLES and not name.startswith("AWS_")}
    assert named
    assert not unknown


def test_the_example_is_a_valid_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, text in example_variables().items():
        monkeypatch.setenv(name, text)
    settings = load()
    assert settings.auth_providers == ("okta",)
    assert settings.authorization_active
    assert settings.s3_endpoint_url == "http://s3:8333"


def test_no_secret_is_written_down() -> None:
    secret = re.compile(r"SECRET|PASSWORD|TOKEN|ACCESS_KEY")
    for service in SERVICES.values():
        for name, text in environment(service).items():
            assert not (secret.search(name) and text), name
    assert not [name for name, text in example_variables().items() if secret.search(name) and text]
    assert not secret.search(value("ENV"))
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert ".env" in ignored


def test_each_way_to_run_starts_its_own_services() -> None:
    profiles = {name: service.get("profiles") for name, service in SERVICES.items()}
    assert profiles == {
        "boilstream": ["server"],
        "s3": ["s3"],
        "s3-bucket": ["s3"],
        "boilstream-dev": ["dev"],
    }
    assert example_variables()["COMPOSE_PROFILES"] == "server,s3"


def test_nothing_is_required_of_the_environment_to_read_the_file() -> None:
    # `${NAME:?}` would be demanded of the profile dev too, and `${NAME}` would warn.
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"(?<!\$)\$\{", text)
    assert SERVICES["boilstream"]["env_file"] == [{"path": ".env", "required": False}]
    assert "env_file" not in SERVICES["boilstream-dev"]
    assert SERVICES["boilstream"]["depends_on"]["s3-bucket"] == {
        "condition": "service_completed_successfully",
        "required": False,
    }


def test_ports() -> None:
    assert SERVICES["boilstream"]["ports"] == ["50051:50051"]
    issuer_port = Settings.model_fields["dev_issuer_port"].default
    assert SERVICES["boilstream-dev"]["ports"] == [
        "127.0.0.1:50051:50051",
        f"127.0.0.1:{issuer_port}:{issuer_port}",
    ]
    assert not [name for name in ("s3", "s3-bucket") if "ports" in SERVICES[name]]


@pytest.mark.parametrize("name", SERVERS)
def test_the_data_folder_is_a_named_volume(name: str) -> None:
    volumes = {
        target: source for source, target in (entry.split(":")[:2] for entry in SERVICES[name]["volumes"])
    }
    assert volumes["/var/lib/boilstream/data"] in COMPOSE["volumes"]


def test_the_volumes_of_both_ways_are_apart() -> None:
    used = [entry.split(":")[0] for service in SERVICES.values() for entry in service.get("volumes", [])]
    assert sorted(used) == sorted({*COMPOSE["volumes"], "./certs"})


def test_certificates_are_mounted_where_the_server_looks_for_them() -> None:
    assert f"./certs:{value('WORKDIR')}/certs:ro" in SERVICES["boilstream"]["volumes"]


@pytest.mark.parametrize("name", SERVERS)
def test_open_calls_may_end_before_the_engine_kills_the_server(name: str) -> None:
    grace = SERVICES[name]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > Settings.model_fields["shutdown_grace_seconds"].default


def test_the_probe_of_the_development_server_knows_its_certificate() -> None:
    test = SERVICES["boilstream-dev"]["healthcheck"]["test"]
    assert test[:2] == ["CMD", "env"]
    assert test[-3:] == ["python", "-m", "boilstream.flight.probe"]
    assigned = dict(word.split("=") for word in test[2:-3])
    assert assigned == {"TLS_CERT_PATH": "data/dev/server.crt", "TLS_KEY_PATH": "data/dev/server.key"}


@pytest.mark.parametrize("name", [*SERVERS, "s3"])
def test_services_that_listen_can_do_little_else(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")


@pytest.mark.parametrize("name", SERVICES)
def test_no_image_is_pulled_under_our_names(name: str) -> None:
    service = SERVICES[name]
    assert service["image"].startswith("boilstream/")
    assert service["pull_policy"] == ("build" if "build" in service else "never")


def test_the_store_comes_from_the_lock_and_tells_nobody() -> None:
    steps = instructions(SERVICES["s3"]["build"]["dockerfile_inline"])
    assert ("COPY", "requirements.lock .") in steps
    assert any("--require-hashes -r weed.lock" in rest for keyword, rest in steps if keyword == "RUN")
    assert ("USER", "10001:10001") in steps
    assert "-master.telemetry=false" in SERVICES["s3"]["entrypoint"][-1].split()


def test_the_store_does_not_start_without_credentials() -> None:
    script = SERVICES["s3"]["entrypoint"][-1].replace("$$", "$").replace("exec weed", "exec echo")
    paths = {"PATH": "/usr/bin:/bin"}
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    codes = [
        subprocess.run(["sh", "-c", script], env=paths | given, capture_output=True, check=False).returncode
        for given in (keys, {}, keys | {"AWS_SECRET_ACCESS_KEY": ""}, {"AWS_SECRET_ACCESS_KEY": "secret"})
    ]
    assert codes[0] == 0
    assert 0 not in codes[1:]
