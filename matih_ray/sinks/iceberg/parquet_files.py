"""Iceberg data files of one slice attempt: where they go, and what the table must know of them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.locations import LocationProvider
from pyiceberg.typedef import Record

from matih_ray.sinks.iceberg.data_files import FooterReader, data_file
from matih_ray.sinks.iceberg.partitioning import Partitioner
from matih_ray.sinks.rolling_parquet import OpenFile, RollingParquet


@dataclass(frozen=True)
class FileSettings:
    """What all files of one slice attempt have in common.

    `file_schema` and `iceberg_schema` have the column names of the files, `schema` the table's.
    """

    io: FileIO
    locations: LocationProvider
    file_schema: pa.Schema
    iceberg_schema: Schema
    schema: Schema
    spec: PartitionSpec
    partitioner: Partitioner
    properties: dict[str, str]
    target_file_bytes: int
    prefix: str


class ParquetFiles(RollingParquet[Record, DataFile]):
    """The files of one attempt, with the statistics of each."""

    def __init__(self, settings: FileSettings) -> None:
        super().__init__(
            settings.file_schema,
            is_partitioned=settings.partitioner.is_partitioned,
            target_bytes=settings.target_file_bytes,
            store_schema=False,  # Iceberg's schema is the truth, not Arrow's
        )
        self._settings = settings
        self._footers = FooterReader(settings.iceberg_schema, settings.properties)
        self._paths: list[str] = []

    def discard(self) -> None:
        """Delete what was written, as far as possible."""
        self.abandon()
        for path in self._paths:
            with contextlib.suppress(OSError):
                self._settings.io.delete(path)

    def _parts(self, rows: pa.Table) -> Iterable[tuple[Record, pa.Table]]:
        return self._settings.partitioner.split(rows)

    def _stream(self, partition: Record, number: int) -> tuple[str, Any]:
        settings = self._settings
        name = f"{settings.prefix}-{number:05d}.parquet"
        if directory := partition_directory(settings.spec, settings.schema, partition):
            name = f"{directory}/{name}"
        path = settings.locations.new_data_location(name)
        self._paths.append(path)
        return path, settings.io.new_output(path).create(overwrite=True)

    def _finished(self, file: OpenFile[Record], size_bytes: int) -> DataFile:
        stats = self._footers.statistics(file.writer.writer.metadata)
        spec_id = self._settings.spec.spec_id
        return data_file(file.path, size_bytes, file.partition, spec_id, stats)


def partition_directory(spec: PartitionSpec, schema: Schema, partition: Record) -> str:
    """Where a partition's files go, for people; readers go by the manifests alone.

    The common `name=value` form, unless a value has no human form (the year of infinity) or makes
    an unreasonable path.
    """
    if not spec.fields:
        return ""
    try:
        directory = spec.partition_to_path(partition, schema)
    except (ValueError, OverflowError):
        directory = ""
    if not directory or any(len(part) > 200 for part in directory.split("/")):
        return f"partition-{uuid.uuid5(uuid.NAMESPACE_OID, repr(partition)).hex}"
    return directory
