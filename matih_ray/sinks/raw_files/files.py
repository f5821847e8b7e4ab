"""Parquet files of one slice attempt: split by partitions, rolled by size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record

from matih_ray.errors import SchemaMismatchError
from matih_ray.sinks.iceberg.parquet_files import (
    COMPRESSION,
    COMPRESSION_LEVEL,
    MAX_OPEN_FILES,
    PARTITIONED_BYTES,
    ROW_GROUP_BYTES,
    dictionary_columns,
)
from matih_ray.sinks.iceberg.partitioning import Partitioner, partition_spec
from matih_ray.sinks.iceberg.schema import iceberg_schema
from matih_ray.sinks.raw_files.log import RawFile
from matih_ray.sinks.raw_files.storage import Storage

# How Hive names the partition of rows without a value.
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
# Of the 255 bytes that a name may have on common filesystems.
MAX_NAME_CHARS = 200


@dataclass(frozen=True)
class Partitions:
    """The policy's partitions: how rows are split, and the directories of the parts.

    The words are those of the sink `iceberg`. A directory is named after its column with a suffix
    (`at_day=2024-01-01`, `region_part=eu`), because the files keep all their columns, exactly.
    """

    schema: Schema
    spec: PartitionSpec

    @classmethod
    def of(cls, partition_by: tuple[str, ...], schema: pa.Schema) -> Partitions:
        """Raises `ValidationError` if a partition is none."""
        if not partition_by:
            return cls(Schema(), PartitionSpec())
        columns = iceberg_schema(pa.schema([one for one in schema if _is_usable(one)]))
        spec = partition_spec(partition_by, columns)
        fields = [_renamed(field) for field in spec.fields]
        return cls(columns, PartitionSpec(*fields))

    def directory(self, partition: Record) -> str:
        """Where a partition's files go, with a slash at the end unless it is empty."""
        parts = []
        for position, field in enumerate(self.spec.fields):
            source = self.schema.find_field(field.source_id)
            text = _text(field, source.field_type, partition[position])
            parts.append(f"{quote(field.name, safe='')}={text}"[:MAX_NAME_CHARS])
        return "".join(f"{part}/" for part in parts)


class RawParquet:
    """Writes batches to files below a stage. Not thread-safe; exceptions are the storage's."""

    def __init__(
        self,
        storage: Storage,
        directory: str,
        stage: str,
        schema: pa.Schema,
        partitions: Partitions,
        target_file_bytes: int,
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._stage = stage
        self._schema = schema
        self._partitions = partitions
        self._partitioner = Partitioner(partitions.spec, partitions.schema)
        self._target_bytes = target_file_bytes
        partitioned = self._partitioner.is_partitioned
        self._limit_bytes = PARTITIONED_BYTES if partitioned else ROW_GROUP_BYTES
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0
        self._open: dict[Record, _File] = {}  # the one that has waited longest is first
        self._dictionaries: list[str] | None = None
        self._begun = 0
        self._done: list[RawFile] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._held.append(batch)
        self._held_bytes += batch.nbytes
        if self._held_bytes >= self._limit_bytes:
            self._flush()

    def finish(self) -> list[RawFile]:
        """Close everything; all files written, in the order in which they were closed."""
        self._flush()
        for partition in list(self._open):
            self._close(partition)
        return self._done

    def abandon(self) -> None:
        """Close what is open, whatever it holds."""
        self._held.clear()
        for file in self._open.values():
            file.stream.close()
        self._open.clear()

    def _flush(self) -> None:
        if not self._held:
            return
        if self._dictionaries is None:
            self._dictionaries = dictionary_columns(self._held[0])
        rows = pa.Table.from_batches(self._held)
        self._held.clear()
        self._held_bytes = 0
        for partition, part in self._parts(rows):
            file = self._open.pop(partition, None) or self._create(partition)
            self._open[partition] = file
            file.writer.write_table(part)
            file.rows += part.num_rows
            if file.stream.tell() >= self._target_bytes:
                self._close(partition)
            elif len(self._open) > MAX_OPEN_FILES:
                self._close(next(iter(self._open)))

    def _parts(self, rows: pa.Table) -> list[tuple[Record, pa.Table]]:
        if not self._partitioner.is_partitioned:
            return [(Record(), rows)]
        # the partitioner knows columns by their position among those that Iceberg has types for
        names = [field.name for field in self._partitions.schema.fields]
        others = [name for name in rows.column_names if name not in names]
        arranged = rows.select([*names, *others])
        split = self._partitioner.split(arranged)
        return [(key, part.select(rows.column_names)) for key, part in split]

    def _create(self, partition: Record) -> _File:
        name = f"{self._stage.rpartition('/')[2]}-{self._begun:05d}.parquet"
        self._begun += 1
        path = f"{self._partitions.directory(partition)}{name}"
        stream = self._storage.open_output(f"{self._directory}/{path}")
        writer = pq.ParquetWriter(
            stream,
            self._schema,
            compression=COMPRESSION,
            compression_level=COMPRESSION_LEVEL,
            use_dictionary=self._dictionaries or False,
            store_decimal_as_integer=True,
        )
        return _File(path, stream, writer)

    def _close(self, partition: Record) -> None:
        file = self._open.pop(partition)
        file.writer.close()
        size_bytes = file.stream.tell()
        file.stream.close()
        self._done.append(
            RawFile(stage=self._stage, path=file.path, rows=file.rows, bytes=size_bytes)
        )


@dataclass
class _File:
    path: str
    stream: Any
    writer: pq.ParquetWriter
    rows: int = 0


def _is_usable(field: pa.Field) -> bool:
    try:
        iceberg_schema(pa.schema([field]))
    except SchemaMismatchError:
        return False
    return True


def _renamed(field: PartitionField) -> PartitionField:
    if not isinstance(field.transform, IdentityTransform):
        return field
    return PartitionField(field.source_id, field.field_id, field.transform, f"{field.name}_part")


def _text(field: PartitionField, kind: Any, value: Any) -> str:
    if value is None:
        return NULL_PARTITION
    try:
        text = field.transform.to_human_string(kind, value)
    except (ValueError, OverflowError):  # the year of infinity
        text = str(value)
    return quote(text, safe="")
