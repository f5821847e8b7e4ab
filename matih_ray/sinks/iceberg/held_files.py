"""Data files that a table holds, read back exactly: some columns, or all rows to write them again.

Columns are found by field id. A file may be older than the table's schema: columns that it lacks
are NULL and narrower types are widened, as Iceberg says. Why not PyIceberg's scan: it reads a file
into memory as a whole, and passes dates that stand for infinity through Python's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import pyarrow_to_schema, schema_to_pyarrow
from pyiceberg.schema import Schema, index_name_by_id, sanitize_column_names
from pyiceberg.types import IcebergType, NestedField, StructType

from matih_ray.errors import SinkError

# Rows are read in pieces of this size: some MB of Arrow, large enough to make calls cheap.
READ_ROWS = 65_536
# A file up to this size is read at once: its footer and its columns would be read apart otherwise,
# and what is read for the footer is most of a small file.
WHOLE_BYTES = 4 * 1024 * 1024

_FIELD_ID = b"PARQUET:field_id"


def read_plain(
    io: FileIO, path: str, schema: Schema, columns: tuple[str, ...]
) -> Iterator[pa.RecordBatch]:
    """Top-level columns of a file in the table's types; UUIDs as their bytes.

    Raises:
        SinkError: The file was not written for Iceberg.
    """
    fields = [schema.find_field(name) for name in columns]
    wanted = [_plain_type(schema_to_pyarrow(field.field_type)) for field in fields]
    with _opened(io, path) as file:
        names = _names_by_id(file, path)
        present = [names[f.field_id] for f in fields if f.field_id in names]
        for batch in file.iter_batches(READ_ROWS, columns=present or [next(iter(names.values()))]):
            arrays = [
                pa.nulls(batch.num_rows, kind)
                if field.field_id not in names
                else _as_plain(batch.column(names[field.field_id]), kind)
                for field, kind in zip(fields, wanted, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, list(columns))


def read_rows(io: FileIO, path: str, schema: Schema) -> Iterator[pa.RecordBatch]:
    """All rows of a file in the columns and with the names that a new file of the table has.

    Raises:
        SinkError: The file was not written for Iceberg, or a nested field was renamed since.
    """
    fields = sanitize_column_names(schema).fields
    with _opened(io, path) as file:
        names = _names_by_id(file, path)
        stored = {field.field_id: field for field in pyarrow_to_schema(file.schema_arrow).fields}
        kinds = [_kind(file, names, stored.get(f.field_id), f, path) for f in fields]
        pairs = list(zip(fields, kinds, strict=True))
        written = pa.schema([_written_field(field, kind) for field, kind in pairs])
        for batch in file.iter_batches(READ_ROWS):
            arrays = [
                pa.nulls(batch.num_rows, kind)
                if field.field_id not in names
                else _cast(batch.column(names[field.field_id]), kind)
                for field, kind in pairs
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=written)


@contextmanager
def _opened(io: FileIO, path: str) -> Iterator[pq.ParquetFile]:
    source = io.new_input(path)
    with source.open() as stream:
        held: Any = pa.BufferReader(stream.read()) if len(source) <= WHOLE_BYTES else stream
        with pq.ParquetFile(held) as file:
            yield file


def _names_by_id(file: pq.ParquetFile, path: str) -> dict[int, str]:
    names = {}
    for field in file.schema_arrow:
        number = (field.metadata or {}).get(_FIELD_ID)
        if number is None:
            raise SinkError(
                f"{path} has no Iceberg field ids, so its columns cannot be told apart safely; "
                "write it again with an Iceberg writer before merging into the table",
                path=path,
            )
        names[int(number)] = field.name
    return names


def _kind(
    file: pq.ParquetFile,
    names: dict[int, str],
    stored: NestedField | None,
    field: NestedField,
    path: str,
) -> pa.DataType:
    """The Arrow type in which a column is written again: the file's own unless that has changed."""
    if stored is None:
        return schema_to_pyarrow(field.field_type)
    if stored.field_type == field.field_type:
        return file.schema_arrow.field(names[field.field_id]).type
    kind = schema_to_pyarrow(field.field_type)
    if not field.field_type.is_primitive and _renamed(stored.field_type, field.field_type):
        raise SinkError(  # Arrow casts nested fields by their names
            f"nested fields of column {field.name!r} have been renamed since {path} was written, "
            "and this sink cannot rewrite such files",
            path=path,
            column=field.name,
        )
    return kind


def _renamed(stored: IcebergType, now: IcebergType) -> bool:
    """Whether a nested field has another name, or its name belongs to another field."""
    before, after = _paths(stored), _paths(now)
    moved = any(before[number] != after[number] for number in before.keys() & after.keys())
    ids = {path: number for number, path in before.items()}
    return moved or any(ids.get(path, number) != number for number, path in after.items())


def _paths(kind: IcebergType) -> dict[int, str]:
    return index_name_by_id(StructType(NestedField(0, "column", kind)))


def _written_field(field: NestedField, kind: pa.DataType) -> pa.Field:
    metadata = {_FIELD_ID: str(field.field_id).encode()}
    return pa.field(field.name, kind, not field.required, metadata)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _as_plain(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return _cast(column.storage if isinstance(column, pa.ExtensionArray) else column, kind)


def _cast(column: Any, kind: pa.DataType) -> pa.Array:
    return column if column.type == kind else column.cast(kind)
