"""Random tables of random types, from DuckDB to the store and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.airport.conftest import on_local_store
from tests.e2e.airport.test_types import VALUES, same
from tests.support.airport import AirportClient
from tests.support.issuer import IssuerProcess
from tests.support.server import ServerProcess

pytestmark = pytest.mark.slow

_tables = count()

LEAVES = [kind for kind in VALUES if "(" not in kind and "[" not in kind] + ["DECIMAL(18,6)"]


def nested(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        children.map(lambda kind: f"{kind}[]"),
        children.map(lambda kind: f"{kind}[2]"),
        st.lists(children, min_size=1, max_size=3).map(
            lambda kinds: f"STRUCT({', '.join(f'f{n} {kind}' for n, kind in enumerate(kinds))})"
        ),
        st.tuples(st.sampled_from(["VARCHAR", "INTEGER", "DATE"]), children).map(
            lambda pair: f"MAP({pair[0]}, {pair[1]})"
        ),
    )


TYPES = st.recursive(st.sampled_from(LEAVES), nested, max_leaves=4)


@st.composite
def literals(draw: st.DrawFn, kind: str) -> str:
    """A SQL expression of a random value of this type."""
    if draw(st.integers(0, 4)) == 0:
        return f"NULL::{kind}"
    if kind.endswith("[]"):
        items = draw(st.lists(literals(kind[:-2]), max_size=3))
        return f"[{', '.join(items)}]::{kind}"
    if kind.endswith("[2]"):
        items = [draw(literals(kind[:-3])) for _ in range(2)]
        return f"[{', '.join(items)}]::{kind}"
    if kind.startswith("STRUCT("):
        fields = [field.split(" ", 1) for field in split(kind[len("STRUCT(") : -1])]
        return "{" + ", ".join(f"'{name}': {draw(literals(of))}" for name, of in fields) + f"}}::{kind}"
    if kind.startswith("MAP("):
        key, value = split(kind[len("MAP(") : -1])
        keys = draw(st.lists(st.sampled_from(VALUES[key]), unique=True, max_size=2))
        pairs = [f"({name})::{key}: {draw(literals(value))}" for name in keys]
        return f"MAP {{{', '.join(pairs)}}}::{kind}"
    return f"({draw(st.sampled_from(VALUES[kind]))})::{kind}"


def split(text: str) -> list[str]:
    """The parts between commas that stand in no parentheses."""
    parts, depth = [""], 0
    for char in text:
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


@st.composite
def contents(draw: st.DrawFn) -> tuple[dict[str, str], list[str]]:
    """Columns with their types, and rows as SQL."""
    kinds = draw(st.lists(TYPES, min_size=1, max_size=3))
    rows = draw(st.lists(st.tuples(*(literals(kind) for kind in kinds)), min_size=1, max_size=4))
    return {f"c{n}": kind for n, kind in enumerate(kinds)}, [", ".join(row) for row in rows]


@pytest.fixture(scope="module")
def lossless(server: ServerProcess, issuer: IssuerProcess) -> Iterator[Callable[[], AirportClient]]:
    """Attach the server from a process with arrow_lossless_conversion."""
    clients: list[AirportClient] = []
    token = issuer.token(groups="Admins")
    location = server.location.replace("127.0.0.1", "localhost")

    def attach() -> AirportClient:
        client = AirportClient(
            location, ca=issuer.ca_cert, attach_token=token, secret_token=token, lossless=True
        )
        clients.append(client)
        return client

    yield attach
    for client in clients:
        client.close()


@on_local_store
@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
    ],
)
@given(data=contents())
def test_any_table_comes_back(
    lossless: Callable[[], AirportClient], data: tuple[dict[str, str], list[str]]
) -> None:
    columns, rows = data
    client = lossless()
    name = f"random_{next(_tables)}"
    client.create_table(name, columns)
    try:
        sql = " UNION ALL ".join(f"SELECT {number} AS k, {row}" for number, row in enumerate(rows))
        made = client.engine.arrow(
            f"SELECT * EXCLUDE (k) FROM ({sql}) AS made(k, {', '.join(columns)}) ORDER BY k"
        )
        client.insert(name, made)
        found = client.read(name)
        assert [item.type for item in client.table(name).columns] == list(made.schema.types)
        assert same(client.engine, found, made)
    finally:
        client.drop_table(name)
        client.close()
