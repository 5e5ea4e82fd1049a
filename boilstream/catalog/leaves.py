"""Conversion of arrays without children: what a client sends, what is stored, what clients read.

A *plain* type is a declared type without its envelope: no extension, no dictionary, no run-end
encoding, no view layout. Sent values are unwrapped to plain ones, cast, and encoded as stored.
Every conversion is exact: a value that does not fit raises Unfit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from boilstream.catalog.arrays import validity
from boilstream.catalog.typemap import (
    Refused,
    encoded_value,
    fixed_width,
    leaf,
    opaque_names,
    show,
    show_type,
    without_view,
)

MAX_EXPANDED_BYTES: Final = 256 * 1024 * 1024
"""Most bytes that compact encodings of one batch (dictionary, run ends, views, absent columns) may grow to."""

Step = Callable[[Any], Any]
"""Converts an array to another of the same length. None in place of a step means: as it is."""

_INFINITIES: Final = pa.array([2**63 - 1, 1 - 2**63])
"""How DuckDB writes an infinite timestamp of any unit."""

_UUID_TEXT = r"^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"


class Unfit(ValueError):
    """A value of a batch does not fit its column."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{show(path)}: {reason}")
        self.path = path
        self.reason = reason


class ForbiddenNull(Unfit):
    """A null in a column that does not allow nulls, nested ones included."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "null in a column that does not allow nulls")


class TooLarge(Unfit):
    """A batch that is small on the wire would grow past MAX_EXPANDED_BYTES."""

    def __init__(self, path: str) -> None:
        limit = MAX_EXPANDED_BYTES // 1024**2
        super().__init__(path, f"the batch decodes to more than {limit} MiB; send batches with fewer rows")


def chain(*steps: Step | None) -> Step | None:
    """All steps, one after the other."""
    real = [step for step in steps if step is not None]
    if len(real) < 2:
        return real[0] if real else None

    def run(array: Any) -> Any:
        for step in real:
            array = step(array)
        return array

    return run


def encode(sent: pa.DataType, declared: pa.DataType, path: str) -> Step | None:
    """The step from an array of type `sent` to the stored form of `declared`.

    Raises Refused when the types do not allow it, whatever the values.
    """
    stored = leaf(declared).stored
    if sent == declared and declared == stored:
        return None
    if _other_meaning(sent, declared, path):
        raise _mismatch(sent, declared, path)
    middle = plain(declared, path)
    unwrap = unwrapping(sent, path)
    bare = plain(sent, path)
    if isinstance(declared, pa.UuidType) and (pa.types.is_string(bare) or pa.types.is_large_string(bare)):
        convert: Step | None = _parse_uuid(path)
    elif bare == middle:
        convert = None
    elif castable(bare, middle):
        convert = cast(middle, path)
    else:
        raise _mismatch(sent, declared, path)
    return chain(unwrap, convert, _reinterpret(middle, stored, path))


def decode(declared: pa.DataType, path: str) -> Step | None:
    """The step from the stored form of `declared` to `declared` itself."""
    stored = leaf(declared).stored
    if stored == declared:
        return None
    if isinstance(declared, pa.BaseExtensionType):
        storage = declared.storage_type
        inner = cast(pa.int8(), path) if isinstance(declared, pa.Bool8Type) else decode(storage, path)
        return chain(inner, lambda array: pa.ExtensionArray.from_storage(declared, array))
    return _reinterpret(stored, declared, path)


def plain(kind: pa.DataType, path: str = "") -> pa.DataType:
    """A type without its envelope; raises Refused for one that cannot be sent."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain(encoded_value(kind, path), path)
    if isinstance(kind, pa.Bool8Type):
        return pa.bool_()
    if isinstance(kind, pa.UuidType | pa.JsonType | pa.OpaqueType):
        return plain(kind.storage_type, path)
    leaf(kind, path)
    return without_view(kind)


