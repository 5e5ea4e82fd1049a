"""Arrays taken apart and put together again by their buffers, around what pyarrow 26 does wrongly."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from boilstream.catalog.declared import rebuild
from boilstream.catalog.typemap import extends_views, has_children, is_list


def validity(array: Any) -> pa.Buffer | None:
    """The validity bitmap of an array, starting at bit 0; None if nothing is null."""
    if not array.null_count:
        return None
    if not array.offset:
        return array.buffers()[0]
    return pc.invert(pc.is_null(array)).buffers()[1]


def without_nulls(array: Any) -> Any:
    """The same array with all values valid; those that were null are arbitrary."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, without_nulls(array.storage))
    if pa.types.is_struct(kind):
        parts = [array.field(index) for index in range(kind.num_fields)]
        return pa.Array.from_buffers(kind, len(array), [None], 0, children=parts)
    parts = [array.values] if has_children(kind) else []
    own = array.buffers()[: kind.num_buffers] if parts else array.buffers()
    return pa.Array.from_buffers(kind, len(array), [None, *own[1:]], 0, array.offset, children=parts)


def masked(array: Any, valid: Any) -> Any:
    """The array with null where `valid`, an array of booleans without offset and nulls, is false."""
    kind, rows = array.type, len(array)
    if pa.types.is_union(kind):
        parts = [masked(array.field(index), valid) for index in range(kind.num_fields)]
        return pa.Array.from_buffers(kind, rows, [None, _codes(array)], 0, children=parts)
    outer = pa.Array.from_buffers(pa.struct([("x", kind)]), rows, [valid.buffers()[1]], children=[array])
    return outer.flatten()[0]


def struct_children(array: Any) -> list[Any]:
    """The children of a struct, null where it is; `StructArray.flatten` aborts the process at a union."""
    parts = [array.field(index) for index in range(array.type.num_fields)]
    bitmap = validity(array)
    if bitmap is None:
        return parts
    valid = pa.Array.from_buffers(pa.bool_(), len(array), [None, bitmap])
    return [masked(part, valid) for part in parts]


def list_values(array: Any) -> Any:
    """The values of all lists that are not null, in their order."""
    kind = array.type
    if not extends_views(kind):
        return array.flatten()
    # the values are put together from pieces, which goes wrong for extensions over views
    return retyped(retyped(array, _bare(kind)).flatten(), kind.value_type)


def type_codes(union: Any) -> Any:
    """The type code of each row; `UnionArray.type_codes` ignores the offset of a slice."""
    return pa.Array.from_buffers(pa.int8(), len(union), [None, _codes(union)])


def _codes(union: Any) -> pa.Buffer:
    return union.buffers()[1].slice(union.offset, len(union))


def _bare(kind: pa.DataType) -> pa.DataType:
    """A type with the storage types of the extension types in it."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    return rebuild(kind, _bare)


def retyped(array: Any, kind: pa.DataType) -> Any:
    """The same bytes as another type of the same layout, such as one without the extension types in it.

    The array has passed `validate`; no value of it is looked at. `Array.view` gives unions and nulls
    within lists a wrong length.
    """
    if array.type == kind:
        return array
    if isinstance(array.type, pa.BaseExtensionType):
        return array.storage
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, array)
    if not has_children(kind):
        return array.view(kind)
    rows, own = len(array), array.buffers()[: kind.num_buffers]
    if is_list(kind) or pa.types.is_map(kind):
        parts = [retyped(array.values, kind.field(0).type)]
        return pa.Array.from_buffers(kind, rows, own, offset=array.offset, children=parts)
    if array.offset:
        own = [None, _codes(array)] if pa.types.is_union(kind) else [validity(array)]
    parts = [retyped(array.field(index), kind.field(index).type) for index in range(kind.num_fields)]
    return pa.Array.from_buffers(kind, rows, own, children=parts)
