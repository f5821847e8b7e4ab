"""The work of a compaction that any process can do: read some files, write their rows as one.

Rows are read once and written once, a batch at a time. Sorting holds `SORT_BYTES` of rows and sorts
piece by piece: bounds of row groups become narrow within each piece, whatever a group's size.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema, sanitize_column_names
from pyiceberg.table import Table

from matih_ray.errors import SinkError, ValidationError
from matih_ray.model.value import JsonValue, Value
from matih_ray.sinks.iceberg.data_files import to_payload
from matih_ray.sinks.iceberg.held_files import read_rows
from matih_ray.sinks.iceberg.merge_work import Layout, Named
from matih_ray.sinks.iceberg.parquet_files import FileSettings, ParquetFiles
from matih_ray.sinks.iceberg.partitioning import Partitioner

# Arrow memory of rows that are sorted together: a worker holds it twice.
SORT_BYTES = 256 * 1024 * 1024


class CompactItem(Value):
    """Write the rows of some files of a table into as few as their size allows."""

    kind: Literal["compact"] = "compact"
    identifier: tuple[str, ...]
    table_uuid: str
    layout: Layout
    files: tuple[Named, ...]
    sort_by: tuple[str, ...] = ()
    target_file_bytes: int


class CompactResult(Value):
    """The files that hold the rows now."""

    files: tuple[dict[str, JsonValue], ...]


def check_sortable(schema: Schema, sort_by: tuple[str, ...]) -> None:
    """Raise `ValidationError` unless rows can be sorted by these columns."""
    for name in sort_by:
        field = next((field for field in schema.fields if field.name == name), None)
        if field is None or not field.field_type.is_primitive:
            what = "there is no such column" if field is None else "it is nested"
            raise ValidationError(f"cannot sort by {name!r}: {what}", field="sortBy")


def compact(table: Table, item: CompactItem) -> CompactResult:
    """Do one item. Exceptions are the storage's, and `SinkError`."""
    schema = table.schemas()[item.layout.schema_id]
    spec = table.specs()[item.layout.spec_id]
    names = [field.name for field in schema.fields]
    positions = [names.index(name) for name in item.sort_by]  # files have other names
    files: ParquetFiles | None = None
    rows = 0
    try:
        for batch in _sorted(_batches(table, schema, item.files), positions):
            if files is None:
                files = ParquetFiles(_settings(table, item, batch.schema))
            files.write(batch)
            rows += batch.num_rows
        written = files.finish() if files is not None else []
        _check_complete(item, rows, sum(file.record_count for file in written))
    except BaseException:
        if files is not None:
            files.discard()
        raise
    return CompactResult(files=tuple(to_payload(one, spec, schema) for one in written))


def _check_complete(item: CompactItem, read: int, written: int) -> None:
    """Nothing that replaces files may hold fewer rows than they."""
    expected = sum(file.rows for file in item.files)
    if read != expected or written != expected:
        raise SinkError(
            f"files of {'.'.join(item.identifier)} should hold {expected} rows; {read} were read "
            f"and {written} written"
        )


def _batches(table: Table, schema: Schema, files: tuple[Named, ...]) -> Iterator[pa.RecordBatch]:
    """The rows of all files in one schema: the first file's, which may have other physical types
    (large strings) than the others'."""
    wanted: pa.Schema | None = None
    for file in files:
        for batch in read_rows(table.io, file.path, schema):
            wanted = wanted or batch.schema
            yield batch if batch.schema.equals(wanted) else batch.cast(wanted)


def _sorted(batches: Iterator[pa.RecordBatch], by: Sequence[int]) -> Iterator[pa.RecordBatch]:
    if not by:
        yield from batches
        return
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= SORT_BYTES:
            yield from _sort(held, by)
            held, size = [], 0
    if held:
        yield from _sort(held, by)


def _sort(batches: list[pa.RecordBatch], by: Sequence[int]) -> list[pa.RecordBatch]:
    rows = pa.Table.from_batches(batches)
    keys = pa.table(
        [_plain(rows.column(number)) for number in by], names=list(map(str, range(len(by))))
    )
    order = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names])
    found: list[pa.RecordBatch] = rows.take(order).combine_chunks().to_batches()
    return found


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A form that Arrow can sort: extension types by what they are stored as."""
    if isinstance(column.type, pa.BaseExtensionType):
        return column.cast(column.type.storage_type)
    if pa.types.is_fixed_size_binary(column.type):
        return column.cast(pa.binary())
    return column


def _settings(table: Table, item: CompactItem, schema: pa.Schema) -> FileSettings:
    stored = table.schemas()[item.layout.schema_id]
    spec = table.specs()[item.layout.spec_id]
    return FileSettings(
        io=table.io,
        locations=table.location_provider(),
        file_schema=schema,
        iceberg_schema=sanitize_column_names(stored),
        schema=stored,
        spec=spec,
        partitioner=Partitioner(spec, stored),
        properties=dict(table.properties),
        target_file_bytes=item.target_file_bytes,
        prefix=f"compacted-{uuid.uuid4()}",
    )
