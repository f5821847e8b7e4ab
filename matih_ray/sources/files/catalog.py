"""A dataset as a unit, from a bounded sample of its files."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from matih_ray.errors import SourceRejectedError
from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor
from matih_ray.sources.files.inference import type_of
from matih_ray.sources.files.json_lines import native_type, pieces
from matih_ray.sources.files.listing import FileSet
from matih_ray.sources.files.store import ObjectStore, StoredFile, open_file, open_stream
from matih_ray.sources.files.tabular import SAMPLE_BYTES, csv_names, csv_reader
from matih_ray.sources.files.types import (
    FILE_MODIFIED_AT,
    LINEAGE,
    arriving,
    described,
    parsed,
)

# Each costs one or two requests. Half are the newest, which show new columns; the rest are spread.
MAX_SAMPLED_FILES = 8
# Text is larger by about this when it was compressed.
COMPRESSION = 4


@dataclass
class _Sample:
    """What was seen: types by column, how many rows in how many stored bytes."""

    columns: dict[str, ColumnDescriptor] = field(default_factory=dict)
    rows: int = 0
    bytes: int = 0


def unit_of(
    store: ObjectStore, bucket: str, found: FileSet, endpoint_id: EndpointId, *, look: bool
) -> EndpointUnitDescriptor:
    """The unit of a dataset; without its columns unless `look`.

    Raises:
        SourceRejectedError: A file is damaged, or two disagree about a column.
    """
    if look:
        found.check_one_format()
    sample = _sampled(store, found) if look else _Sample()
    total = sum(file.size for file in found.files)
    columns = dict(sample.columns)
    for name, text in found.dataset.columns.items():
        columns[name] = described(name, text, parsed(text, name))
    for name in LINEAGE:
        if name in columns:
            raise SourceRejectedError(
                f"dataset {found.dataset.name} has a column {name!r}, which the source adds itself",
                column=name,
            )
    lineage = [described(name, str(kind), kind) for name, kind in LINEAGE.items()]
    return EndpointUnitDescriptor(
        endpoint_id=endpoint_id,
        unit_id=UnitId(found.dataset.name),
        namespace=bucket,
        name=found.dataset.name,
        kind=found.format,
        columns=(*columns.values(), *lineage) if look else (),
        cursor_candidates=(FILE_MODIFIED_AT,),
        estimated_rows=total * sample.rows // sample.bytes if sample.bytes else 0 if look else None,
        estimated_bytes=total,
    )


def sampled_files(files: tuple[StoredFile, ...]) -> list[StoredFile]:
    """At most `MAX_SAMPLED_FILES`, oldest first."""
    if len(files) <= MAX_SAMPLED_FILES:
        return list(files)
    half = MAX_SAMPLED_FILES // 2
    older = files[:-half]
    return [*(older[len(older) * i // half] for i in range(half)), *files[-half:]]


def _sampled(store: ObjectStore, found: FileSet) -> _Sample:
    if found.format == "parquet":
        return _parquet(store, found)
    return (_csv if found.format == "csv" else _ndjson)(store, found)


def _parquet(store: ObjectStore, found: FileSet) -> _Sample:
    sample, origin = _Sample(), dict[str, str]()
    for file in sampled_files(found.files):
        with pq.ParquetFile(open_file(store, file)) as parquet:
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
        sample.rows += rows
        sample.bytes += file.size
        for column in schema:
            kind = arriving(column.type)
            now = described(column.name, str(column.type), kind)
            before = sample.columns.setdefault(column.name, now)
            if before.arrow_type != now.arrow_type:
                raise SourceRejectedError(
                    f"column {column.name!r} is {column.type} in {file.path} and "
                    f"{before.native_type} in {origin[column.name]}; make them two datasets",
                    column=column.name,
                    file=file.path,
                )
            origin.setdefault(column.name, file.path)
    return sample


def _csv(store: ObjectStore, found: FileSet) -> _Sample:
    sample, values = _Sample(), dict[str, list[pa.Array]]()
    for file in sampled_files(found.files):
        names = csv_names(store, file, found.dataset)
        with csv_reader(store, file, found.dataset, names, SAMPLE_BYTES) as reader:
            batch = next(iter(reader), None)
        for name in names:
            column = [] if batch is None else [batch.column(name)]
            values.setdefault(name, []).extend(column)
        if batch is not None:
            sample.rows += batch.num_rows
            sample.bytes += _stored_bytes(file, batch.nbytes)
    for name, parts in values.items():
        kind = type_of(pa.chunked_array(parts, pa.string()))
        sample.columns[name] = described(name, str(kind), kind)
    return sample


def _ndjson(store: ObjectStore, found: FileSet) -> _Sample:
    sample, values = _Sample(), dict[str, list[object]]()
    for file in sampled_files(found.files):
        with open_stream(store, file, SAMPLE_BYTES) as stream:
            rows, read = next(pieces(stream, file.path), ([], 0))
        sample.rows += len(rows)
        sample.bytes += _stored_bytes(file, read)
        for row in rows:
            for name, value in row.items():
                values.setdefault(name, []).append(value)
    for name, seen in values.items():
        native = native_type(seen)
        kind = pa.string() if native == "json" else parsed(native, name)
        sample.columns[name] = described(name, native, kind)
    return sample


def _stored_bytes(file: StoredFile, text_bytes: int) -> int:
    compressed = file.path.endswith((".gz", ".zst"))
    return max(1, min(file.size, text_bytes // (COMPRESSION if compressed else 1)))
