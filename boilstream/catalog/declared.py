"""What a client may declare: names, limits, and the form in which a schema is kept."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Final

import pyarrow as pa

from boilstream.catalog.names import fold
from boilstream.catalog.typemap import (
    MAX_FIXED_WIDTH,
    Refused,
    encoded_value,
    is_list,
    join,
    leaf,
    opaque_names,
    require_sparse,
    show_type,
    without_view,
)

MAX_COLUMN_NAME_BYTES: Final = 255
"""Longest name of a column or struct child in bytes of UTF-8."""

MAX_COLUMNS: Final = 2000
"""Most columns of a topic, counted with nested ones: struct children, list elements, map keys and values,
members of unions and one more for their tag."""

MAX_DEPTH: Final = 32
"""Deepest nesting: a column without children has depth 1, each list, struct, map or union adds 1."""

_ELEMENT, _KEY, _VALUE = "element", "key", "value"


def children(fields: Iterable[pa.Field], path: str) -> dict[str, tuple[int, pa.Field]]:
    """Position and field of each child by its name in the form for comparison.

    Raises Refused for a name that is illegal or not unique when case is ignored.
    """
    found: dict[str, tuple[int, pa.Field]] = {}
    for index, field in enumerate(fields):
        name = column_name(field, path, index)
        key = fold(name)
        if key in found:
            raise Refused(
                join(path, name), "this name is taken (names are compared ignoring case); rename it"
            )
        found[key] = index, field
    return found


def column_name(field: pa.Field, path: str, index: int) -> str:
    """The checked name of the child at `index` of `path`; raises Refused."""
    try:
        name = str(field.name)
    except UnicodeDecodeError:
        raise Refused(join(path, f"#{index}"), "the name is not UTF-8 text; rename it") from None
    if not name:
        raise Refused(join(path, f"#{index}"), "the name is empty; give it one")
    if any(unicodedata.category(char) == "Cc" for char in name):
        raise Refused(join(path, name), "the name has a control character; rename it")
    if len(name.encode()) > MAX_COLUMN_NAME_BYTES:
        raise Refused(join(path, name), f"the name has more than {MAX_COLUMN_NAME_BYTES} bytes; shorten it")
    return name


def normalise(schema: pa.Schema) -> pa.Schema:
    """The declared form of a client's schema: same names, order and nullability, no metadata.

    Types stay as they are, except: dictionary and run-end encoded columns become their value type
    (encodings belong to batches), list elements are named as Parquet names them, the flag of a
    map that its keys are sorted is dropped, and members of unions are nullable (a null of the union
    is one of a member). Raises Refused for the first column that cannot be stored.
    """
    if not len(schema):
        raise Refused("", "the schema has no columns; declare at least one")
    return pa.schema(_normalise_fields(schema, "", 1, count(1)))


def _normalise_fields(
    fields: Iterable[pa.Field], path: str, depth: int, counter: Iterator[int], slots: int = 1
) -> list[pa.Field]:
    return [
        pa.field(
            field.name, _normalise(field.type, join(path, field.name), depth, counter, slots), field.nullable
        )
        for _, field in children(fields, path).values()
    ]


def _normalise(
    kind: pa.DataType, path: str, depth: int, counter: Iterator[int], slots: int = 1
) -> pa.DataType:
    """The declared form of one type. `slots`: entries that the fixed-size lists around it reserve per row."""
    if next(counter) > MAX_COLUMNS:
        raise Refused(
            path, f"the schema has more than {MAX_COLUMNS} columns, counted with nested ones; split it"
        )
    if depth > MAX_DEPTH:
        raise Refused(path, f"it is nested deeper than {MAX_DEPTH} levels; flatten it")

    def child(field: pa.Field, name: str, slots: int = 1) -> pa.Field:
        return pa.field(
            name, _normalise(field.type, join(path, name), depth + 1, counter, slots), field.nullable
        )

    if pa.types.is_struct(kind):
        if not kind.num_fields:
            raise Refused(path, "a struct needs at least one child; add one or leave the column out")
        return pa.struct(_normalise_fields(kind.fields, path, depth + 1, counter, slots))
    if pa.types.is_union(kind):
        require_sparse(kind, path)
        next(counter)  # the tag
        members = _normalise_fields(kind, path, depth + 1, counter, slots)
        return pa.sparse_union([member.with_nullable(True) for member in members], kind.type_codes)
    if pa.types.is_map(kind):
        return pa.map_(child(kind.key_field, _KEY).with_nullable(False), child(kind.item_field, _VALUE))
    if pa.types.is_fixed_size_list(kind):
        slots *= kind.list_size
        if not 0 < slots <= MAX_FIXED_WIDTH:
            raise Refused(
                path,
                f"a fixed-size list has 1 to {MAX_FIXED_WIDTH} slots, counted with lists in it; use list",
            )
        return pa.list_(child(kind.value_field, _ELEMENT, slots), kind.list_size)
    if is_list(kind):
        return _list_like(kind, child(kind.value_field, _ELEMENT))
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _normalise(encoded_value(kind, path), path, depth, count(1), slots)
    if isinstance(kind, pa.BaseExtensionType):
        return _normalise_extension(kind, path)
    leaf(kind, path, slots)
    return kind


def rebuild(kind: pa.DataType, convert: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """The same kind of type with the types of its children converted; one without children as it is."""

    def child(field: pa.Field) -> pa.Field:
        return field.with_type(convert(field.type))

    if pa.types.is_struct(kind):
        return pa.struct([child(field) for field in kind])
    if pa.types.is_union(kind):
        return pa.sparse_union([child(field) for field in kind], kind.type_codes)
    if pa.types.is_map(kind):
        return pa.map_(child(kind.key_field), child(kind.item_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(child(kind.value_field), kind.list_size)
    if is_list(kind):
        return _list_like(kind, child(kind.value_field))
    return kind


def _list_like(kind: pa.DataType, element: pa.Field) -> pa.DataType:
    """A list type of the same variant as `kind`, with another element."""
    if pa.types.is_large_list(kind):
        return pa.large_list(element)
    if pa.types.is_list_view(kind):
        return pa.list_view(element)
    if pa.types.is_large_list_view(kind):
        return pa.large_list_view(element)
    return pa.list_(element)


def _normalise_extension(kind: pa.BaseExtensionType, path: str) -> pa.DataType:
    if isinstance(kind, pa.UuidType | pa.Bool8Type):
        return kind
    storage = without_view(kind.storage_type)  # pyarrow 26 concatenates extensions over views wrongly
    if isinstance(kind, pa.JsonType):
        return pa.json_(storage)
    if isinstance(kind, pa.OpaqueType):
        names = opaque_names(kind, path)
        if storage.num_fields or isinstance(storage, pa.BaseExtensionType):
            raise Refused(
                path, "arrow.opaque needs a storage type without children; send the storage type itself"
            )
        leaf(storage, path)
        return pa.opaque(storage, *names)
    raise Refused(
        path, f"extension type {show_type(kind)} is not supported; send its storage type {show_type(storage)}"
    )
