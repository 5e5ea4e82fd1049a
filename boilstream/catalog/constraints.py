"""What a topic demands of its rows beyond types and nulls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from boilstream.errors import InvalidArgument

MAX_CHECKS: Final = 32
"""Most checks of a topic: every writer pays for each of them with every batch."""


@dataclass(frozen=True, slots=True)
class Constraints:
    """SQL texts in the dialect of DuckDB, whose users write them; `boilstream.catalog.sql.expressions` runs them."""

    defaults: Mapping[int, str] = field(default_factory=dict)
    """By Iceberg field id: the value of a column that a writer leaves out."""
    checks: tuple[str, ...] = ()
    """Conditions that no row may make false; they name columns."""

    def __post_init__(self) -> None:
        """Raises InvalidArgument for too many checks."""
        if len(self.checks) > MAX_CHECKS:
            raise InvalidArgument(
                f"the topic would have {len(self.checks)} CHECKs and may have {MAX_CHECKS}; join some of them with AND"
            )
