"""Conversion of whole columns, nested ones included: built once per stream, run for each batch.

The shape of lists, maps and structs changes here (list variants, names and order of children,
field ids); the values in them are converted by `boilstream.catalog.leaves`. Offsets, validity
and values are reused wherever their bytes stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from boilstream.catalog import leaves, meanings, unions
from boilstream.catalog.arrays import list_values, struct_children, validity, without_nulls
from boilstream.catalog.declared import children, rebuild
from boilstream.catalog.leaves import ForbiddenNull, Step, Unfit
from boilstream.catalog.names import fold
from boilstream.catalog.typemap import (
    Refused,
    has_children,
    is_list,
    is_list_view,
    join,
    require_sparse,
    show_type,
)

Report = Callable[[Refused], None]
"""Takes a column that cannot be converted; the others are still looked at."""


@dataclass(frozen=True, slots=True)
class _Lists:
    """Any array of lists or maps: row i holds values[offsets[i]:offsets[i + 1]], none if it is null."""

    rows: int
    nulls: int
    validity: pa.Buffer | None
    offsets: Any
    values: Any


def encoder(
    sent: pa.DataType,
    declared: pa.DataType,
    stored: pa.DataType,
    path: str,
    report: Report,
    *,
    required: bool = False,
) -> Step | None:
    """The step from an array of type `sent` to the stored form of a declared type.

    `required` tells that its place does not allow nulls. The caller refuses them in the result; only
    unions look different then.
    """
    try:
        if pa.types.is_null(sent):
            return absent(stored, path)
        if pa.types.is_struct(sent) and pa.types.is_struct(declared):
            return _struct_encoder(sent, declared, stored, path, report)
        if pa.types.is_union(sent) and pa.types.is_union(declared):
            return _union_encoder(sent, declared, stored, path, report, required=required)
        if pa.types.is_map(sent) and pa.types.is_map(declared):
            key = encoder(sent.key_type, declared.key_type, stored.key_type, join(path, "key"), report)
            item = encoder(
                sent.item_type,
                declared.item_type,
                stored.item_type,
                join(path, "value"),
                report,
                required=not declared.item_field.nullable,
            )
            return _list_step(stored, _struct_step(_entries(stored), [(0, key), (1, item)], path), path)
        if is_list(sent) and is_list(declared):
            size = declared.list_size if pa.types.is_fixed_size_list(declared) else None
            if pa.types.is_fixed_size_list(sent) and sent.list_size != (size or max(1, sent.list_size)):
                raise _mismatch(sent, declared, path)
            value = encoder(
                sent.value_type,
                declared.value_type,
                stored.value_type,
                join(path, "element"),
                report,
                required=not declared.value_field.nullable,
            )
            return _list_step(stored, value, path, exact=None if pa.types.is_fixed_size_list(sent) else size)
        if has_children(sent) or has_children(declared):
            raise _mismatch(sent, declared, path)
        translate, meant = meanings.translation(sent, declared, path)
        return leaves.chain(translate, leaves.encode(meant, declared, path), meanings.check(declared, path))
    except Refused as problem:
        report(problem)
        return None


def validated_as(sent: pa.DataType, declared: pa.DataType) -> pa.DataType:
    """A type of the same layout as `sent`, of which all values that the column takes are valid.

    `encoder` has accepted the types and takes arrays of either.
    """
    if not has_children(sent):
        return meanings.validated_as(sent, declared)
    if pa.types.is_struct(sent) or pa.types.is_union(sent):
        known = {fold(field.name): field.type for field in declared}
        targets = [known[fold(field.name)] for field in sent]
    elif pa.types.is_map(sent):
        targets = [declared.key_type, declared.item_type]
    else:
        targets = [declared.value_type]
    following = iter(targets)
    return rebuild(sent, lambda kind: validated_as(kind, next(following)))


def decoder(stored: pa.DataType, declared: pa.DataType, path: str) -> Step | None:
    """The step from an array of a stored type to the declared type that it stands for."""
    if pa.types.is_struct(declared):
        steps = [
            (index, decoder(stored.field(index).type, field.type, join(path, field.name)))
            for index, field in enumerate(declared.fields)
        ]
        return _struct_step(declared, steps, path)
    if pa.types.is_union(declared):
        members = [
            decoder(stored.field(index + 1).type, field.type, join(path, field.name))
            for index, field in enumerate(declared)
        ]
        return unions.decoder(declared, members, path)
    if pa.types.is_map(declared):
        key = decoder(stored.key_type, declared.key_type, join(path, "key"))
        item = decoder(stored.item_type, declared.item_type, join(path, "value"))
        return _list_step(declared, _struct_step(_entries(declared), [(0, key), (1, item)], path), path)
    if is_list(declared):
        return _list_step(
            declared, decoder(stored.value_type, declared.value_type, join(path, "element")), path
        )
    return leaves.decode(declared, path)


def absent(stored: pa.DataType, path: str) -> Step:
    """The step from any array to nulls of the stored type; it raises TooLarge where even those are too much."""
    settle = _settle(stored, path)

    def step(array: Any) -> Any:
        leaves.allow_rows(len(array), stored, path)
        nulls = pa.nulls(len(array), stored)
        return nulls if settle is None else settle(nulls)

    return step


def _settle(stored: pa.DataType, path: str) -> Step | None:
    """The step that leaves a struct as it is but for nulls of required children under null structs."""
    if not pa.types.is_struct(stored):
        return None
    steps = [
        (index, _settle(field.type, join(path, field.name))) for index, field in enumerate(stored.fields)
    ]
    return _struct_step(stored, steps, path)


def match_children(
    declared: pa.DataType | pa.Schema, sent: pa.DataType | pa.Schema, path: str, report: Report
) -> list[int]:
    """For each declared child the position of the sent one with its name, -1 if there is none.

    Reports sent children that are not declared, and declared ones that are absent and not nullable.
    """
    offered = children(sent, path)
    positions = []
    for name, (_, field) in children(declared, path).items():
        position, _ = offered.pop(name, (-1, None))
        if position < 0 and not field.nullable:
            report(Refused(join(path, field.name), "it is missing and does not allow nulls; send it"))
        positions.append(position)
    for _, field in offered.values():
        report(
            Refused(
                join(path, field.name), "the topic has no such column; check its spelling or leave it out"
            )
        )
    return positions


def _struct_encoder(
    sent: pa.DataType, declared: pa.DataType, stored: pa.DataType, path: str, report: Report
) -> Step:
    steps: list[tuple[int, Step | None]] = []
    for target, (position, field) in enumerate(
        zip(match_children(declared, sent, path, report), declared.fields, strict=True)
    ):
        inner, kind = join(path, field.name), stored.field(target).type
        if position < 0:
            steps.append((-1, absent(kind, inner)))
        else:
            kinds = sent.field(position).type, field.type, kind
            steps.append((position, encoder(*kinds, inner, report, required=not field.nullable)))
    return _struct_step(stored, steps, path)


def _union_encoder(
    sent: pa.DataType,
    declared: pa.DataType,
    stored: pa.DataType,
    path: str,
    report: Report,
    *,
    required: bool,
) -> Step:
    require_sparse(sent, path)
    steps: list[tuple[int, Step | None]] = []
    for index, (position, field) in enumerate(
        zip(match_children(declared, sent, path, report), declared, strict=True)
    ):
        inner, kind = join(path, field.name), stored.field(index + 1).type
        if position < 0:
            steps.append((-1, absent(kind, inner)))
        else:
            kinds = sent.field(position).type, field.type, kind
            steps.append((position, encoder(*kinds, inner, report, required=required)))
    return unions.encoder(sent, stored, steps, required=required)


def _mismatch(sent: pa.DataType, declared: pa.DataType, path: str) -> Refused:
    return Refused(path, f"{show_type(sent)} cannot become {show_type(declared)}; send it as declared")


def _entries(kind: pa.DataType) -> pa.DataType:
    """The struct of keys and values inside a map type."""
    return kind.field(0).type


def _struct_step(target: pa.DataType, steps: list[tuple[int, Step | None]], path: str) -> Step:
    """Builds a struct from another: for each target child the position in it (-1: no child) and the step.

    Raises Unfit for a null in a required child of a struct that is not null. Under null structs
    required children hold any value: Parquet refuses nulls there.
    """
    fields = target.fields
    touched = any(step is not None for _, step in steps) or not all(field.nullable for field in fields)

    def step(array: Any) -> Any:
        # What lies under a null struct is no value: it becomes null before it is converted.
        flat = struct_children(array) if touched and array.null_count else None
        parts = []
        for field, (position, convert) in zip(fields, steps, strict=True):
            part = array if position < 0 else array.field(position) if flat is None else flat[position]
            if convert is not None:
                part = convert(part)
            if part.null_count and not field.nullable:
                if _any_null_below(array, part):
                    raise ForbiddenNull(join(path, field.name))
                part = without_nulls(part)
            parts.append(part)
        return pa.Array.from_buffers(target, len(array), [validity(array)], array.null_count, children=parts)

    return step


def _any_null_below(array: Any, part: Any) -> bool:
    """Whether a child has a null where its struct has none."""
    return bool(pc.any(pc.and_(pc.is_valid(array), pc.is_null(part))).as_py())


def _list_step(target: pa.DataType, value: Step | None, path: str, exact: int | None = None) -> Step:
    """Builds a list or map of type `target` from one of any variant; `exact` is the length it must have."""
    size = target.list_size if pa.types.is_fixed_size_list(target) else None
    required = is_list(target) and not target.value_field.nullable

    def step(array: Any) -> Any:
        lists = _explode(array, path)
        if exact is not None or size is not None:
            _check_lengths(lists, exact or size or 0, path)
        if size is not None and lists.nulls:
            lists = _spread(lists, size)
        values = lists.values if value is None else value(lists.values)
        if required and values.null_count:
            if size is None or not lists.nulls:
                raise ForbiddenNull(join(path, "element"))
            values = without_nulls(values)  # the slots of null rows
        return _implode(target, lists, values, path)

    return step


def _explode(array: Any, path: str) -> _Lists:
    kind, rows, nulls = array.type, len(array), array.null_count
    if pa.types.is_map(kind):
        kind = pa.list_(kind.field(0))
        array = pa.Array.from_buffers(
            kind, rows, array.buffers()[:2], nulls, array.offset, children=[array.values]
        )
    bitmap = validity(array)
    if pa.types.is_fixed_size_list(kind):
        leaves.allow_rows(rows, pa.int64(), path)  # without values it takes no bytes when it is sent
    if pa.types.is_fixed_size_list(kind) and not nulls:
        size = kind.list_size
        values = array.values.slice(array.offset * size, rows * size)
        return _Lists(rows, 0, None, pa.arange(0, rows * size + 1, size), values)
    if is_list_view(kind):
        _refuse_shared(array, path)
    elif not pa.types.is_fixed_size_list(kind):
        offsets = array.offsets if rows else pa.array([0], pa.int32())
        start, end = offsets[0].as_py(), offsets[rows].as_py()
        if not nulls or end - start == (pc.sum(pc.list_value_length(array)).as_py() or 0):
            if start:
                offsets = pc.subtract(offsets, start)
            return _Lists(rows, nulls, bitmap, offsets, array.values.slice(start, end - start))
    # What lies in null rows is no value and is left out here.
    lengths = pc.fill_null(pc.list_value_length(array).cast(pa.int64()), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
    # flatten() cannot make an empty array of some types
    values = list_values(array) if offsets[rows].as_py() else array.values.slice(0, 0)
    return _Lists(rows, nulls, bitmap, offsets, values)


def _refuse_shared(array: Any, path: str) -> None:
    """Raise Unfit if two list views share values: a small batch could grow without bound."""
    filled = pc.and_(pc.is_valid(array), pc.greater(array.sizes, 0))
    starts, sizes = array.offsets.filter(filled), array.sizes.filter(filled)
    order = pc.sort_indices(starts)
    starts = starts.take(order)
    ends = pc.add(starts, sizes.take(order))
    if len(starts) > 1 and pc.any(pc.greater(ends[:-1], starts[1:])).as_py():
        raise Unfit(path, "list views that share values are not supported; send lists")


def _check_lengths(lists: _Lists, size: int, path: str) -> None:
    lengths = pc.subtract(lists.offsets[1:], lists.offsets[:-1])
    wrong = pc.not_equal(lengths, size)
    if lists.validity is not None:
        valid = pa.Array.from_buffers(pa.bool_(), lists.rows, [None, lists.validity])
        wrong = pc.and_(wrong, valid)
    if pc.any(wrong).as_py():
        raise Unfit(path, f"a list does not have the declared length {size}")


def _spread(lists: _Lists, size: int) -> _Lists:
    """Give null rows the slots that a fixed-size list reserves for them."""
    slots = pa.arange(0, lists.rows * size)
    row = pc.divide(slots, size)
    valid = pa.Array.from_buffers(pa.bool_(), lists.rows, [None, lists.validity])
    starts = pc.if_else(valid, lists.offsets[:-1].cast(pa.int64()), pa.scalar(None, pa.int64()))
    source = pc.add(starts.take(row), pc.subtract(slots, pc.multiply(row, size)))
    return _Lists(lists.rows, lists.nulls, lists.validity, lists.offsets, lists.values.take(source))


def _implode(target: pa.DataType, lists: _Lists, values: Any, path: str) -> Any:
    buffers = [lists.validity]
    if not pa.types.is_fixed_size_list(target):
        wide = pa.types.is_large_list(target) or pa.types.is_large_list_view(target)
        offsets = _width(lists.offsets, pa.int64() if wide else pa.int32(), path)
        if is_list_view(target):
            buffers += [_data(offsets), _data(pc.subtract(offsets[1:], offsets[:-1]))]
        else:
            buffers.append(_data(offsets))
    return pa.Array.from_buffers(target, lists.rows, buffers, lists.nulls, children=[values])


def _width(offsets: Any, kind: pa.DataType, path: str) -> Any:
    if offsets.type == kind:
        return offsets
    try:
        return offsets.cast(kind)
    except pa.ArrowInvalid:
        raise Unfit(path, "the batch has more list elements than fit; send batches with fewer rows") from None


def _data(array: Any) -> pa.Buffer:
    """The values of an integer array as a buffer that starts with the first."""
    width = array.type.bit_width // 8
    return array.buffers()[1].slice(array.offset * width, len(array) * width)
