"""Turns rows of the server's text into Arrow, exactly."""

from __future__ import annotations

import binascii
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import UnrepresentableValueError
from matih_ray.sources.postgres.exact_values import decode_texts

TextRow = tuple[str | None, ...]


def record_batch(rows: Sequence[TextRow], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as one batch; values are matched to fields by their position.

    Raises:
        UnrepresentableValueError: A value has no exact form; names the column.
    """
    columns = [
        _column(pa.array(texts, pa.string()), field)
        for texts, field in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(texts: pa.Array, field: pa.Field) -> pa.Array:
    arrow = field.type
    if pa.types.is_string(arrow):
        return texts
    if pa.types.is_boolean(arrow):
        return pc.equal(texts, "t")
    if pa.types.is_temporal(arrow) or pa.types.is_decimal(arrow):
        return decode_texts(texts, arrow, field.name)
    try:
        if pa.types.is_binary(arrow):
            return pa.array([_bytes(text) for text in texts.to_pylist()], arrow)
        return pc.cast(_spelled(texts) if pa.types.is_floating(arrow) else texts, arrow)
    except (pa.ArrowInvalid, binascii.Error):
        raise UnrepresentableValueError(
            f"column {field.name!r} holds a value that {arrow} cannot; "
            f'set policy.encodings={{"{field.name}": "text"}}',
            column=field.name,
        ) from None


def _spelled(texts: pa.Array) -> pa.Array:
    """Infinity as Arrow spells it."""
    return pc.replace_substring(texts, "Infinity", "inf")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else binascii.unhexlify(text)
