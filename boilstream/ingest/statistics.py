"""What planning a read wants to know of a data file: nulls and bounds of its columns. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from boilstream.catalog.evolution import field_id
from boilstream.log.footers import Footer
from boilstream.log.statistics import ColumnStatistics


def statistics(table: pa.Table, metadata: Any) -> Mapping[int, ColumnStatistics]:
    """Statistics of a stored table, by field id of its top-level columns.

    `metadata` is the footer of its file, from which the bounds come; nulls are those of the table, so
    that columns with children have them too. Columns without a field id are left out.
    """
    bounds = Footer(metadata).bounds()
    found = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        identifier = field_id(field)
        if identifier is None:
            continue
        lower, upper = bounds.get(identifier, (None, None))
        if isinstance(upper, float) and _may_have_nan(column):
            upper = None
        found[identifier] = ColumnStatistics(column.null_count, lower, upper)
    return found


def _may_have_nan(column: pa.ChunkedArray) -> bool:
    """Whether NaN may be among the floats: it makes their sum NaN, which costs half of looking for it."""
    total = pc.sum(column).as_py()
    return total is not None and math.isnan(total)
