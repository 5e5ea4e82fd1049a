"""The forms of ALTER TABLE, each with the keys of its action (5.4)."""

from __future__ import annotations

import pyarrow as pa

from tests.support.airport.catalog import Catalog
from tests.support.airport.wire import Table

Name = str | tuple[str, str]


class AlterTable(Catalog):
    """A catalog whose tables can be changed."""

    def add_column(
        self, name: Name, column: str, kind: str | pa.DataType, *, if_not_exists: bool = False
    ) -> Table | None:
        """ADD COLUMN; a DEFAULT is not sent."""
        schema = self.one_column(column, kind)
        return self.alter(name, "add_column", if_column_not_exists=if_not_exists, column_schema=schema)

    def remove_column(
        self, name: Name, column: str, *, if_exists: bool = False, cascade: bool = False
    ) -> Table | None:
        """DROP COLUMN."""
        return self.alter(
            name, "remove_column", removed_column=column, if_column_exists=if_exists, cascade=cascade
        )

    def rename_column(self, name: Name, old: str, new: str) -> Table | None:
        """RENAME COLUMN."""
        return self.alter(name, "rename_column", old_name=old, new_name=new)

    def rename_table(self, name: Name, new: str) -> Table | None:
        """RENAME TO."""
        return self.alter(name, "rename_table", new_table_name=new)

    def change_type(
        self, name: Name, column: str, kind: str | pa.DataType, *, using: str | None = None
    ) -> Table | None:
        """ALTER COLUMN .. TYPE; `using` defaults to the cast that DuckDB sends."""
        expression = using or f'CAST("{column}" AS {kind})'
        return self.alter(
            name, "change_column_type", column_schema=self.one_column(column, kind), expression=expression
        )

    def set_default(self, name: Name, column: str, expression: str) -> Table | None:
        """ALTER COLUMN .. SET DEFAULT."""
        return self.alter(name, "set_default", column_name=column, expression=expression)

    def set_not_null(self, name: Name, column: str) -> Table | None:
        """ALTER COLUMN .. SET NOT NULL."""
        return self.alter(name, "set_not_null", column_name=column)

    def drop_not_null(self, name: Name, column: str) -> Table | None:
        """ALTER COLUMN .. DROP NOT NULL."""
        return self.alter(name, "drop_not_null", column_name=column)

    def add_field(self, name: Name, parent: list[str], kind: str) -> Table | None:
        """ADD COLUMN a.b: the name of the new field is not sent."""
        schema = self.one_column("", self.engine.arrow_schema({"field": kind}).field(0).type)
        return self.alter(
            name, "add_field", column_path=parent, column_schema=schema, if_field_not_exists=False
        )

    def rename_field(self, name: Name, path: list[str], new: str) -> Table | None:
        """RENAME COLUMN a.b."""
        return self.alter(name, "rename_field", column_path=path, new_name=new)

    def remove_field(self, name: Name, path: list[str]) -> Table | None:
        """DROP COLUMN a.b."""
        return self.alter(name, "remove_field", column_path=path, if_column_exists=False, cascade=False)

    def add_constraint(self, name: Name, constraint: str) -> Table | None:
        """ADD CONSTRAINT."""
        return self.alter(name, "add_constraint", constraint=constraint)
