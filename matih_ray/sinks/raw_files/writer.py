"""The slice writer: batches in, staged Parquet files and a receipt out."""

from __future__ import annotations

import contextlib

import pyarrow as pa

from matih_ray.errors import SchemaMismatchError, SinkError
from matih_ray.model.fingerprint import Fingerprint
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.receipt import WriteReceipt
from matih_ray.sinks.raw_files.existing import ExistingRows
from matih_ray.sinks.raw_files.files import Partitions, RawParquet
from matih_ray.sinks.raw_files.log import CommitLog, new_token
from matih_ray.sinks.raw_files.storage import mapped
from matih_ray.sinks.raw_files.target import RawTarget


class RawSliceWriter:
    """Writes one attempt of one slice. Not thread-safe; see `SliceWriter`."""

    def __init__(self, log: CommitLog, target: RawTarget, slice_: IngestionSlice) -> None:
        self._log = log
        self._target = target
        self._slice = slice_
        self._schema = target.schema
        token = f"{slice_.sequence:05d}-{new_token()}"
        self._stage = f"{target.stream_directory}/{target.generation}/{token}"
        self._files: RawParquet | None = None
        self._fingerprint = Fingerprint()
        self._rows = self._dropped = 0
        self._what = f"write slice {slice_.key} to {log.paths.table}"
        with mapped(self._what):
            columns = slice_.dedupe_on
            self._existing = ExistingRows(log, self._schema, columns) if columns else None

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch; see `SliceWriter.write`."""
        batch = self._arranged(batch)
        with mapped(self._what):
            if self._existing is not None:
                kept = self._existing.without(batch)
                self._dropped += batch.num_rows - kept.num_rows
                batch = kept
            if batch.num_rows == 0:
                return
            if self._target.checksum:
                self._fingerprint = self._fingerprint.add(batch)
            self._rows += batch.num_rows
            self._opened().write(batch)

    def close(self) -> WriteReceipt:
        """Finish all files; see `SliceWriter.close`."""
        with mapped(self._what):
            files = self._files.finish() if self._files is not None else []
        if sum(file.rows for file in files) != self._rows:
            raise SinkError(f"cannot {self._what}: the files do not hold the rows written")
        return WriteReceipt(
            slice_key=self._slice.key,
            sequence=self._slice.sequence,
            rows=self._rows,
            bytes=sum(file.bytes for file in files),
            payload={"stage": self._stage, "files": [file.to_dict() for file in files]},
            checksum=str(self._fingerprint) if self._target.checksum else None,
            duplicates_dropped=self._dropped,
        )

    def abort(self) -> None:
        """Delete what was written; see `SliceWriter.abort`."""
        if self._files is None:
            return
        self._files.abandon()
        with contextlib.suppress(OSError):
            self._log.storage.delete_dir(self._log.paths.stage(self._stage))
        self._files = None

    def _arranged(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        names = self._schema.names
        if sorted(batch.schema.names) == sorted(names):
            batch = batch.select(names)
            if batch.schema.types == self._schema.types:
                return batch
        raise SchemaMismatchError(
            f"cannot {self._what}: the batch's columns are not those of the target"
        )

    def _opened(self) -> RawParquet:
        if self._files is None:
            self._files = RawParquet(
                self._log.storage,
                self._log.paths.stage(self._stage),
                self._stage,
                self._schema,
                Partitions.of(self._target.partition_by, self._schema),
                self._target.target_file_bytes,
            )
        return self._files
