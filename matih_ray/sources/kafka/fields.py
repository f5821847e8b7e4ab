"""Fields of JSON objects as arrays, the common ones without a step of Python for each value. Pure.

A column whose values are all of its type's own Python type needs no conversion, and Arrow refuses
by itself what does not fit. Whatever is different goes value by value through `documents`, which
gives the same result and names what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from matih_ray.sources.documents.batches import document_arrays
from matih_ray.sources.documents.columns import Dialect, SelectedColumn
from matih_ray.sources.documents.exact_json import json_text

JsonObject = dict[str, Any]

# By Arrow type, for columns without an encoding. `bool` is no `int` here.
_OWN: dict[pa.DataType, frozenset[type]] = {
    pa.bool_(): frozenset({bool, type(None)}),
    pa.int64(): frozenset({int, type(None)}),
    pa.string(): frozenset({str, type(None)}),
}
_NUMBERS = frozenset({int, Decimal, type(None)})
_DIGITS = "decimal digits as sent"
_MISSING = object()


def field_arrays(
    dialect: Dialect,
    columns: tuple[SelectedColumn, ...],
    unit_id: str,
    objects: Sequence[JsonObject],
) -> list[pa.Array]:
    """The columns of these objects.

    Raises:
        UnrepresentableValueError: A value does not fit its column.
    """
    arrays = []
    for column in columns:
        array = quick_array(column, objects)
        if array is None:
            (array,) = document_arrays(dialect, (column,), unit_id, objects)
        arrays.append(array)
    return arrays


def quick_array(column: SelectedColumn, objects: Sequence[JsonObject]) -> pa.Array | None:
    """One column, if its values need no conversion one by one; None otherwise."""
    arrival = column.arrival
    if column.without is not None:
        return None
    try:
        if arrival.keeps_null:
            return pa.array([_text(column, found) for found in objects], pa.string())
        values = [found.get(column.name) for found in objects]
        kinds = frozenset(map(type, values))
        if arrival.encoding is None and kinds <= _OWN.get(arrival.arrow, frozenset()):
            return pa.array(values, arrival.arrow)
        if arrival.encoding == _DIGITS and kinds <= _NUMBERS:
            digits = [None if value is None else str(value) for value in values]
            return pa.array(digits, pa.string())
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass  # too large, no UTF-8, nested too deeply: a matter of single values
    return None


def _text(column: SelectedColumn, found: JsonObject) -> str | None:
    value = found.get(column.name, _MISSING)
    return None if value is _MISSING else json_text(value)
