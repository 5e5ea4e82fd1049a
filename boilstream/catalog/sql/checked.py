"""The columns that the CHECKs of a topic name, found where nobody waits for them.

An ALTER needs them while it holds the lock of the whole catalog, and a CHECK may take seconds to evaluate,
or wait for others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from boilstream.catalog.sql.expressions import Check
from boilstream.catalog.types import TopicSchema


class Unchecked(Exception):
    """The columns of a CHECK are not known yet: call `CheckedColumns.compile` and begin again."""


class CheckedColumns:
    """What is known in one ALTER. For one thread."""

    def __init__(self) -> None:
        self._known: list[tuple[TopicSchema, dict[str, Collection[str]]]] = []
        self._missed: tuple[Collection[str], TopicSchema] | None = None

    def of(self, checks: Iterable[str]) -> Callable[[str, TopicSchema], Collection[str]]:
        """The function that `changes.apply` takes, for a topic with those CHECKs.

        It evaluates nothing, and raises Unchecked where `compile` has more to do.
        """
        wanted = tuple(checks)

        def columns(sql: str, schema: TopicSchema) -> Collection[str]:
            for known, found in self._known:
                if sql in found and known.declared.equals(schema.declared):
                    return found[sql]
            self._missed = {*wanted, sql}, schema
            raise Unchecked

        return columns

    def compile(self) -> None:
        """Find what was missed; raises InvalidArgument for a CHECK that has no meaning for the schema."""
        if self._missed is not None:
            checks, schema = self._missed
            self._known.append((schema, {sql: Check.compile(sql, schema).columns for sql in checks}))
            self._missed = None
