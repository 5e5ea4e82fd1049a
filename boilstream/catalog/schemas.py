"""The schemas that topics are in: namespaces of the Iceberg catalog, under their folded names."""

from __future__ import annotations

import threading
from contextlib import suppress
from urllib.parse import unquote

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NamespaceNotEmptyError, NoSuchNamespaceError
from sqlalchemy.exc import IntegrityError

from boilstream.catalog.definition import SCHEMA_PROPERTY
from boilstream.catalog.names import DEFAULT_SCHEMA, fold, namespace, schema_name
from boilstream.errors import InvalidArgument, NotFound


class Schemas:
    """The schemas of one Iceberg catalog by their folded names. Thread-safe.

    Each is called as whoever made it wrote it; the default schema is always there. Methods raise
    SQLAlchemyError when the catalog's database does not answer.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._names: dict[str, str] = {fold(DEFAULT_SCHEMA): DEFAULT_SCHEMA}

    def names(self) -> list[str]:
        """All schemas as written, sorted."""
        with self._lock:
            return sorted(self._names.values())

    def load(self) -> list[tuple[str, ...]]:
        """Read the schemas whose names are kept as written; returns all namespaces of the catalog."""
        namespaces = self._catalog.list_namespaces()
        for found in namespaces:
            self._remember_legal(found, self._kept(found))
        return namespaces

    def remember(self, name: str) -> bool:
        """Know the schema of a topic; returns whether it is new."""
        with self._lock:
            if fold(name) in self._names:
                return False
            self._names[fold(name)] = name
            return True

    def remember_namespace(self, found: tuple[str, ...]) -> None:
        """Know the namespace, whose name as written nothing tells, if it can be a schema."""
        # Earlier releases kept no name, other engines keep none.
        self._remember_legal(found, unquote(found[0]))

    def has(self, name: str) -> bool:
        """Whether the schema is known."""
        with self._lock:
            return fold(name) in self._names

    def ensure(self, name: str) -> None:
        """Make the namespace of a checked name, if it is not there."""
        # The usual case is that another topic made it, perhaps in another process just now.
        with suppress(NamespaceAlreadyExistsError, IntegrityError):
            self._catalog.create_namespace(namespace(name), {SCHEMA_PROPERTY: name})

    def create(self, name: str) -> bool:
        """Make the schema durably; returns False if it is there. Raises InvalidArgument for a bad name."""
        schema_name(name)
        if self.has(name):
            return False
        try:
            self._catalog.create_namespace(namespace(name), {SCHEMA_PROPERTY: name})
        except (NamespaceAlreadyExistsError, IntegrityError):
            self._remember_legal(namespace(name), self._kept(namespace(name)) or name)
            return False
        return self.remember(name)

    def drop(self, name: str) -> None:
        """Remove an empty schema; raises NotFound, and InvalidArgument for one that must stay."""
        schema_name(name)
        if fold(name) == fold(DEFAULT_SCHEMA):
            raise InvalidArgument(f"schema {DEFAULT_SCHEMA} is always there and cannot be dropped")
        missing = False
        try:
            self._catalog.drop_namespace(namespace(name))
        except NamespaceNotEmptyError:
            raise InvalidArgument(f"schema {name} is not empty; drop its tables first") from None
        except NoSuchNamespaceError:
            missing = True
        with self._lock:
            self._names.pop(fold(name), None)
        if missing:
            raise NotFound(f"schema {name} does not exist")

    def _kept(self, found: tuple[str, ...]) -> str | None:
        """The name of a namespace as written, if it is kept."""
        with suppress(NoSuchNamespaceError):  # dropped just now
            return self._catalog.load_namespace_properties(found).get(SCHEMA_PROPERTY)
        return None

    def _remember_legal(self, found: tuple[str, ...], name: str | None) -> None:
        if name is None or namespace(name) != found:
            return
        with suppress(InvalidArgument):
            self.remember(schema_name(name))
