"""Rows of one file, of whatever format, with where they came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from matih_ray.errors import SourceChangedError
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.sources.files.config import Dataset
from matih_ray.sources.files.json_lines import json_batch, pieces
from matih_ray.sources.files.slices import FilePart
from matih_ray.sources.files.store import ObjectStore, StoredFile, open_file, open_stream
from matih_ray.sources.files.tabular import csv_batches, csv_names, csv_reader, parquet_batches
from matih_ray.sources.files.types import FILE_MODIFIED_AT, FILE_PATH, LINEAGE, arriving


def part_batches(
    store: ObjectStore,
    part: FilePart,
    unit: EndpointUnitDescriptor,
    dataset: Dataset,
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    """Rows of a part, with the columns of `schema`.

    Raises:
        SourceChangedError: The file has a column that the unit has not, or of another type.
        UnrepresentableValueError: A value is not exactly of its column's type.
    """
    data = pa.schema([field for field in schema if field.name not in LINEAGE])
    for batch in _data_batches(store, part, unit, dataset, data):
        yield _with_lineage(batch, part.file, schema)


def coalesced(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches of many small files put together, up to about `TARGET_BATCH_BYTES`."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if held and size + batch.nbytes > TARGET_BATCH_BYTES:
            yield _joined(held, schema)
            held, size = [], 0
        held.append(batch)
        size += batch.nbytes
    if held:
        yield _joined(held, schema)


def _joined(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    columns = [pa.concat_arrays([batch.column(i) for batch in batches]) for i in range(len(schema))]
    return pa.record_batch(columns, schema=schema)


def _data_batches(
    store: ObjectStore,
    part: FilePart,
    unit: EndpointUnitDescriptor,
    dataset: Dataset,
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    if unit.kind == "parquet":
        with pq.ParquetFile(open_file(store, part.file)) as file:
            _check_known(unit, part.path, file.schema_arrow.names)
            _check_types(unit, part.path, file.schema_arrow)
            yield from parquet_batches(file, part.path, schema, part.groups)
    elif unit.kind == "csv":
        names = csv_names(store, part.file, dataset)
        _check_known(unit, part.path, names)
        with csv_reader(store, part.file, dataset, names) as reader:
            yield from csv_batches(reader, part.path, schema)
    else:
        natives = {column.name: column.native_type for column in unit.columns}
        start = 1
        with open_stream(store, part.file) as stream:
            for rows, _ in pieces(stream, part.path):
                _check_known(unit, part.path, list(dict.fromkeys(k for row in rows for k in row)))
                yield json_batch(rows, part.path, schema, natives, start)
                start += len(rows)


def _check_known(unit: EndpointUnitDescriptor, path: str, names: Sequence[str]) -> None:
    known = {column.name for column in unit.columns} - set(LINEAGE)
    for name in names:
        if name not in known:
            raise SourceChangedError(
                f"{path} has a column {name!r} that {unit.unit_id} did not have when it was "
                "described; start a new run, or declare the column in the dataset's columns",
                file=path,
                column=name,
            )


def _check_types(unit: EndpointUnitDescriptor, path: str, schema: pa.Schema) -> None:
    planned = {column.name: column.arrow_type for column in unit.columns}
    for field in schema:
        kind = arriving(field.type)
        present = "null" if kind is None else str(kind)
        if planned[field.name] != present:
            raise SourceChangedError(
                f"column {field.name!r} of {path} is {field.type} and not {planned[field.name]} as "
                f"in {unit.unit_id}; make it a dataset of its own",
                file=path,
                column=field.name,
            )


def _with_lineage(batch: pa.RecordBatch, file: StoredFile, schema: pa.Schema) -> pa.RecordBatch:
    constants = {FILE_PATH: file.path, FILE_MODIFIED_AT: file.modified_at}
    columns = [
        pa.repeat(pa.scalar(constants[field.name], field.type), batch.num_rows)
        if field.name in constants
        else batch.column(field.name)
        for field in schema
    ]
    return pa.record_batch(columns, schema=schema)
