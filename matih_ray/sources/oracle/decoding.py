"""The driver's values into Arrow. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import UnrepresentableValueError

Row = Sequence[object]


def record_batch(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as one batch; values are matched to fields by their position.

    Raises:
        UnrepresentableValueError: A value has no exact form; names the column.
    """
    columns = [
        _column(values, field)
        for values, field in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(values: Sequence[object], field: pa.Field) -> pa.Array:
    try:
        if pa.types.is_timestamp(field.type):  # selected as text, which no driver rounds
            moments = pc.cast(pa.array(values, pa.string()), pa.timestamp(field.type.unit))
            return pc.cast(moments, field.type)
        if pa.types.is_string(field.type):
            return pa.array([_digits(value) for value in values], field.type)
        if pa.types.is_integer(field.type):
            return pa.array([None if v is None else int(str(v)) for v in values], field.type)
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError):
        raise UnrepresentableValueError(
            f"column {field.name!r} holds a value that {field.type} cannot; "
            f'set policy.encodings={{"{field.name}": "text"}}',
            column=field.name,
        ) from None


def _digits(value: object) -> object:
    """A number without a precision as its digits; anything else as it is."""
    return format(value, "f") if isinstance(value, Decimal) else value
