"""Rows of the server's text into Arrow record batches.

Each column becomes one Arrow array of bytes and is parsed by Arrow's own casts, which know no
rounding: a text that the type cannot hold is an error.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import UnrepresentableValueError
from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.sources.mysql.columns import SelectedColumn, arrow_schema
from matih_ray.sources.mysql.session import RawRow
from matih_ray.sources.mysql.types import TEMPORAL, Decoding, base_name

# Each value counts for this much beyond its text, as its place in a row does: a batch of nothing
# but NULLs would never end otherwise. As a Python object it takes five times as much at most, which
# is why a reader needs about 100 MB.
_VALUE_BYTES = 8
_SRID_BYTES = 4
_ZERO_DATE = r"^0000-00-00( 00:00:00(\.0+)?)?$"
_YEAR_ZERO = "0000-"


def batches(
    rows: Iterator[RawRow], columns: tuple[SelectedColumn, ...], target_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Batches of about `target_bytes` of text; larger only by the last row of each.

    Raises:
        UnrepresentableValueError: A value has no exact form in its column's Arrow type.
    """
    schema = arrow_schema(columns)
    fixed = _VALUE_BYTES * len(columns)
    collected: list[RawRow] = []
    size = 0
    for row in rows:
        collected.append(row)
        size += fixed + sum(map(len, filter(None, row)))
        if size >= target_bytes:
            yield _batch(collected, columns, schema)
            collected, size = [], 0
    if collected:
        yield _batch(collected, columns, schema)


def default_batches(
    rows: Iterator[RawRow], columns: tuple[SelectedColumn, ...]
) -> Iterator[pa.RecordBatch]:
    """Batches of the size that all sources aim at."""
    return batches(rows, columns, TARGET_BATCH_BYTES)


def _batch(
    rows: list[RawRow], columns: tuple[SelectedColumn, ...], schema: pa.Schema
) -> pa.RecordBatch:
    values = zip(*rows, strict=True)
    arrays = [_decode(column, texts) for column, texts in zip(columns, values, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _decode(column: SelectedColumn, values: RawRow) -> pa.Array:
    mapping = column.mapping
    if mapping.decoding is Decoding.WKB:  # Arrow's binary_slice fails on NULLs
        values = tuple([None if value is None else value[_SRID_BYTES:] for value in values])
    raw = pa.array(values, pa.binary())
    if pa.types.is_binary(mapping.arrow):
        return raw
    try:
        return _parse(pc.cast(raw, pa.string()), mapping.arrow, mapping.decoding)
    except pa.ArrowInvalid as error:
        raise _unrepresentable(column, error) from None


def _parse(texts: pa.Array, arrow: pa.DataType, decoding: Decoding) -> pa.Array:
    if decoding is Decoding.ZERO_AS_NULL:
        zero = pc.match_substring_regex(texts, _ZERO_DATE)
        texts = pc.if_else(zero, pa.scalar(None, pa.string()), texts)
    if decoding is Decoding.BOOL:
        numbers = pc.cast(texts, pa.int8())
        if pc.any(pc.greater(pc.abs(pc.subtract(pc.multiply(numbers, 2), 1)), 1)).as_py():
            raise pa.ArrowInvalid("a number other than 0 and 1")
        return pc.cast(numbers, pa.bool_())
    if pa.types.is_string(arrow):
        return texts
    if pa.types.is_temporal(arrow) and pc.any(pc.starts_with(texts, _YEAR_ZERO)).as_py():
        raise pa.ArrowInvalid("a date of the year 0000, which stands for an unknown year")
    if pa.types.is_float32(arrow):
        return pc.cast(pc.cast(texts, pa.float64()), arrow)
    if pa.types.is_timestamp(arrow) and arrow.tz is not None:
        return pc.assume_timezone(pc.cast(texts, pa.timestamp("us")), arrow.tz)
    return pc.cast(texts, arrow)


def _unrepresentable(column: SelectedColumn, error: pa.ArrowInvalid) -> UnrepresentableValueError:
    name, remedies = column.name, ['"text"']
    if base_name(column.native_type) in TEMPORAL:
        remedies.append('"zero_as_null" (for 0000-00-00)')
    first_line = str(error).partition("\n")[0]
    return UnrepresentableValueError(
        f"column {name!r} ({column.native_type}) holds a value that {column.mapping.arrow} cannot: "
        f"{first_line}; set policy.encodings of {name!r} to {' or '.join(remedies)}",
        column=name,
    )
