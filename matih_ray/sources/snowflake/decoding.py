"""The driver's Arrow into the declared schema. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import UnrepresentableValueError

MAX_DECIMAL_DIGITS = 38
# What follows is nanoseconds, of which a timestamp of ours holds none.
MICROSECOND_CHARS = len("2024-01-31 23:59:59.123456")


def decoded(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The same rows under this schema; columns are matched by their position.

    Raises:
        UnrepresentableValueError: A value has no exact form; names the column.
    """
    columns = [_column(values, field) for values, field in zip(table.columns, schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        if pa.types.is_decimal(field.type) and pa.types.is_integer(values.type):
            # NUMBERs arrive in the smallest integer that they fit, whatever their precision
            values = pc.cast(values, pa.decimal128(MAX_DECIMAL_DIGITS, 0))
        if pa.types.is_timestamp(field.type):  # selected as text in UTC
            values = pc.cast(_microseconds(values), pa.timestamp(field.type.unit))
        return pc.cast(values, field.type)
    except pa.ArrowInvalid:
        raise UnrepresentableValueError(
            f"column {field.name!r} holds a value that {field.type} cannot; "
            f'set policy.encodings={{"{field.name}": "text"}}',
            column=field.name,
        ) from None


def _microseconds(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Moments of up to nine decimals without those after the sixth, which must be zeros."""
    lost = pc.utf8_rtrim(pc.utf8_slice_codeunits(texts, MICROSECOND_CHARS), "0")
    if pc.any(pc.greater(pc.utf8_length(lost), 0)).as_py():
        raise pa.ArrowInvalid("more digits than microseconds")
    return pc.utf8_slice_codeunits(texts, 0, MICROSECOND_CHARS)
