"""Documents into record batches of about `TARGET_BATCH_BYTES`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from matih_ray.errors import UnrepresentableValueError
from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.sources.batching import joined, pieces
from matih_ray.sources.documents.columns import Dialect, Document, SelectedColumn, arrow_schema

# Documents of a page that are Python objects at a time, before they become Arrow: they take
# several times their size there.
PIECE_DOCUMENTS = 1000

_MISSING = object()


def record_batches(
    dialect: Dialect,
    columns: tuple[SelectedColumn, ...],
    unit_id: str,
    pages: Iterable[Iterable[Document]],
    target_bytes: int = TARGET_BATCH_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Batches of the documents' columns, in the documents' order.

    Args:
        dialect: What the values are.
        columns: What to read of each document.
        unit_id: For messages.
        pages: Documents as they come from the source, which bounds the bytes of a page.
        target_bytes: Arrow bytes at which a batch is full; at most a page's more.

    Raises:
        UnrepresentableValueError: A value does not fit its column.
    """
    schema = arrow_schema(columns)
    batches = (
        _piece(dialect, columns, schema, unit_id, piece)
        for page in pages
        for piece in pieces(page, PIECE_DOCUMENTS)
    )
    return joined(batches, target_bytes)


def _piece(
    dialect: Dialect,
    columns: tuple[SelectedColumn, ...],
    schema: pa.Schema,
    unit_id: str,
    documents: Sequence[Document],
) -> pa.RecordBatch:
    arrays = document_arrays(dialect, columns, unit_id, documents)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def document_arrays(
    dialect: Dialect,
    columns: tuple[SelectedColumn, ...],
    unit_id: str,
    documents: Sequence[Document],
) -> list[pa.Array]:
    """The documents' columns, each as an array.

    Raises:
        UnrepresentableValueError: A value does not fit its column.
    """
    return [
        pa.array(
            _values(dialect, column, unit_id, documents)
            if column.without is None
            else [_extra(dialect, document, column.without) for document in documents],
            type=column.arrival.arrow,
        )
        for column in columns
    ]


def _extra(dialect: Dialect, document: Document, named: frozenset[str]) -> str | None:
    if document.keys() <= named:
        return None
    return dialect.fields_text(
        {name: value for name, value in document.items() if name not in named}
    )


def _values(
    dialect: Dialect, column: SelectedColumn, unit_id: str, documents: Sequence[Document]
) -> list[Any]:
    convert, keeps_null = column.arrival.convert, column.arrival.keeps_null
    values: list[Any] = []
    for document in documents:
        value = document.get(column.name, _MISSING)
        if value is _MISSING or (not keeps_null and dialect.native_type(value) is None):
            values.append(None)
            continue
        try:
            values.append(convert(value))
        except (ValueError, TypeError):
            raise _unfitting(dialect, column, unit_id, value) from None
    return values


def _unfitting(
    dialect: Dialect, column: SelectedColumn, unit_id: str, value: Any
) -> UnrepresentableValueError:
    native_type = dialect.native_type(value) or "null"
    arrival = column.arrival
    target = str(arrival.arrow) if arrival.encoding is None else arrival.encoding
    return UnrepresentableValueError(
        f"column {column.name!r} of {unit_id} holds a value of type {native_type} that has no "
        f"exact form as {target}; read it with encodings {{{column.name!r}: 'json'}}",
        column=column.name,
        native_type=native_type,
        remedy="json",
    )
