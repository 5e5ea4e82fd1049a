"""The README cannot rot: its commands run, its tables match the code, its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boilstream.settings import Settings
from tests.support.pasted import paste
from tests.support.server import ServerProcess

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SQL_BLOCKS = re.findall(r"^```sql\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
EXPECTED = [
    ("'rows': 2", "{'user_id': 'user-1', 'clicks': 3}, {'user_id': 'user-2', 'clicks': 5}"),
    ("user-1", "user-2", "clicks"),
    ("rows", "2"),
    ('"access_token"', '"token_type"'),
]
"""What each block prints, in order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ServerProcess]]:
    """A folder that looks like a clone in which `make run` is under way."""
    root = tmp_path_factory.mktemp("clone")
    (root / ".venv").symlink_to(sys.prefix)
    environment = {"DATA_DIR": str(root / "data"), "DEV_ISSUER_PORT": "0"}
    with ServerProcess(environment, command=("dev",)) as server:
        yield root, server


@pytest.mark.slow
def test_the_commands_run_in_the_order_of_the_page(folder: tuple[Path, ServerProcess]) -> None:
    root, server = folder
    assert len(BLOCKS) == len(EXPECTED)
    issuer = server.await_output(r"Issuer +https://localhost:(\d+)/")
    ports = {"50051": server.location.rpartition(":")[2], "50052": issuer[1]}
    for block, expected in zip(BLOCKS, EXPECTED, strict=True):
        program = re.sub("5005[12]", lambda match: ports[match[0]], block)
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", program],
            cwd=root,
            env={"PATH": os.environ["PATH"], "HOME": str(root)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        for text in expected:
            assert text in result.stdout


@pytest.mark.slow
def test_the_sql_for_duckdb_gives_what_it_gives_on_tables_of_its_own(
    folder: tuple[Path, ServerProcess],
) -> None:
    root, server = folder
    (block,) = SQL_BLOCKS
    (shell,) = re.findall(r"^\$ (export TOKEN=.*\n)\$ (export GRPC_\w+=.*\n)\$ duckdb$", README, re.MULTILINE)
    environment = variables("".join(shell), root)
    port = server.location.rpartition(":")[2]
    ca = root / environment["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"]
    (answer,) = paste(block.replace("50051", port), ca=ca, environment=environment)
    assert answer.server.equals(answer.local)
    assert answer.server.column("page").to_pylist() == ["/999", "/997", "/998"]


def variables(program: str, folder: Path) -> dict[str, str]:
    """What lines of a shell export."""
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{program}env -0"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return dict(line.split("=", 1) for line in result.stdout.split("\0") if line)


def test_the_table_of_settings_is_complete_and_right() -> None:
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \| (.*?) \| `(.*?)` \|$", README, re.MULTILINE)
    assert [row[0] for row in rows] == [name.upper() for name in Settings.model_fields]
    for variable, default, meaning, example in rows:
        field = Settings.model_fields[variable.lower()]
        assert meaning == field.description
        assert example == (field.examples or [""])[0]
        value = None if field.default_factory is not None else field.default
        shown = ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
        assert default.strip("`").lower() == (shown.lower() or "-")


def test_every_link_leads_to_a_file() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)`", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
