"""SQL that BoilStream shows to DuckDB users, run by the stand-in for the Airport extension.

Plain DuckDB has no Airport: it checks that every statement parses, and tells what the tables would say
if they were its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from tests.support.airport import AirportClient

_SECRET = r"CREATE SECRET (?:\w+ )?\(TYPE airport, auth_token (.+), SCOPE '([^']+)'\)"
_ATTACH = r"ATTACH 'boilstream' \(TYPE AIRPORT, location '([^']+)'\)"
_TABLE = r"\bboilstream\.s3\.(\w+)"


@dataclass(frozen=True)
class Answer:
    """The rows of one SELECT."""

    server: pa.Table
    local: pa.Table
    """What the same statements give on tables of DuckDB itself."""


def paste(sql: str, *, ca: Path, environment: Mapping[str, str] | None = None) -> list[Answer]:
    """Run the text from INSTALL to its last SELECT; raises what DuckDB would show.

    `environment` is what `getenv` in the text sees.
    """
    statements = [found.query.strip().rstrip(";") for found in duckdb.extract_statements(sql)]
    first, rest = statements[:5], statements[5:]
    install, load, secret, setting, attach = first
    assert (install, load) == ("INSTALL airport FROM community", "LOAD airport")
    assert setting == "SET arrow_lossless_conversion = true"
    token, scope = _groups(_SECRET, secret)
    (location,) = _groups(_ATTACH, attach)
    assert location.startswith(scope), "without a prefix of the location as its scope the secret is not found"
    from_environment = re.fullmatch(r"getenv\('(\w+)'\)", token)
    token = (environment or {})[from_environment[1]] if from_environment else token.strip("'")
    with AirportClient(location, ca=ca, secret_token=token, lossless=True) as client:
        return _run(client, rest)


def _run(client: AirportClient, statements: list[str]) -> list[Answer]:
    answers = []
    with duckdb.connect() as local:
        local.execute("SET TimeZone = 'UTC'; SET arrow_lossless_conversion = true")
        local.execute("ATTACH ':memory:' AS boilstream; CREATE SCHEMA boilstream.s3")
        for statement in statements:
            (table,) = set(re.findall(_TABLE, statement))
            done = local.execute(statement)
            match statement.split()[0]:
                case "CREATE":
                    described = local.execute(f"DESCRIBE boilstream.s3.{table}").fetchall()
                    client.create_table(
                        table,
                        {name: kind for name, kind, *_ in described},
                        if_not_exists=" IF NOT EXISTS " in statement,
                    )
                case "INSERT":
                    (source,) = _groups(r"INSERT INTO boilstream\.s3\.\w+\s+(SELECT\b.+)", statement)
                    written = client.insert(table, source)
                    assert [(written.rows,)] == done.fetchall()
                case "SELECT":
                    sql = re.sub(_TABLE, "t", statement)
                    scan = client.open_scan(table, sql)
                    found = client.engine.result(scan.table, sql, scan.read(), scan.plan)
                    answers.append(Answer(found, done.to_arrow_table()))
                case other:
                    raise AssertionError(f"no document shows {other}")
    return answers


def _groups(pattern: str, statement: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, statement, re.DOTALL)
    assert found is not None, statement
    return found.groups()
