"""Who sees which tables, and what the others are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tests.e2e.airport.conftest import refusal
from tests.support.airport import AirportClient, AirportError
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

pytestmark = pytest.mark.slow

RULES = """
[[rules]]
name = "readers of public tables"
groups = ["Analysts"]
topics = ["*.public_*"]
allow = ["read"]

[[rules]]
name = "writers of drafts"
groups = ["Analysts"]
topics = ["*.draft_*"]
allow = ["write"]
"""


@pytest.fixture(scope="module")
def ruled(issuer: IssuerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a rules file, and three tables."""
    folder = tmp_path_factory.mktemp("ruled")
    rules = Path(folder / "rules.toml")
    rules.write_text(RULES)
    environment = {"DATA_DIR": str(folder / "data"), "AUTHORIZATION_RULES_FILE": str(rules)}
    with ServerProcess(issuer.environment() | environment) as process:
        admin = Client(process.location, issuer.token(groups="Admins"), issuer.ca_cert)
        for name in ("public_a", "private_a", "draft_a"):
            admin.put(["s3", name], pa.table({"a": [1]}))
        admin.close()
        yield process


def test_users_see_only_what_they_may_read(ruled: ServerProcess, start: Callable[..., AirportClient]) -> None:
    def seen(groups: str) -> list[str]:
        return [name for schema, name in start(ruled, groups).show_all_tables() if schema == "s3"]

    assert seen("Admins") == ["draft_a", "private_a", "public_a"]
    assert seen("Readers") == ["draft_a", "private_a", "public_a"]
    assert seen("Analysts") == ["draft_a", "public_a"]  # who may write may read
    assert seen("Strangers") == []


def test_a_reader_cannot_write_and_learns_why(
    ruled: ServerProcess, start: Callable[..., AirportClient]
) -> None:
    analyst = start(ruled, "Analysts")
    assert analyst.query("public_a", "SELECT a FROM t") == [(1,)]
    with pytest.raises(AirportError) as caught:
        analyst.insert("public_a", "VALUES (2)")
    assert caught.value.kind == "Permission"
    assert "write" in str(caught.value)
    assert "s3.public_a" in str(caught.value)
    assert analyst.query("public_a", "SELECT count(*) FROM t") == [(1,)]


def test_what_one_may_not_do_is_refused_with_the_rule_that_is_missing(
    ruled: ServerProcess, start: Callable[..., AirportClient]
) -> None:
    analyst = start(ruled, "Analysts")
    for call in (
        lambda: analyst.create_table("public_new", {"a": "INTEGER"}),
        lambda: analyst.drop_table("public_a"),
        lambda: analyst.add_column("public_a", "b", "INTEGER"),
        lambda: analyst.rename_table("public_a", "public_b"),
        lambda: analyst.create_schema("new"),
        lambda: analyst.drop_schema("s3"),
    ):
        error = refusal(call)
        assert "needs" in str(error) or "GROUPS" in str(error), error
    assert start(ruled, "Admins").read("public_a").to_pydict() == {"a": [1]}


def test_a_table_that_one_may_not_read_is_not_told_apart_from_none(
    ruled: ServerProcess, start: Callable[..., AirportClient]
) -> None:
    admin, analyst = start(ruled, "Admins"), start(ruled, "Analysts")
    hidden = admin.table("private_a")
    analyst.begin_statement()
    plan = admin.engine.plan(hidden, "SELECT * FROM t")
    error = refusal(analyst.open, hidden, plan)
    assert "private_a" not in str(error) or "needs read" in str(error)
