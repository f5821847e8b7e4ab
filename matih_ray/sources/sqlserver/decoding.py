"""The driver's values into Arrow. Pure."""

from __future__ import annotations

from collections.abc import Sequence

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
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise UnrepresentableValueError(
            f"column {field.name!r} holds a value that {field.type} cannot; "
            f'set policy.encodings={{"{field.name}": "text"}}',
            column=field.name,
        ) from None
