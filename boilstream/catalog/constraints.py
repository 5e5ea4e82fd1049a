"""What a topic demands of its rows beyond types and nulls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Constraints:
    """SQL texts in the dialect of DuckDB, whose users write them; `boilstream.catalog.sql.expressions` runs them."""

    defaults: Mapping[int, str] = field(default_factory=dict)
    """By Iceberg field id: the value of a column that a writer leaves out."""
    checks: tuple[str, ...] = ()
    """Conditions that no row may make false; they name columns."""
