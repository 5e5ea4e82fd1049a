"""What the documents say, for tests that hold the code to it."""

from __future__ import annotations

import re
from pathlib import Path

import boilstream

DOCS = Path(boilstream.__file__).parents[1] / "docs"


def documented_calls() -> dict[str, str]:
    """Call or `action <name>` -> permission, from the table of docs/flight.md."""
    text = (DOCS / "flight.md").read_text()
    _, _, rest = text.partition("| call | permission | what it does |\n|---|---|---|\n")
    table, _, _ = rest.partition("\n\n")
    found: dict[str, str] = {}
    for line in table.splitlines():
        calls, permission, _ = (cell.strip() for cell in line.strip("|").split("|", 2))
        for name in re.findall(r"`(\w+)`", calls):
            call = f"action {name}" if calls.startswith("action") else name
            assert call not in found, f"{call} stands twice in the table"
            found[call] = permission
    assert found, "docs/flight.md has no table of calls and permissions"
    return found


def rpc_names(server: type) -> set[str]:
    """The calls that a Flight server class implements, `DoPut` for its method `do_put`."""
    methods = {
        name
        for name in vars(server)
        if name.startswith(("do_", "list_", "get_")) and callable(getattr(server, name))
    }
    return {"".join(word.capitalize() for word in name.split("_")) for name in methods}
