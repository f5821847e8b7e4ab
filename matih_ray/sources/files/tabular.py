"""Rows of Parquet and CSV files as record batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from matih_ray.errors import SourceRejectedError, UnrepresentableValueError
from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.sources.files.config import Dataset
from matih_ray.sources.files.inference import cast, first_misfit
from matih_ray.sources.files.store import ObjectStore, StoredFile, open_stream

# CSV text that is parsed at a time, and so the longest row. Columns of it take about as much.
CSV_BLOCK_BYTES = TARGET_BATCH_BYTES // 2
# Text that is looked at of each file, and so the longest row of a CSV file that can be described.
SAMPLE_BYTES = 1 << 20


def misfit(
    path: str, row: int, column: str, kind: pa.DataType, why: str = ""
) -> UnrepresentableValueError:
    """The error for a value that its column's type has no form for; the value is not shown."""
    return UnrepresentableValueError(
        f"row {row} of {path} has a value in column {column!r} that is not exactly {kind}{why}; "
        f"declare the column in the dataset's columns, for example as string",
        file=path,
        row=row,
        column=column,
        remedy=f"datasets.columns.{column}",
    )


def parquet_batches(
    file: pq.ParquetFile, path: str, schema: pa.Schema, groups: Sequence[int] | None
) -> Iterator[pa.RecordBatch]:
    """Rows of some row groups; columns that the file does not have are NULL."""
    meta = file.metadata
    chosen = list(range(meta.num_row_groups)) if groups is None else list(groups)
    size = sum(meta.row_group(group).total_byte_size for group in chosen)
    rows = sum(meta.row_group(group).num_rows for group in chosen)
    batch_rows = max(1, TARGET_BATCH_BYTES * rows // max(size, 1)) if rows else 1
    present = [name for name in schema.names if name in file.schema_arrow.names]
    start = 1
    for batch in file.iter_batches(min(batch_rows, 1 << 20), row_groups=chosen, columns=present):
        yield _fitted(batch, path, schema, start)
        start += batch.num_rows


def _fitted(batch: pa.RecordBatch, path: str, schema: pa.Schema, start: int) -> pa.RecordBatch:
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        values = batch.column(field.name)
        try:
            columns.append(pc.cast(values, field.type))
        except pa.ArrowInvalid:
            where = f" (in the batch from row {start} of what is read)"
            raise misfit(path, start, field.name, field.type, where) from None
    return pa.record_batch(columns, schema=schema)


def csv_reader(
    store: ObjectStore,
    file: StoredFile,
    dataset: Dataset,
    names: Sequence[str],
    block_bytes: int = CSV_BLOCK_BYTES,
) -> pacsv.CSVStreamingReader:
    """A reader that leaves these columns text. An unquoted empty field is NULL, a quoted one ''."""
    return pacsv.open_csv(
        open_stream(store, file, block_bytes),
        read_options=pacsv.ReadOptions(
            use_threads=False, block_size=block_bytes, column_names=list(dataset.names) or None
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=dataset.delimiter, quote_char=dataset.quote, newlines_in_values=True
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def csv_names(store: ObjectStore, file: StoredFile, dataset: Dataset) -> list[str]:
    """The columns of a CSV file.

    Raises:
        SourceRejectedError: Two columns have one name.
    """
    with csv_reader(store, file, dataset, ()) as reader:
        names = list(reader.schema.names)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SourceRejectedError(
            f"{file.path} has two columns {twice!r}", file=file.path, column=twice
        )
    return names


def csv_batches(
    reader: pacsv.CSVStreamingReader, path: str, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Rows of a reader that leaves columns text; columns that the file does not have are NULL."""
    start = 1
    for batch in reader:
        columns = []
        for field in schema:
            if field.name in batch.schema.names:
                values = batch.column(field.name)
                columns.append(typed_text(values, path, field, start))
            else:
                columns.append(pa.nulls(batch.num_rows, field.type))
        yield pa.record_batch(columns, schema=schema)
        start += batch.num_rows


def typed_text(values: pa.Array, path: str, field: pa.Field, start: int) -> pa.Array:
    """Text as the field's type; `start` is the row number of the first value.

    Raises:
        UnrepresentableValueError: A value is not exactly of that type.
    """
    bad = first_misfit(values, field.type)
    if bad is not None:
        raise misfit(path, start + bad, field.name, field.type)
    return cast(values, field.type)
