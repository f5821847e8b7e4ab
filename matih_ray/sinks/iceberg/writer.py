"""The slice writer: batches in, data files and a receipt out."""

from __future__ import annotations

import uuid

import pyarrow as pa
from pyiceberg.schema import Schema, sanitize_column_names
from pyiceberg.table import Table

from matih_ray.errors import SinkError
from matih_ray.model.fingerprint import Fingerprint
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.receipt import WriteReceipt
from matih_ray.sinks.iceberg.boundary import mapped
from matih_ray.sinks.iceberg.catalog import CatalogConfig
from matih_ray.sinks.iceberg.data_files import to_payload
from matih_ray.sinks.iceberg.dedupe import ExistingRows
from matih_ray.sinks.iceberg.merge_keys import refuse_nulls
from matih_ray.sinks.iceberg.parquet_files import FileSettings, ParquetFiles
from matih_ray.sinks.iceberg.partitioning import Partitioner
from matih_ray.sinks.iceberg.schema import FileLayout, file_layout
from matih_ray.sinks.iceberg.target import IcebergTarget


class IcebergSliceWriter:
    """Writes one attempt of one slice. Not thread-safe; see `SliceWriter`."""

    def __init__(
        self, table: Table, target: IcebergTarget, slice_: IngestionSlice, config: CatalogConfig
    ) -> None:
        self._slice = slice_
        self._target = target
        self._config = config
        self._table = table
        self._schema: Schema = table.schemas()[target.schema_id]
        self._spec = table.specs()[target.spec_id]
        self._existing = ExistingRows(table, slice_.dedupe_on) if slice_.dedupe_on else None
        self._layout: FileLayout | None = None
        self._files: ParquetFiles | None = None
        self._fingerprint = Fingerprint()
        self._rows = 0
        self._dropped = 0
        self._rows_discarded = 0
        self._values_discarded = 0
        self._what = f"write slice {slice_.key} to {'.'.join(target.identifier)}"

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch; see `SliceWriter.write`."""
        with mapped(self._what, self._config):
            layout = self._layout_of(batch.schema)
            kept, values = layout.without_misfits(batch)
            self._rows_discarded += batch.num_rows - kept.num_rows
            self._values_discarded += values
            batch = kept
            if self._existing is not None:
                kept = self._existing.without(batch)
                self._dropped += batch.num_rows - kept.num_rows
                batch = kept
            if self._target.merge is not None:
                refuse_nulls(self._target.merge, batch, f"slice {self._slice.key}")
            if batch.num_rows == 0:
                return
            if self._target.checksum:
                self._fingerprint = self._fingerprint.add(batch)
            self._rows += batch.num_rows
            self._files_of(layout).write(layout.arrange(batch))

    def close(self) -> WriteReceipt:
        """Finish all files; see `SliceWriter.close`."""
        with mapped(self._what, self._config):
            files = self._files.finish() if self._files is not None else []
        if sum(file.record_count for file in files) != self._rows:
            raise SinkError(f"cannot {self._what}: the files do not hold the rows written")
        return WriteReceipt(
            slice_key=self._slice.key,
            sequence=self._slice.sequence,
            rows=self._rows,
            bytes=sum(file.file_size_in_bytes for file in files),
            payload={"files": [to_payload(file, self._spec, self._schema) for file in files]},
            checksum=str(self._fingerprint) if self._target.checksum else None,
            duplicates_dropped=self._dropped,
            rows_discarded=self._rows_discarded,
            values_discarded=self._values_discarded,
        )

    def abort(self) -> None:
        """Drop what was written; see `SliceWriter.abort`."""
        if self._files is not None:
            self._files.discard()

    def _layout_of(self, source: pa.Schema) -> FileLayout:
        if self._layout is None:
            self._layout = file_layout(self._schema, source, self._target.schema_change)
        return self._layout

    def _files_of(self, layout: FileLayout) -> ParquetFiles:
        if self._files is None:
            self._files = ParquetFiles(
                FileSettings(
                    io=self._table.io,
                    locations=self._table.location_provider(),
                    file_schema=layout.schema,
                    iceberg_schema=sanitize_column_names(self._schema),
                    schema=self._schema,
                    spec=self._spec,
                    partitioner=Partitioner(self._spec, self._schema),
                    properties=dict(self._table.properties),
                    target_file_bytes=self._target.target_file_bytes,
                    prefix=f"{self._slice.sequence:05d}-{uuid.uuid4()}",
                )
            )
        return self._files
