"""Messages into record batches of about `TARGET_BATCH_BYTES`, column by column. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from matih_ray.errors import UnrepresentableValueError
from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.sources.batching import joined
from matih_ray.sources.documents.exact_json import parse
from matih_ray.sources.kafka.columns import (
    HEADERS,
    KEY,
    OFFSET,
    PARTITION,
    TIMESTAMP,
    TOMBSTONE,
    VALUE,
    Selection,
)
from matih_ray.sources.kafka.fields import JsonObject, field_arrays

Page = list[Message]
_NOTHING: JsonObject = {}
_MICROS_PER_MILLI = 1000


def record_batches(
    selection: Selection,
    unit_id: str,
    pages: Iterable[Page],
    target_bytes: int = TARGET_BATCH_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Batches of the messages, in their order.

    Raises:
        UnrepresentableValueError: A value does not fit its column.
    """
    schema = selection.schema
    batches = (
        pa.RecordBatch.from_arrays(_arrays(selection, unit_id, page), schema=schema)
        for page in pages
    )
    return joined(batches, target_bytes)


def json_object(value: bytes | None) -> JsonObject | None:
    """A value as a JSON object with exact numbers; None if it is none."""
    if value is None:
        return None
    try:
        found = parse(value)
    except (ValueError, RecursionError):
        return None
    return found if type(found) is dict else None


def _arrays(selection: Selection, unit_id: str, page: Page) -> list[pa.Array]:
    values: list[bytes | None] = [message.value() for message in page]
    objects: list[JsonObject | None] = []
    if selection.is_json:
        objects = [json_object(value) for value in values]
        values = [v if found is None else None for v, found in zip(values, objects, strict=True)]
    arrays = []
    for field in selection.envelope:
        if field.name == VALUE:
            found: Any = values
        elif field.name == TOMBSTONE:
            found = [message.value() is None for message in page]
        else:
            found = _ENVELOPE[field.name](page)
        arrays.append(_array(found, field, unit_id))
    documents = [_NOTHING if found is None else found for found in objects]
    arrays += field_arrays(selection.dialect, selection.fields, unit_id, documents)
    return arrays


def _array(values: list[Any], field: pa.Field, unit_id: str) -> pa.Array:
    kind = field.type
    try:
        if field.name == TIMESTAMP and pa.types.is_timestamp(kind):
            values = [None if value is None else value * _MICROS_PER_MILLI for value in values]
        if pa.types.is_string(kind):
            values = [None if value is None else value.decode() for value in values]
        return pa.array(values, kind)
    except (ValueError, OverflowError):  # also UnicodeDecodeError and pa.ArrowInvalid
        remedy = "int64" if field.name == TIMESTAMP else "none"
        raise UnrepresentableValueError(
            f"column {field.name!r} of {unit_id} holds a value that has no exact form as {kind}; "
            f"read it with encodings {{{field.name!r}: {remedy!r}}}",
            column=field.name,
            remedy=remedy,
        ) from None


def _timestamps(page: Page) -> list[int | None]:
    found = [message.timestamp() for message in page]
    return [None if kind == TIMESTAMP_NOT_AVAILABLE else time for kind, time in found]


def _headers(page: Page) -> list[list[dict[str, Any]]]:
    return [
        [{"name": name, "value": value} for name, value in message.headers() or ()]
        for message in page
    ]


_ENVELOPE: dict[str, Callable[[Page], list[Any]]] = {
    PARTITION: lambda page: [message.partition() for message in page],
    OFFSET: lambda page: [message.offset() for message in page],
    TIMESTAMP: _timestamps,
    KEY: lambda page: [message.key() for message in page],
    HEADERS: _headers,
}
