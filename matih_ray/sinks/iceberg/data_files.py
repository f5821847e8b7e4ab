"""Data files: their statistics from Parquet's footer, and their JSON form inside receipts.

PyIceberg's own reader of footers is used for sizes and counts, with two things kept from it:

- Bounds of dates and timestamps go through Python's `datetime` there, which overflows on the values
  that stand for infinity. They are built here from Parquet's raw integers.
- A row group whose writer left out a column's minimum and maximum (Parquet does so for very long
  strings) is skipped there, which leaves bounds that are too narrow: filters would then prune rows
  that match. Such columns get no bounds at all.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import pyarrow.parquet as pq
from pyiceberg.conversions import from_bytes, to_bytes
from pyiceberg.io.pyarrow import (
    MetricModeTypes,
    MetricsMode,
    StatisticsCollector,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record
from pyiceberg.types import (
    DateType,
    PrimitiveType,
    TimestampType,
    TimestamptzType,
    TimeType,
)

from matih_ray.model.value import JsonValue

_RAW_BOUNDS = (DateType, TimeType, TimestampType, TimestamptzType)
_COUNT_MAPS = ("column_sizes", "value_counts", "null_value_counts", "nan_value_counts")
_BOUND_MAPS = ("lower_bounds", "upper_bounds")


class FooterReader:
    """Reads statistics from Parquet footers; `schema` has the column names of the files."""

    def __init__(self, schema: Schema, properties: dict[str, str]) -> None:
        self._ids = parquet_path_to_id_mapping(schema)
        self._wanted = compute_statistics_plan(schema, properties)
        self._counts = {key: _counts_only(column) for key, column in self._wanted.items()}

    def statistics(self, metadata: pq.FileMetaData) -> dict[str, Any]:
        """Statistics of a file as arguments of `DataFile`."""
        chunks = self._chunks(metadata)
        bounded = {field_id for field_id, found in chunks.items() if _has_bounds(found)}
        raw = {key for key in bounded if isinstance(self._wanted[key].iceberg_type, _RAW_BOUNDS)}
        plan = {
            key: column if key in bounded - raw else self._counts[key]
            for key, column in self._wanted.items()
        }
        result = data_file_statistics_from_parquet_metadata(metadata, plan, self._ids)
        arguments: dict[str, Any] = result.to_serialized_dict()
        for key in raw & self._full_columns:
            known = [stats for stats in chunks[key] if stats is not None and stats.has_min_max]
            kind = self._wanted[key].iceberg_type
            lower = min(stats.min_raw for stats in known)
            upper = max(stats.max_raw for stats in known)
            arguments["lower_bounds"][key] = to_bytes(kind, lower)
            arguments["upper_bounds"][key] = to_bytes(kind, upper)
        return arguments

    @cached_property
    def _full_columns(self) -> set[int]:
        return {
            key for key, column in self._wanted.items() if column.mode.type is MetricModeTypes.FULL
        }

    def _chunks(self, metadata: pq.FileMetaData) -> dict[int, list[pq.Statistics | None]]:
        """The statistics of each column in each row group."""
        chunks: dict[int, list[pq.Statistics | None]] = {}
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            for position in range(metadata.num_columns):
                column = group.column(position)
                chunks.setdefault(self._ids[column.path_in_schema], []).append(column.statistics)
        return chunks


def _has_bounds(chunks: list[pq.Statistics | None]) -> bool:
    """Whether there is a value, and every row group that has one knows its least and greatest."""
    with_values = [
        stats
        for stats in chunks
        if stats is None or not stats.has_null_count or stats.num_values > 0
    ]
    return bool(with_values) and all(
        stats is not None and stats.has_min_max for stats in with_values
    )


def _counts_only(column: StatisticsCollector) -> StatisticsCollector:
    none = column.mode.type is MetricModeTypes.NONE
    return column if none else replace(column, mode=MetricsMode(MetricModeTypes.COUNTS))


def data_file(
    path: str, size_bytes: int, partition: Record, spec_id: int, stats: dict[str, Any]
) -> DataFile:
    """An Iceberg data file. `stats` are a `FooterReader`'s."""
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=size_bytes,
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
        **stats,
    )
    file.spec_id = spec_id
    return file


def to_payload(file: DataFile, spec: PartitionSpec, schema: Schema) -> dict[str, JsonValue]:
    """The JSON form of a data file; values are in Iceberg's binary form, as base64."""
    kinds = [field.field_type for field in spec.partition_type(schema).fields]
    values = [file.partition[position] for position in range(len(kinds))]
    payload: dict[str, JsonValue] = {
        "path": file.file_path,
        "bytes": file.file_size_in_bytes,
        "rows": file.record_count,
        "partition": [
            None if value is None else _text(to_bytes(cast("PrimitiveType", kind), value))
            for kind, value in zip(kinds, values, strict=True)
        ],
        "split_offsets": list(file.split_offsets or []),
    }
    for name in _COUNT_MAPS:
        payload[name] = {str(key): value for key, value in (getattr(file, name) or {}).items()}
    for name in _BOUND_MAPS:
        bounds = getattr(file, name) or {}
        payload[name] = {str(key): _text(value) for key, value in bounds.items()}
    return payload


def from_payload(payload: dict[str, Any], spec: PartitionSpec, schema: Schema) -> DataFile:
    """The data file that `to_payload` wrote down."""
    kinds = [field.field_type for field in spec.partition_type(schema).fields]
    values = [
        None if text is None else from_bytes(cast("PrimitiveType", kind), _bytes(text))
        for kind, text in zip(kinds, payload["partition"], strict=True)
    ]
    stats: dict[str, Any] = {
        "record_count": payload["rows"],
        "split_offsets": payload["split_offsets"],
    }
    for name in _COUNT_MAPS:
        stats[name] = {int(key): value for key, value in payload[name].items()}
    for name in _BOUND_MAPS:
        stats[name] = {int(key): _bytes(value) for key, value in payload[name].items()}
    return data_file(payload["path"], payload["bytes"], Record(*values), spec.spec_id, stats)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
