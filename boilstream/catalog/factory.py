"""Opens the Iceberg catalog that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy.exc import SQLAlchemyError

from boilstream.catalog.file_io import PATIENCE_PROPERTY, STORE_PROPERTY, StoreFileIO
from boilstream.catalog.topics import TopicCatalog
from boilstream.errors import ConfigurationError
from boilstream.settings import masked_uri
from boilstream.storage.base import ObjectStore

CATALOG_NAME = "boilstream"


def open_catalog(
    uri: str | None, data_dir: Path, store: ObjectStore, *, patience: float = 30.0
) -> TopicCatalog:
    """The topics in the catalog at `uri` (SQLAlchemy address), or in SQLite below `data_dir`.

    Table metadata is kept in `store`; `patience` is how long a change waits for it, seconds. Raises
    ConfigurationError when the database cannot be opened.
    """
    if uri is None:
        data_dir.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{(data_dir / 'catalog.sqlite').absolute()}"
    properties: dict[str, Any] = {
        "uri": uri,
        "warehouse": store.url("tables"),
        "py-io-impl": f"{StoreFileIO.__module__}.{StoreFileIO.__name__}",
        STORE_PROPERTY: store,
        PATIENCE_PROPERTY: patience,
    }
    try:
        catalog = SqlCatalog(CATALOG_NAME, **properties)
    except (SQLAlchemyError, ImportError) as error:
        raise ConfigurationError(
            f"ICEBERG_CATALOG_URI: {masked_uri(uri)} cannot be opened ({type(error).__name__}); for example "
            "ICEBERG_CATALOG_URI=sqlite:////var/lib/boilstream/catalog.sqlite"
        ) from error
    return TopicCatalog(catalog, store, patience=patience)
