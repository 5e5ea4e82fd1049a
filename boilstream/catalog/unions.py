"""Sparse unions (DuckDB's UNION) and the structs that stand for them in data files.

`boilstream.catalog.typemap` tells how the struct looks. A union has no validity of its own: a row
is null if its member is. The type code of such a row is kept; only a null of the first member,
which is how DuckDB sends NULL, becomes a null struct, and the other way round.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from boilstream.catalog.arrays import masked, type_codes
from boilstream.catalog.leaves import Step, Unfit

_MAX_CODES = 128


def encoder(
    sent: pa.DataType, stored: pa.DataType, steps: list[tuple[int, Step | None]], *, required: bool
) -> Step:
    """The step from a sparse union to its struct.

    `steps` has for each declared member the position of the sent one (-1: none, then the step makes
    nulls) and the step to its stored form. `required`: the column does not allow nulls, so every
    null becomes a null struct, whichever member it is of.
    """
    places = {position: place for place, (position, _) in enumerate(steps)}
    codes = enumerate(sent.type_codes)
    place_of = _table({code: places[at] for at, code in codes if at in places}, pa.int32())

    def step(array: Any) -> Any:
        tag = _look_up(place_of, type_codes(array))
        parts, absent = [], None
        for place, (position, convert) in enumerate(steps):
            chosen = pc.equal(tag, place)
            part = array if position < 0 else _only(array.field(position), chosen)
            if convert is not None:
                part = convert(part)
            if part.null_count and (place == 0 or required):
                nulls = pc.and_(chosen, pc.is_null(part))
                absent = nulls if absent is None else pc.or_(absent, nulls)
            parts.append(part)
        valid = None if absent is None or not pc.any(absent).as_py() else pc.invert(absent)
        bitmap, nulls = (None, 0) if valid is None else (valid.buffers()[1], valid.false_count)
        return pa.Array.from_buffers(stored, len(array), [bitmap], nulls, children=[tag, *parts])

    return step


def decoder(declared: pa.DataType, steps: list[Step | None], path: str) -> Step:
    """The step from a struct to its sparse union; `steps` convert the members."""
    code_of = _table(dict(enumerate(declared.type_codes)), pa.int8())

    def step(array: Any) -> Any:
        tag, *parts = array.flatten() if array.null_count else map(array.field, range(len(steps) + 1))
        bounds = pc.min_max(tag)
        low, high = bounds["min"].as_py(), bounds["max"].as_py()
        if low is not None and not (low >= 0 and high < len(steps)):
            raise Unfit(path, f"the tag of a union is not 0 to {len(steps) - 1}")
        parts = [part if step is None else step(part) for part, step in zip(parts, steps, strict=True)]
        codes = _look_up(code_of, pc.fill_null(tag, 0)).buffers()[1]
        return pa.Array.from_buffers(declared, len(array), [None, codes], 0, children=parts)

    return step


def _only(array: Any, chosen: Any) -> Any:
    """One member of a union, null in the rows of other members: what lies there is no value."""
    if pc.any(pc.and_not(pc.is_valid(array), chosen)).as_py():
        return masked(array, chosen)
    return array


def _table(entries: dict[int, int], kind: pa.DataType) -> Any:
    """What `_look_up` gives for each number from 0 to 127; a type only where all stand for themselves."""
    if all(number == value for number, value in entries.items()):
        return kind
    return pa.array([entries.get(number) for number in range(_MAX_CODES)], kind)


def _look_up(table: Any, numbers: Any) -> Any:
    if isinstance(table, pa.DataType):
        return numbers.cast(table)
    return table.take(numbers)
