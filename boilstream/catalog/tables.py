"""Changes the definition of a topic in its Iceberg table, all of it or nothing."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Literal, cast

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError
from pyiceberg.schema import Schema
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    AddSchemaUpdate,
    AssertCurrentSchemaId,
    AssertTableUUID,
    RemovePropertiesUpdate,
    RemoveSchemasUpdate,
    SetCurrentSchemaUpdate,
    SetPropertiesUpdate,
    TableRequirement,
    TableUpdate,
    ValidatableTableRequirement,
)
from pyiceberg.utils.properties import property_as_bool
from sqlalchemy.exc import SQLAlchemyError

from boilstream.catalog.definition import KEPT, RENAME_PROPERTY, Definition, properties, read
from boilstream.catalog.names import iceberg_identifier
from boilstream.errors import BoilStreamError

log = logging.getLogger("boilstream.catalog.tables")


def commit(catalog: Catalog, table: Table, wanted: Definition) -> TableMetadata:
    """Make `wanted` the definition of the table, which was just loaded, in one commit.

    The name may change only in case. Raises CommitFailedException if the table was changed
    meanwhile, ValidationError if its partitioning or sort order does not allow the change.
    """
    schemas = table.metadata.schemas
    iceberg = _numbered(wanted.schema.iceberg, schemas)
    wanted = replace(wanted, schema=replace(wanted.schema, iceberg=iceberg))
    updates: list[TableUpdate] = []
    if all(schema.schema_id != iceberg.schema_id for schema in schemas):
        updates.append(AddSchemaUpdate(schema_=iceberg))
    if iceberg.schema_id != table.metadata.current_schema_id:
        updates.append(SetCurrentSchemaUpdate(schema_id=iceberg.schema_id))
    if forgotten := _forgotten(table.metadata, wanted):
        updates.append(RemoveSchemasUpdate(schema_ids=forgotten))
    updates.append(SetPropertiesUpdate(updates=properties(wanted)))
    if RENAME_PROPERTY in table.properties:
        updates.append(RemovePropertiesUpdate(removals=[RENAME_PROPERTY]))
    return _commit(catalog, table, updates)


def rename(catalog: Catalog, table: Table, before: Definition, after: Definition) -> TableMetadata:
    """Give the table, which was just loaded, the name of `after`, which nothing else differs in.

    Only the middle one of three steps, in the catalog's database, changes the definition: the first
    notes the name, which means nothing yet, the last tidies up. Raises TableAlreadyExistsError, and
    as `commit`.
    """
    old, new = iceberg_identifier(before.name), iceberg_identifier(after.name)
    if new in catalog.list_tables(new[:1]):
        raise TableAlreadyExistsError
    _commit(catalog, table, [SetPropertiesUpdate(updates={RENAME_PROPERTY: after.name.table})])
    renamed = catalog.rename_table(old, new)
    try:
        # Another process may have removed the note meanwhile, with a change of its own.
        return commit(catalog, renamed, replace(read(new, renamed.metadata), name=after.name))
    except (BoilStreamError, CommitFailedException, SQLAlchemyError) as error:
        log.info("topic %s was renamed, but for some tidying: %r", after.name, error)
        return renamed.metadata


def _commit(catalog: Catalog, table: Table, updates: list[TableUpdate]) -> TableMetadata:
    requirements = (
        AssertTableUUID(uuid=table.metadata.table_uuid),
        AssertCurrentSchemaId(current_schema_id=table.metadata.current_schema_id),
        _AssertDefinition(expected=_kept(table.metadata)),
    )
    answer = catalog.commit_table(
        table, cast(tuple[TableRequirement, ...], requirements), cast(Any, tuple(updates))
    )
    _delete_old(table, answer.metadata)
    return answer.metadata


def _delete_old(table: Table, after: TableMetadata) -> None:
    """Delete the metadata files that `after` names no more, if the table is to have that done.

    pyiceberg does so in transactions only. No later commit tries again, as with other engines.
    """
    if not property_as_bool(after.properties, TableProperties.METADATA_DELETE_AFTER_COMMIT_ENABLED, False):
        return
    kept = {entry.metadata_file for entry in after.metadata_log}
    for entry in table.metadata.metadata_log:
        if entry.metadata_file not in kept:
            try:
                table.io.delete(entry.metadata_file)
            except (BoilStreamError, OSError, ValueError) as error:
                log.warning("old metadata %s stays, it cannot be deleted: %r", entry.metadata_file, error)
                return


def _forgotten(metadata: TableMetadata, wanted: Definition) -> list[int]:
    """Schemas of versions that are not kept, and that no snapshot was written with.

    The newest stays: ids are not given twice.
    """
    kept = {schema.iceberg.schema_id for schema in wanted.versions.values()}
    kept |= {snapshot.schema_id for snapshot in metadata.snapshots if snapshot.schema_id is not None}
    kept |= {metadata.current_schema_id, max(schema.schema_id for schema in metadata.schemas)}
    return [schema.schema_id for schema in metadata.schemas if schema.schema_id not in kept]


class _AssertDefinition(ValidatableTableRequirement):
    """The table must still have the definition that a change was made from."""

    type: Literal["assert-boilstream-definition"] = "assert-boilstream-definition"
    expected: dict[str, str]

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]
        if base_metadata is None or _kept(base_metadata) != self.expected:
            raise CommitFailedException("the definition of the topic was changed meanwhile")


def _kept(metadata: TableMetadata) -> dict[str, str]:
    return {key: value for key, value in metadata.properties.items() if key in KEPT}


def _numbered(iceberg: Schema, schemas: list[Schema]) -> Schema:
    """The schema with the id that it has in the table, or shall get."""
    for known in schemas:
        if known == iceberg:
            return known
    number = 1 + max(known.schema_id for known in schemas)
    return Schema(*iceberg.fields, schema_id=number, identifier_field_ids=iceberg.identifier_field_ids)