def castable(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether values of a plain type may be cast to another; each value is still checked.

    Only between types of one kind, where equal values mean the same. A timestamp never gains or
    loses its time zone: that would change values silently.
    """
    t: Any = pa.types
    same_kind: bool = (
        (t.is_integer(source) and (t.is_integer(target) or t.is_decimal(target) or target in _WIDE_FLOATS))
        or (t.is_floating(source) and t.is_floating(target))
        or (t.is_decimal(source) and t.is_decimal(target))
        or (is_text(source) and is_text(target))
        or (_is_any_bytes(source) and _is_any_bytes(target))
        or (t.is_date(source) and t.is_date(target))
        or (t.is_time(source) and t.is_time(target))
        or (t.is_timestamp(source) and t.is_timestamp(target) and (source.tz is None) == (target.tz is None))
        or (t.is_duration(source) and t.is_duration(target))
    )
    if not same_kind:
        return False
    try:
        pa.nulls(1, source).cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False  # such as an int64 into a decimal that has no room for all of them
    return True


_WIDE_FLOATS = (pa.float32(), pa.float64())


def _other_meaning(sent: pa.DataType, declared: pa.DataType, path: str) -> bool:
    """Whether both types carry a meaning of their own, and not the same."""
    if not isinstance(sent, pa.BaseExtensionType) or not isinstance(declared, pa.BaseExtensionType):
        return False
    if isinstance(sent, pa.OpaqueType) and isinstance(declared, pa.OpaqueType):
        return opaque_names(sent, path) != opaque_names(declared, path)
    return bool(sent.extension_name != declared.extension_name)


def is_text(kind: pa.DataType) -> bool:
    """Whether `kind` is text with offsets of either width."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_any_bytes(kind: pa.DataType) -> bool:
    return _is_bytes(kind) or bool(pa.types.is_fixed_size_binary(kind))


def _mismatch(sent: pa.DataType, declared: pa.DataType, path: str) -> Refused:
    return Refused(path, f"{show_type(sent)} cannot become {show_type(declared)}; cast it before sending")


def cast(target: pa.DataType, path: str) -> Step:
    """The step that casts to `target` where that is exact; it raises Unfit where it is not."""

    def step(array: Any) -> Any:
        try:
            made = array.cast(target)
        except pa.ArrowInvalid as error:
            raise Unfit(path, _first_line(error)) from None
        if pa.types.is_floating(array.type) and pa.types.is_floating(target):
            _require_exact(array, made, path)
        return made

    return step


def _require_exact(floats: Any, made: Any, path: str) -> None:
    """Raise Unfit if floats were rounded, which Arrow does silently; not-a-number stays what it is."""
    if floats.type.bit_width <= made.type.bit_width:
        return
    exact = pc.or_(pc.equal(made.cast(floats.type), floats), pc.is_nan(floats))
    first = pc.index(exact, pa.scalar(False)).as_py()
    if first >= 0:
        raise Unfit(path, f"Floating point value {floats[first]} is not exact as {show_type(made.type)}")


def _first_line(error: Exception) -> str:
    """What Arrow says about a value, in one short printable line."""
    line = str(error).partition("\n")[0]
    return "".join(char if char.isprintable() else "?" for char in line)[:200]


def _reinterpret(source: pa.DataType, target: pa.DataType, path: str) -> Step | None:
    """The step between a plain and a stored type: by buffers where the layout is the same, else a cast."""
    if source == target:
        return None
    interval = pa.month_day_nano_interval()
    if isinstance(target, pa.UuidType):
        return lambda array: pa.ExtensionArray.from_storage(target, array)
    if interval in (source, target):
        return lambda array: pa.Array.from_buffers(
            target, len(array), array.buffers(), array.null_count, array.offset
        )
    if pa.types.is_timestamp(source) and pa.types.is_timestamp(target) and source.unit == target.unit:
        return lambda array: array.view(target)
    if pa.int64() in (source, target) and not (pa.types.is_integer(source) and pa.types.is_integer(target)):
        return lambda array: array.view(target)
    if pa.types.is_timestamp(source) and pa.types.is_timestamp(target):
        return _rescale(target, path)
    return cast(target, path)


def _rescale(target: pa.DataType, path: str) -> Step:
    """The step between timestamps of other units that keeps infinity, the greatest int64 of either sign."""
    exact = cast(target, path)

    def step(array: Any) -> Any:
        try:
            return exact(array)
        except Unfit:
            numbers = array.view(pa.int64())
            endless = pc.is_in(numbers, _INFINITIES)
            if not pc.any(endless).as_py():
                raise
            finite = exact(pc.if_else(endless, pa.scalar(None, array.type), array))
            return pc.if_else(endless, numbers.view(target), finite)

    return step


def unwrapping(kind: pa.DataType, path: str) -> Step | None:
    """The step from an array as it was sent to its plain type."""
    if isinstance(kind, pa.Bool8Type):
        return lambda array: array.storage.cast(pa.bool_())
    if isinstance(kind, pa.BaseExtensionType):
        return chain(lambda array: array.storage, unwrapping(kind.storage_type, path))
    if pa.types.is_dictionary(kind):
        return _decode_dictionary(unwrapping(kind.value_type, path), plain(kind, path), path)
    if pa.types.is_run_end_encoded(kind):
        return _decode_runs(unwrapping(kind.value_type, path), plain(kind, path), path)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return _decode_view(plain(kind, path), path)
    return None


def _decode_dictionary(unwrap: Step | None, target: pa.DataType, path: str) -> Step:
    def step(array: Any) -> Any:
        values, indices = array.dictionary, array.indices
        if unwrap is not None:
            values = unwrap(values)
        if is_text(target) or _is_bytes(target):
            _allow(pc.sum(pc.binary_length(values).take(indices)).as_py() or 0, path)
        else:
            allow_rows(len(array), target, path)
        return pa.DictionaryArray.from_arrays(indices, values).dictionary_decode()

    return step


def _decode_runs(unwrap: Step | None, target: pa.DataType, path: str) -> Step:
    def step(array: Any) -> Any:
        values = array.values if unwrap is None else unwrap(array.values)

        def decoded(of_runs: Any) -> Any:
            runs = pa.RunEndEncodedArray.from_arrays(array.run_ends, of_runs)
            return pc.run_end_decode(runs.slice(array.offset, len(array)))

        if is_text(target) or _is_bytes(target):
            allow_rows(len(array), pa.int64(), path)
            _allow(pc.sum(decoded(pc.binary_length(values))).as_py() or 0, path)
        else:
            allow_rows(len(array), target, path)
        return decoded(values)

    return step


def _decode_view(target: pa.DataType, path: str) -> Step:
    def step(array: Any) -> Any:
        # A view is 16 bytes that begin with the length as int32 (Arrow columnar format, "Variable-size
        # Binary View Layout"). Views may share bytes, so only the lengths tell the size of the result.
        bitmap, views = array.buffers()[:2]
        end = array.offset + len(array)
        words = pa.Array.from_buffers(pa.int32(), 4 * end, [None, views])
        records = pa.Array.from_buffers(
            pa.list_(pa.int32(), 4), len(array), [bitmap], offset=array.offset, children=[words]
        )
        _allow(pc.sum(pc.list_element(records, 0)).as_py() or 0, path)
        return _without_null_views(array).cast(target)

    return step


def _without_null_views(array: Any) -> Any:
    """A view array whose nulls are empty views: validation skips what lies there, but casts follow it."""
    if not array.null_count:
        return array
    bitmap, views, *data = array.buffers()
    raw = pa.Array.from_buffers(pa.binary(16), len(array), [bitmap, views], offset=array.offset)
    cleared = pc.fill_null(raw, pa.scalar(bytes(16), raw.type)).buffers()[1]
    return pa.Array.from_buffers(array.type, len(array), [validity(array), cleared, *data])


def allow_rows(rows: int, kind: pa.DataType, path: str) -> None:
    """Raise TooLarge if the fixed part of `rows` values of a type is too many bytes."""
    _allow(rows * fixed_width(kind), path)


def _allow(size: int, path: str) -> None:
    if size > MAX_EXPANDED_BYTES:
        raise TooLarge(path)


def _parse_uuid(path: str) -> Step:
    """The step from UUIDs as text (8-4-4-4-12 hexadecimal digits, RFC 9562) to their 16 bytes."""

    def step(array: Any) -> Any:
        if pc.all(pc.match_substring_regex(array, _UUID_TEXT)).as_py() is False:
            raise Unfit(path, "the text is not a UUID such as '5b8cbd2e-9b1e-4c86-a0b5-0d3a1f2b6c7d'")
        digits = pc.fill_null(pc.replace_substring(array, "-", ""), "0" * 32).to_pylist()
        data = pa.py_buffer(bytes.fromhex("".join(digits)))
        return pa.Array.from_buffers(pa.binary(16), len(array), [validity(array), data])

    return step
