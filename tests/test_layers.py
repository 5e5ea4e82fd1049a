"""The rules of the house: which module may import what, sizes, and documents that match the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest

import boilstream
from boilstream.flight.actions import Actions
from boilstream.flight.airport.actions import AirportActions
from boilstream.flight.airport.ddl import CHANGES, REFUSED
from boilstream.flight.server import FlightServer
from tests.support.documented import documented_calls, rpc_names

ROOT = Path(boilstream.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

LAYERS = (
    {"__init__", "errors", "machine"},
    {"settings"},
    {"storage", "observe", "addresses", "certificates"},
    {"catalog", "log", "auth"},
    {"ingest", "query", "publish"},
    {"flight", "http"},
    {"app"},
    {"dev", "doctor"},
    {"cli"},
    {"__main__"},
)
"""From the bottom to the top: a module imports from its own layer and those before it, never from later ones."""

MAX_LINES = 400


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def dotted(path: Path) -> str:
    """`boilstream.flight.server`, `boilstream.flight` for its `__init__`."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The part of the house that a dotted name belongs to: `flight`, `app`; `__init__` for the package."""
    part = [*module.split("."), "__init__"][1]
    is_attribute = part.startswith("__") and not (ROOT / f"{part}.py").exists()  # such as __version__
    return "__init__" if is_attribute else part


def layer_of(module: str) -> int:
    for number, layer in enumerate(LAYERS):
        if part_of(module) in layer:
            return number
    raise AssertionError(f"{module} stands in no layer: add it to the design and to this list")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, imports inside of functions included."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def ids(path: Path) -> str:
    return dotted(path)


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 30
    assert {"settings", "flight", "auth", "storage", "log"} <= {part_of(dotted(path)) for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_point_down(path: Path) -> None:
    own = layer_of(dotted(path))
    wrong = [
        f"{path.name}:{line} imports {name}"
        for line, name in imports(path)
        if is_below(name, "boilstream") and layer_of(name) > own
    ]
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_no_module_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", [path for path in MODULES if part_of(dotted(path)) != "settings"], ids=ids)
def test_only_the_settings_read_the_environment(path: Path) -> None:
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    used = [
        node.attr
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    ]
    imported = [name for _, name in imports(path)]
    assert not names & set(used)
    assert not {f"os.{name}" for name in names} & set(imported)


@pytest.mark.parametrize(
    ("package", "forbidden", "except_for"),
    [
        ("auth", "pyarrow", {"middleware"}),
        ("storage", "pyarrow.parquet", set()),
        ("log", "pyarrow.parquet", set()),
        ("ingest", "pyarrow.flight", set()),
        ("query", "pyarrow.flight", set()),
        ("catalog", "pyarrow.flight", set()),
        ("flight", "boto3", set()),
        ("ingest", "boto3", set()),
        ("flight", "boilstream.storage", set()),
        ("flight", "boilstream.log", set()),
        ("dev", "boilstream.ingest", set()),
    ],
)
def test_parts_know_only_what_concerns_them(package: str, forbidden: str, except_for: set[str]) -> None:
    found = [
        f"{path.name}:{line} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        if path.stem not in except_for
        for line, name in imports(path)
        if is_below(name, forbidden)
    ]
    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_log_lines_go_to_the_logger_of_their_module(path: Path) -> None:
    named = [
        node.args[0].value
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "getLogger"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value
    ]
    assert all(str(name).startswith("boilstream") for name in named)
    printed = [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printed == []


def test_every_call_stands_in_the_permission_table_and_the_other_way_round() -> None:
    documented = {call for call in documented_calls() if not call.startswith("action ")}
    # DoAction stands there action by action; pyarrow answers PollFlightInfo itself.
    assert rpc_names(FlightServer) - {"DoAction"} == documented - {"PollFlightInfo"}
    assert "DoAction" in rpc_names(FlightServer)


def test_every_action_stands_in_the_permission_table_and_the_other_way_round() -> None:
    nothing = cast(Any, None)
    own = Actions(nothing, nothing, node="").list()
    airport = AirportActions(nothing, nothing, nothing, nothing, nothing, nothing).list()
    actions = {f"action {name}" for name, _ in [*own, *airport]}
    assert len(actions) == len(own) + len(airport)
    assert actions == {call for call in documented_calls() if call.startswith("action ")}


def test_the_permissions_of_the_table_are_those_that_exist() -> None:
    permissions = documented_calls()
    unserved = {"PollFlightInfo"} | {f"action {name}" for name in REFUSED}
    assert {call for call, permission in permissions.items() if not permission} == unserved
    known = {"read", "read, per topic", "write", "admin", "a valid token", "a valid token in the body"}
    assert {permission for permission in permissions.values() if permission} <= known
    assert permissions["DoPut"] == permissions["action create_topic"] == "write"
    assert permissions["action drop_topic"] == permissions["action drop_table"] == "admin"
    assert permissions["DoExchange"] == permissions["action create_table"] == "write"
    assert {permissions[f"action {name}"] for name in CHANGES} == {"admin"}
