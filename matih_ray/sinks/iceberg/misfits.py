"""Values that a column cannot hold. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def fitting(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, pa.BooleanArray]:
    """The values that are also values of another type, NULL for those that are not, and which
    those are.

    Numbers fit if they come back the same. Of all other pairs of types no value fits: text is not
    read as a number, nor a number written as text.
    """
    present = array.is_valid()
    if array.type == kind:
        return array, pc.and_(present, pa.scalar(value=False))
    if not (_is_number(array.type) and _is_number(kind)):
        return pa.nulls(len(array), kind), present
    try:
        cast = array.cast(kind, safe=False)
        same = _same(cast.cast(array.type, safe=False), array)
    except pa.ArrowInvalid:  # a decimal too large for its new precision stops the whole cast
        cast, same = _one_by_one(array, kind)
    same = pc.fill_null(same, fill_value=False)
    lost = pc.and_(present, pc.invert(same))
    return pc.if_else(same, cast, pa.scalar(None, kind)), lost


def _same(back: pa.Array, array: pa.Array) -> pa.Array:
    equal = pc.equal(back, array)
    if pa.types.is_floating(array.type):
        equal = pc.or_(equal, pc.and_(pc.is_nan(back), pc.is_nan(array)))
    return equal


def _one_by_one(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, pa.Array]:
    """The same, halving what cannot be cast until it is a single value."""
    if len(array) == 1:
        return pa.nulls(1, kind), pa.array([False])
    middle = len(array) // 2
    parts = []
    for half in (array[:middle], array[middle:]):
        try:
            cast = half.cast(kind, safe=False)
            parts.append((cast, _same(cast.cast(array.type, safe=False), half)))
        except pa.ArrowInvalid:
            parts.append(_one_by_one(half, kind))
    casts, sames = zip(*parts, strict=True)
    return pa.concat_arrays(casts), pa.concat_arrays(sames)


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))
