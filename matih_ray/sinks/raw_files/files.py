"""Parquet files of one slice attempt: how rows are split, and the directories of the parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record

from matih_ray.errors import SchemaMismatchError
from matih_ray.sinks.iceberg.partitioning import Partitioner, partition_spec
from matih_ray.sinks.iceberg.schema import iceberg_schema
from matih_ray.sinks.raw_files.log import RawFile
from matih_ray.sinks.raw_files.storage import Storage
from matih_ray.sinks.rolling_parquet import OpenFile, RollingParquet

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


class RawParquet(RollingParquet[Record, RawFile]):
    """The files of one attempt, below a stage."""

    def __init__(
        self,
        storage: Storage,
        directory: str,
        stage: str,
        schema: pa.Schema,
        partitions: Partitions,
        target_file_bytes: int,
    ) -> None:
        self._partitioner = Partitioner(partitions.spec, partitions.schema)
        super().__init__(
            schema,
            is_partitioned=self._partitioner.is_partitioned,
            target_bytes=target_file_bytes,
            store_schema=True,
        )
        self._storage = storage
        self._directory = directory
        self._stage = stage
        self._partitions = partitions

    def _parts(self, rows: pa.Table) -> Iterable[tuple[Record, pa.Table]]:
        if not self._partitioner.is_partitioned:
            return [(Record(), rows)]
        # the partitioner knows columns by their position among those that Iceberg has types for
        names = [field.name for field in self._partitions.schema.fields]
        others = [name for name in rows.column_names if name not in names]
        arranged = rows.select([*names, *others])
        split = self._partitioner.split(arranged)
        return [(key, part.select(rows.column_names)) for key, part in split]

    def _stream(self, partition: Record, number: int) -> tuple[str, Any]:
        name = f"{self._stage.rpartition('/')[2]}-{number:05d}.parquet"
        path = f"{self._partitions.directory(partition)}{name}"
        return path, self._storage.open_output(f"{self._directory}/{path}")

    def _finished(self, file: OpenFile[Record], size_bytes: int) -> RawFile:
        return RawFile(stage=self._stage, path=file.path, rows=file.rows, bytes=size_bytes)


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
