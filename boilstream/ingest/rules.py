"""DEFAULT and CHECK of a topic, ready to run on the rows of any writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import pyarrow as pa

from boilstream.catalog.constraints import Constraints
from boilstream.catalog.duckdb_types import published
from boilstream.catalog.sql.expressions import Check, Default
from boilstream.catalog.topics import Topic, TopicDraft
from boilstream.catalog.types import TopicSchema


class RowRules:
    """What rows of one definition are completed with and measured by."""

    def __init__(self, schema: TopicSchema, constraints: Constraints, owner: str | None = None) -> None:
        """Raises InvalidArgument for an expression that cannot be evaluated; `owner` is as in Check.compile."""
        self._published = published(schema)
        self._checks = tuple(Check.compile(sql, schema, owner) for sql in constraints.checks)
        self._checked = sorted(frozenset[str]().union(*(check.columns for check in self._checks)))
        by_id = {
            field.field_id: shown
            for field, shown in zip(schema.iceberg.fields, self._published.declared, strict=True)
        }
        self.defaults: Mapping[str, Callable[[int], pa.Array]] = {
            by_id[number].name: Default.compile(sql, by_id[number]).values
            for number, sql in constraints.defaults.items()
            if number in by_id
        }
        """By column: makes the values of that many rows for writers that leave it out."""

    def require(self, stored: pa.RecordBatch) -> None:
        """Raise ConstraintViolated if a row, given in the stored form, makes a CHECK false."""
        if not self._checks:
            return
        batch = self._published.to_declared(stored).select(self._checked)
        for check in self._checks:
            check.require(batch)


@lru_cache(256)
def rules_of(target: Topic | TopicDraft) -> RowRules:
    """The rules of a topic; raises InvalidArgument for an expression that cannot be evaluated."""
    return RowRules(target.schema, target.constraints, owner=target.location)
